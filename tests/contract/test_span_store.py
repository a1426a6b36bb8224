"""Every engine keeps the promises of `signals/ports.py` and `pipelines/ports.py`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.ingest.subjects import Subject
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.ports import SpanReader, SpanWriter, Written
from controlplane.signals.queries import CallQuery, CostQuery, Granularity, TraceQuery
from controlplane.signals.schema import (
    CALL_SCHEMA,
    DUPLICATES_SCHEMA,
    SPAN_SCHEMA,
    SUPPRESSED_SCHEMA,
)

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
DAY = Window(AT - timedelta(hours=10), AT + timedelta(hours=14))
HOUR = timedelta(hours=1)
TENANTS = ("default",)

Rows = Callable[..., pa.Table]


class Store(Protocol):
    """The fixture's shape."""

    store: Any
    writer: SpanWriter


def _settle(spans: Store, *, now: datetime = AT + 2 * HOUR) -> None:
    settle_tick(spans.store, now=now, ledger=None)


def _total(reader: SpanReader, **query: Any) -> list[dict[str, Any]]:
    return reader.costs(CostQuery(tenants=TENANTS, window=DAY, **query)).to_pylist()


def test_a_batch_is_stored_and_its_replay_changes_nothing(spans: Store, span_rows: Rows) -> None:
    batch = span_rows({"span_id": 1}, {"span_id": 2})
    assert Written(stored=2, duplicates=0, replayed=False) == spans.writer.write(
        batch, batch_id="a"
    )
    assert Written(stored=0, duplicates=2, replayed=True) == spans.writer.write(batch, batch_id="a")


def test_a_span_resent_in_another_batch_is_dropped_and_a_revision_is_kept(
    spans: Store, span_rows: Rows
) -> None:
    spans.writer.write(span_rows({"span_id": 1, "content_hash": 7}), batch_id="a")
    written = spans.writer.write(
        span_rows(
            {"span_id": 1, "content_hash": 7},
            {"span_id": 1, "content_hash": 8},
            {"span_id": 1, "content_hash": 8},
            {"span_id": 1, "content_hash": 7, "domain": "other"},
            {"span_id": 1, "content_hash": 7, "start_time": AT + HOUR},
        ),
        batch_id="b",
    )
    assert Written(stored=3, duplicates=2, replayed=False) == written


def test_an_empty_batch_is_recorded(spans: Store) -> None:
    empty = SPAN_SCHEMA.empty_table()
    assert Written(stored=0, duplicates=0, replayed=False) == spans.writer.write(
        empty, batch_id="a"
    )
    assert spans.writer.write(empty, batch_id="a").replayed


def test_a_call_is_answered_with_everything_its_report_said(spans: Store, span_rows: Rows) -> None:
    said = {
        "team": "search",
        "user_id": "u1",
        "response_id": "chatcmpl-0123456789",
        "is_stream": True,
        "http_status": 200,
        "cached_input_tokens": 64,
        "cache_read": 64,
        "input_uncached": 36,
        "price_id": "p",
        "attributed_by": '{"team":"r1"}',
    }
    spans.writer.write(span_rows(said), batch_id="a")
    _settle(spans)
    (call,) = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    assert said == {name: call[name] for name in said}
    assert (AT, 1, "client", False) == (
        call["start_time"],
        call["reports"],
        call["layers"],
        call["enforced"],
    )
    assert 1_000 == call["cost_nusd"]


