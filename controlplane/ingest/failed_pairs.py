"""A failed call that an SDK and its instrumentor report in two traces, without an id.

Where nothing propagates, a vendor's SDK and the instrumentor around it each start a trace, and a
failure has no response id. What is left is the stack: of one emitter, the instrumentor's span
begins before the SDK's and ends after it. Each span is paired at most once, so n failures that
both report are n calls, whatever their order; what finds no partner stays a call of its own.

Pairs are looked for within one minute of their start, so that a settlement reads no more than
that: a pair that straddles it stays two failed calls.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from controlplane.core.instants import MINUTE_US
from controlplane.ingest.declared_pairs import Depth, depth_of
from controlplane.ingest.report import Identity, Report
from controlplane.signals.vocabulary import Layer, Status

MAX_STARTS_APART_US: Final = 1_000_000
"""The SDK's span begins where the instrumentor's does, but for what runs in between."""


def failed_pairs(reports: Iterable[Report]) -> Iterator[tuple[Report, Report]]:
    """Yield (instrumentor's, SDK's) reports of one failed call each."""
    by_emitter: defaultdict[tuple[str | int, ...], list[Report]] = defaultdict(list)
    for report in reports:
        if report.pair_joins and may_pair(report):
            key = (report.domain, report.tenant, report.key_id, report.service)
            by_emitter[(*key, report.start_us // MINUTE_US)].append(report)
    for group in by_emitter.values():
        yield from _nested(group)


def may_pair(report: Report) -> bool:
    """Whether a report is one half of such a pair."""
    return (
        report.layer == Layer.CLIENT
        and report.status == Status.ERROR
        and not report.response_id
        and depth_of(report.scope) in {Depth.NATIVE, Depth.INSTRUMENTOR}
    )


def _nested(group: Iterable[Report]) -> Iterator[tuple[Report, Report]]:
    """Pair each SDK's span with the tightest instrumentor's around it: the most pairs there are."""
    open_spans: list[tuple[int, Identity, Report]] = []

    def begins(report: Report) -> tuple[int, bool, Identity]:
        return (report.start_us, depth_of(report.scope) is Depth.NATIVE, report.identity)

    for report in sorted(group, key=begins):
        if depth_of(report.scope) is Depth.INSTRUMENTOR:
            insort(open_spans, (report.end_us, report.identity, report))
            continue
        at = bisect_left(open_spans, report.end_us, key=lambda one: one[0])
        for position in range(at, len(open_spans)):
            if _is_one(open_spans[position][2], report):
                yield open_spans.pop(position)[2], report
                break


def _is_one(outer: Report, inner: Report) -> bool:
    models = {outer.billing_model, inner.billing_model} - {None}
    return (
        outer.trace != inner.trace
        and len(models) <= 1
        and inner.start_us - outer.start_us <= MAX_STARTS_APART_US
    )
