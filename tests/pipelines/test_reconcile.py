"""Bills with a residual of each class planted in them: found, named, and to the nano-dollar.

The ledger is a real store; the bill is made from the same calls by the provider's rules, written out
here, with one thing changed at a time by a known amount.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import parse_usd
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.billing import BillKind, BillLine
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.reconcile import CLASSES, Tolerance
from tests.priced_calls import priced

DAYS: Final = 5
WINDOW: Final = Window(datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 10, 10, tzinfo=UTC))
PRICES: Final = {
    # USD per million tokens, from the providers' pages
    "claude-sonnet-4-5": {"input_uncached": "3", "cache_read": "0.30", "output": "15"},
    "claude-haiku-4-5": {"input_uncached": "1", "cache_read": "0.10", "output": "5"},
}
MTOK: Final = 10**6

Rows = Callable[..., pa.Table]


def calls() -> list[dict[str, Any]]:
    """Twelve calls a day of two models, every two hours, none near midnight; and one that is."""
    made = []
    for n in range(DAYS * 12):
        at = WINDOW.start + timedelta(hours=2 * n + 1)
        model = list(PRICES)[n % 2]
        used = {"input_uncached": 10_000 + 100 * n, "cache_read": 4_000, "output_text": 900 + n}
        made.append(_call(n, at, model, used))
    late = {"input_uncached": 7_000, "output_text": 500}
    made.append(_call(999, WINDOW.end - timedelta(minutes=1), "claude-haiku-4-5", late))
    return made


def _call(n: int, at: datetime, model: str, used: dict[str, int]) -> dict[str, Any]:
    cached = used.get("cache_read", 0)
    return {
        "tenant": "acme", "trace_lo": n + 1, "span_id": n + 1, "content_hash": n,
        "start_time": at, "provider": "anthropic", "billing_model": model, "api_key": f"k{n % 3}",
        "input_tokens": used["input_uncached"] + cached, "cached_input_tokens": cached,
        "output_tokens": used["output_text"], **used,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(span_rows: Rows, book: PriceBook) -> DuckDbSpanStore:
    store = DuckDbSpanStore(None)
    other = _call(5_000, WINDOW.start + timedelta(hours=3), "gpt-4o", {"input_uncached": 10**6,
                  "output_text": 10**5}) | {"provider": "openai"}  # fmt: skip
    store.write(priced(span_rows, [*calls(), other], book), batch_id="b")
    settle_tick(store, now=WINDOW.end, ledger=None)
    return store


Line = dict[str, Any]


def bill(made: Iterable[dict[str, Any]], *, with_usage: bool = True) -> list[Line]:
    """Write the bill of these calls: a line a day, model and meter, quantity and cost."""
    sums: dict[tuple[date, str, str], int] = {}
    for call in made:
        for meter, bucket in (
            ("input_uncached",) * 2,
            ("cache_read",) * 2,
            ("output", "output_text"),
        ):
            at = (call["start_time"].date(), call["billing_model"], meter)
            sums[at] = sums.get(at, 0) + call.get(bucket, 0)
    return [
        {
            "day": day, "model": model, "meter": meter, "decimals": 12,
            "quantity": quantity if with_usage else None,
            "cost_usd": Decimal(quantity) * Decimal(PRICES[model][meter]) / MTOK,
        }
        for (day, model, meter), quantity in sorted(sums.items())
        if quantity
    ]  # fmt: skip


def run(
    store: DuckDbSpanStore, book: PriceBook, lines: Iterable[Line], **asked: Any
) -> ReconciliationReport:
    said = [BillLine(**line) for line in lines]
    request = ReconcileRequest(tenants=("acme",), provider="anthropic", **asked)
    report = reconcile_bill(store, book, ((), said), asked=request)
    total = sum(line.cost_usd or 0 for line in said)
    assert Decimal(report.billed_usd) == total or not report.has_costs
    classes = sum(parse_usd(amount) for amount in report.classes.values())
    assert parse_usd(report.difference_usd) == classes
    for row in report.rows:
        parts = sum(parse_usd(amount) for amount in row.classes.values())
        assert parse_usd(row.difference_usd) == parts
    return report


def found(report: ReconciliationReport) -> dict[str, Decimal]:
    """Return the classes that hold anything."""
    return {name: Decimal(usd) for name, usd in report.classes.items() if Decimal(usd)}


def test_the_right_bill_leaves_nothing(store: DuckDbSpanStore, book: PriceBook) -> None:
    """Another provider's calls are not in it."""
    report = run(store, book, bill(calls()))
    assert {} == found(report)
    assert Decimal(report.ledger_usd) > 1
    assert (True, 0.0) == (report.within_tolerance, report.unexplained_ratio)


