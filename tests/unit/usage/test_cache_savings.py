"""What caches saved, by hand; and against each call quoted again as if nothing had been cached."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.pricing.contracts import Contract
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price import price
from controlplane.pricing.price_book import ListedModel, ListedProvider, Pin, PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.rates import ALWAYS, PriceRow, Tier, rate
from controlplane.signals.schema import CALL_SCHEMA, PRICED
from controlplane.usage.cache_savings import CacheFigures, cache_savings, total_of

AT = datetime(2026, 11, 20, tzinfo=UTC)
USD = {
    "input_uncached": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6",
    "output_text": "15",
}  # fmt: skip
"""Nano-USD a token: 3,000, 300, 3,750, 6,000, 15,000."""
OWN: list[dict[str, Any]] = [
    {"provider": "p", "model": "m", "usd": USD,
     "tiers": [{"above_input_tokens": 200_000, "usd": {"input_uncached": "6", "cache_read": "0.6"}}]},
    {"provider": "p", "model": "m", "service_tier": "batch",
     "usd": {"input_uncached": "1.5", "cache_read": "0.15", "output_text": "7.5"}},
    {"provider": "p", "model": "odd", "usd": {"input_uncached": "0.0005", "cache_read": "0.0003"}},
    {"provider": "p", "model": "plain", "usd": {"input_uncached": "3", "output_text": "15"}},
]  # fmt: skip
LISTED = PriceRow(
    price_id="list/1",
    validity=ALWAYS,
    tiers=(Tier(-1, {name: rate(Decimal(usd), per=1_000_000) for name, usd in USD.items()}),),
)
BOOK = PriceBook(
    "t",
    [
        ListedProvider(
            provider="l", models=[ListedModel(model="m", rows=(LISTED,), spellings=("m",))]
        )
    ],
    overrides=compile_overrides(OWN),
    contracts=[Contract(id="c", provider="l", discount_percent="20")],
)
BY_MODEL = {"model": ("billing_model", "request_model")}
NULLABLE = pa.schema([field.with_nullable(nullable=True) for field in CALL_SCHEMA])


def calls(*rows: dict[str, Any], book: PriceBook = BOOK) -> pa.Table:
    """Calls as the ledger has them: priced, then with what a row says of the price itself."""
    base: dict[str, Any] = {
        "provider": "p", "billing_model": "m", "start_time": AT, "status": "ok",
        "usage_state": "exact", "tenant": "a",
    }  # fmt: skip
    filled = [{**base, **row} for row in rows]
    columns = [pa.array([row.get(f.name) for row in filled], f.type) for f in NULLABLE]
    table = pa.table(columns, schema=NULLABLE)
    bare = table.drop_columns([field.name for field in PRICED])
    kinds = pa.array(["call"] * len(rows))
    made = price(bare.append_column("report_kind", kinds), book)
    said = made.select(NULLABLE.names).to_pylist()
    names = {field.name for field in PRICED}
    told = [
        {**one, **{k: v for k, v in row.items() if k in names}}
        for one, row in zip(said, rows, strict=True)
    ]
    return pa.Table.from_pylist(told, schema=NULLABLE)


READS: dict[str, Any] = {"input_uncached": 1_000, "cache_read": 10_000, "output_text": 10}
WRITES: dict[str, Any] = {"input_uncached": 5, "cache_write_5m": 4_000, "cache_write_1h": 1_000}


def one(*rows: dict[str, Any]) -> CacheFigures:
    """The figures of all rows together."""
    (group,) = cache_savings([calls(*rows)], BOOK, by={})
    return group


def money(found: CacheFigures) -> tuple[int, int, int]:
    return found.read_saving_nusd, found.write_premium_nusd, found.net_nusd


def test_reads_save_and_writes_cost() -> None:
    """10,000 x (3,000 - 300); 4,000 x (3,750 - 3,000) + 1,000 x (6,000 - 3,000)."""
    found = one(READS, WRITES, {"input_uncached": 2_005})
    assert (27_000_000, 6_000_000, 21_000_000) == money(found)
    assert (3, 1, 18_010, 10_000, 5_000) == (
        found.calls,
        found.hit_calls,
        found.input_tokens,
        found.read_tokens,
        found.write_tokens,
    )
    assert (2, 0) == (found.known_calls, found.unknown_calls)


def test_a_cache_that_is_filled_and_not_read_costs() -> None:
    assert (0, 6_000_000, -6_000_000) == money(one(WRITES))
    assert one(WRITES).is_known


def test_each_call_counts_at_the_price_that_made_its_cost() -> None:
    """Batch: half. Above 200,000 tokens of input: double. A contract: a fifth off."""
    assert 13_500_000 == one({**READS, "service_tier": "batch"}).net_nusd
    long = {"input_uncached": 1, "cache_read": 300_000}
    assert 300_000 * (6_000 - 600) == one(long).net_nusd
    assert 21_600_000 == one({**READS, "provider": "l"}).net_nusd
    assert 6_000_000 * 4 // 5 == one({**WRITES, "provider": "l"}).write_premium_nusd


def test_items_are_rounded_as_the_ledger_rounds_them() -> None:
    """0.5 and 0.3 nano-USD a token. 5 tokens: 2.5 is 2, 1.5 is 2. 7 tokens: 3.5 is 4, 2.1 is 2."""
    odd = {"billing_model": "odd"}
    assert [0, 2] == [one({**odd, "cache_read": many}).net_nusd for many in (5, 7)]


def test_a_price_that_does_not_tell_is_unknown_and_not_nothing() -> None:
    """No rate of its own, a price that is gone, a cost that it does not make, no price at all."""
    unknown: list[dict[str, Any]] = [
        {**READS, "billing_model": "plain"},
        {**READS, "price_id": "gone"},
        {**READS, "cost_nusd": 7},
        {**READS, "billing_model": "nobody"},
    ]
    for row in unknown:
        found = one(row)
        assert (0, 1, 10_000, 1, 10_000) == (
            found.known_calls,
            found.unknown_calls,
            found.unknown_tokens,
            found.hit_calls,
            found.read_tokens,
        )
        assert not found.is_known
    mixed = one(*unknown, READS)
    assert (27_000_000, 4, 1) == (mixed.net_nusd, mixed.unknown_calls, mixed.known_calls)
    assert mixed.is_known


def test_calls_without_usage_and_answers_of_a_gateway_are_counted_apart() -> None:
    found = one(
        {"usage_state": "unknown"},
        {**READS, "service_tier": "gateway_cache"},
        {"status": "error", "error_type": "rate_limited", "usage_state": "unknown"},
    )
    assert (0, 0, 2, 1) == (
        found.calls,
        found.read_tokens,
        found.calls_without_usage,
        found.gateway_answers,
    )


def test_groups_are_by_what_was_asked_and_sum_to_the_whole() -> None:
    """The first known column names the group; no table is no group."""
    rows = calls(READS, WRITES, {**READS, "team": "t"}, {**READS, "billing_model": "plain"})
    empty = rows.slice(0, 0)
    found = cache_savings([rows.slice(0, 2), empty, rows.slice(2)], BOOK, by=BY_MODEL)
    assert [("m",), ("plain",)] == [group.key for group in found]
    teams = cache_savings([rows], BOOK, by={"team": ("team",), "tenant": ("tenant",)})
    assert [(None, "a"), ("t", "a")] == [group.key for group in teams]
    assert total_of(found) == total_of(teams) == one_of(rows)
    assert [] == cache_savings([empty], BOOK, by=BY_MODEL)


def one_of(rows: pa.Table) -> CacheFigures:
    (group,) = cache_savings([rows], BOOK, by={})
    return group


def test_a_re_rated_window_counts_at_the_prices_it_was_re_rated_with() -> None:
    """Reads at 1 instead of 0.3 USD a million: 10,000 x (3,000 - 1,000)."""
    own = [{**OWN[0], "usd": {**USD, "cache_read": "1"}}]
    older = PriceBook("older", [], overrides=compile_overrides(own))
    pinned = PriceBook("t", [], overrides=compile_overrides(OWN))
    pinned.pins = (Pin(window=Window(AT, AT.replace(hour=1)), tenants=(), book=lambda: older),)
    rows = calls(READS, {**READS, "start_time": AT.replace(hour=2)}, book=pinned)
    (found,) = cache_savings([rows], pinned, by={})
    assert (20_000_000 + 27_000_000, 0) == (found.net_nusd, found.unknown_calls)


QUANTITY = st.integers(0, 400_000)
USED = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output_text")
USAGE = st.fixed_dictionaries({}, optional=dict.fromkeys(USED, QUANTITY))
CALL = st.tuples(USAGE, st.sampled_from(("p", "l")), st.sampled_from(("", "batch")))


def without_cache(usage: dict[str, int]) -> dict[str, int]:
    moved = sum(usage.get(name, 0) for name in ("cache_read", "cache_write_5m", "cache_write_1h"))
    output = usage.get("output_text", 0)
    return {"input_uncached": usage.get("input_uncached", 0) + moved, "output_text": output}


@settings(max_examples=40)
@given(listed=st.lists(CALL, min_size=1, max_size=12))
def test_the_net_is_what_the_calls_would_cost_more_without_a_cache(
    listed: Sequence[tuple[dict[str, int], str, str]],
) -> None:
    """Each call is quoted twice, alone; all rates are whole nano-USD here, so nothing is rounded.

    A batch row of `p` and rates above 200,000 tokens leave some writes at a stand-in: those are
    unknown.
    """
    rows, net, unknown = [], 0, 0
    for usage, provider, tier in listed:
        asked: dict[str, Any] = {
            "provider": provider, "model": "m", "at": AT, "service_tier": tier,
        }  # fmt: skip
        paid = quote(BOOK, usage=usage, **asked)
        bare = quote(BOOK, usage=without_cache(usage), **asked)
        rows.append({**usage, "provider": provider, "service_tier": tier})
        stands_in = provider == "p" and tier == "batch"
        if stands_in and (usage.get("cache_write_5m") or usage.get("cache_write_1h")):
            unknown += 1
        else:
            assert paid.total_nusd is not None
            assert bare.total_nusd is not None
            net += bare.total_nusd - paid.total_nusd
    found = one(*rows)
    assert (net, unknown) == (found.net_nusd, found.unknown_calls)
