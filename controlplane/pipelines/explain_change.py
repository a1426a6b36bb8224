"""Two windows → cells of each → why cost moved, group by group."""

from datetime import timedelta

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.cells import CELL_KEYS, Prices, RatesOf, base_rates, cells_of, without
from controlplane.usage.change import Cell, Change, explain
from controlplane.usage.dimensions import MAX_SCAN_DAYS


class ExplainedChange(msgspec.Struct, frozen=True):
    """The changes of all groups, and whether calls were searched for duplicates."""

    changes: list[Change]
    duplicates_sought: bool


def explain_change(
    reader: SpanReader, book: Prices, query: CostQuery, *, before: Window
) -> ExplainedChange:
    """Explain the change from `before` to the query's window, per group of the query.

    Duplicates are looked for among calls, so only in windows of at most MAX_SCAN_DAYS.

    Raises:
        InvalidInputError: as `SpanReader.costs`.
    """
    rates_of = base_rates(book)
    widest = max(w.end - w.start for w in (before, query.window))
    seek = widest <= timedelta(days=MAX_SCAN_DAYS)
    sides = [
        _cells(reader, msgspec.structs.replace(query, window=window), rates_of, seek=seek)
        for window in (before, query.window)
    ]
    return ExplainedChange(explain(*sides), seek)


def _cells(reader: SpanReader, query: CostQuery, rates_of: RatesOf, *, seek: bool) -> list[Cell]:
    asked = msgspec.structs.replace(
        query,
        granularity=Granularity.TOTAL,
        group_by=tuple(dict.fromkeys((*query.group_by, *CELL_KEYS))),
        buckets=BUCKET_NAMES,
    )
    found = reader.costs(asked)
    if not seek:
        return list(cells_of(found, query.group_by, rates_of))
    repeated = reader.repeated(asked)
    rest = without(found.to_pylist(), repeated.to_pylist())
    once = pa.Table.from_pylist(rest, schema=found.schema)
    return [
        *cells_of(once, query.group_by, rates_of),
        *cells_of(repeated, query.group_by, rates_of, repeats=True),
    ]
