"""A cost question → its cells by day → each converted once → days, groups and a chart's series."""

from collections.abc import Hashable
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from controlplane.core.errors import LimitExceededError
from controlplane.pricing.currency import RateTable
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.converted import CELL, keys_in

MAX_CELLS = 1_000_000


class Amount(msgspec.Struct):
    """Cost in both currencies; an amount leaves out days without a rate."""

    nusd: int = 0
    nano: int = 0
    unpriced_calls: int = 0
    is_rated: bool = False
    """Some of its days has a rate."""

    @property
    def is_known(self) -> bool:
        """Whether anything is known: a sum of 0 beside unpriced calls is no cost."""
        return bool(self.nusd) or not self.unpriced_calls

    def add(self, nusd: int, nano: int | None, unpriced_calls: int = 0) -> None:
        """Add a row."""
        self.nusd += nusd
        self.nano += nano or 0
        self.unpriced_calls += unpriced_calls
        self.is_rated = self.is_rated or nano is not None

    def join(self, other: "Amount") -> None:
        """Add a sum."""
        self.add(other.nusd, other.nano if other.is_rated else None, other.unpriced_calls)


class ConvertedSums(msgspec.Struct, frozen=True):
    """Sums of cells: of each day, each group (None is unattributed), and each group's day."""

    days: dict[date, Amount]
    groups: dict[str | None, Amount]
    cells: dict[tuple[date, str | None], Amount]

    def ordered(self) -> list[str | None]:
        """Return the groups, dearest first."""
        return sorted(
            self.groups, key=lambda name: (-self.groups[name].nusd, name is None, name or "")
        )


def convert_costs(
    reader: SpanReader, query: CostQuery, rates: RateTable, *, by: str | None
) -> ConvertedSums:
    """Answer a window's cost by day and by one dimension, in the currency of `rates`.

    Raises:
        LimitExceededError: more cells than are converted at once.
    """
    groups = tuple(dict.fromkeys((*CELL, *((by,) if by else ()))))
    asked = msgspec.structs.replace(query, granularity=Granularity.DAY, group_by=groups)
    table = reader.costs(asked)
    if table.num_rows > MAX_CELLS:
        raise LimitExceededError("cells of a converted answer", MAX_CELLS, table.num_rows)
    zone = ZoneInfo(query.zone)
    costs = [nusd or 0 for nusd in table["cost_nusd"].to_pylist()]
    starts: list[Any] = table["bucket_start"].to_pylist()
    days = [at.astimezone(zone).date() for at in starts]
    names: list[str | None] = table[by].to_pylist() if by else [None] * table.num_rows
    cells: list[Hashable] = list(keys_in(table))
    amounts = rates.convert_cells(list(zip(days, cells, costs, strict=True)))
    sums = ConvertedSums({}, {}, {})
    unpriced = [calls or 0 for calls in table["unpriced_calls"].to_pylist()]
    for day, name, nusd, nano, calls in zip(days, names, costs, amounts, unpriced, strict=True):
        sums.days.setdefault(day, Amount()).add(nusd, nano, calls)
        sums.groups.setdefault(name, Amount()).add(nusd, nano, calls)
        sums.cells.setdefault((day, name), Amount()).add(nusd, nano, calls)
    return sums
