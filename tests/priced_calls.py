"""Calls as an organisation makes them, with usage that the real price book prices."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.pricing.price import price
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.schema import ATTRIBUTED_SCHEMA, PRICED

MODELS: Final = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("gcp.gemini", "gemini-2.5-pro"),  # dearer above 200,000 input tokens
    ("aws.bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("self-hosted", "house-13b"),  # no list price: an override where a test gives one
    ("openai", "no-such-model"),
)
TEAMS: Final = ("search", "support", None)


def draw_calls(
    seed: int, count: int, window: Window, *, tenants: Sequence[str] = ("acme",)
) -> list[dict[str, Any]]:
    """Draw calls at random instants of a window; the seed alone reproduces them."""
    dice = random.Random(seed)
    width = (window.end - window.start) // timedelta(microseconds=1)
    return [_call(dice, n, window.start + timedelta(microseconds=dice.randrange(width)), tenants)
            for n in range(count)]  # fmt: skip


def _call(dice: random.Random, n: int, at: datetime, tenants: Sequence[str]) -> dict[str, Any]:
    provider, model = dice.choice(MODELS)
    large = dice.random() < 0.05
    uncached = dice.randrange(150_000, 250_000) if large else dice.randrange(1, 9_000)
    used = {
        "input_uncached": uncached,
        "cache_read": dice.choice((0, 0, dice.randrange(20_000))),
        "cache_write_5m": dice.choice((0, 0, dice.randrange(3_000))),
        "output_text": dice.randrange(1, 2_000),
        "output_reasoning": dice.choice((0, 0, dice.randrange(4_000))),
    }
    failed = dice.random() < 0.04
    cached, written = used["cache_read"], used["cache_write_5m"]
    return {
        "tenant": dice.choice(tenants),
        "trace_lo": n + 1,
        "span_id": n + 1,
        "content_hash": n,
        "start_time": at,
        "provider": provider,
        "billing_model": model,
        "operation": dice.choice(("chat", "chat", "embeddings")),
        "team": dice.choice(TEAMS),
        "project": dice.choice(("p1", "p2", None)),
        "feature": dice.choice(("answer", "=SUM(A1)", None)),
        "customer": dice.choice(("c1", "c2", "c3", None)),
        "user_id": f"u{int(dice.paretovariate(1.2)) % 40}",
        "api_key": dice.choice(("k1", "k2", None)),
        "environment": dice.choice(("prod", None)),
        "region": dice.choice(("eu-west-1", None)),
        "status": "error" if failed else "ok",
        "error_type": "server_error" if failed else None,
        "input_tokens": uncached + cached + written,
        "cached_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": used["output_text"] + used["output_reasoning"],
        "reasoning_tokens": used["output_reasoning"],
        **{bucket: quantity or None for bucket, quantity in used.items()},
    }


def priced(
    span_rows: Callable[..., pa.Table], calls: Sequence[Mapping[str, Any]], book: PriceBook
) -> pa.Table:
    """Return SPAN_SCHEMA rows of the calls, each priced as ingest prices it."""
    plain = span_rows(*calls).drop_columns([field.name for field in PRICED])
    return price(plain.cast(ATTRIBUTED_SCHEMA), book)