def test_usage_that_we_never_saw_is_uncaptured(store: DuckDbSpanStore, book: PriceBook) -> None:
    """Two calls more of a model that we know, and a model that we never called."""
    missed = [
        _call(1, WINDOW.start + timedelta(hours=5), "claude-haiku-4-5",
              {"input_uncached": 50_000, "cache_read": 0, "output_text": 2_000}),
        _call(2, WINDOW.start + timedelta(days=2), "claude-sonnet-4-5",
              {"input_uncached": 1_000, "cache_read": 9_000, "output_text": 100}),
    ]  # fmt: skip
    lines = bill([*calls(), *missed])
    lines.append({
        "day": WINDOW.start.date(), "model": "claude-opus-4-1", "meter": "output",
        "quantity": 1_000, "cost_usd": Decimal("0.075"), "decimals": 12,
    })  # fmt: skip
    by_hand = Decimal("0.05") + Decimal("0.01")  # haiku: 50,000 at 1 and 2,000 at 5
    by_hand += Decimal("0.003") + Decimal("0.0027") + Decimal("0.0015")  # sonnet
    assert {"uncaptured": by_hand + Decimal("0.075")} == found(run(store, book, lines))


def test_usage_that_was_not_billed_is_overcounted(store: DuckDbSpanStore, book: PriceBook) -> None:
    """The first call is not on the bill."""
    first = calls()[0]
    by_hand = (Decimal(10_000) * 3 + Decimal(4_000) * Decimal("0.3") + 900 * 15) / MTOK
    assert {"overcounted": -by_hand} == found(run(store, book, bill(calls()[1:])))
    assert "claude-sonnet-4-5" == first["billing_model"]


