"""The price stage against a statement of itself: one row at a time, in fractions of a dollar.

The statement shares nothing with the stage but the vocabulary: prices are the decimals as written,
a line item is a Fraction rounded by Python (half to even), and names are found by equality.
"""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controlplane.pricing.price import price
from controlplane.pricing.price_book import ListedModel, ListedProvider, PriceBook
from controlplane.pricing.rates import PriceRow, Rate, Tier, Validity, rate
from controlplane.signals.schema import ATTRIBUTED_SCHEMA, PRICED, SPAN_SCHEMA

INPUTS = [
    *("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h"),
    *("input_audio", "input_image", "input_video", "cache_read_audio"),
]
OUTPUTS = ("output_text", "output_reasoning", "output_audio", "output_image")
OTHERS = (
    *("web_searches", "requests", "pages", "audio_seconds", "gpu_seconds"),
    *("images", "video_seconds", "characters"),
)
ORDER = (*INPUTS, *OUTPUTS, *OTHERS)
T0 = datetime(2026, 6, 1, tzinfo=UTC)


class Price(NamedTuple):
    """USD per `per` units; a stand-in is another bucket's."""

    usd: str
    per: int = 1_000_000
    stand_in: bool = False


class Row(NamedTuple):
    """A dated price: (above, {bucket: price}) in rising order, the whole call pays the last."""

    name: str
    tiers: list[tuple[int, dict[str, Price]]]
    since: date | None = None
    until: date | None = None
    hours: tuple[time, time] = (time(0), time(0))
    tier: str = ""


PLAIN = {"input_uncached": Price("0.15"), "output_text": Price("0.6")}
ODD = {
    "input_uncached": Price("0.0375"),
    "cache_read": Price("0.01875"),
    "output_text": Price("1e-9"),
}
ODD |= {"input_audio": Price("7", 3_600), "web_searches": Price("35", 1_000)}
STAND_IN = {**PLAIN, "cache_read": Price("0.15", stand_in=True), "requests": Price("5", 1_000)}
DEAR = {bucket: Price("99999999.999999999999") for bucket in ORDER}
MODELS: dict[str, list[Row]] = {
    "plain": [Row("plain", [(-1, PLAIN)])],
    "tiers": [Row("tiers", [(-1, PLAIN), (200, ODD), (2_000, DEAR)])],
    "odd": [Row("odd", [(-1, ODD)])],
    "stand-in": [Row("stand-in", [(-1, STAND_IN)])],
    "free": [Row("free", [(-1, {"input_uncached": Price("0"), "output_text": Price("0.00")})])],
    "dear": [Row("dear", [(-1, DEAR)])],
    "dated": [
        Row("first", [(-1, PLAIN)], until=date(2026, 6, 3)),
        Row("second", [(-1, ODD)], since=date(2026, 6, 2)),
    ],
    "retired": [Row("retired", [(-1, PLAIN)], since=date(2026, 6, 1), until=date(2026, 6, 2))],
    "batched": [
        Row("b-std", [(-1, PLAIN)]),
        Row("b-half", [(-1, ODD), (2_000, STAND_IN)], until=date(2026, 6, 3), tier="batch"),
        Row("b-new", [(-1, PLAIN)], since=date(2026, 6, 3)),
        Row("b-default", [(-1, ODD)], since=date(2026, 6, 3), tier="default"),
    ],
    "batch-only": [Row("bo", [(-1, PLAIN)], tier="batch")],
    "nightly": [
        Row("day", [(-1, PLAIN)]),
        Row("night", [(-1, ODD)], hours=(time(16, 30), time(0, 30))),
        Row("noon", [(-1, DEAR)], hours=(time(12), time(13))),
    ],
}


def _compiled(prices: dict[str, Price]) -> dict[str, Rate]:
    return {b: rate(Decimal(p.usd), per=p.per, stand_in=p.stand_in) for b, p in prices.items()}


def _row(row: Row) -> PriceRow:
    validity = Validity(
        since=row.since, until=row.until, daily_from=row.hours[0], daily_to=row.hours[1]
    )
    tiers = tuple(Tier(above, _compiled(prices)) for above, prices in row.tiers)
    return PriceRow(price_id=row.name, validity=validity, tiers=tiers, service_tier=row.tier)


