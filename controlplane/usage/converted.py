"""What is converted to another currency: the finest row that every view of cost has (ADR 060).

A cell is a local day's cost of one owner at one price. It is converted once, half-even to billionths,
at the day's rate; whatever is finer (a meter, an hour, a status) is a part of it by largest remainder,
and whatever is coarser is a sum. So a cost answer, a statement and a FOCUS export of the same days say
the same amount to the last digit, by every dimension of a cell. Cost that was booked about a closed
day is a cell of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

OWNERS: Final = (
    "tenant", "team", "project", "feature", "customer", "api_key", "environment", "region",
)  # fmt: skip
_WHAT: Final = ("provider", "model", "operation")
_PRICED: Final = ("price_id", "cost_state")
CORRECTS: Final = "corrects"
CELL: Final = (*OWNERS, *_WHAT, *_PRICED, CORRECTS)
"""Dimensions of a cost answer that make a cell, beside the day."""

CellKey = tuple[Any, ...]


def key_of(row: Mapping[str, Any], *, corrects: str | None = None) -> CellKey:
    """Return the cell of a charge, or of a correction about the day `corrects`."""
    who = tuple(row[name] for name in (*OWNERS, "provider", "billing_model", "operation"))
    if corrects is not None:  # what was and what is are booked as one difference
        return (*who, None, None, corrects)
    return (*who, *(row[name] for name in _PRICED), None)


def keys_in(table: pa.Table) -> Iterator[CellKey]:
    """Yield the cell of each row of a cost answer that is grouped by `CELL`."""
    for *who, price, state, corrects in zip(*_columns(table, CELL), strict=True):
        yield (*who, None, None, corrects) if corrects is not None else (*who, price, state, None)


def _columns(table: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]
