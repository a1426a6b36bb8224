"""Recorded calls, priced as they would have been → sums; their durations beside the other model's own.

A day is read at a time, so no more of a window is held than that, and a window of more than MAX_CALLS
calls is refused before it is read, where the cube can count them, else while it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Period, windows
from controlplane.core.errors import LimitExceededError
from controlplane.pipelines.savings import IsSame
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.providers import price_provider
from controlplane.pricing.what_if import KEYS, Scenario, WhatIfGroup, what_if
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery, CostQuery
from controlplane.usage.dimensions import dimension

MAX_CALLS: Final = 5_000_000
"""Read in one request, day by day; more is a job for a smaller window."""
NO_MODEL: Final = "the scenario names no other model"
NO_CALLS: Final = "no successful call of the other model is recorded for this tenant and operation"
_US_PER_MS: Final = 1_000


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """How long the successful calls of one model took, as recorded; p50 and p95 by nearest rank."""

    calls: int
    p50_ms: float
    p95_ms: float


class LatencyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant's calls of a model took, and what its calls of the other model took."""

    tenant: str
    provider: str | None
    model: str | None
    operation: str | None
    recorded: Durations
    other: Durations | None
    p50_change_ms: float | None
    p95_change_ms: float | None
    reason: str | None
    """Why there is no change: `NO_CALLS`."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A what-if: sums by tenant, model and feature, and what is recorded of latency."""

    groups: tuple[WhatIfGroup, ...]
    latency: tuple[LatencyChange, ...]
    latency_reason: str | None
    """Why no latency is told: `NO_MODEL`."""


def compare(
    reader: SpanReader,
    book: PriceBook,
    asked: CallQuery,
    *,
    scenario: Scenario,
    is_same: IsSame,
) -> Comparison:
    """Price the calls of a window as the scenario has them, and measure what can be of latency.

    Raises:
        LimitExceededError: more than MAX_CALLS calls.
        StoreUnavailableError: try again.
    """
    query = CostQuery(tenants=asked.tenants, window=asked.window, filters=asked.filters)
    if all(dimension(name).in_cube for name in asked.filters):
        _check(sum(row["calls"] for row in reader.costs(query).to_pylist()))
    groups = what_if(_days(reader, asked), scenario, book, by=KEYS)
    if scenario.model is None:
        return Comparison(groups=tuple(groups), latency=(), latency_reason=NO_MODEL)
    latency = tuple(_latency(reader, query, scenario, is_same=is_same))
    return Comparison(groups=tuple(groups), latency=latency, latency_reason=None)


def _days(reader: SpanReader, asked: CallQuery) -> Iterator[pa.Table]:
    read = 0
    for day in windows(Period.DAY, asked.window, zone="UTC"):
        for batch in reader.call_batches(msgspec.structs.replace(asked, window=day)):
            read += batch.num_rows
            _check(read)
            yield batch


def _check(calls: int) -> None:
    if calls > MAX_CALLS:
        hint = "Ask for a shorter window, fewer tenants, or one model or team"
        raise LimitExceededError("calls of a what-if", MAX_CALLS, calls, hint=hint)


class _Target(msgspec.Struct, frozen=True):
    """The other model at a seller, by any name that the price list has for it."""

    seller: str | None
    model: str
    is_same: IsSame

    def is_named(self, provider: str | None, model: str | None) -> bool:
        """Whether a recorded provider and model are this one."""
        if not model or _seller(provider) != _seller(self.seller):
            return False
        is_spelled = model.lower() == self.model.lower()
        return is_spelled or self.is_same(self.seller, model, self.model)


def _seller(provider: str | None) -> str | None:
    return price_provider(provider) if provider else None


def _latency(
    reader: SpanReader, query: CostQuery, scenario: Scenario, *, is_same: IsSame
) -> Iterator[LatencyChange]:
    """Yield a row a tenant, provider, model and operation that would move to the other model."""
    by = ("tenant", "provider", "model", "operation")
    moving = reader.durations(msgspec.structs.replace(query, group_by=by)).to_pylist()
    everything = msgspec.structs.replace(query, filters={}, group_by=("provider", "model"))
    named = [(row["provider"], row["model"]) for row in reader.costs(everything).to_pylist()]
    others: dict[str | None, list[dict[str, Any]]] = {}
    for row in moving:
        target = _Target(scenario.provider or row["provider"], scenario.model or "", is_same)
        if target.seller not in others:
            names = [one for one in named if target.is_named(*one)]
            others[target.seller] = _of_model(reader, query, names)
        if not target.is_named(row["provider"], row["model"]):
            yield _change(row, others[target.seller])


def _of_model(
    reader: SpanReader, query: CostQuery, names: list[tuple[str | None, str | None]]
) -> list[dict[str, Any]]:
    """Return by tenant and operation how long recorded calls of these names took."""
    if not names:
        return []
    filters: dict[str, tuple[str | None, ...]] = {
        "provider": tuple({provider for provider, _ in names}),
        "model": tuple({model for _, model in names}),
    }
    asked = msgspec.structs.replace(query, filters=filters, group_by=("tenant", "operation"))
    rows: list[dict[str, Any]] = reader.durations(asked).to_pylist()
    return rows


def _change(row: Mapping[str, Any], others: list[dict[str, Any]]) -> LatencyChange:
    same = ("tenant", "operation")
    found = next((one for one in others if all(one[k] == row[k] for k in same)), None)
    return LatencyChange(
        tenant=row["tenant"],
        provider=row["provider"],
        model=row["model"],
        operation=row["operation"],
        recorded=_durations(row),
        other=_durations(found) if found else None,
        p50_change_ms=_moved(row, found, "p50_us"),
        p95_change_ms=_moved(row, found, "p95_us"),
        reason=None if found else NO_CALLS,
    )


def _durations(row: Mapping[str, Any]) -> Durations:
    ranks = {f"{rank}_ms": row[f"{rank}_us"] / _US_PER_MS for rank in ("p50", "p95")}
    return Durations(calls=row["calls"], **ranks)


def _moved(row: Mapping[str, Any], found: Mapping[str, Any] | None, rank: str) -> float | None:
    return None if found is None else (found[rank] - row[rank]) / _US_PER_MS