BOOK = PriceBook(
    "oracle",
    [
        ListedProvider(
            provider="p",
            models=[
                ListedModel(model=name, rows=tuple(map(_row, rows)), spellings=(name,))
                for name, rows in MODELS.items()
            ],
        )
    ],
)

Facts = dict[str, object]
Answer = tuple[int | None, str | None, str | None, str | None, str | None]
NO_CALL: Answer = (None, None, None, None, None)


def reference(row: Facts, usage: dict[str, int]) -> Answer:
    """State the price of one row: (nano-USD, state, reason, price id, provenance)."""
    if row["report_kind"] != "call":
        return NO_CALL
    if row["usage_state"] != "exact":
        return _without_usage(row)
    if row["service_tier"] == "gateway_cache":
        return (0, "free", "cache_hit", None, None)
    if row["billing_model"] is None or row["provider"] != "p" or row["billing_model"] not in MODELS:
        is_provider = row["billing_model"] is not None and row["provider"] != "p"
        return (
            None,
            "unpriced",
            "unknown_provider" if is_provider else "unknown_model",
            None,
            None,
        )
    valid = [r for r in MODELS[str(row["billing_model"])] if _is_valid(r, row["start_time"])]
    asked = str(row["service_tier"] or "")
    of_tier = [r for r in valid if r.tier == asked] or [r for r in valid if not r.tier]
    if not of_tier:
        return (None, "unpriced", "no_price_at_time", None, None)
    is_other = of_tier[-1].tier != asked and asked not in {"default", "standard", "on_demand"}
    return _at(of_tier[-1], usage, not_served=asked if is_other else None)


def _without_usage(row: Facts) -> Answer:
    if row["usage_state"] == "impossible":
        return (None, "unpriced", "impossible_usage", None, None)
    if row["status"] == "error" and row["error_type"] in {"rate_limited", "client_error"}:
        return (0, "free", "failed_without_usage", None, None)
    left = row["status"] == "error" and row["error_type"] == "cancelled"
    return (None, "unpriced", "unknown_usage:disconnect" if left else "unknown_usage", None, None)


def _is_valid(row: Row, at: object) -> bool:
    assert isinstance(at, datetime)
    if row.since and at < datetime.combine(row.since, time(0), UTC):
        return False
    if row.until and at >= datetime.combine(row.until, time(0), UTC):
        return False
    start, end = row.hours
    clock = at.time()
    if start > end:
        return not end <= clock < start
    return start == end or start <= clock < end


def _at(row: Row, usage: dict[str, int], *, not_served: str | None) -> Answer:
    whole = sum(usage.get(bucket, 0) for bucket in INPUTS)
    number, prices = [(n, p) for n, (above, p) in enumerate(row.tiers) if whole > above][-1]
    found = "tier" if number or row.tier else "exact"
    used = {bucket: usage[bucket] for bucket in ORDER if usage.get(bucket)}
    if "requests" in prices:
        used["requests"] = used.get("requests", 1)
    missing = [bucket for bucket in ORDER if bucket in used and bucket not in prices]
    if missing:
        return (None, "unpriced", f"missing_rate:{missing[0]}", row.name, found)
    items = {b: round(Fraction(prices[b].usd) * n * 10**9 / prices[b].per) for b, n in used.items()}
    total = sum(items.values())
    if total >= 2**63:
        return (None, "unpriced", "cost_out_of_range", row.name, found)
    stood_in = [bucket for bucket in ORDER if bucket in used and prices[bucket].stand_in]
    state = "priced" if any(Fraction(prices[b].usd) for b in used) else "free"
    if stood_in:
        return (total, state, f"no_own_rate:{stood_in[0]}", row.name, "fallback")
    if not_served:
        return (total, state, f"no_tier_rate:{not_served}", row.name, "fallback")
    return (total, state, None, row.name, found)


