"""The columnar stage equals one call at a time, and keeps what it can not price apart."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.core.tokens import BUCKET_NAMES, INPUT_BUCKETS
from controlplane.pricing.price import price
from controlplane.pricing.price_book import ListedModel, ListedProvider, Pin, PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.rates import ALWAYS, PriceRow, Rate, Tier, Validity
from controlplane.signals.schema import ATTRIBUTED_SCHEMA, SPAN_SCHEMA
from controlplane.signals.vocabulary import GATEWAY_CACHE

T0 = datetime(2026, 6, 1, tzinfo=UTC)


def _row(name: str, validity: Validity, *tiers: Tier) -> PriceRow:
    return PriceRow(price_id=name, validity=validity, tiers=tiers)


HUGE = Rate(10**15, 7)
MODELS = [
    ("tiered", [_row("tiered", ALWAYS, Tier(-1, {"input_uncached": Rate(5, 2), "output_text": Rate(1, 3)}), Tier(100, {"input_uncached": Rate(9, 1)}))]),
    ("free", [_row("free", ALWAYS, Tier(-1, {"input_uncached": Rate(0, 1)}))]),
    ("percall", [_row("percall", ALWAYS, Tier(-1, {"requests": Rate(5_000, 1), "input_uncached": Rate(1, 1)}))]),
    ("standin", [_row("standin", ALWAYS, Tier(-1, {"input_uncached": Rate(3, 1), "cache_read": Rate(3, 1, stand_in=True)}))]),
    ("dear", [_row("dear", ALWAYS, Tier(-1, {"input_uncached": Rate(2**22, 1), "output_text": Rate(2**22, 1)}))]),
    ("huge", [_row("huge", ALWAYS, Tier(-1, {"input_uncached": HUGE, "output_text": HUGE}))]),
    (
        "dated",
        [
            _row("dated-1", Validity(until=T0.date() + timedelta(days=2)), Tier(-1, {"input_uncached": Rate(1, 1)})),
            _row("dated-2", Validity(since=T0.date() + timedelta(days=1)), Tier(-1, {"input_uncached": Rate(2, 1)})),
        ],
    ),
    ("retired", [_row("retired", Validity(until=T0.date()), Tier(-1, {"input_uncached": Rate(7, 1)}))]),
    ("batch-only", [PriceRow(price_id="b", validity=ALWAYS, tiers=(Tier(-1, {"input_uncached": Rate(1, 1)}),), service_tier="batch")]),
]  # fmt: skip


def _own_book() -> PriceBook:
    models = [
        ListedModel(model=name, rows=tuple(rows), matches=name.__eq__) for name, rows in MODELS
    ]
    return PriceBook("test", [ListedProvider(provider="p", models=models)])


OWN = _own_book()


def _spans(rows: list[dict[str, object]]) -> pa.Table:
    base = {
        "report_kind": "call",
        "status": "ok",
        "usage_state": "exact",
        "provider": "p",
        "start_time": T0,
    }
    filled = [{**base, **row} for row in rows]
    columns = {
        field.name: pa.array([row.get(field.name) for row in filled], field.type)
        for field in ATTRIBUTED_SCHEMA
    }
    return pa.table(
        columns, schema=pa.schema([f.with_nullable(nullable=True) for f in ATTRIBUTED_SCHEMA])
    )


BUCKETS = st.sampled_from(
    ["input_uncached", "cache_read", "output_text", "requests", "output_audio"]
)
ROWS = st.fixed_dictionaries(
    {
        "billing_model": st.sampled_from([*(name for name, _ in MODELS), "unknown", None]),
        "provider": st.sampled_from(["p", "q", None]),
        "start_time": st.integers(-72, 96).map(lambda h: T0 + timedelta(hours=h)),
        "usage": st.dictionaries(BUCKETS, st.one_of(st.integers(0, 300), st.integers(0, 2**40))),
    }
)


@given(st.lists(ROWS, max_size=20))
def test_columns_equal_one_call_at_a_time(rows: list[dict[str, object]]) -> None:
    """Every amount, state, reason, id and provenance, hostile quantities included."""
    flat = [{**row, **row["usage"]} for row in rows]  # type: ignore[dict-item]  # hypothesis' mapping
    table = price(_spans(flat), OWN)
    assert SPAN_SCHEMA.names == table.column_names
    for got, row in zip(table.to_pylist(), rows, strict=True):
        expected = quote(
            OWN,
            provider=row["provider"],  # type: ignore[arg-type]  # str or None
            model=row["billing_model"],  # type: ignore[arg-type]  # str or None
            at=row["start_time"],  # type: ignore[arg-type]  # datetime
            usage=row["usage"],  # type: ignore[arg-type]  # dict of int
        )
        assert (
            expected.total_nusd,
            expected.cost_state,
            expected.cost_reason,
            expected.price_id,
            expected.price_provenance,
        ) == tuple(
            got[c]
            for c in ("cost_nusd", "cost_state", "cost_reason", "price_id", "price_provenance")
        )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"usage_state": "unknown"}, (None, "unpriced", "unknown_usage")),
        ({"usage_state": "impossible"}, (None, "unpriced", "impossible_usage")),
        ({"usage_state": "absent"}, (None, "unpriced", "unknown_usage")),
        (
            {"usage_state": "absent", "status": "error", "error_type": "rate_limited"},
            (0, "free", "failed_without_usage"),
        ),
        (
            {"usage_state": "absent", "status": "error", "error_type": "client_error"},
            (0, "free", "failed_without_usage"),
        ),
        (
            {"usage_state": "absent", "status": "error", "error_type": "timeout"},
            (None, "unpriced", "unknown_usage"),
        ),
        (
            {"usage_state": "absent", "status": "error", "error_type": "server_error"},
            (None, "unpriced", "unknown_usage"),
        ),
        (
            {"usage_state": "absent", "status": "error", "error_type": "cancelled"},
            (None, "unpriced", "unknown_usage:disconnect"),
        ),
        ({"report_kind": "aggregate", "input_uncached": 5}, (None, None, None)),
        ({"report_kind": "none"}, (None, None, None)),
    ],
)
def test_calls_without_usage(
    facts: dict[str, object], expected: tuple[int | None, str | None, str | None]
) -> None:
    """Refused is free, dispatched is unknown, and what is no call has no cost at all."""
    row = price(_spans([{"billing_model": "free", **facts}]), OWN).to_pylist()[0]
    assert expected == (row["cost_nusd"], row["cost_state"], row["cost_reason"])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        # A reply from the gateway's own cache: nobody was asked.
        ({"service_tier": GATEWAY_CACHE, "billing_model": "unknown"}, (0, "free", "cache_hit")),
        ({"billing_model": "retired"}, (None, "unpriced", "no_price_at_time")),
        ({"billing_model": "retired", "start_time": T0 - timedelta(microseconds=1)}, (35, "priced", None)),
        ({"billing_model": "batch-only"}, (None, "unpriced", "no_price_at_time")),
        ({"billing_model": "batch-only", "service_tier": "batch"}, (5, "priced", None)),
        ({"billing_model": "standin", "cache_read": 2}, (21, "priced", "no_own_rate:cache_read")),
        ({"billing_model": "free", "output_audio": 1}, (None, "unpriced", "missing_rate:output_audio")),
    ],
)  # fmt: skip
def test_calls_that_no_rate_applies_to(
    facts: dict[str, object], expected: tuple[int | None, str | None, str | None]
) -> None:
    row = price(_spans([{"input_uncached": 5, **facts}]), OWN).to_pylist()[0]
    assert expected == (row["cost_nusd"], row["cost_state"], row["cost_reason"])


def test_rows_keep_their_order_and_batches_do_not_matter() -> None:
    """Pricing a batch is pricing its rows."""
    rows: list[dict[str, object]] = [
        {"billing_model": name, "input_uncached": i, "report_kind": "call" if i % 3 else "none"}
        for i, name in enumerate(["tiered", "dated", "retired", "free", "unknown"] * 8)
    ]
    whole = price(_spans(rows), OWN).to_pylist()
    single = [price(_spans([row]), OWN).to_pylist()[0] for row in rows]
    assert single == whole


def test_half_a_nano_dollar_goes_to_the_even_neighbour() -> None:
    """5/2 times 1, 3, 5: 2.5, 7.5 and 12.5 become 2, 8 and 12."""
    rows: list[dict[str, object]] = [
        {"billing_model": "tiered", "input_uncached": q} for q in (1, 3, 5)
    ]
    assert [2, 8, 12] == price(_spans(rows), OWN)["cost_nusd"].to_pylist()


def test_a_tier_begins_above_its_threshold() -> None:
    """Half-even of 5/2 up to the 100th token of input, 9 a token from the 101st."""
    rows: list[dict[str, object]] = [
        {"billing_model": "tiered", "input_uncached": q} for q in (99, 100, 101)
    ]
    assert [248, 250, 909] == price(_spans(rows), OWN)["cost_nusd"].to_pylist()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (2**40 - 1, (2**63 - 2**22, "priced", None)),
        (2**40, (None, "unpriced", "cost_out_of_range")),
    ],
)
def test_a_cost_that_leaves_64_bits_is_not_known(
    output: int, expected: tuple[int | None, str, str | None]
) -> None:
    """Each bucket fits by itself, so only their sum can tell."""
    said = {"billing_model": "dear", "input_uncached": 2**40, "output_text": output}
    row = price(_spans([said]), OWN).to_pylist()[0]
    assert expected == (row["cost_nusd"], row["cost_state"], row["cost_reason"])


def test_every_bucket_has_a_direction() -> None:
    """The tier is chosen by the whole input: the registry must know all of it."""
    assert set(INPUT_BUCKETS) < set(BUCKET_NAMES)


def test_a_re_rated_window_is_priced_with_its_version() -> None:
    """Half-open, per tenant, the last pin applies; the rows keep their order."""
    hour = timedelta(hours=1)

    def at(nusd: int) -> PriceBook:
        row = _row(f"v{nusd}", ALWAYS, Tier(-1, {"input_uncached": Rate(nusd, 1)}))
        model = ListedModel(model="m", rows=(row,), spellings=("m",))
        return PriceBook(f"v{nusd}", [ListedProvider(provider="p", models=[model])])

    book = at(1)
    book.pins = (
        Pin(Window(T0, T0 + 3 * hour), (), lambda: at(2)),
        Pin(Window(T0 + hour, T0 + 2 * hour), ("a",), lambda: at(3)),
    )
    rows: list[dict[str, object]] = [
        {
            "start_time": T0 + number * hour,
            "tenant": tenant,
            "input_uncached": 1,
            "billing_model": "m",
        }
        for number in (3, 1, 0, -1, 2)
        for tenant in ("a", "b")
    ]
    priced = price(_spans(rows), book)
    assert [1, 1, 3, 2, 2, 2, 1, 1, 2, 2] == priced["cost_nusd"].to_pylist()
    assert [row["start_time"] for row in rows] == priced["start_time"].to_pylist()
    unpinned = price(_spans(rows[:1]), book)
    assert [1] == unpinned["cost_nusd"].to_pylist()
