"""Writes the recorded bills of `tests/bills`: `python -m tests.pipelines.golden_bills`.

Shape: OpenAI's `GET /v1/organization/costs`, a page of daily buckets whose results have `amount`
(value, currency), `line_item` and `quantity` (platform.openai.com/docs/api-reference/usage/costs).
Prices: gpt-4o at 2.50 in, 1.25 cached, 10.00 out a million tokens (platform.openai.com/docs/pricing).
Each bill is of the same calls with one residual planted, whose amount stands in `expected.json`.
"""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from tests.pipelines.golden_calls import DAYS, FOLDER, PLANTED, START, Lines, calls, lines_of

MODEL: Final = "gpt-4o"
PRICES: Final = {"input": Decimal("2.50"), "cached input": Decimal("1.25"), "output": Decimal(10)}
EXPECTED: Final = {
    "uncaptured": "0.29",  # 100,000 at 2.50 and 4,000 at 10
    "overcounted": "-0.15",  # 40,000 at 2.50, 16,000 at 1.25, 3,000 at 10
    "cache_semantics": "0.8",  # 640,000 at 1.25 more
    "time_boundary": "-0.145",  # 50,000 at 2.50 and 2,000 at 10
    "price": "0.2596",  # 129,800 at 2 more
    "rounding": "0.00200",
    "tax_fees": "4.2",
    "unexplained": "5",
}
"""What each bill has planted, in dollars."""


def planted(name: str) -> Lines:
    """Return a bill's lines: the residual `name`, and nothing else."""
    if name == "tax_fees":
        taxed = lines_of(calls(), PRICES)
        taxed[0, "tax"] = [Decimal(0), Decimal("4.20")]
        return taxed
    return PLANTED[name](PRICES)


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
    for name in EXPECTED:
        (FOLDER / f"{name}.openai.json").write_text(page(planted(name)), encoding="utf-8")
    told = json.dumps(EXPECTED, indent=1) + "\n"
    (FOLDER / "expected.json").write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