def test_one_call_reported_by_three_layers_is_billed_once(spans: Store, span_rows: Rows) -> None:
    shared = {"response_id": "chatcmpl-0123456789", "trace_lo": 5}
    spans.writer.write(
        span_rows(
            {**shared, "span_id": 1, "feature": "chat", "cost_nusd": 900},
            {**shared, "span_id": 3, "layer": "engine", "cost_nusd": 5, "queue_us": 40},
        ),
        batch_id="a",
    )
    _settle(spans)
    assert [{"calls": 1, "cost_nusd": 900}] == [
        {name: row[name] for name in ("calls", "cost_nusd")} for row in _total(spans.store)
    ]
    spans.writer.write(
        span_rows({**shared, "span_id": 2, "layer": "proxy", "team": "t", "cost_nusd": 1_000}),
        batch_id="b",
    )
    _settle(spans)
    (call,) = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    expected = {
        "span_id": 2,
        "cost_nusd": 1_000,
        "reports": 3,
        "layers": "client,engine,proxy",
        "team": "t",
        "feature": "chat",
        "queue_us": 40,
    }
    assert expected == {name: call[name] for name in expected}
    suppressed = spans.store.suppressed([call["call_id"]])
    assert SUPPRESSED_SCHEMA == suppressed.schema
    assert [(1, "billed_by_proxy"), (3, "billed_by_proxy")] == [
        (row["span_id"], row["reason"]) for row in suppressed.to_pylist()
    ]
    assert [1] == [row["calls"] for row in _total(spans.store)]


def test_a_trace_names_the_call_of_each_span_and_why_it_does_not_bill(
    spans: Store, span_rows: Rows
) -> None:
    shared = {"response_id": "chatcmpl-0123456789", "trace_lo": 5}
    spans.writer.write(
        span_rows(
            {
                **shared,
                "span_id": 1,
                "attributes": [("a", 'quote " and \\ and \n'), ("b", "")],
            },
            {**shared, "span_id": 2, "layer": "proxy", "attributes": [("plain", "x")]},
            {
                **shared,
                "span_id": 3,
                "report_kind": "aggregate",
                "response_id": None,
                "cost_nusd": None,
                "cost_state": None,
                "attributes": [],
            },
            {**shared, "span_id": 4, "report_kind": "none", "start_time": AT + HOUR},
            {**shared, "span_id": 9, "tenant": "other"},
        ),
        batch_id="a",
    )
    _settle(spans)
    answer = spans.store.trace(TraceQuery(tenants=TENANTS, trace_hi=0, trace_lo=5))
    assert [*SPAN_SCHEMA.names, "call_id", "suppressed_reason"] == answer.schema.names
    rows = answer.to_pylist()
    assert [1, 2, 3, 4] == [row["span_id"] for row in rows]
    assert rows[0]["call_id"] == rows[1]["call_id"] is not None
    assert ["billed_by_proxy", None, "aggregate", None] == [r["suppressed_reason"] for r in rows]
    assert [None, None] == [row["call_id"] for row in rows[2:]]
    assert [
        [("a", 'quote " and \\ and \n'), ("b", "")],
        [("plain", "x")],
        [],
        None,
    ] == [row["attributes"] for row in rows]
    assert 0 == spans.store.trace(TraceQuery(tenants=TENANTS, trace_hi=1, trace_lo=5)).num_rows


def test_a_revision_replaces_what_the_span_said_before(spans: Store, span_rows: Rows) -> None:
    pending = {"content_hash": 1, "duration_us": 0, "usage_state": "absent", "cost_nusd": None}
    ended = {"content_hash": 2, "cost_nusd": 77}
    for batch_id, row in (("a", ended), ("b", {**pending, "cost_state": "unpriced"})):
        spans.writer.write(span_rows(row), batch_id=batch_id)
        _settle(spans)
        (total,) = _total(spans.store)
        assert (1, 77, 0) == (total["calls"], total["cost_nusd"], total["unpriced_calls"])


def test_costs_are_restricted_to_tenants_and_window(spans: Store, span_rows: Rows) -> None:
    spans.writer.write(
        span_rows(
            {"span_id": 1, "tenant": "other"},
            {"span_id": 2, "start_time": DAY.start},
            {"span_id": 3, "start_time": DAY.end},
            {"span_id": 4, "start_time": DAY.end - timedelta(microseconds=1)},
        ),
        batch_id="a",
    )
    _settle(spans)
    (total,) = _total(spans.store)
    assert 2 == total["calls"]
    assert [] == spans.store.costs(CostQuery(tenants=(), window=DAY)).to_pylist()
    assert [] == spans.store.calls(CallQuery(tenants=("x",), window=DAY)).to_pylist()


