"""Commands that need no running system: `inspect` and `price`."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from controlplane.bootstrap.data_files import load_rules
from controlplane.bootstrap.price_books import load_book
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd
from controlplane.pipelines.inspect import InspectReport
from controlplane.pipelines.inspect import inspect_files as inspect
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import Quote, quote, usage_buckets
from controlplane.settings import Settings


class PriceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `controlplane price` prints."""

    total_usd: str | None
    cost_state: str
    cost_reason: str | None
    price_id: str | None
    price_provenance: str | None
    price_book_version: str
    line_items: list[dict[str, object]]


def inspect_files(settings: Settings, files: list[Path], *, signal: str | None) -> InspectReport:
    """Decode, price and count once, as ingest would."""
    return inspect(files, book=load_book(settings), rules=load_rules(settings), signal=signal)


class CallToPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it is said on the command line."""

    provider: str
    model: str
    at: str
    usage: str
    service_tier: str = ""
    price_version: int | None = None


def price_call(settings: Settings, call: CallToPrice) -> PriceAnswer:
    """Price one call from the command line.

    Raises:
        NotFoundError: there is no such price version.
        InvalidInputError: names the option and what it takes.
    """
    try:
        said = msgspec.json.decode(call.usage, type=dict[str, int])
    except msgspec.DecodeError as wrong:
        raise InvalidInputError("usage", str(wrong), 'Write {"input_tokens": 1000}') from None
    book = load_book(settings, version=call.price_version)
    answer = quote(
        book,
        provider=call.provider,
        model=call.model,
        at=parse_instant(call.at, "at"),
        usage=usage_buckets(said),
        service_tier=call.service_tier,
    )
    return _to_answer(answer, book)


def parse_instant(text: str, field: str) -> datetime:
    """Read RFC 3339; a bare date is its midnight in UTC.

    Raises:
        InvalidInputError: neither, or a time without a zone.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(field, f"{text!r}", 'Write "2026-11-20T12:00:00Z"') from None
    if instant.tzinfo is None and "T" in text:
        raise InvalidInputError(field, f"{text!r} has no zone", 'End it with "Z"')
    return instant.replace(tzinfo=instant.tzinfo or UTC)


def _to_answer(answer: Quote, book: PriceBook) -> PriceAnswer:
    return PriceAnswer(
        total_usd=None if answer.total_nusd is None else format_usd(answer.total_nusd),
        cost_state=answer.cost_state,
        cost_reason=answer.cost_reason,
        price_id=answer.price_id,
        price_provenance=answer.price_provenance,
        price_book_version=book.version,
        line_items=[
            {
                "bucket": item.bucket,
                "quantity": item.quantity,
                "rate_nusd": item.rate_nusd,
                "cost_nusd": item.cost_nusd,
                "cost_usd": format_usd(item.cost_nusd),
            }
            for item in answer.line_items
        ],
    )
