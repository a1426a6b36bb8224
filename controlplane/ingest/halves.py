"""A stream that one instrumentor reports in two spans: the request, and its answer when it ended.

The request's span ends when the stream is handed over and knows nothing of the answer; the
answer's has no length, starts later, and has the usage. Where the application has a span of its
own both are in its trace, else each starts one. Each answer takes the nearest request before it
of its emitter, each request one answer.

Outside a trace a request is looked for in the answer's minute and the one before it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from controlplane.core.instants import MINUTE_US
from controlplane.ingest.declared_pairs import HALVED_SCOPES
from controlplane.ingest.report import Report
from controlplane.signals.vocabulary import Layer, UsageState

MAX_CANDIDATES: Final = 16
"""Requests before an answer that it may belong to, the latest ones."""


def halves(reports: Iterable[Report]) -> Iterator[tuple[Report, Report]]:
    """Yield (request, answer) that may be one call; `reports` are in order of identity."""
    requests: defaultdict[tuple[str, ...], list[Report]] = defaultdict(list)
    answers: list[Report] = []
    for report in reports:
        if is_answer(report):
            answers.append(report)
        elif _is_request(report):
            requests[_emitter(report)].append(report)
    for answer in answers:
        before = [one for one in requests[_emitter(answer)] if _may_answer(one, answer)]
        for request in before[-MAX_CANDIDATES:]:
            yield request, answer


def may_be_halves(one: Report, other: Report) -> bool:
    """Whether two reports may share a call because one of them is the answer of its stream.

    The other is its request, or what else of the stack reports that request.
    """
    if is_answer(one) == is_answer(other) or not one.layer == other.layer == Layer.CLIENT:
        return False
    if one.scope != other.scope:
        return one.domain == other.domain
    return _emitter(one) == _emitter(other) and (_is_request(one) or _is_request(other))


def is_answer(report: Report) -> bool:
    """Whether a report is the answer of a stream."""
    return _is_halved(report) and report.end_us == report.start_us


def _is_request(report: Report) -> bool:
    return (
        _is_halved(report)
        and report.end_us > report.start_us
        and report.usage_state != UsageState.EXACT
    )


def _is_halved(report: Report) -> bool:
    return report.layer == Layer.CLIENT and report.scope in HALVED_SCOPES and not report.response_id


def _may_answer(request: Report, answer: Report) -> bool:
    models = {request.billing_model, answer.billing_model} - {None}
    if request.start_us > answer.start_us or len(models) > 1:
        return False
    if request.trace == answer.trace:
        return request.trace_joins
    minutes_apart = answer.start_us // MINUTE_US - request.start_us // MINUTE_US
    return request.pair_joins and answer.pair_joins and minutes_apart <= 1


def _emitter(report: Report) -> tuple[str, ...]:
    return (report.domain, report.tenant, report.key_id, report.service, report.scope)
