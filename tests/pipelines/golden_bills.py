"""Writes the recorded bills of `tests/bills`: `python -m tests.pipelines.golden_bills`.

Shape: OpenAI's `GET /v1/organization/costs`, a page of daily buckets whose results have `amount`
(value, currency), `line_item` and `quantity` (platform.openai.com/docs/api-reference/usage/costs).
Prices: gpt-4o at 2.50 in, 1.25 cached, 10.00 out a million tokens (platform.openai.com/docs/pricing).
Each bill is of the same calls with one residual planted, whose amount stands in `expected.json`.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "bills"
START: Final = datetime(2026, 10, 5, tzinfo=UTC)
DAYS: Final = 5
PER_DAY: Final = 8
MODEL: Final = "gpt-4o"
PRICES: Final = {"input": Decimal("2.50"), "cached input": Decimal("1.25"), "output": Decimal(10)}
MTOK: Final = 10**6
Call = tuple[datetime, int, int, int]
"""Start, fresh input, cached input, output."""
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


def lines_of(made: list[Call]) -> Lines:
    """Sum calls as the provider bills them."""
    lines: Lines = {}
    for at, *quantities in made:
        for meter, quantity in zip(PRICES, quantities, strict=True):
            if quantity:
                line = lines.setdefault(((at - START).days, meter), [Decimal(0), Decimal(0)])
                line[0] += quantity
                line[1] += quantity * PRICES[meter] / MTOK
    return lines


def _uncaptured() -> tuple[Lines, str]:
    """A call that we never saw: 100,000 in at 2.50 and 4,000 out at 10."""
    return lines_of([*calls(), (START + timedelta(hours=30), 100_000, 0, 4_000)]), "0.29"


def _overcounted() -> tuple[Lines, str]:
    """The first call is not billed: 40,000 at 2.50, 16,000 at 1.25, 3,000 at 10."""
    return lines_of(calls()[1:]), "-0.15"


def _cache_semantics() -> tuple[Lines, str]:
    """16,000 cached tokens of each of forty calls at the fresh price: 1.25 more a million."""
    return lines_of([(at, fresh + cached, 0, out) for at, fresh, cached, out in calls()]), "0.8"


def _time_boundary() -> tuple[Lines, str]:
    """The call of the last minute is on the next bill: 50,000 at 2.50 and 2,000 at 10."""
    return lines_of(calls()[:-1]), "-0.145"


def _price() -> tuple[Lines, str]:
    """Output at 12 instead of 10: 129,800 tokens (40 x 3,000 + 10 x 780 + 2,000)."""
    lines = lines_of(calls())
    for (_, meter), line in lines.items():
        if meter == "output":
            line[1] *= Decimal("1.2")
    return lines, "0.2596"


def _rounding() -> tuple[Lines, str]:
    """Every amount to the cent."""
    lines = lines_of(calls())
    exact = sum(line[1] for line in lines.values())
    for line in lines.values():
        line[1] = line[1].quantize(Decimal("0.01"))
    return lines, format(sum(line[1] for line in lines.values()) - exact, "f")


def _tax_fees() -> tuple[Lines, str]:
    """4.20 of tax, beside the usage."""
    lines = lines_of(calls())
    lines[0, "tax"] = [Decimal(0), Decimal("4.20")]
    return lines, "4.2"


def _unexplained() -> tuple[Lines, str]:
    """Output of the third day is 5 dollars dearer than its usage, for no reason."""
    lines = lines_of(calls())
    lines[2, "output"][1] += 5
    return lines, "5"


PLANTED: Final[dict[str, Callable[[], tuple[Lines, str]]]] = {
    "uncaptured": _uncaptured,
    "overcounted": _overcounted,
    "cache_semantics": _cache_semantics,
    "time_boundary": _time_boundary,
    "price": _price,
    "rounding": _rounding,
    "tax_fees": _tax_fees,
    "unexplained": _unexplained,
}


def page(lines: Lines) -> str:
    """Write a page as the API answers it; amounts are JSON numbers with every digit."""
    buckets = []
    for day in range(DAYS):
        start = int((START + timedelta(days=day)).timestamp())
        results = [_result(meter, *line) for (n, meter), line in sorted(lines.items()) if n == day]
        buckets.append({"object": "bucket", "start_time": start, "end_time": start + 86_400,
                        "results": results})  # fmt: skip
    document = {"object": "page", "data": buckets, "has_more": False, "next_page": None}
    return json.dumps(document, indent=1) + "\n"


def _result(meter: str, quantity: Decimal, amount: Decimal) -> dict[str, Any]:
    is_usage = meter in PRICES
    return {
        "object": "organization.costs.result",
        "amount": {"value": float(amount), "currency": "usd"},
        "line_item": f"{MODEL}, {meter}" if is_usage else "Tax",
        "project_id": None,
        "quantity": int(quantity) if is_usage else None,
    }


def main() -> None:
    """Write every bill, and what each has planted."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, plant in PLANTED.items():
        lines, expected[name] = plant()
        (FOLDER / f"{name}.openai.json").write_text(page(lines), encoding="utf-8")
    told = json.dumps(expected, indent=1) + "\n"
    (FOLDER / "expected.json").write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
