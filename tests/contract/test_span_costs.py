"""Every engine answers what calls cost, and of what they were counted once, alike."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.signals.schema import (
    DUPLICATES_SCHEMA,
)
from tests.contract.span_stores import AT, DAY, HOUR, TENANTS, Rows, Store, costs_of_day, settle


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
    settle(spans)
    (total,) = costs_of_day(spans.store)
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
    settle(spans)
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
    ] == costs_of_day(spans.store)


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
    settle(spans)
    by_team = costs_of_day(spans.store, group_by=("team",))
    assert [("b", 9), ("a", 5), (None, 5)] == [(r["team"], r["cost_nusd"]) for r in by_team]
    kept = costs_of_day(spans.store, group_by=("team",), filters={"team": ("a", None)})
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
    settle(spans)
    rows = costs_of_day(spans.store, granularity=granularity, zone="Asia/Kolkata")
    assert starts == [row["bucket_start"] for row in rows]
    assert 2 == sum(row["calls"] for row in rows)


def test_dimensions_outside_the_cube_are_answered_over_a_bounded_window(
    spans: Store, span_rows: Rows
) -> None:
    spans.writer.write(
        span_rows({"span_id": 1, "user_id": "u"}, {"span_id": 2, "user_id": "v"}), batch_id="a"
    )
    settle(spans)
    assert {"u", "v"} == {row["user"] for row in costs_of_day(spans.store, group_by=("user",))}
    long = Window(AT - timedelta(days=40), AT)
    with pytest.raises(InvalidInputError, match="at most 31 days"):
        spans.store.costs(CostQuery(tenants=TENANTS, window=long, group_by=("user",)))
    with pytest.raises(InvalidInputError, match="Use one of"):
        costs_of_day(spans.store, group_by=("colour",))


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
    settle(spans)
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
    settle(spans)

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


def test_rolled_up_buckets_answer_as_their_calls_do(spans: Store, span_rows: Rows) -> None:
    """Before, during and after a bucket is summed, and when a late span opens it again."""
    spans.writer.write(span_rows({"span_id": 1}), batch_id="a")
    settle(spans, now=AT)
    spans.writer.write(span_rows({"span_id": 2, "start_time": AT + HOUR}), batch_id="b")
    for hours in (1, 2, 3):
        settle(spans, now=AT + hours * HOUR)
        assert [2] == [row["calls"] for row in costs_of_day(spans.store)]
    spans.writer.write(span_rows({"span_id": 3}), batch_id="c")
    for hours in (4, 5):
        settle(spans, now=AT + hours * HOUR)
        assert [(3, 3_000)] == [(r["calls"], r["cost_nusd"]) for r in costs_of_day(spans.store)]


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
    settle(spans, now=AT + 6 * HOUR)
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
    settle(spans)
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