def test_states_of_cost_are_counted_apart(spans: Store, span_rows: Rows) -> None:
    unpriced = {"cost_nusd": None, "cost_state": "unpriced"}
    spans.writer.write(
        span_rows(
            {"span_id": 1, **unpriced, "input_tokens": 7, "output_tokens": None},
            {"span_id": 2, "status": "error", "cost_nusd": 0, "cost_state": "free"},
            {"span_id": 3, "cached_input_tokens": 5},
        ),
        batch_id="a",
    )
    _settle(spans)
    assert [
        {
            "calls": 3,
            "errors": 1,
            "unpriced_calls": 1,
            "unpriced_tokens": 7,
            "input_tokens": 207,
            "cached_input_tokens": 5,
            "output_tokens": 20,
            "cost_nusd": 1_000,
        }
    ] == _total(spans.store)


def test_groups_are_ordered_by_cost_and_unattributed_is_a_group(
    spans: Store, span_rows: Rows
) -> None:
    spans.writer.write(
        span_rows(
            {"span_id": 1, "team": "a", "cost_nusd": 5},
            {"span_id": 2, "team": "b", "cost_nusd": 9},
            {"span_id": 3, "cost_nusd": 5},
        ),
        batch_id="a",
    )
    _settle(spans)
    by_team = _total(spans.store, group_by=("team",))
    assert [("b", 9), ("a", 5), (None, 5)] == [(r["team"], r["cost_nusd"]) for r in by_team]
    kept = _total(spans.store, group_by=("team",), filters={"team": ("a", None)})
    assert ["a", None] == [row["team"] for row in kept]


@pytest.mark.parametrize(
    ("granularity", "starts"),
    [
        (Granularity.QUARTER_HOUR, [AT, AT + timedelta(minutes=45)]),
        (Granularity.HOUR, [AT - timedelta(minutes=30), AT + timedelta(minutes=30)]),
        (Granularity.DAY, [datetime(2026, 11, 19, 18, 30, tzinfo=UTC)]),
        (Granularity.MONTH, [datetime(2026, 10, 31, 18, 30, tzinfo=UTC)]),
    ],
)
def test_buckets_are_the_zones(
    spans: Store, span_rows: Rows, granularity: Granularity, starts: list[datetime]
) -> None:
    """India is half an hour off: its hours and days are made of quarter hours."""
    spans.writer.write(
        span_rows({"span_id": 1}, {"span_id": 2, "start_time": AT + timedelta(minutes=50)}),
        batch_id="a",
    )
    _settle(spans)
    rows = _total(spans.store, granularity=granularity, zone="Asia/Kolkata")
    assert starts == [row["bucket_start"] for row in rows]
    assert 2 == sum(row["calls"] for row in rows)


def test_dimensions_outside_the_cube_are_answered_over_a_bounded_window(
    spans: Store, span_rows: Rows
) -> None:
    spans.writer.write(
        span_rows({"span_id": 1, "user_id": "u"}, {"span_id": 2, "user_id": "v"}), batch_id="a"
    )
    _settle(spans)
    assert {"u", "v"} == {row["user"] for row in _total(spans.store, group_by=("user",))}
    long = Window(AT - timedelta(days=40), AT)
    with pytest.raises(InvalidInputError, match="at most 31 days"):
        spans.store.costs(CostQuery(tenants=TENANTS, window=long, group_by=("user",)))
    with pytest.raises(InvalidInputError, match="Use one of"):
        _total(spans.store, group_by=("colour",))


