"""What two traces can not say: where time alone would join, calls stay apart (ADR 037).

Each pair of tests is one dilemma: the same two reports may be one call or two, nothing in them tells
which, and staying apart bills no dollar twice.
"""

from controlplane.ingest.count_once import count_once
from controlplane.ingest.report import Report

SECOND = 1_000_000
MINUTE = 60 * SECOND
TURN = 1_790_000_040 * SECOND
"""A minute of the clock begins."""
SDK, INSTRUMENTOR = "com.anthropic.sdk.python", "opentelemetry.instrumentation.anthropic"


def report(row: int, start_us: int, **said: object) -> Report:
    plain: dict[str, object] = dict.fromkeys(("trace_lo", "span_id", "content_hash"), row)
    plain |= dict.fromkeys(("trace_hi", "tokens", "details"), 0)
    plain |= dict.fromkeys(("response_id", "gateway_call_id", "cost_nusd", "cost_state"))
    plain |= dict.fromkeys(("response_id_joins", "gateway_id_joins"), False)
    plain |= {"domain": "default", "layer": "client", "key_role": "unknown", "trace_joins": True}
    plain |= {"scope": "logfire.openai", "status": "ok", "usage_state": "absent"}
    plain |= {"billing_model": "claude", "start_us": start_us, "end_us": start_us + SECOND}
    return Report(row=row, **{**plain, **said})  # type: ignore[arg-type]  # a test's defaults


def failed(row: int, start_us: int, scope: str, **said: object) -> Report:
    return report(row, start_us, scope=scope, status="error", **said)


def answer(row: int, at_us: int) -> Report:
    said = {"end_us": at_us, "usage_state": "exact", "tokens": 90, "details": 2}
    return report(row, at_us, cost_nusd=700, cost_state="priced", **said)


def billed(*reports: Report) -> tuple[int, int]:
    """Calls, and nano-dollars of the reports that bill."""
    calls = count_once(reports, {})
    costs = {one.row: one.cost_nusd or 0 for one in reports}
    return len(calls), sum(costs[call.members[0]] for call in calls)


def test_the_turn_of_a_minute_is_where_the_reports_say_it_is() -> None:
    assert 0 == TURN % MINUTE


def test_a_failed_pair_is_one_call_within_a_minute() -> None:
    outer = failed(1, TURN + SECOND, INSTRUMENTOR, end_us=TURN + 4 * SECOND)
    inner = failed(2, TURN + SECOND + 300, SDK, end_us=TURN + 3 * SECOND)
    assert (1, 0) == billed(outer, inner)


def test_a_failed_pair_over_the_turn_of_a_minute_is_two_free_calls() -> None:
    outer = failed(1, TURN - 100, INSTRUMENTOR, end_us=TURN + 4 * SECOND)
    inner = failed(2, TURN + 200, SDK, end_us=TURN + 3 * SECOND)
    assert (2, 0) == billed(outer, inner)


def test_two_failures_of_which_each_lost_a_report_are_two() -> None:
    """The same reports, seconds apart: what each lacks is lost, and they are no pair."""
    outer = failed(1, TURN - 2 * SECOND, INSTRUMENTOR, end_us=TURN + 4 * SECOND)
    inner = failed(2, TURN + 200, SDK, end_us=TURN + 3 * SECOND)
    assert (2, 0) == billed(outer, inner)


def test_a_stream_longer_than_its_two_minutes_is_billed_once() -> None:
    """Its request stays a call of unknown usage: shown as such, and worth nothing."""
    request = report(1, TURN)
    assert (1, 700) == billed(request, answer(2, TURN + 2 * MINUTE - 1))
    assert (2, 700) == billed(request, answer(2, TURN + 2 * MINUTE))


def test_a_request_without_answer_takes_none_of_a_later_stream() -> None:
    """Its client went away; minutes later another stream ends whose own request was lost."""
    unanswered, others_answer = report(1, TURN), answer(2, TURN + 5 * MINUTE)
    assert (2, 700) == billed(unanswered, others_answer)