def _table(rows: list[tuple[Facts, dict[str, int]]]) -> pa.Table:
    flat = [{**facts, **usage} for facts, usage in rows]
    columns = [pa.array([row.get(f.name) for row in flat], f.type) for f in ATTRIBUTED_SCHEMA]
    fields = [field.with_nullable(nullable=True) for field in ATTRIBUTED_SCHEMA]
    return pa.table(columns, schema=pa.schema(fields))


QUANTITIES = st.one_of(
    st.integers(0, 3), st.integers(190, 2_010), st.integers(0, 2**40), st.just(2**40)
)
FACTS = st.fixed_dictionaries(
    {
        "report_kind": st.sampled_from(["call"] * 6 + ["aggregate", "none"]),
        "usage_state": st.sampled_from(["exact"] * 6 + ["unknown", "impossible", "absent"]),
        "status": st.sampled_from(["ok", "error"]),
        "error_type": st.sampled_from(
            [None, "rate_limited", "timeout", "client_error", "cancelled", "other"]
        ),
        "provider": st.sampled_from(["p"] * 6 + ["q", None]),
        "billing_model": st.sampled_from([*MODELS, *MODELS, "unknown", None]),
        "service_tier": st.sampled_from(
            [None, None, "batch", "default", "priority", "gateway_cache"]
        ),
        "start_time": st.one_of(
            st.integers(-48, 96).map(lambda half: T0 + timedelta(minutes=30 * half)),
            st.integers(0, 3 * 86_400 * 10**6).map(lambda us: T0 + timedelta(microseconds=us)),
        ),
    }
)
COMMON = st.sampled_from(["input_uncached", "cache_read", "output_text", "requests"])
USAGE = st.one_of(
    st.dictionaries(COMMON, QUANTITIES), st.dictionaries(st.sampled_from(ORDER), QUANTITIES)
)
ON_TIME: Facts = {
    "report_kind": "call",
    "usage_state": "exact",
    "status": "ok",
    "error_type": None,
    "provider": "p",
    "billing_model": "dear",
    "service_tier": None,
    "start_time": T0,
}
EDGES: list[tuple[Facts, dict[str, int]]] = [
    ({**ON_TIME, "billing_model": model, "start_time": edge + step}, {"input_uncached": tokens})
    for step in (timedelta(microseconds=-1), timedelta(0))
    for model, tokens, edges in (
        ("dated", 1_000, [T0 + timedelta(days=1), T0 + timedelta(days=2)]),
        ("retired", 1_000, [T0, T0 + timedelta(days=1)]),
        ("nightly", 1_000, [T0 + timedelta(minutes=m) for m in (30, 720, 780, 990)]),
        *[("tiers", tokens, [T0]) for tokens in (200, 201, 2_000, 2_001)],
    )
    for edge in edges
]
"""An instant before and at each change of a price, and a token below and above each tier."""


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(FACTS, USAGE), max_size=25))
@example(EDGES)
@example([(ON_TIME, dict.fromkeys(ORDER, 2**40))])
@example([(ON_TIME, {"output_text": 92_233}), (ON_TIME, {"output_text": 2**40})])
def test_the_stage_equals_its_statement(rows: list[tuple[Facts, dict[str, int]]]) -> None:
    """Every column of every row; the rest of the table is as it came."""
    spans = _table(rows)
    priced = price(spans, BOOK)
    assert SPAN_SCHEMA.names == priced.column_names
    assert spans.equals(priced.select(spans.column_names))
    answers = zip(*(priced[field.name].to_pylist() for field in PRICED), strict=True)
    assert [reference(facts, usage) for facts, usage in rows] == list(answers)


def test_a_large_batch_sums_to_the_nano_dollar() -> None:
    """A million tokens a row, many rows: the sum is that of the exact line items."""
    rows = [
        ({**ON_TIME, "billing_model": "odd"}, {"input_uncached": 10**6 + i, "output_text": i})
        for i in range(5_000)
    ]
    expected = sum(
        round(Fraction("0.0375") * (10**6 + i) * 1_000) + round(Fraction("1e-9") * i * 1_000)
        for i in range(5_000)
    )
    assert expected == sum(cost or 0 for cost in price(_table(rows), BOOK)["cost_nusd"].to_pylist())
