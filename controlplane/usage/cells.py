"""Cost answers → cells of a change, with each cell's cost split over its buckets.

Rollups keep a cost a cell and tokens a bucket. The cost is split in proportion to quantity times the
base rate of the cell's own price, so that the parts sum to it exactly; where the price left the book
it is split by quantity. Context tiers of one price share a cell: their split is that of the base.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from math import lcm
from typing import Any, Final, Protocol

import pyarrow as pa

from controlplane.core.money import split_largest_remainder
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.price_book import Found, NotFound
from controlplane.usage.change import Cell

UNSPLIT: Final = "call"
"""The bucket of a cost without usage."""
KIND: Final = ("provider", "model")
CELL_KEYS: Final = (*KIND, "status", "cost_state", "price_id", "corrects")
Rates = Mapping[str, Fraction]
RatesOf = Callable[[str | None, str | None, str | None], Rates]


class Prices(Protocol):
    """The price book in force."""

    def find(self, provider: str | None, model: str | None) -> Found:
        """Return a model's rows, or why there are none."""
        ...


def base_rates(book: Prices) -> RatesOf:
    """Return a look-up of a price's base rates by provider, model and price id."""

    def rates_of(provider: str | None, model: str | None, price_id: str | None) -> Rates:
        found = book.find(provider, model)
        rows = () if isinstance(found, NotFound) else found.rows
        row = next((row for row in rows if row.price_id == price_id), None)
        if row is None:
            return {}
        rates = row.tiers[0].rates
        return {name: Fraction(r.numerator, r.denominator) for name, r in rates.items()}

    return rates_of


def cells_of(
    costs: pa.Table, group_by: Iterable[str], rates_of: RatesOf, *, repeats: bool = False
) -> Iterator[Cell]:
    """Yield a cell a row of a cost answer grouped by `group_by` and CELL_KEYS, with all buckets."""
    names = tuple(group_by)
    for row in costs.to_pylist():
        used = {bucket: row[bucket] for bucket in BUCKET_NAMES if row[bucket]}
        rates = rates_of(row["provider"], row["model"], row["price_id"])
        yield Cell(
            group=tuple(row[name] for name in names),
            kind=tuple(row[name] for name in KIND),
            status=row["status"] or "",
            cost_state=row["cost_state"] or "",
            calls=row["calls"],
            used=used,
            spent=split_cost(row["cost_nusd"], used, rates),
            repeats=repeats,
            is_correction=row["corrects"] is not None,
        )


def split_cost(cost_nusd: int, used: Mapping[str, int], rates: Rates) -> dict[str, int]:
    """Split a cost over buckets, exactly."""
    if not cost_nusd:
        return {}
    if not used:
        return {UNSPLIT: cost_nusd}
    scale = lcm(*(rates[name].denominator for name in used if name in rates))
    weights = [int(used[name] * rates.get(name, Fraction(0)) * scale) for name in used]
    if not any(weights):
        weights = list(used.values())
    return dict(zip(used, split_largest_remainder(cost_nusd, weights), strict=True))


def without(cells: Iterable[Mapping[str, Any]], repeats: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Take the repeats' measures out of the rows of the same keys."""
    taken = {_key(row): row for row in repeats}
    return [_less(row, taken.get(_key(row))) for row in cells]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(value for value in row.values() if not isinstance(value, int))


def _less(row: Mapping[str, Any], taken: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if taken is None:
        return row
    return {
        name: value - taken[name] if isinstance(value, int) else value
        for name, value in row.items()
    }
