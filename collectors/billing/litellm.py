"""LiteLLM: its spend logs as the API or the database gives them, one row a request."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from collectors.billing.documents import BadLineError, object_of
from collectors.billing.reading import (
    Row,
    amount_of,
    day_of,
    quantity_of,
    rows_of,
    text_of,
)
from controlplane.signals.billing import BillLine


def read(path: Path) -> Iterator[BillLine | BadLineError]:
    """Yield a line a meter of each request, and one with what the request cost."""
    for row in rows_of(path):
        try:
            yield from _lines(row)
        except BadLineError as wrong:
            yield wrong


def _lines(row: Row) -> Iterator[BillLine]:
    model = text_of(row, "model", "model_group")
    if model and "/" in model:
        model = model.rsplit("/", 1)[1]
    day, key = day_of(row.get("startTime")), text_of(row, "api_key")
    inside = quantity_of(row.get("prompt_tokens")) or 0
    cached = min(_cached(row), inside)
    counted = {
        "input_uncached": inside - cached,
        "cache_read": cached,
        "output": quantity_of(row.get("completion_tokens")) or 0,
    }
    for meter, quantity in counted.items():
        if quantity:
            yield BillLine(day=day, model=model, meter=meter, key=key, quantity=quantity)
    spend = amount_of(row.get("spend"))
    if spend:
        yield BillLine(day=day, model=model, key=key, cost_usd=spend)


def _cached(row: Row) -> int:
    """Return cache reads as the provider's own usage says, kept in the metadata."""
    metadata = row.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = msgspec.json.decode(metadata)
        except msgspec.DecodeError:
            return 0
    try:
        usage = object_of(object_of(metadata).get("usage_object"))
        details = object_of(usage.get("prompt_tokens_details"))
    except BadLineError:  # it is the caller's own, of any shape
        return 0
    said = details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0
    return quantity_of(said) or 0
