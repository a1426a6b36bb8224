"""FOCUS files of any provider, ours too: CSV or Parquet, versions 1.0 to 1.2.

AWS' export names a product by codes of its own and keeps the usage type in `x_UsageType`
(docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-0-aws.html): it is read as `aws`
reads it, and usage of other services than Bedrock is left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from collectors.billing.bedrock import TOKEN_UNITS, metered
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
    "usage": BillKind.USAGE, "purchase": BillKind.FEE, "tax": BillKind.TAX,
    "credit": BillKind.CREDIT, "adjustment": BillKind.FEE,
}  # fmt: skip
_METER_WORDS: Final = (
    # the first that a meter's or a description's words match
    (r"cached? write.*(1|one) hour", "cache_write_1h"),
    (r"cached? write", "cache_write_5m"),
    (r"cached audio", "cache_read_audio"),
    (r"cached|cache read", "cache_read"),
    (r"audio input", "input_audio"),
    (r"audio output", "output_audio"),
    (r"image input", "input_image"),
    (r"image output", "output_image"),
    (r"reasoning|output", "output"),
    (r"input", "input_uncached"),
    (r"web search", "web_searches"),
)
_BLOCK: Final = re.compile(r"^(\d+) ")


def read(path: Path) -> Iterator[BillLine | OtherLine | BadLineError]:
    """Yield a line a row."""
    return lines_of(path, _line, invoice_of=lambda row: text_of(row, "InvoiceId"))


def _line(row: Row) -> BillLine | None:
    currency = currency_of(row.get("BillingCurrency"))
    kind = _KINDS.get(str(row.get("ChargeCategory") or "usage").lower(), BillKind.USAGE)
    usage_type = text_of(row, "x_UsageType")
    if usage_type and kind is BillKind.USAGE:
        return _of_aws(row, usage_type, currency)
    words = f"{row.get('SkuMeter') or ''} {row.get('ChargeDescription') or ''}".lower()
    meter = text_of(row, "x_UsageBucket") or next(
        (bucket for pattern, bucket in _METER_WORDS if re.search(pattern, words)), None
    )
    if meter in {"output_text", "output_reasoning"}:
        meter = "output"
    sku = text_of(row, "SkuId") or ""
    block = _BLOCK.match(str(row.get("ConsumedUnit") or ""))
    return BillLine(
        day=day_of(row.get("ChargePeriodStart")),
        model=sku.rsplit("/", 1)[-1] or None,
        meter=meter,
        key=text_of(row, "SubAccountId"),
        kind=kind,
        quantity=quantity_of(row.get("ConsumedQuantity"), times=int(block[1]) if block else 1),
        currency=currency,
        cost_usd=amount_of(row.get("BilledCost")),
        description=text_of(row, "ChargeDescription") or "",
    )


def _of_aws(row: Row, usage_type: str, currency: str) -> BillLine | None:
    service = text_of(row, "ServiceName") or ""
    told = text_of(row, "ChargeDescription") or usage_type
    if "bedrock" not in f"{service} {row.get('x_ServiceCode')} {usage_type} {told}".lower():
        return None
    found = metered(usage_type, service)
    unit = TOKEN_UNITS.get((text_of(row, "ConsumedUnit", "PricingUnit") or "").lower(), found.block)
    quantity = row.get("ConsumedQuantity")
    return BillLine(
        day=day_of(row.get("ChargePeriodStart")),
        model=None if found.is_fee else found.model,
        meter=None if found.is_fee else found.meter,
        key=text_of(row, "SubAccountId"),
        kind=BillKind.FEE if found.is_fee else BillKind.USAGE,
        quantity=quantity_of(quantity, times=unit) if unit and found.is_tokens else None,
        currency=currency,
        cost_usd=amount_of(row.get("BilledCost")),
        description=told,
    )
