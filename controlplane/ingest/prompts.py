"""The usage of a request that several spans of an engine report: prompts once, outputs added."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from controlplane.core.tokens import INPUT_BUCKETS, OUTPUT_BUCKETS
from controlplane.ingest.count_once import CountedCall
from controlplane.ingest.span_hash import start_micros
from controlplane.signals.schema import PRICED
from controlplane.signals.vocabulary import CostState, UsageState

Reprice = Callable[[pa.Table], pa.Table]
"""REPORT_SCHEMA rows -> the same rows with PRICED columns for the usage they carry."""

NOT_REPRICED: Final = "sequences_of_one_request"
"""Why a call is unpriced whose usage was added up where no price book was at hand."""

_ONCE: Final = (
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    *INPUT_BUCKETS,
)
_ADDED: Final = ("output_tokens", "reasoning_tokens", *OUTPUT_BUCKETS)
_PRICES: Final = tuple(field.name for field in PRICED)
_STATE: Final = ("usage_state", "usage_reason")

Row = dict[str, Any]


def add_prompts(
    billing: pa.Table,
    grouped: pa.Table,
    counted: Sequence[CountedCall],
    *,
    reprice: Reprice | None,
) -> pa.Table:
    """Give the calls whose request several spans report the usage of the whole request.

    Args:
        billing: the billing report of each call, in order.
        grouped: the reports that the calls' rows count in.
        counted: the calls.
        reprice: see `calls.settle`.
    """
    places = [place for place, call in enumerate(counted) if call.prompts]
    if not places:
        return billing
    added = [_whole(billing.slice(place, 1), grouped, counted[place].prompts) for place in places]
    whole = pa.concat_tables(added)
    if reprice is not None:
        whole = reprice(whole)
    elif not _is_free(whole):
        whole = _unpriced(whole)
    order = list(range(billing.num_rows))
    for number, place in enumerate(places):
        order[place] = billing.num_rows + number
    return pa.concat_tables(
        [billing, whole.select(billing.schema.names).cast(billing.schema)]
    ).take(pa.array(order, pa.int64()))


def _whole(billing: pa.Table, grouped: pa.Table, prompts: Sequence[Sequence[int]]) -> pa.Table:
    spans = [grouped.take(pa.array(rows, pa.int64())).to_pylist() for rows in prompts]
    every = [row for rows in spans for row in rows]
    made: Row = {name: _sum(_first(rows, name) for rows in spans) for name in _ONCE}
    made |= {name: _sum(row[name] for row in every) for name in _ADDED}
    started = start_micros(billing)[0]
    ends = zip(_starts(grouped, prompts), every, strict=True)
    made["duration_us"] = max(start + row["duration_us"] for start, row in ends) - int(started)
    unsaid = next((row for row in every if row["usage_state"] != UsageState.EXACT), None)
    if unsaid is not None:
        made |= {name: unsaid[name] for name in _STATE}
    for name, value in made.items():
        at = billing.schema.get_field_index(name)
        field = billing.schema.field(at)
        billing = billing.set_column(at, field, pa.array([value], field.type))
    return billing


def _starts(grouped: pa.Table, prompts: Sequence[Sequence[int]]) -> list[int]:
    rows = [row for prompt in prompts for row in prompt]
    return [int(start) for start in start_micros(grouped.take(pa.array(rows, pa.int64())))]


def _first(rows: Sequence[Row], name: str) -> int | None:
    """Read what the samples of one prompt say of the prompt: all say the same or nothing."""
    return max((row[name] for row in rows if row[name] is not None), default=None)


def _sum(values: Iterator[int | None]) -> int | None:
    said = [value for value in values if value is not None]
    return sum(said) if said else None


def _is_free(rows: pa.Table) -> bool:
    return set(rows.column("cost_state").to_pylist()) == {CostState.FREE.value}


def _unpriced(rows: pa.Table) -> pa.Table:
    values: dict[str, Any] = {
        "cost_state": CostState.UNPRICED.value,
        "cost_reason": NOT_REPRICED,
    }
    was_priced = rows.column("cost_state").to_pylist()
    reasons = rows.column("cost_reason").to_pylist()
    for name in _PRICES:
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        column = [values.get(name)] * rows.num_rows
        if name == "cost_reason":
            column = [
                reason if state == CostState.UNPRICED else NOT_REPRICED
                for state, reason in zip(was_priced, reasons, strict=True)
            ]
        rows = rows.set_column(at, field, pa.array(column, field.type))
    return rows
