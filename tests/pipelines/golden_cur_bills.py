"""Writes the recorded bills of AWS: `python -m tests.pipelines.golden_cur_bills`.

Cost and Usage Report 2.0 as CSV, the columns that matter and one service that does not. The calls of
`golden_calls` are of Claude Sonnet 4.5 through a profile of the US at its regional 3.30 in, 0.33 cache
read, 16.50 out a million tokens (aws.amazon.com/bedrock/pricing). Days are billed in turn as AWS does:
by Bedrock's own usage types, a thousand tokens a unit, and through the marketplace, a million, where
only the product names the model. No file says the id that was called, and nobody made an alias.
"""

import csv
import io
import json
from datetime import timedelta
from decimal import Decimal
from typing import Final

from tests.pipelines.golden_calls import FOLDER, PLANTED, START, Lines, calls, lines_of

MODEL: Final = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PRICES: Final = {
    "input": Decimal("3.30"),
    "cache read": Decimal("0.33"),
    "output": Decimal("16.50"),
}
EXPECTED: Final = {
    "uncaptured": "0.396",  # 100,000 at 3.30 and 4,000 at 16.50
    "overcounted": "-0.18678",  # 40,000 at 3.30, 16,000 at 0.33, 3,000 at 16.50
    "cache_semantics": "1.9008",  # 640,000 at 2.97 more
    "time_boundary": "-0.198",  # 50,000 at 3.30 and 2,000 at 16.50
    "price": "0.42834",  # 129,800 at 3.30 more
    "rounding": "-0.0201",  # fifteen amounts to the cent
    "tax_fees": "3.2",  # a tax and a credit
    "unexplained": "5",
}
"""What each bill has planted, in dollars."""
_COLUMNS: Final = (
    "line_item_usage_account_id", "line_item_line_item_type", "line_item_usage_start_date",
    "line_item_product_code", "line_item_usage_type", "line_item_usage_amount", "pricing_unit",
    "line_item_currency_code", "line_item_unblended_cost", "product",
)  # fmt: skip
_OWN: Final = {
    "input": "USE1-Claude4.5Sonnet-input-tokens",
    "cache read": "USE1-Claude4.5Sonnet-cache-read-input-token-count",
    "output": "USE1-Claude4.5Sonnet-output-tokens",
}
_SOLD: Final = {
    "input": "USE1-MP:USE1_InputTokenCount-Units",
    "cache read": "USE1-MP:USE1_CacheReadInputTokenCount-Units",
    "output": "USE1-MP:USE1_output_tokens_standard-Units",
}
_PRODUCT: Final = json.dumps({"product_name": "Claude Sonnet 4.5 (Amazon Bedrock Edition)"})


def planted(name: str) -> Lines:
    """Return a bill's lines: the residual `name`, and nothing else."""
    if name == "tax_fees":
        taxed = lines_of(calls(), PRICES)
        taxed[0, "Tax"] = [Decimal(0), Decimal("4.20")]
        taxed[1, "Credit"] = [Decimal(0), Decimal("-1.00")]
        return taxed
    return PLANTED[name](PRICES)


def report(lines: Lines) -> str:
    """Write a report."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for (day, meter), (quantity, usd) in sorted(lines.items()):
        at = f"{START + timedelta(days=day):%Y-%m-%dT%H:%M:%S.000Z}"
        head, kind = ["111122223333"], "Usage" if meter in PRICES else meter
        if meter not in PRICES:
            used = ["AmazonBedrock", "", "", ""]
        elif day % 2:
            used = ["3mbzuvmgk2yk4jlp1h5xvkznz", _SOLD[meter], _plain(quantity / 10**6), "Units"]
        else:
            used = ["AmazonBedrock", _OWN[meter], _plain(quantity / 1_000), "1K tokens"]
        product = _PRODUCT if day % 2 and meter in PRICES else ""
        rows.writerow([*head, kind, at, *used, "USD", _plain(usd), product])
    hour = f"{START:%Y-%m-%dT%H:%M:%S.000Z}"
    other = ["AmazonEC2", "USE1-BoxUsage:m5.large", "24", "Hrs", "USD", "2.304", ""]
    rows.writerow(["111122223333", "Usage", hour, *other])
    return text.getvalue()


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f")


def main() -> None:
    """Write every bill."""
    for name in EXPECTED:
        (FOLDER / f"{name}.cur.csv").write_text(report(planted(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