def test_cached_input_billed_as_fresh_is_cache_semantics(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """All 4,000 cached tokens of every call at the full price."""
    fresh = [{**call, "input_uncached": call["input_tokens"], "cache_read": 0} for call in calls()]
    per_pair = Decimal(4_000) * (Decimal("2.7") + Decimal("0.9")) / MTOK
    assert {"cache_semantics": per_pair * 30} == found(run(store, book, bill(fresh)))


def test_a_dearer_price_is_price(store: DuckDbSpanStore, book: PriceBook) -> None:
    """Sonnet's output at 18 instead of 15, every day."""
    lines = bill(calls())
    for line in lines:
        if (line["model"], line["meter"]) == ("claude-sonnet-4-5", "output"):
            line["cost_usd"] *= Decimal("1.2")
    tokens = sum(c["output_text"] for c in calls() if c["billing_model"] == "claude-sonnet-4-5")
    assert {"price": Decimal(tokens) * 3 / MTOK} == found(run(store, book, lines))


def test_the_next_day_is_a_time_boundary(store: DuckDbSpanStore, book: PriceBook) -> None:
    """Two calls of the second day billed on the third; the last minute of the bill on no day."""
    shifted = calls()
    for call in shifted[21:23]:
        call["start_time"] += timedelta(days=1)
    report = run(store, book, bill(shifted))
    assert {} == found(report)  # over the whole bill it is nothing ...
    moved = [row for row in report.rows if Decimal(row.classes.get("time_boundary", "0"))]
    assert {date(2026, 10, 6), date(2026, 10, 7)} == {row.day for row in moved}
    assert {"time_boundary"} == {name for row in moved for name in row.classes}
    cut = calls()[:-1]
    by_hand = (Decimal(7_000) * 1 + Decimal(500) * 5) / MTOK
    assert {"time_boundary": -by_hand} == found(run(store, book, bill(cut)))


def test_cents_are_rounding(store: DuckDbSpanStore, book: PriceBook) -> None:
    """Each line to the cent: at most half a cent a line, and no more is called rounding."""
    lines = bill(calls())
    for line in lines:
        line |= {"cost_usd": line["cost_usd"].quantize(Decimal("0.01")), "decimals": 2}
    report = run(store, book, lines)
    assert {"rounding"} == set(found(report))
    assert abs(found(report)["rounding"]) <= Decimal("0.005") * len(lines)


def test_taxes_fees_and_credits_are_their_own(store: DuckDbSpanStore, book: PriceBook) -> None:
    """4.20 of tax, a fee of 1, a credit of 2."""
    extra = [
        {"day": WINDOW.start.date(), "kind": kind, "cost_usd": Decimal(usd), "decimals": 2}
        for kind, usd in ((BillKind.TAX, "4.20"), (BillKind.FEE, "1"), (BillKind.CREDIT, "-2"))
    ]
    report = run(store, book, [*bill(calls()), *extra])
    assert {"tax_fees": Decimal("3.20")} == found(report)


def test_a_charge_without_a_reason_stays_unexplained(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """One day's line is 5 dollars dearer than its usage: no class takes it in."""
    lines = bill(calls())
    lines[3]["cost_usd"] += 5
    report = run(store, book, lines)
    assert {"unexplained": Decimal(5)} == found(report)
    assert not report.within_tolerance
    assert report.unexplained_ratio > 0.5
    generous = run(store, book, lines, tolerance=Tolerance(Fraction(0), 6 * 10**9))
    assert generous.within_tolerance


def test_all_of_them_at_once_leave_less_than_a_percent(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """Uncaptured, dearer, late, cached differently, rounded and taxed in one bill."""
    made = calls()
    made[21]["start_time"] += timedelta(days=1)
    for call in made[10:14]:
        call |= {"input_uncached": call["input_tokens"], "cache_read": 0}
    made.append(_call(1, WINDOW.start + timedelta(hours=50), "claude-haiku-4-5",
                      {"input_uncached": 90_000, "cache_read": 0, "output_text": 1_000}))  # fmt: skip
    lines = bill(made)
    for line in lines:
        if (line["model"], line["meter"]) == ("claude-haiku-4-5", "output"):
            line["cost_usd"] *= Decimal("1.1")
        line |= {"cost_usd": round(line["cost_usd"], 5), "decimals": 5}
    lines.append({"day": WINDOW.start.date(), "kind": BillKind.TAX, "cost_usd": Decimal("0.3"),
                  "decimals": 5})  # fmt: skip
    report = run(store, book, lines)
    assert {"uncaptured", "cache_semantics", "price", "rounding", "tax_fees"} <= set(found(report))
    assert report.unexplained_ratio < 0.01
    assert Decimal("0.3") == found(report)["tax_fees"]
    assert any("time_boundary" in row.classes for row in report.rows)


def test_a_bill_of_money_alone_explains_what_money_can(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """No quantities: a steady ratio is a price, a model of its own uncaptured, the rest is not."""
    lines = bill(calls(), with_usage=False)
    assert {} == found(run(store, book, lines))
    dearer = [{**line, "cost_usd": line["cost_usd"] * Decimal("1.25")} for line in lines]
    report = run(store, book, dearer)
    assert {"price"} == set(found(report))
    unknown = {"day": WINDOW.start.date(), "model": "new-one", "meter": "output",
               "cost_usd": Decimal(3), "decimals": 2}  # fmt: skip
    assert {"uncaptured": Decimal(3)} == found(run(store, book, [*lines, unknown]))
    lines[4]["cost_usd"] += 7
    assert {"unexplained": Decimal(7)} == found(run(store, book, lines))


def test_a_usage_report_alone_is_compared_at_our_prices(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """1,000 output tokens of sonnet more than ours: 0.015."""
    lines = [{**line, "cost_usd": None} for line in bill(calls())]
    sonnet = next(line for line in lines if line["model"] == "claude-sonnet-4-5"
                  and line["meter"] == "output")  # fmt: skip
    sonnet["quantity"] += 1_000
    report = run(store, book, lines)
    assert not report.has_costs
    assert {"uncaptured": Decimal("0.015")} == found(report)


def test_keys_are_matched_where_they_are_ours(store: DuckDbSpanStore, book: PriceBook) -> None:
    """And left aside where the provider's are of another world."""
    lines = []
    for key in ("k0", "k1", "k2"):
        mine = [call for call in calls() if call["api_key"] == key]
        lines += [{**line, "key": key} for line in bill(mine)]
    report = run(store, book, lines)
    assert ("api_key", {}) == (report.key_dimension, found(report))
    foreign = [{**line, "key": f"wrkspc_{line['key']}"} for line in lines]
    report = run(store, book, foreign)
    assert (None, {}) == (report.key_dimension, found(report))


@pytest.mark.parametrize("is_late", [False, True])
def test_usage_without_a_price_of_ours_is_a_price_that_we_lack(
    span_rows: Rows, book: PriceBook, *, is_late: bool
) -> None:
    """It was seen, in time or after the days were closed: it is not uncaptured."""
    store = DuckDbSpanStore(None)
    if is_late:
        store.close_before(WINDOW.end, zone="UTC", now=WINDOW.end)
    used = {"input_uncached": 1_000, "output_text": 0}
    call = _call(1, WINDOW.start + timedelta(hours=1), "claude-unheard-of", used)
    store.write(priced(span_rows, [call], book), batch_id="b")
    settle_tick(store, now=WINDOW.end, ledger=None)
    line = {"day": WINDOW.start.date(), "model": "claude-unheard-of", "meter": "input_uncached",
            "quantity": 1_000, "cost_usd": Decimal("0.5"), "decimals": 6}  # fmt: skip
    report = run(store, book, [line])
    assert {"price": Decimal("0.5")} == found(report)
    assert report.unpriced_calls == (0 if is_late else 1), "a correction is no call"
    assert {} == report.booked_later


def test_days_may_be_of_another_zone(store: DuckDbSpanStore, book: PriceBook) -> None:
    """A bill whose days are Tokyo's."""
    tokyo = [{**call, "start_time": call["start_time"] + timedelta(hours=9)} for call in calls()]
    report = run(store, book, bill(tokyo), zone="Asia/Tokyo")
    assert {} == found(report)


def test_a_bill_without_a_line_or_of_years_is_refused(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    with pytest.raises(InvalidInputError, match="no line"):
        run(store, book, [])
    ends: list[Line] = [
        {"day": date(2020, 1, 1), "cost_usd": Decimal(1)},
        {"day": date(2026, 1, 1)},
    ]
    with pytest.raises(InvalidInputError, match="spans"):
        run(store, book, ends)


@pytest.mark.parametrize("with_usage", [True, False])
def test_what_was_booked_in_a_later_period_is_a_line_of_its_own(
    book: PriceBook, span_rows: Rows, *, with_usage: bool
) -> None:
    """A third of the calls came after the days were closed; a bill is of all that was used."""
    store, made = DuckDbSpanStore(None), calls()
    closed, now = WINDOW.end, datetime(2026, 11, 3, tzinfo=UTC)
    in_time, late = [c for n, c in enumerate(made) if n % 3], made[::3]
    store.write(priced(span_rows, in_time, book), batch_id="b1")
    store.close_before(closed, zone="UTC", now=now)
    settle_tick(store, now=now, ledger=None)
    store.write(priced(span_rows, late, book), batch_id="b2")
    settle_tick(store, now=now, ledger=None)
    report = run(store, book, bill(made, with_usage=with_usage))
    ours, later = (sum(line["cost_usd"] for line in bill(some)) for some in (in_time, late))
    assert {"booked_later": later} == found(report)
    assert ours == Decimal(report.ledger_usd), "the days stay as they were closed"
    assert {"2026-11": later} == {m: Decimal(usd) for m, usd in report.booked_later.items()}
    assert report.within_tolerance
    store.close()


def test_every_class_has_a_name(store: DuckDbSpanStore, book: PriceBook) -> None:
    report = run(store, book, bill(calls()))
    assert set(CLASSES) == set(report.classes)
