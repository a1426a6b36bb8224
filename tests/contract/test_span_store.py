"""Every engine keeps the promises of `signals/ports.py` and `pipelines/ports.py`: spans and calls."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.core.errors import InvalidInputError
from controlplane.ingest.subjects import Subject
from controlplane.signals.ports import Written
from controlplane.signals.queries import CallQuery, TraceQuery
from controlplane.signals.schema import (
    CALL_SCHEMA,
    SPAN_SCHEMA,
    SUPPRESSED_SCHEMA,
)
from tests.contract.span_stores import AT, DAY, HOUR, TENANTS, Rows, Store, costs_of_day, settle


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
    settle(spans)
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
    settle(spans)
    assert [{"calls": 1, "cost_nusd": 900}] == [
        {name: row[name] for name in ("calls", "cost_nusd")} for row in costs_of_day(spans.store)
    ]
    spans.writer.write(
        span_rows({**shared, "span_id": 2, "layer": "proxy", "team": "t", "cost_nusd": 1_000}),
        batch_id="b",
    )
    settle(spans)
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
    assert [1] == [row["calls"] for row in costs_of_day(spans.store)]


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
    settle(spans)
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
        settle(spans)
        (total,) = costs_of_day(spans.store)
        assert (1, 77, 0) == (total["calls"], total["cost_nusd"], total["unpriced_calls"])


def test_pages_of_calls_follow_each_other_without_gap_or_repeat(
    spans: Store, span_rows: Rows
) -> None:
    rows = [{"span_id": n, "start_time": AT + timedelta(seconds=n // 3)} for n in range(1, 21)]
    spans.writer.write(span_rows(*rows), batch_id="a")
    settle(spans)
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
    settle(spans)
    before = costs_of_day(spans.store)
    planned = spans.store.erase(one, now=AT + HOUR, apply=False)
    assert (2, 1, False) == (planned.spans, planned.traces, planned.applied)
    assert {"ada", "bob"} == {row["user"] for row in costs_of_day(spans.store, group_by=("user",))}

    assert spans.store.erase(one, now=AT + HOUR, apply=True).applied
    late = [
        {**rows[0], "content_hash": 9},
        {**rows[0], "span_id": 6, "trace_lo": 8, "response_id": None, "attributes": said},
        {**rows[0], "span_id": 7, "trace_lo": 9, "response_id": None, "start_time": AT + 2 * HOUR},
    ]
    written = spans.writer.write(span_rows(*rows, *late), batch_id="b")
    assert (3, 5) == (written.stored, written.duplicates)
    settle(spans, now=AT + 3 * HOUR)
    (total,) = costs_of_day(spans.store)
    assert (before[0]["calls"] + 2, before[0]["cost_nusd"] + 2_000) == (
        total["calls"],
        total["cost_nusd"],
    )
    people = {row["user"]: row["calls"] for row in costs_of_day(spans.store, group_by=("user",))}
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


def test_an_agents_settle_enforces_the_call_it_joins(spans: Store, span_rows: Rows) -> None:
    shared = {"response_id": "chatcmpl-0123456789"}
    spans.writer.write(span_rows({**shared, "span_id": 1, "layer": "proxy"}), batch_id="a")
    spans.writer.write(
        span_rows({**shared, "span_id": 2, "trace_lo": 9, "layer": "agent", "key_role": "agent"}),
        batch_id="b",
    )
    settle(spans)
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
    settle(spans)

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
    (total,) = costs_of_day(spans.store, buckets=("cache_read", "pages"))
    assert (12, 0) == (total["cache_read"], total["pages"])
    with pytest.raises(InvalidInputError, match="no usage bucket"):
        costs_of_day(spans.store, buckets=("cost_nusd) --",))


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
    settle(spans)
    listed = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    assert 2 == len(listed)
    for call in listed:
        assert [call] == spans.store.call(TENANTS, call["call_id"]).to_pylist()
        assert 0 == spans.store.call(("other",), call["call_id"]).num_rows
    for unknown in ("", "call_1", f"call_{'0' * 32}", "call_" + "G" * 32):
        assert CALL_SCHEMA == spans.store.call(TENANTS, unknown).schema
        assert 0 == spans.store.call(TENANTS, unknown).num_rows


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
    settle(spans)
    (call,) = spans.store.calls(CallQuery(tenants=TENANTS, window=DAY)).to_pylist()
    assert (1, "known", "chat") == (call["span_id"], call["team"], call["feature"])