def test_pages_of_calls_follow_each_other_without_gap_or_repeat(
    spans: Store, span_rows: Rows
) -> None:
    rows = [{"span_id": n, "start_time": AT + timedelta(seconds=n // 3)} for n in range(1, 21)]
    spans.writer.write(span_rows(*rows), batch_id="a")
    _settle(spans)
    whole = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY, limit=100))
    assert CALL_SCHEMA == whole.schema
    seen: list[dict[str, Any]] = []
    before = None
    while True:
        page = spans.store.calls(
            CallQuery(tenants=TENANTS, window=DAY, limit=6, before=before)
        ).to_pylist()
        if not page:
            break
        seen += page
        before = (page[-1]["start_time"], page[-1]["call_id"])
    assert whole.to_pylist() == seen
    assert 20 == len(seen)


def test_accounts_balance(spans: Store, span_rows: Rows) -> None:
    shared = {"response_id": "chatcmpl-0123456789", "trace_lo": 5}
    assert spans.store.data_through(TENANTS) is None
    spans.writer.write(
        span_rows(
            {**shared, "span_id": 1, "service_name": "app"},
            {**shared, "span_id": 2, "service_name": "gate", "layer": "proxy"},
            {"span_id": 3, "report_kind": "none", "start_time": AT + HOUR},
            {"span_id": 4, "tenant": "other"},
        ),
        batch_id="a",
    )
    _settle(spans)
    rows = spans.store.accounting(TENANTS).to_pylist()
    assert [("app", 2, 0, 1, AT + HOUR), ("gate", 1, 1, 0, AT)] == [
        (r["service_name"], r["stored"], r["calls"], r["suppressed"], r["last_event_time"])
        for r in rows
    ]
    assert spans.store.data_through(TENANTS) == AT


def test_duplicates_are_summed_by_who_reported_and_who_bills(spans: Store, span_rows: Rows) -> None:
    """Two calls of two layers, one of them billed to another tenant, and n = 2 of an engine."""
    one, other = ({"response_id": f"chatcmpl-{n}123456789"} for n in range(2))
    proxy = {"layer": "proxy", "service_name": "gate", "dialect": "litellm-proxy"}
    engine = {
        "layer": "engine",
        "service_name": "gpu",
        "dialect": "vllm",
        "response_id": "cmpl",
        "attributes": [("gen_ai.request.n", "2")],
    }
    spans.writer.write(
        span_rows(
            {**one, "span_id": 1, "cost_nusd": 7},
            {**one, "span_id": 2, **proxy},
            {**other, "span_id": 3, "start_time": AT + HOUR, "cost_nusd": None},
            {**other, "span_id": 4, "start_time": AT + HOUR, **proxy, "tenant": "platform"},
            {**engine, "span_id": 5, "trace_lo": 5},
            {**engine, "span_id": 6, "trace_lo": 6},
        ),
        batch_id="a",
    )
    _settle(spans)

    def of(window: Window, *tenants: str) -> list[tuple[Any, ...]]:
        table = spans.store.duplicates(tenants, window)
        assert DUPLICATES_SCHEMA == table.schema
        return [tuple(row.values()) for row in table.to_pylist()]

    own = ("app", "", "gate", "litellm-proxy", "billed_by_proxy", 1, 100, 10, 7, 0)
    foreign = ("app", "", None, None, "billed_by_proxy", 1, 100, 10, 0, 1)
    # A sample's answer is the call's; what its prompt would have cost is in no amount.
    sample = ("gpu", "vllm", "gpu", "vllm", "same_request_sequence", 1, 100, 0, 0, 1)
    assert [own, foreign, sample] == of(DAY, "default")
    both = ("app", "", "gate", "litellm-proxy", "billed_by_proxy", 2, 200, 20, 7, 1)
    assert [both, sample] == of(DAY, "default", "platform")
    assert [own, sample] == of(Window(AT, AT + HOUR), "default")
    assert [] == of(DAY, "platform")


def test_an_erased_person_is_gone_and_every_sum_stays(spans: Store, span_rows: Rows) -> None:
    """C7: from spans, calls and attributes; a resend, a revision and a late span bring nobody back."""
    one, other = Subject("default", "ada"), Subject("other", "ada")
    shared = {"response_id": "chatcmpl-0123456789", "trace_lo": 5, "user_id": "ada"}
    said = [("note", "of ada")]
    rows: list[dict[str, Any]] = [
        {**shared, "span_id": 1, "attributes": said},
        {**shared, "span_id": 2, "layer": "proxy", "attributes": said},
        {**shared, "span_id": 3, "report_kind": "none", "user_id": None, "attributes": said},
        {"span_id": 4, "trace_lo": 6, "user_id": "bob", "attributes": said},
        {"span_id": 5, "trace_lo": 7, "user_id": "ada", "tenant": "other", "attributes": said},
    ]
    spans.writer.write(span_rows(*rows), batch_id="a")
    _settle(spans)
    before = _total(spans.store)
    planned = spans.store.erase(one, now=AT + HOUR, apply=False)
    assert (2, 1, False) == (planned.spans, planned.traces, planned.applied)
    assert {"ada", "bob"} == {row["user"] for row in _total(spans.store, group_by=("user",))}

    assert spans.store.erase(one, now=AT + HOUR, apply=True).applied
    late = [
        {**rows[0], "content_hash": 9},
        {**rows[0], "span_id": 6, "trace_lo": 8, "response_id": None, "attributes": said},
        {**rows[0], "span_id": 7, "trace_lo": 9, "response_id": None, "start_time": AT + 2 * HOUR},
    ]
    written = spans.writer.write(span_rows(*rows, *late), batch_id="b")
    assert (3, 5) == (written.stored, written.duplicates)
    _settle(spans, now=AT + 3 * HOUR)
    (total,) = _total(spans.store)
    assert (before[0]["calls"] + 2, before[0]["cost_nusd"] + 2_000) == (
        total["calls"],
        total["cost_nusd"],
    )
    people = {row["user"]: row["calls"] for row in _total(spans.store, group_by=("user",))}
    assert {None: 2, "bob": 1, "ada": 1} == people
    for trace_lo in (5, 8):
        trace = spans.store.trace(TraceQuery(tenants=TENANTS, trace_hi=0, trace_lo=trace_lo))
        assert {None} == set(trace.column("user_id").to_pylist())
        assert [] == [pair for row in trace.column("attributes").to_pylist() for pair in row or []]
    theirs = spans.store.trace(TraceQuery(tenants=("other",), trace_hi=0, trace_lo=7))
    assert (["ada"], [said]) == tuple(
        theirs.column(name).to_pylist() for name in ("user_id", "attributes")
    )
    assert (1, 0) == (  # what she did afterwards is hers again
        spans.store.erase(one, now=AT + HOUR, apply=False).spans,
        spans.store.erase(Subject("default", ""), now=AT, apply=True).spans,
    )
    assert 1 == spans.store.erase(other, now=AT, apply=False).spans


def test_rolled_up_buckets_answer_as_their_calls_do(spans: Store, span_rows: Rows) -> None:
    """Before, during and after a bucket is summed, and when a late span opens it again."""
    spans.writer.write(span_rows({"span_id": 1}), batch_id="a")
    _settle(spans, now=AT)
    spans.writer.write(span_rows({"span_id": 2, "start_time": AT + HOUR}), batch_id="b")
    for hours in (1, 2, 3):
        _settle(spans, now=AT + hours * HOUR)
        assert [2] == [row["calls"] for row in _total(spans.store)]
    spans.writer.write(span_rows({"span_id": 3}), batch_id="c")
    for hours in (4, 5):
        _settle(spans, now=AT + hours * HOUR)
        assert [(3, 3_000)] == [(r["calls"], r["cost_nusd"]) for r in _total(spans.store)]


def test_an_agents_settle_enforces_the_call_it_joins(spans: Store, span_rows: Rows) -> None:
    shared = {"response_id": "chatcmpl-0123456789"}
    spans.writer.write(span_rows({**shared, "span_id": 1, "layer": "proxy"}), batch_id="a")
    spans.writer.write(
        span_rows({**shared, "span_id": 2, "trace_lo": 9, "layer": "agent", "key_role": "agent"}),
        batch_id="b",
    )
    _settle(spans)
    (call,) = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    assert (True, "agent,proxy", 2) == (call["enforced"], call["layers"], call["reports"])


def test_batches_hold_every_call_once_oldest_first(spans: Store, span_rows: Rows) -> None:
    """Of the tenants, the window and the filters asked for; usage buckets are summed beside costs."""
    spans.writer.write(
        span_rows(
            {"span_id": 1, "start_time": AT + HOUR, "team": "b", "cache_read": 7},
            {"span_id": 2, "start_time": AT, "team": "a", "cache_read": 5},
            {"span_id": 3, "start_time": AT, "team": None},
            {"span_id": 4, "tenant": "other"},
            {"span_id": 5, "start_time": DAY.end},
        ),
        batch_id="a",
    )
    _settle(spans)

    def read(**query: Any) -> list[int]:
        query = {"tenants": TENANTS, "window": DAY, **query}
        found = list(spans.store.call_batches(CallQuery(**query)))
        assert all(table.schema.equals(CALL_SCHEMA) for table in found)
        rows = [row for table in found for row in table.to_pylist()]
        keys = [(row["start_time"], row["call_id"]) for row in rows]
        assert sorted(keys) == keys
        return [row["span_id"] for row in rows]

    assert ([2, 3], 1) == (sorted(read()[:2]), read()[2])
    assert [2] == read(filters={"team": ("a",)})
    assert [] == read(tenants=("nobody",))
    (total,) = _total(spans.store, buckets=("cache_read", "pages"))
    assert (12, 0) == (total["cache_read"], total["pages"])
    with pytest.raises(InvalidInputError, match="no usage bucket"):
        _total(spans.store, buckets=("cost_nusd) --",))


def test_a_call_is_found_by_its_name_lone_or_grouped(spans: Store, span_rows: Rows) -> None:
    shared = {"response_id": "chatcmpl-0123456789", "trace_lo": 5}
    spans.writer.write(
        span_rows(
            {"span_id": 9},
            {**shared, "span_id": 1},
            {**shared, "span_id": 2, "layer": "proxy"},
        ),
        batch_id="a",
    )
    _settle(spans)
    listed = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    assert 2 == len(listed)
    for call in listed:
        assert [call] == spans.store.call(TENANTS, call["call_id"]).to_pylist()
        assert 0 == spans.store.call(("other",), call["call_id"]).num_rows
    for unknown in ("", "call_1", f"call_{'0' * 32}", "call_" + "G" * 32):
        assert CALL_SCHEMA == spans.store.call(TENANTS, unknown).schema
        assert 0 == spans.store.call(TENANTS, unknown).num_rows


def test_billed_repeats_of_a_response_id_are_found(spans: Store, span_rows: Rows) -> None:
    """Two calls of one client and layer never merge: both bill, the later one repeats the first.

    Not an id too short to name a response, nor one of another provider, nor one that cost nothing.
    """
    same = {"response_id": "chatcmpl-0123456789", "team": "a"}
    spans.writer.write(
        span_rows(
            {**same, "span_id": 1, "trace_lo": 1},
            {**same, "span_id": 2, "trace_lo": 2, "start_time": AT + 3 * HOUR, "cost_nusd": 70},
            {**same, "span_id": 3, "trace_lo": 3, "provider": "azure"},
            {**same, "span_id": 4, "trace_lo": 4, "start_time": AT + 4 * HOUR, "cost_nusd": 0},
            {"span_id": 5, "trace_lo": 5, "response_id": "chatcmpl-12"},
            {"span_id": 6, "trace_lo": 6, "response_id": "chatcmpl-12", "start_time": AT + HOUR},
        ),
        batch_id="a",
    )
    _settle(spans, now=AT + 6 * HOUR)
    query = CostQuery(tenants=TENANTS, window=DAY, group_by=("team",))
    assert [("a", 1, 70)] == [
        (row["team"], row["calls"], row["cost_nusd"])
        for row in spans.store.repeated(query).to_pylist()
    ]
    nothing = CostQuery(tenants=("nobody",), window=DAY)
    assert [] == spans.store.repeated(nothing).to_pylist()
    long = Window(DAY.start - timedelta(days=40), DAY.end)
    with pytest.raises(InvalidInputError, match="31 days"):
        spans.store.repeated(CostQuery(tenants=TENANTS, window=long))


def test_a_trusted_report_says_who_pays_even_when_another_bills(
    spans: Store, span_rows: Rows
) -> None:
    """The proxy saw no usage, so the client bills; whose team it was the proxy knows."""
    shared = {"response_id": "chatcmpl-0123456789"}
    client = {"span_id": 1, "key_role": "client", "team": "claimed", "feature": "chat"}
    proxy = {
        "span_id": 2,
        "key_role": "proxy",
        "layer": "proxy",
        "team": "known",
        "usage_state": "unknown",
        "input_tokens": None,
        "output_tokens": None,
        "cost_nusd": None,
        "cost_state": "unpriced",
    }
    spans.writer.write(span_rows({**shared, **client}, {**shared, **proxy}), batch_id="a")
    _settle(spans)
    (call,) = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    assert (1, "known", "chat") == (call["span_id"], call["team"], call["feature"])


def test_what_calls_cost_is_answered_by_their_end(spans: Store, span_rows: Rows) -> None:
    """Half-open; however early they began, up to an hour, and only what has a price."""

    def call(number: int, starts: timedelta, took: timedelta, **said: Any) -> dict[str, Any]:
        return {
            "span_id": number,
            "trace_lo": number,
            "start_time": AT + starts,
            "duration_us": took // timedelta(microseconds=1),
            "user_id": "ana",
            "cost_nusd": 10**number,
            **said,
        }

    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    rows = [
        call(1, -minute, minute),  # ends at the start: in
        call(2, -minute, minute - timedelta(microseconds=1)),  # just before: not
        call(3, 9 * minute, minute),  # ends at the end: not
        call(4, 9 * minute, minute - timedelta(microseconds=1)),
        call(5, -54 * minute, HOUR),  # long, and it ends within
        call(6, second, second, user_id="bo"),
        call(7, second, second, user_id=None),
        call(8, second, second, cost_nusd=None, cost_state="unpriced"),
        call(9, second, second, tenant="globex"),
        call(10, -59 * minute, HOUR + second),  # longer than is looked for
    ]
    spans.writer.write(span_rows(*rows), batch_id="a")
    _settle(spans)
    reader: SpanReader = spans.store
    answer = reader.ended_costs(TENANTS, Window(AT, AT + 10 * minute), ("tenant", "user"))
    assert [
        {"tenant": "default", "user": None, "cost_nusd": 10**7},
        {"tenant": "default", "user": "bo", "cost_nusd": 10**6},
        {"tenant": "default", "user": "ana", "cost_nusd": 10 + 10**4 + 10**5},
    ] == answer.to_pylist()
    none = reader.ended_costs((), Window(AT, AT + HOUR), ("user",))
    assert (["user", "cost_nusd"], 0) == (none.column_names, none.num_rows)
    with pytest.raises(InvalidInputError):
        reader.ended_costs(TENANTS, Window(AT, AT + HOUR), ("colour",))
