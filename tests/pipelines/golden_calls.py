"""The calls that every recorded bill of `tests/bills` is about, and one residual of each class in their bill."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "bills"
START: Final = datetime(2026, 10, 5, tzinfo=UTC)
DAYS: Final = 5
PER_DAY: Final = 8
MTOK: Final = 10**6
CENT: Final = Decimal("0.01")

Call = tuple[datetime, int, int, int]
"""Start, fresh input, cached input, output."""
Prices = Mapping[str, Decimal]
"""Of a million tokens by the name of the meter: input, cached input and output, in this order."""
Lines = dict[tuple[int, str], list[Decimal]]
"""(day, meter) -> quantity and amount."""


def calls() -> list[Call]:
    """Eight calls a day, none near midnight, and one a minute before the bill ends."""
    made = [
        (START + timedelta(days=n // PER_DAY, hours=2 * (n % PER_DAY) + 3), 40_000 + 300 * n,
         16_000, 3_000 + 10 * n)
        for n in range(DAYS * PER_DAY)
    ]  # fmt: skip
    return [*made, (START + timedelta(days=DAYS, minutes=-1), 50_000, 0, 2_000)]


def lines_of(made: list[Call], prices: Prices) -> Lines:
    """Sum calls as a provider bills them."""
    lines: Lines = {}
    for at, *quantities in made:
        for meter, quantity in zip(prices, quantities, strict=True):
            if quantity:
                line = lines.setdefault(((at - START).days, meter), [Decimal(0), Decimal(0)])
                line[0] += quantity
                line[1] += quantity * prices[meter] / MTOK
    return lines


def _uncaptured(prices: Prices) -> Lines:
    """A call that we never saw: 100,000 in and 4,000 out."""
    return lines_of([*calls(), (START + timedelta(hours=30), 100_000, 0, 4_000)], prices)


def _overcounted(prices: Prices) -> Lines:
    """The first call is not billed: 40,000 in, 16,000 cached, 3,000 out."""
    return lines_of(calls()[1:], prices)


def _cache_semantics(prices: Prices) -> Lines:
    """The 16,000 cached tokens of each of forty calls at the fresh price."""
    return lines_of([(at, fresh + cached, 0, out) for at, fresh, cached, out in calls()], prices)


def _time_boundary(prices: Prices) -> Lines:
    """The call of the last minute is on the next bill: 50,000 in and 2,000 out."""
    return lines_of(calls()[:-1], prices)


def _price(prices: Prices) -> Lines:
    """Output a fifth dearer: 129,800 tokens (40 x 3,000 + 10 x 780 + 2,000)."""
    lines = lines_of(calls(), prices)
    for (_, meter), line in lines.items():
        if meter == "output":
            line[1] *= Decimal("1.2")
    return lines


def _rounding(prices: Prices) -> Lines:
    """Every amount to the cent."""
    lines = lines_of(calls(), prices)
    for line in lines.values():
        line[1] = line[1].quantize(CENT)
    return lines


def _unexplained(prices: Prices) -> Lines:
    """Output of the third day is 5 dollars dearer than its usage, for no reason."""
    lines = lines_of(calls(), prices)
    lines[2, "output"][1] += 5
    return lines


PLANTED: Final[dict[str, Callable[[Prices], Lines]]] = {
    "uncaptured": _uncaptured,
    "overcounted": _overcounted,
    "cache_semantics": _cache_semantics,
    "time_boundary": _time_boundary,
    "price": _price,
    "rounding": _rounding,
    "unexplained": _unexplained,
}
"""What every form of bill can say; taxes are each form's own."""
