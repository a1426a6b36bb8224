"""OpenAI: the costs and usage APIs' pages, and the CSV that the dashboard exports of each.

https://platform.openai.com/docs/api-reference/usage (read November 2026). A cost bucket is a UTC day;
`amount.value` is dollars. Line items read `gpt-4o-2024-08-06, cached input`. Usage counts cached tokens
inside input tokens, and reasoning inside output tokens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from collectors.billing.documents import BadLineError, object_of, results_of
from collectors.billing.reading import (
    Row,
    amount_of,
    currency_of,
    day_of,
    quantity_of,
    rows_of,
    text_of,
)
from controlplane.signals.billing import BillKind, BillLine

METERS: Final = {
    "input": "input_uncached",
    "cached input": "cache_read",
    "output": "output",
    "audio input": "input_audio",
    "audio output": "output_audio",
    "cached audio input": "cache_read_audio",
    "image input": "input_image",
    "image output": "output_image",
}
_OTHER_KINDS: Final = (("tax", BillKind.TAX), ("credit", BillKind.CREDIT), ("fee", BillKind.FEE))


def read(path: Path) -> Iterator[BillLine | BadLineError]:
    """Yield the lines of API pages (JSON; one page or a list of them) or of a dashboard's CSV."""
    if path.name.removesuffix(".gz").endswith(".json"):
        for found in results_of(path, "start_time"):
            if isinstance(found, BadLineError):
                yield found
            else:
                yield from _lines({**found[1], "start_time": found[0]})
        return
    for row in rows_of(path):
        yield from _lines(row)


def _lines(row: Row) -> Iterator[BillLine | BadLineError]:
    try:
        if "amount" in row or "amount_value" in row:
            line = _cost(row)
            if line is not None:
                yield line
        else:
            yield from _usage(row)
    except BadLineError as wrong:
        yield wrong


def _cost(row: Row) -> BillLine | None:
    told = object_of(row.get("amount")) or {
        "value": row.get("amount_value"),
        "currency": row.get("amount_currency"),
    }
    amount = amount_of(told.get("value"))
    if amount is None:  # the export has a row for every day, also for those without a charge
        return None
    currency = currency_of(told.get("currency"))
    item = text_of(row, "line_item") or ""
    model, _, meter = (part.strip() for part in item.rpartition(","))
    known = METERS.get(meter.lower())
    return BillLine(
        day=day_of(row.get("start_time")),
        model=(model if known else item) or None,
        meter=known,
        key=text_of(row, "api_key_id", "project_id"),
        kind=next((kind for word, kind in _OTHER_KINDS if word in item.lower()), BillKind.USAGE),
        currency=currency,
        cost_usd=amount,
        quantity=quantity_of(row.get("quantity")) if known else None,
        description=item,
    )


def _usage(row: Row) -> Iterator[BillLine]:
    inside = quantity_of(row.get("input_tokens")) or 0
    cached = quantity_of(row.get("input_cached_tokens")) or 0
    if cached > inside:
        raise BadLineError(f"{cached} cached of {inside} input tokens")
    counted = {
        "input_uncached": inside - cached,
        "cache_read": cached,
        "output": quantity_of(row.get("output_tokens")) or 0,
        "input_audio": quantity_of(row.get("input_audio_tokens")) or 0,
        "output_audio": quantity_of(row.get("output_audio_tokens")) or 0,
    }
    for meter, quantity in counted.items():
        if quantity:
            yield BillLine(
                day=day_of(row.get("start_time")),
                model=text_of(row, "model"),
                meter=meter,
                key=text_of(row, "api_key_id", "project_id"),
                quantity=quantity,
            )
