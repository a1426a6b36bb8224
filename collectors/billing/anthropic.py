"""Anthropic: pages of the usage and cost report.

https://docs.claude.com/en/api/admin-api/usage-cost (read November 2026). The amount of a cost is a
decimal string in the currency's lowest unit: "123.45" is 1.2345 dollars. Uncached input excludes
cache reads and writes. Priority-tier cost is absent from the cost report.
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
    text_of,
)
from controlplane.signals.billing import BillKind, BillLine

CENTS: Final = 2
METERS: Final = {
    "uncached_input_tokens": "input_uncached",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "output_tokens": "output",
}
_KINDS: Final = {"tax": BillKind.TAX, "credit": BillKind.CREDIT}


def read(path: Path) -> Iterator[BillLine | BadLineError]:
    """Yield the lines of one page or a list of them, of either report."""
    for found in results_of(path, "starting_at"):
        if isinstance(found, BadLineError):
            yield found
        else:
            yield from _lines(found[1], found[0])


def _lines(result: Row, starting_at: object) -> Iterator[BillLine | BadLineError]:
    try:
        if "amount" in result:
            yield _cost(result, starting_at)
        else:
            yield from _usage(result, starting_at)
    except BadLineError as wrong:
        yield wrong


def _cost(result: Row, starting_at: object) -> BillLine:
    currency = currency_of(result.get("currency"))
    cents = amount_of(result["amount"])
    kind = str(result.get("cost_type") or "tokens")
    meter = METERS.get(str(result.get("token_type")))
    return BillLine(
        day=day_of(starting_at),
        model=text_of(result, "model"),
        meter="web_searches" if kind == "web_search" else meter,
        key=text_of(result, "workspace_id"),
        kind=_KINDS.get(kind, BillKind.USAGE),
        currency=currency,
        cost_usd=None if cents is None else cents.scaleb(-CENTS),
        description=text_of(result, "description") or kind,
    )


def _usage(result: Row, starting_at: object) -> Iterator[BillLine]:
    created = object_of(result.get("cache_creation"))
    tools = object_of(result.get("server_tool_use"))
    counted = {
        "input_uncached": result.get("uncached_input_tokens"),
        "cache_read": result.get("cache_read_input_tokens"),
        "cache_write_5m": created.get("ephemeral_5m_input_tokens"),
        "cache_write_1h": created.get("ephemeral_1h_input_tokens"),
        "output": result.get("output_tokens"),
        "web_searches": tools.get("web_search_requests"),
    }
    for meter, said in counted.items():
        quantity = quantity_of(said)
        if quantity:
            yield BillLine(
                day=day_of(starting_at),
                model=text_of(result, "model"),
                meter=meter,
                key=text_of(result, "api_key_id", "workspace_id"),
                quantity=quantity,
            )
