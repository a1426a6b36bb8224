"""A report of a closed period changes nothing in it: it is booked once, in the open one (C7)."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pipelines.rerate import post_adjustments
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.rerate import RerateOrder
from controlplane.signals.queries import CallQuery, CostQuery, Granularity, TraceQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

CLOSED = datetime(2026, 11, 1, tzinfo=UTC)
BEFORE = CLOSED - timedelta(hours=5)
NOW = datetime(2026, 11, 9, 10, tzinfo=UTC)
OCTOBER = Window(CLOSED - timedelta(days=31), CLOSED)
NOVEMBER = Window(CLOSED, CLOSED + timedelta(days=30))
Rows = Callable[..., pa.Table]


class Ledger:
    """Posts each version once, and remembers where."""

    def __init__(self) -> None:
        self.posted: set[int] = set()
        self.rows: list[dict[str, Any]] = []

    def counts_calls(self) -> bool:
        return True

    def post(self, changes: pa.Table, now: datetime) -> None:
        del now
        rows = changes.select(["version", "sign", "cost_nusd", "start_time"]).to_pylist()
        fresh = {row["version"] for row in rows} - self.posted
        self.rows += [row for row in rows if row["version"] in fresh]
        self.posted |= fresh

    restate = post

    def total(self, window: Window) -> int:
        return sum(
            row["sign"] * (row["cost_nusd"] or 0)
            for row in self.rows
            if window.start <= row["start_time"] < window.end
        )


@pytest.fixture
def store() -> Iterator[DuckDbSpanStore]:
    opened = DuckDbSpanStore(None)
    yield opened
    opened.close()


def _report(number: int, cost: int, **said: Any) -> dict[str, Any]:
    return {
        "trace_lo": number, "span_id": number, "content_hash": number * 100 + cost,
        "start_time": BEFORE, "report_kind": "call", "layer": "client", "key_role": "unknown",
        "usage_state": "exact", "input_tokens": cost, "output_tokens": 1, "cost_nusd": cost,
        "cost_state": "exact", "tenant": "a", "provider": "p", "billing_model": "m", **said,
    }  # fmt: skip


def _tick(store: DuckDbSpanStore, ledger: Ledger, *, now: datetime = NOW) -> None:
    settle_tick(store, now=now, ledger=ledger)
    post_adjustments(store.rerates, ledger, now=now)


def _costs(store: DuckDbSpanStore, window: Window) -> tuple[int, int, int]:
    """Calls, input tokens, cost."""
    query = CostQuery(tenants=("a",), window=window, granularity=Granularity.TOTAL)
    rows = store.costs(query).to_pylist()
    return tuple(sum(row[n] for row in rows) for n in ("calls", "input_tokens", "cost_nusd"))


def _by(store: DuckDbSpanStore, dimension: str, window: Window) -> dict[str | None, list[int]]:
    """Cost and every bucket, by the value of a dimension; what came to nothing left out."""
    query = CostQuery(
        tenants=("a", "b"), window=window, group_by=(dimension,), buckets=BUCKET_NAMES,
        granularity=Granularity.TOTAL,
    )  # fmt: skip
    rows = store.costs(query).to_pylist()
    return {row[dimension]: [row[name] for name in ("cost_nusd", *BUCKET_NAMES)] for row in rows}


def _calls(store: DuckDbSpanStore, window: Window = OCTOBER) -> list[dict[str, Any]]:
    found = store.calls(CallQuery(tenants=("a",), window=window, limit=100)).to_pylist()
    return [dict(row) for row in found]


def _close(store: DuckDbSpanStore, before: datetime = CLOSED) -> datetime | None:
    return store.close_before(before, zone="UTC", now=NOW)


def test_what_is_late_is_booked_once_and_the_closed_period_stays(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """A new call, a better report of a known one, a resend, and a revision of what was late."""
    ledger, ids = Ledger(), {"response_id": "chatcmpl-0123456789abcdef"}
    store.write(span_rows(_report(1, 100, **ids)), batch_id="b1")
    store.write(span_rows(_report(9, 7, start_time=NOW)), batch_id="b2")
    assert CLOSED == _close(store)
    _tick(store, ledger)  # written before the closing: in time
    closed = _calls(store)
    assert [100] == [call["cost_nusd"] for call in closed]
    late = [_report(2, 40), _report(1, 130, layer="proxy", key_role="proxy", span_id=11, **ids)]
    store.write(span_rows(*late), batch_id="b3")
    _tick(store, ledger)
    assert closed == _calls(store)
    assert (1, 100, 100) == _costs(store, OCTOBER)
    moved = _costs(store, NOVEMBER)
    assert 1 == moved[0], "a correction is no call"
    assert moved[2] - 7 in {40, 40 + 30}, "the proxy bills, or the client still does"
    assert moved[1] == moved[2]
    store.write(span_rows(*late), batch_id="again")
    _tick(store, ledger)
    assert moved == _costs(store, NOVEMBER)
    store.write(span_rows(_report(2, 45)), batch_id="b4")
    _tick(store, ledger)
    assert moved[2] + 5 == _costs(store, NOVEMBER)[2], "only the further difference"
    assert closed == _calls(store)
    assert 100 == ledger.total(OCTOBER)
    assert _costs(store, NOVEMBER)[2] == ledger.total(NOVEMBER)
    (booked, *_) = store.corrections(("a",), NOVEMBER).to_pylist()
    assert ("late", OCTOBER.end - timedelta(days=1)) == (booked["run_id"], booked["day"])
    spans = store.trace(TraceQuery(tenants=("a",), trace_hi=0, trace_lo=2)).to_pylist()
    assert {"late"} == {span["suppressed_reason"] for span in spans}


def test_the_cube_of_a_closed_period_stays(store: DuckDbSpanStore, span_rows: Rows) -> None:
    ledger = Ledger()
    store.write(span_rows(_report(1, 100)), batch_id="b1")
    _tick(store, ledger)
    assert 1 == store.roll_up(now=NOW + timedelta(hours=1))
    _close(store)
    store.write(span_rows(_report(2, 40)), batch_id="b2")
    _tick(store, ledger)
    assert 1 == store.roll_up(now=NOW + timedelta(hours=2)), "the open bucket alone"
    assert ((1, 100, 100), (0, 40, 40)) == (_costs(store, OCTOBER), _costs(store, NOVEMBER))


def test_a_call_over_the_boundary_changes_its_open_side_only(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """The proxy's report was a call of November; its client's, late, is of October."""
    ledger = Ledger()
    ids = {"response_id": "chatcmpl-0123456789abcdef", "trace_lo": 5}
    after = _report(5, 60, start_time=CLOSED, layer="proxy", key_role="proxy", **ids)
    other = _report(6, 10, start_time=CLOSED - timedelta(minutes=9))
    store.write(span_rows(after, other), batch_id="b1")
    _close(store)
    _tick(store, ledger)
    closed = _calls(store)
    assert [10] == [call["cost_nusd"] for call in closed]
    client = _report(7, 60, start_time=CLOSED - timedelta(milliseconds=5), **ids)
    store.write(span_rows(client), batch_id="b2")
    _tick(store, ledger)
    assert closed == _calls(store)
    assert 60 == _costs(store, NOVEMBER)[2], "the same call, whoever bills it"
    assert 60 == ledger.total(NOVEMBER)
    assert 10 == ledger.total(OCTOBER)


def test_nothing_is_opened_again_and_nothing_closes_before_its_time(
    store: DuckDbSpanStore,
) -> None:
    assert store.close_before(NOW + timedelta(days=1), zone="UTC", now=NOW) is None
    assert CLOSED == _close(store)
    assert CLOSED == _close(store, OCTOBER.start)
    assert CLOSED == store.close_before(None, zone="UTC", now=NOW)
    assert 1 == store.closings().num_rows


def test_a_tick_that_fails_books_nothing_and_the_next_books_all(
    tmp_path: Path, span_rows: Rows
) -> None:
    """Calls, marks and corrections are of one transaction; the ledger is told until it was."""
    path, ledger = tmp_path / "spans.duckdb", Ledger()
    store = DuckDbSpanStore(path)
    store.write(span_rows(_report(1, 100)), batch_id="b1")
    _tick(store, ledger)
    _close(store)
    store.write(span_rows(_report(2, 40)), batch_id="b2")
    taken = store.take()
    store.close()
    assert 0 == taken.grouped.num_rows
    store = DuckDbSpanStore(path)  # killed between take and apply
    settle_tick(store, now=NOW, ledger=ledger)
    store.close()
    store = DuckDbSpanStore(path)  # killed between apply and the ledger
    for _ in range(2):
        _tick(store, ledger, now=NOW + timedelta(hours=1))
        assert 40 == ledger.total(NOVEMBER)
    posting, _rows = store.rerates.unposted()
    assert 0 == posting
    assert ((1, 100, 100), (0, 40, 40)) == (_costs(store, OCTOBER), _costs(store, NOVEMBER))
    store.close()


def test_a_late_report_moves_every_bucket(store: DuckDbSpanStore, span_rows: Rows) -> None:
    """Bucket by bucket, the closed month and what was booked later are the revised call."""
    ledger = Ledger()
    first = {bucket: 1_000 + number for number, bucket in enumerate(BUCKET_NAMES)}
    revised = {bucket: 3_000 + number**2 for number, bucket in enumerate(BUCKET_NAMES)}
    fresh = {bucket: 7 * (number + 1) for number, bucket in enumerate(BUCKET_NAMES)}
    ids = {"response_id": "chatcmpl-0123456789abcdef"}
    store.write(span_rows(_report(1, 100, **first, **ids)), batch_id="b1")
    _close(store)
    _tick(store, ledger)
    late = _report(1, 130, layer="proxy", key_role="proxy", span_id=11, **revised, **ids)
    store.write(span_rows(late, _report(2, 0, cost_state="free", **fresh)), batch_id="b2")
    for _ in range(2):
        _tick(store, ledger)
        assert {None: [100, *first.values()]} == _by(store, "team", OCTOBER)
        moved = [revised[b] - first[b] + fresh[b] for b in BUCKET_NAMES]
        assert {None: [30, *moved]} == _by(store, "team", NOVEMBER)
        store.roll_up(now=NOW + timedelta(hours=1))  # then the cube says the same


@pytest.mark.parametrize(
    ("dimension", "cost"), [("team", 100), ("customer", 130), ("user", 100), ("model", 130)]
)
def test_a_late_report_that_names_another_owner_moves_the_money(
    store: DuckDbSpanStore, span_rows: Rows, dimension: str, cost: int
) -> None:
    """Away from the old owner and to the new one, in the open month; twice is once, back is back."""
    ledger = Ledger()
    column = {"user": "user_id", "model": "billing_model"}.get(dimension, dimension)
    ids = {"response_id": "chatcmpl-0123456789abcdef"}
    store.write(span_rows(_report(1, 100, **ids, input_audio=5, **{column: "old"})), batch_id="b1")
    _close(store)
    _tick(store, ledger)
    names = {**ids, "layer": "proxy", "key_role": "proxy", "span_id": 11, "input_audio": 5}
    store.write(span_rows(_report(1, cost, **names, **{column: "new"})), batch_id="b2")
    _tick(store, ledger)
    audio = BUCKET_NAMES.index("input_audio") + 1
    closed = _by(store, dimension, OCTOBER)
    assert {"old": (100, 5)} == {k: (v[0], v[audio]) for k, v in closed.items()}
    for _ in range(2):
        booked = _by(store, dimension, NOVEMBER)
        assert {"old": (-100, -5), "new": (cost, 5)} == {
            k: (v[0], v[audio]) for k, v in booked.items()
        }
        store.write(span_rows(_report(1, cost, **names, **{column: "new"})), batch_id="again")
        _tick(store, ledger)
    assert cost - 100 == ledger.total(NOVEMBER)
    later = _report(1, cost, **names, **{column: "old"}, content_hash=2**63)
    store.write(span_rows({**later, "duration_us": 10**9}), batch_id="b3")  # the later end wins
    _tick(store, ledger)
    back = _by(store, dimension, NOVEMBER)
    assert {"old": cost - 100} == {k: v[0] for k, v in back.items()} or not (back or cost > 100)
    posting, _rows = store.rerates.unposted()
    assert 0 == posting


def test_money_moves_between_tenants_and_with_what_was_re_rated(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """What was booked of a call last is what the old owner gives back, a re-rate included."""
    ledger, ids = Ledger(), {"response_id": "chatcmpl-0123456789abcdef"}
    store.write(span_rows(_report(1, 100, **ids, team="x")), batch_id="b1")
    _close(store)
    _tick(store, ledger)

    def dearer(rows: pa.Table, nusd: int) -> pa.Table:
        at = rows.schema.get_field_index("cost_nusd")
        return rows.set_column(at, "cost_nusd", pa.array([nusd] * rows.num_rows, pa.int64()))

    def re_rate(nusd: int) -> None:
        order = RerateOrder(
            run_id=f"r{nusd}", window=OCTOBER, price_version="v", closed_before=CLOSED
        )
        for day in store.rerates.days(OCTOBER):
            store.rerates.apply(order, day, lambda rows: dearer(rows, nusd), now=NOW)
        post_adjustments(store.rerates, ledger, now=NOW)

    re_rate(150)
    assert {"x": 50} == {k: v[0] for k, v in _by(store, "team", NOVEMBER).items()}
    names = {**ids, "layer": "proxy", "key_role": "proxy", "span_id": 11, "tenant": "b"}
    store.write(span_rows(_report(1, 180, **names, team="y")), batch_id="b2")
    _tick(store, ledger)
    assert {"x": -100, "y": 180} == {k: v[0] for k, v in _by(store, "team", NOVEMBER).items()}
    assert {"a": -100, "b": 180} == {k: v[0] for k, v in _by(store, "tenant", NOVEMBER).items()}
    re_rate(200)
    assert {"x": -100, "y": 200} == {k: v[0] for k, v in _by(store, "team", NOVEMBER).items()}
    assert {"a": 100} == {k: v[0] for k, v in _by(store, "tenant", OCTOBER).items()}
    assert 100 == ledger.total(NOVEMBER)
