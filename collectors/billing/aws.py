"""AWS: Cost and Usage Reports, 1.0 (`lineItem/UsageType`) and 2.0 (`line_item_usage_type`).

What a usage type of Bedrock bills is `bedrock`'s to say; the quantity is in the pricing unit, mostly
a thousand tokens, or a million. Only Bedrock's lines, those of models sold through the marketplace
among them, and those of whole-account charges are read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from collectors.billing.bedrock import TOKEN_UNITS, Metered, metered
from collectors.billing.documents import BadLineError
from collectors.billing.reading import (
    OtherLine,
    Row,
    amount_of,
    currency_of,
    day_of,
    lines_of,
    quantity_of,
    text_of,
)
from controlplane.signals.billing import BillKind, BillLine

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


def read(path: Path) -> Iterator[BillLine | OtherLine | BadLineError]:
    """Return Bedrock's lines, and taxes, fees and credits of the account."""
    return lines_of(path, _line, invoice_of=lambda row: _column(row, "bill.invoice_id"))


def _line(row: Row) -> BillLine | None:
    kind = _KINDS.get((_column(row, "line_item.line_item_type") or "usage").lower(), BillKind.USAGE)
    service = _column(row, "line_item.product_code") or ""
    usage_type = _column(row, "line_item.usage_type") or ""
    product = _product(row)
    told = _column(row, "line_item.line_item_description") or usage_type
    if kind is BillKind.USAGE:
        if "bedrock" not in f"{service} {usage_type} {product} {told}".lower():
            return None
        return _usage(row, metered(usage_type, product), told)
    return BillLine(
        day=day_of(_column(row, "line_item.usage_start_date")),
        key=_column(row, "line_item.usage_account_id"),
        kind=kind,
        currency=currency_of(_column(row, "line_item.currency_code")),
        cost_usd=amount_of(_column(row, "line_item.unblended_cost")),
        description=told,
    )


def _usage(row: Row, found: Metered, told: str) -> BillLine:
    unit = TOKEN_UNITS.get((_column(row, "pricing.unit") or "").lower(), found.block)
    amount = _column(row, "line_item.usage_amount")
    return BillLine(
        day=day_of(_column(row, "line_item.usage_start_date")),
        model=None if found.is_fee else found.model,
        meter=None if found.is_fee else found.meter,
        key=_column(row, "line_item.usage_account_id"),
        kind=BillKind.FEE if found.is_fee else BillKind.USAGE,
        quantity=quantity_of(amount, times=unit) if unit and found.is_tokens else None,
        currency=currency_of(_column(row, "line_item.currency_code")),
        cost_usd=amount_of(_column(row, "line_item.unblended_cost")),
        description=told,
    )


def _product(row: Row) -> str | None:
    """Return the product's name: a column of 1.0, an entry of 2.0's map (in CSV its JSON)."""
    flat = text_of(row, "product_product_name", "product/ProductName", "product/servicename")
    if flat:
        return flat
    entries: Any = row.get("product")
    if isinstance(entries, str):
        try:
            entries = msgspec.json.decode(entries)
        except msgspec.DecodeError:
            return None
    try:
        named = dict(entries or ())
    except (TypeError, ValueError):
        return None
    return text_of(named, "product_name", "servicename")
