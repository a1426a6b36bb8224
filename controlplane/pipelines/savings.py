"""Recorded calls → what routing has saved against the models that were asked for."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pipelines.recorded_calls import COLUMNS, PriceCall, model_of


class Rerouted(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that asked for one model and were served by another."""

    team: str | None
    asked_model: str
    served_model: str
    calls: int
    cost_nusd: int
    counterfactual_nusd: int
    saved_nusd: int


class SavingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What routing has saved against the models that were asked for."""

    calls: int
    rerouted_calls: int
    saved_nusd: int
    unknown_calls: int
    """Rerouted calls without a price for one of the two models."""
    rows: tuple[Rerouted, ...]
    assumptions: tuple[str, ...] = (
        "The counterfactual: the same tokens at the asked model's price at the time of the call.",
        "The other model would have used as many tokens, and its answer would have been as good.",
        "A version of the asked model, or its alias, is no other model.",
        "Calls that were refused or whose output was capped are not in it.",
    )


IsSame = Callable[[str | None, str, str], bool]
"""Whether two names of a provider mean one model of the price list."""


def savings(tables: Iterator[pa.Table], *, price: PriceCall, is_same: IsSame) -> SavingsReport:
    """Compare what calls cost with what they would have on the model that was asked for."""
    found: dict[tuple[str | None, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    calls = unknown = rerouted = 0
    for table in tables:
        calls += table.num_rows
        for call in table.select(list(COLUMNS)).to_pylist():
            asked, served = call["request_model"], model_of(call)
            if not asked or asked == served or is_same(call["provider"], asked, served):
                continue
            rerouted += 1
            other = _as_asked(call, price)
            if other is None or call["cost_nusd"] is None:
                unknown += 1
                continue
            row = found[call["team"], asked, served]
            row[0] += 1
            row[1] += call["cost_nusd"]
            row[2] += other
    rows = [
        Rerouted(
            team=team,
            asked_model=asked,
            served_model=served,
            calls=count,
            cost_nusd=cost,
            counterfactual_nusd=other,
            saved_nusd=other - cost,
        )
        for (team, asked, served), (count, cost, other) in found.items()
    ]
    rows.sort(key=lambda row: (-row.saved_nusd, row.team or "", row.asked_model, row.served_model))
    return SavingsReport(
        calls=calls,
        rerouted_calls=rerouted,
        saved_nusd=sum(row.saved_nusd for row in rows),
        unknown_calls=unknown,
        rows=tuple(rows),
    )


def _as_asked(call: dict[str, Any], price: PriceCall) -> int | None:
    """Price a call on the model it asked for, of its own provider where that has the model."""
    usage = {name: call[name] for name in BUCKET_NAMES if call[name]}
    for provider in (call["provider"], None):
        found = price(
            provider=provider,
            model=call["request_model"],
            at=call["start_time"],
            usage=usage,
            service_tier=call["service_tier"] or "",
        )
        if found is not None:
            return found
    return None
