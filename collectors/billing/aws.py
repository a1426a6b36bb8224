"""AWS: Cost and Usage Reports, 1.0 (`lineItem/UsageType`) and 2.0 (`line_item_usage_type`).

Bedrock's usage types read `USE1-Claude3Sonnet-input-tokens`; their quantity is in the pricing unit,
mostly a thousand tokens. Only Bedrock lines and those of whole-account charges are read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from collectors.billing.reading import (
    BadLineError,
    Row,
    amount_of,
    currency_of,
    day_of,
    quantity_of,
    rows_of,
    text_of,
)
from controlplane.signals.billing import BillKind, BillLine

_TYPE: Final = re.compile(
    r"^(?:[A-Z0-9]+-)?(?P<model>.+?)[-_](?P<what>cache-read-input|cache-write-input|input|output)"
    r"[-_ ]?(?:tokens?|TokenCount)(?:-count)?",
    re.IGNORECASE,
)
_METERS: Final = {
    "input": "input_uncached",
    "output": "output",
    "cache-read-input": "cache_read",
    "cache-write-input": "cache_write_5m",
}
_UNITS: Final = {"1k tokens": 1_000, "1m tokens": 1_000_000, "tokens": 1, "token": 1}
_KINDS: Final = {
    "tax": BillKind.TAX, "fee": BillKind.FEE, "rifee": BillKind.FEE, "credit": BillKind.CREDIT,
    "refund": BillKind.CREDIT, "bundleddiscount": BillKind.CREDIT,
}  # fmt: skip


def _column(row: Row, name: str) -> str | None:
    """Return a column of either version: `line_item_usage_type` is `lineItem/UsageType`."""
    section, _, rest = name.partition(".")
    snake = f"{section}_{rest}"
    first, *more = section.split("_")
    old = first + "".join(part.title() for part in more)
    camel = "".join(part.title() for part in rest.split("_"))
    lower = camel[:1].lower() + camel[1:]  # sections other than lineItem start small
    return text_of(row, snake, f"{old}/{camel}", f"{old}/{lower}")


def read(path: Path) -> Iterator[BillLine | BadLineError]:
    """Yield Bedrock's lines, and taxes, fees and credits of the account."""
    for row in rows_of(path):
        try:
            line = _line(row)
        except BadLineError as wrong:
            yield wrong
            continue
        if line is not None:
            yield line


def _line(row: Row) -> BillLine | None:
    kind = _KINDS.get((_column(row, "line_item.line_item_type") or "usage").lower(), BillKind.USAGE)
    product = _column(row, "line_item.product_code") or ""
    usage_type = _column(row, "line_item.usage_type") or ""
    if kind is BillKind.USAGE and "bedrock" not in f"{product} {usage_type}".lower():
        return None
    currency = currency_of(_column(row, "line_item.currency_code"))
    found = _TYPE.match(usage_type)
    unit = _UNITS.get((_column(row, "pricing.unit") or "").lower())
    amount = _column(row, "line_item.usage_amount")
    return BillLine(
        day=day_of(_column(row, "line_item.usage_start_date")),
        model=found["model"] if found else None,
        meter=_METERS[found["what"].lower()] if found else None,
        key=_column(row, "line_item.usage_account_id"),
        kind=kind,
        quantity=quantity_of(amount, times=unit) if unit and found else None,
        currency=currency,
        cost_usd=amount_of(_column(row, "line_item.unblended_cost")),
        description=_column(row, "line_item.line_item_description") or usage_type,
    )
