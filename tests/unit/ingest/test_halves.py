"""A stream in two spans is one call, in one trace or two, and only with its own answer."""

from itertools import permutations

from controlplane.ingest.count_once import count_once
from controlplane.ingest.halves import may_be_halves
from controlplane.ingest.report import Report

SECOND = 1_000_000
START = 1_790_000_000 * SECOND


def report(row: int, **fields: object) -> Report:
    plain: dict[str, object] = {
        "domain": "default",
        "trace_hi": 0,
        "trace_lo": row,
        "span_id": row,
        "start_us": START,
        "end_us": START + SECOND,
        "content_hash": row,
        "layer": "client",
        "key_role": "unknown",
        "scope": "logfire.openai",
        "response_id": None,
        "gateway_call_id": None,
        "response_id_joins": False,
        "gateway_id_joins": False,
        "trace_joins": True,
        "status": "ok",
        "usage_state": "absent",
        "tokens": 0,
        "details": 0,
        "billing_model": "gpt-4o",
        "cost_nusd": None,
        "cost_state": None,
    }
    return Report(row=row, **{**plain, **fields})  # type: ignore[arg-type]  # a test's defaults


def answer(row: int, at: int, **fields: object) -> Report:
    start = START + at
    return report(
        row, start_us=start, end_us=start, usage_state="exact", tokens=9, details=2, **fields
    )


def test_both_halves_are_one_call_in_one_trace_or_two() -> None:
    for trace in (1, 2):
        request, finished = report(1, trace_lo=1), answer(2, 2 * SECOND, trace_lo=trace)
        for order in permutations([request, finished]):
            (call,) = count_once(order, {})
            assert (2, 1) == call.members


def test_parallel_streams_stay_apart() -> None:
    requests = [report(row, start_us=START + row, end_us=START + SECOND) for row in range(1, 4)]
    answers = [answer(10 + row, 2 * SECOND + row) for row in range(1, 4)]
    assert 3 == len(count_once([*answers, *requests], {}))


def test_an_answer_of_another_model_service_or_minute_stays_alone() -> None:
    request = report(1)
    for other in (
        answer(2, SECOND, billing_model="gpt-5"),
        answer(2, SECOND, service="elsewhere"),
        answer(2, 300 * SECOND),
        answer(2, -SECOND),
    ):
        assert 2 == len(count_once([request, other], {}))


def test_two_requests_or_two_answers_are_never_one() -> None:
    assert not may_be_halves(report(1), report(2))
    assert not may_be_halves(answer(1, 0), answer(2, 1))


def test_the_sdk_below_shares_the_call() -> None:
    request = report(1, trace_lo=1, scope="logfire.anthropic")
    native = report(
        2,
        trace_lo=1,
        scope="com.anthropic.sdk.python",
        response_id="msg_0123456789",
        response_id_joins=True,
        usage_state="exact",
        tokens=9,
        details=2,
    )
    finished = answer(3, 2 * SECOND, scope="logfire.anthropic")
    parents = {("default", 0, 1, 2): 1}
    for order in permutations([request, native, finished]):
        (call,) = count_once(order, parents)
        assert {1, 2, 3} == set(call.members)


def test_a_retry_on_the_wire_is_a_call_of_its_own() -> None:
    wire = "opentelemetry.instrumentation.httpx"
    chat = report(1, trace_lo=1, scope="openlit.instrumentation.openai", end_us=START + 9 * SECOND)
    first = report(2, trace_lo=1, scope=wire, start_us=START + 1, status="error")
    last = report(3, trace_lo=1, scope=wire, start_us=START + 5 * SECOND)
    parents = {("default", 0, 1, 2): 1, ("default", 0, 1, 3): 1}
    calls = count_once([chat, first, last], parents)
    assert [(1, 3), (2,)] == [call.members for call in calls]
