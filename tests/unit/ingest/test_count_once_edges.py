"""What tips the balance between joins: each test fails if its one condition is taken away."""

from typing import Any

import pytest

from controlplane.ingest.count_once import count_once
from controlplane.ingest.report import Report
from tests.unit.ingest.test_count_once import AT, HOUR, ID, SECOND, groups, parents, report

NATIVE = "com.anthropic.sdk.python"
INSTRUMENTOR = "opentelemetry.instrumentation.anthropic"


def _calls(*reports: Report, edges: tuple[tuple[int, int], ...] = ()) -> list[tuple[int, ...]]:
    """Count in both orders of arrival, which must not differ."""
    found = [groups(count_once(rows, parents(*edges))) for rows in (reports, reports[::-1])]
    assert found[0] == found[1]
    return sorted(found[0])


@pytest.mark.parametrize(("hours", "calls"), [(24, 1), (25, 2)])
def test_an_id_reaches_a_day_within_its_trace(hours: int, calls: int) -> None:
    later = report(1, response_id=ID, layer="proxy", start_us=AT + hours * HOUR)
    assert calls == len(_calls(report(0, response_id=ID), later))


@pytest.mark.parametrize(
    "contradiction", [{"status": "error"}, {"tokens": 50}, {"billing_model": "gpt-4o-mini"}]
)
def test_a_client_joins_the_attempt_that_agrees_with_it(contradiction: dict[str, Any]) -> None:
    """The last attempt is whose answer was seen, unless it says something else than the client."""
    client = report(0, span_id=10, end_us=AT + 9 * SECOND)
    agrees = report(1, span_id=11, layer="proxy", start_us=AT + SECOND)
    later = report(2, span_id=12, layer="proxy", start_us=AT + 3 * SECOND, **contradiction)
    edges = ((11, 10), (12, 10))
    assert [(1, 0), (2,)] == _calls(client, agrees, later, edges=edges)


@pytest.mark.parametrize(
    ("inner", "calls"),
    [
        ({}, 1),
        ({"status": "error"}, 2),
        ({"response_id": "msg_9876543210"}, 2),
        # Both begin with the request; the outer one's clock stopped first.
        ({"end_us": AT + 2 * SECOND}, 1),
        ({"start_us": AT + 1, "end_us": AT + 2 * SECOND}, 2),
    ],
)
def test_an_sdk_beside_its_instrumentor_tells_the_same_call(
    inner: dict[str, Any], calls: int
) -> None:
    """Or else it is another one: an id of its own, another ending, a span that only overlaps."""
    outer = report(0, scope=INSTRUMENTOR, response_id="msg_0123456789" if inner else None)
    if "response_id" not in inner:
        outer = outer._replace(response_id=None, response_id_joins=False)
    assert calls == len(_calls(outer, report(1, scope=NATIVE, **inner)))


def test_one_sender_without_a_role_is_no_other_layer() -> None:
    """Two of a library with one id are two calls, though a key vouches for the one."""
    one = report(0, response_id=ID, key_role="client")
    assert [(0,), (1,)] == _calls(one, report(1, response_id=ID))
    assert 1 == len(_calls(one, report(1, response_id=ID, key_role="proxy")))


def test_a_key_that_vouches_does_not_make_up_for_usage() -> None:
    """A known proxy that saw no usage: the unknown client's count is all there is."""
    blind = report(1, response_id=ID, layer="proxy", key_role="proxy", usage_state="absent")
    assert [(0, 1)] == _calls(report(0, response_id=ID), blind)


def test_a_start_that_was_moved_is_also_taken_as_it_was_said() -> None:
    """Our clock was two hours behind while the proxy's report came in, and right for the client's."""
    client = report(0, response_id=ID, start_us=AT + 2 * HOUR)
    moved = report(1, response_id=ID, layer="proxy", trace_lo=2, ahead_us=2 * HOUR)
    assert 1 == len(_calls(client, moved))
    assert 2 == len(_calls(client, moved._replace(ahead_us=0)))


def test_an_ended_span_stands_over_a_pending_one_that_counted_more() -> None:
    """C6: an estimate while it streams is no last word."""
    pending = report(0, span_id=5, end_us=AT, tokens=500)
    assert [(1,)] == _calls(pending, report(1, span_id=5))


def test_an_attempt_that_only_came_before_is_no_retry() -> None:
    """The last attempt failed, too: nothing followed it and nothing ran beside it."""
    lost = {"layer": "proxy", "status": "error", "usage_state": "absent", "tokens": 0}
    client = report(0, span_id=10, end_us=AT + 9 * SECOND, **{**lost, "layer": "client"})
    first = report(1, span_id=11, **lost)
    last = report(2, span_id=12, start_us=AT + 3 * SECOND, **lost)
    edges = parents((11, 10), (12, 10))
    told = {
        row: call.attempt
        for call in count_once([client, first, last], edges)
        for row in call.members
        if row
    }
    assert {1: "retry", 2: None} == told


def test_a_failed_pair_begins_together() -> None:
    """An SDK's failure long after the instrumentor's span began is of another call."""
    failed = {"status": "error", "usage_state": "absent", "tokens": 0, "cost_nusd": 0}
    minute = AT - AT % (60 * SECOND)
    outer = report(0, scope=INSTRUMENTOR, start_us=minute, end_us=minute + 30 * SECOND, **failed)
    for seconds, calls in ((1, 1), (2, 2)):
        start = minute + seconds * SECOND
        inner = report(1, scope=NATIVE, trace_lo=2, start_us=start, end_us=start + 1, **failed)
        assert calls == len(_calls(outer, inner)), seconds


def _gateway(row: int, **said: Any) -> Report:
    """A report about a registered gateway, in a trace of its own and without an id."""
    return report(row, trace_lo=100 + row, gateway="gw:4000", **said)


def test_a_gateways_report_that_begins_after_the_clients_ended_is_another_call() -> None:
    client = _gateway(0, start_us=AT)
    for seconds, calls in ((0.5, 1), (1.9, 1), (2.1, 2)):  # a second long, clocks a second apart
        start = AT + int(seconds * SECOND)
        proxy = _gateway(1, layer="proxy", start_us=start)
        assert calls == len(_calls(client, proxy)), seconds


def test_a_gateways_report_with_another_id_is_another_call() -> None:
    client = _gateway(0, response_id=ID)
    other = _gateway(1, layer="proxy", response_id="chatcmpl-9876543210")
    assert 2 == len(_calls(client, other))
    assert 1 == len(_calls(client, other._replace(response_id=None, response_id_joins=False)))


def test_most_pairs_are_found_where_lengths_differ() -> None:
    """In order of start the long call takes the first report, and the short one's is left over."""
    long = _gateway(0, start_us=AT, end_us=AT + 9 * SECOND)
    short = _gateway(1, start_us=AT + 10, end_us=AT + SECOND)
    first = _gateway(2, layer="proxy", start_us=AT + 20)
    last = _gateway(3, layer="proxy", start_us=AT + 8 * SECOND)
    assert 2 == len(_calls(long, short, first, last))
