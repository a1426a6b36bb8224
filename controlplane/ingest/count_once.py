"""Count once: which reports are one call, which of them bills, and why the others do not.

A pure function of the set of reports: every choice is by a total order over event data, so the
order of arrival changes nothing (requirements/algorithms C1-C6, C9). Reports join along edges:

0. the spans of one engine that are one request (`sequences`);
1. the gateway's call id, or the response's id: across layers, near in time or in one trace;
2. an ancestor edge in one trace: across layers, one to one, no ids that contradict;
3. declared pairs inside the client layer (`declared_pairs`): by id, ancestry, or side by side;
4. a failed call's pairs across traces (`failed_pairs`);
5. what a registered gateway and its clients say alike, of calls without both (`gateway_pairs`).

The strongest edges join first; a join that would put two reports of one layer into a call without
being declared is refused, so identical parallel calls stay apart. Equal numbers alone never join.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import combinations, pairwise
from typing import Final, NamedTuple

import msgspec

from controlplane.ingest.attempts import Attempts
from controlplane.ingest.billing import is_agent, rank, reason
from controlplane.ingest.declared_pairs import reports_beside, wraps
from controlplane.ingest.failed_pairs import failed_pairs, may_pair
from controlplane.ingest.gateway_pairs import gateway_pairs
from controlplane.ingest.halves import halves, may_be_halves
from controlplane.ingest.report import (
    REACH_US,
    Identity,
    Parents,
    Report,
    crosses_layers,
    fold_revisions,
    is_declared,
    is_near,
)
from controlplane.ingest.sequences import prompts, sequences
from controlplane.signals.vocabulary import Layer, UsageState

MAX_HOPS: Final = 64
"""How far up a trace an ancestor is looked for."""

MAX_COMPONENT: Final = 64
"""Reports of one call, the spans of one engine's request being one; what is larger is a mistake
of somebody's ids, and joins only inside each trace."""


class CountedCall(msgspec.Struct, frozen=True):
    """One call: rows of its reports, the billing one first, then as they may enrich it."""

    members: tuple[int, ...]
    reasons: tuple[str, ...]
    """Why each member after the first does not bill."""
    home: int
    """The member with the smallest identity; the call is named after it."""
    layers: str
    enforced: bool
    prompts: tuple[tuple[int, ...], ...] = ()
    """Where several spans of an engine are the request that bills: rows by prompt. A prompt is
    counted once, the outputs of all are added."""
    attempt: str | None = None
    """`retry` or `hedge`: another attempt of the same request followed or ran beside this one."""
    was_split: bool = False
    """Its reports would have been more than MAX_COMPONENT."""


Calls = dict[Identity, list[Identity]]
"""The members of the call that each report belongs to; one list per call."""


class Strength(IntEnum):
    """How sure an edge is; smaller joins first."""

    SEQUENCE = 0
    GATEWAY_ID = 1
    RESPONSE_ID = 2
    ANCESTRY = 3
    HALVES = 4
    BESIDE = 5
    FAILED_PAIR = 6


class _Edge(NamedTuple):
    """A possible join; edges are tried in ascending order."""

    strength: Strength
    in_other_trace: bool
    contradictions: int
    distance_us: int
    low: Identity
    high: Identity


class _Requests:
    """Which spans of an engine are one request."""

    def __init__(self, reports: Sequence[Report], parents: Parents) -> None:
        self.found = [frozenset(one.identity for one in s) for s in sequences(reports, parents)]
        self._of = {identity: ids for ids in self.found for identity in ids}

    def of(self, identity: Identity) -> frozenset[Identity] | None:
        """Return the spans of the request that this one is part of, None if it is all of it."""
        return self._of.get(identity)

    def share(self, one: Identity, other: Identity) -> bool:
        """Whether both are of one request."""
        return other in self._of.get(one, ())

    def size(self, members: Iterable[Identity]) -> int:
        """Count the members, a request's spans as one."""
        return len({self._of.get(identity, identity) for identity in members})


def count_once(reports: Iterable[Report], parents: Parents) -> list[CountedCall]:
    """Partition reports into calls, in order of home identity.

    `reports` must be closed: with a report come all that share a key with it.
    """
    spans = fold_revisions(reports)
    ordered = [spans[identity] for identity in sorted(spans)]
    requests = _Requests(ordered, parents)
    above = _reports_above(ordered, parents)
    edges = sorted(_edges(ordered, requests, above))
    calls = _join(spans, edges, requests)
    too_large = {
        identity
        for identity, members in calls.items()
        if len(members) > MAX_COMPONENT and requests.size(members) > MAX_COMPONENT
    }
    if too_large:
        calls = _join(spans, _inside_traces(edges, too_large), requests)
    _join_gateways(spans, calls, requests)
    attempts = Attempts(spans, above, calls)
    wrappers = _wrappers(spans, above, calls)
    homes = {min(members): members for members in calls.values()}
    return [
        _call(
            [spans[identity] for identity in sorted(homes[home])],
            requests,
            attempts,
            wrappers=wrappers,
            was_split=home in too_large,
        )
        for home in sorted(homes)
    ]


def _join(spans: Mapping[Identity, Report], edges: Iterable[_Edge], requests: _Requests) -> Calls:
    calls = {identity: [identity] for identity in spans}
    for edge in edges:
        ours, theirs = calls[edge.low], calls[edge.high]
        if ours is theirs or not _may_be_one(spans, ours, theirs, requests=requests):
            continue
        ours.extend(theirs)
        for identity in theirs:
            calls[identity] = ours
    return calls


def _join_gateways(spans: Mapping[Identity, Report], calls: Calls, requests: _Requests) -> None:
    """Join the calls that only gateways told of with those that only their clients did."""

    def may_be_one(one: Report, other: Report) -> bool:
        return _may_be_one(spans, calls[one.identity], calls[other.identity], requests=requests)

    if all(report.gateway is None for report in spans.values()):
        return
    known = {min(members): members for members in calls.values()}
    found = [[spans[identity] for identity in members] for _, members in sorted(known.items())]
    for one, other in list(gateway_pairs(found, may_be_one=may_be_one)):
        ours, theirs = calls[one.identity], calls[other.identity]
        ours.extend(theirs)
        for identity in theirs:
            calls[identity] = ours


def _inside_traces(edges: Iterable[_Edge], too_large: set[Identity]) -> list[_Edge]:
    return [edge for edge in edges if not (edge.in_other_trace and edge.low in too_large)]


def _may_be_one(
    spans: Mapping[Identity, Report],
    ours: Sequence[Identity],
    theirs: Sequence[Identity],
    *,
    requests: _Requests,
) -> bool:
    return all(
        crosses_layers(spans[a], spans[b])
        or is_declared(spans[a], spans[b])
        or _is_failed_pair(spans[a], spans[b])
        or may_be_halves(spans[a], spans[b])
        or requests.share(a, b)
        for a in ours
        for b in theirs
    )


def _edges(
    reports: Sequence[Report], requests: _Requests, above: Mapping[Identity, Report]
) -> Iterator[_Edge]:
    of = {report.identity: report for report in reports}
    for request in requests.found:
        for low, high in pairwise(sorted(request)):
            yield _edge(of[low], of[high], strength=Strength.SEQUENCE)
    by_gateway = ((r.gateway_call_id, r) for r in reports if r.gateway_id_joins)
    by_response = ((r.join_id, r) for r in reports if r.response_id_joins)
    yield from _id_edges(by_gateway, strength=Strength.GATEWAY_ID)
    yield from _id_edges(by_response, strength=Strength.RESPONSE_ID)
    for identity, ancestor in above.items():
        if _joins_by_ancestry(ancestor, of[identity]):
            yield _edge(ancestor, of[identity], strength=Strength.ANCESTRY)
    in_trace = [report for report in reports if report.trace_joins]
    for asked, answered in halves(reports):
        yield _edge(asked, answered, strength=Strength.HALVES)
    yield from _beside_edges(in_trace)
    for outer, inner in failed_pairs(reports):
        yield _edge(outer, inner, strength=Strength.FAILED_PAIR)


def _id_edges(keyed: Iterable[tuple[str | None, Report]], *, strength: Strength) -> Iterator[_Edge]:
    sharing: defaultdict[tuple[str, str | None], list[Report]] = defaultdict(list)
    for key, report in keyed:
        sharing[report.domain, key].append(report)
    for group in sharing.values():
        for one, other in combinations(group, 2):
            if _joins_by_id(one, other):
                yield _edge(one, other, strength=strength)


def _joins_by_id(one: Report, other: Report) -> bool:
    if abs(one.start_us - other.start_us) > REACH_US:
        return False
    if crosses_layers(one, other):
        return one.trace == other.trace or is_near(one, other)
    return is_declared(one, other)


def _reports_above(reports: Sequence[Report], parents: Parents) -> dict[Identity, Report]:
    """Find the nearest ancestor of each report that is a report too, where there is one."""
    in_trace = [report for report in reports if report.trace_joins]
    by_span = {(*report.trace, report.span_id): report for report in in_trace}
    found = ((report.identity, _nearest_report(report, by_span, parents)) for report in in_trace)
    return {identity: ancestor for identity, ancestor in found if ancestor is not None}


def _nearest_report(
    report: Report, by_span: Mapping[tuple[str, int, int, int], Report], parents: Parents
) -> Report | None:
    """Walk up to the first ancestor that is a report too."""
    trace = report.trace
    span_id = report.span_id
    for _ in range(MAX_HOPS):
        span_id = parents.get((*trace, span_id), 0)
        found = by_span.get((*trace, span_id))
        if found is not None or span_id == 0:
            return found if found is not report else None
    return None


def _joins_by_ancestry(ancestor: Report, report: Report) -> bool:
    if ancestor.response_id and report.response_id and ancestor.response_id != report.response_id:
        return False
    if abs(ancestor.start_us - report.start_us) > REACH_US:
        return False
    if crosses_layers(ancestor, report):
        return True
    return ancestor.layer == report.layer and wraps(
        ancestor.scope, report.scope, layer=report.layer
    )


def _wrappers(
    spans: Mapping[Identity, Report], above: Mapping[Identity, Report], calls: Calls
) -> frozenset[Identity]:
    """Find the client spans that several calls are made below, each reported from there, too."""
    below: defaultdict[Identity, set[Identity]] = defaultdict(set)
    for identity, outer in above.items():
        inner = spans[identity]
        if (
            inner.usage_state == UsageState.EXACT
            and inner.layer == outer.layer
            and wraps(outer.scope, inner.scope, layer=inner.layer)
        ):
            below[outer.identity].add(min(calls[identity]))
    return frozenset(outer for outer, made in below.items() if len(made) > 1)


def _beside_edges(reports: Iterable[Report]) -> Iterator[_Edge]:
    """An SDK's own span and its instrumentor's, one inside the other in time, without ids.

    Failed calls have no response id, and the instrumentor need not be the parent.
    """
    clients: defaultdict[tuple[str, int, int], list[Report]] = defaultdict(list)
    for report in reports:
        if report.layer == Layer.CLIENT:
            clients[report.trace].append(report)
    for group in clients.values():
        for one, other in combinations(group, 2):
            if (
                reports_beside(one.scope, other.scope, layer=one.layer)
                and not (one.response_id and other.response_id)
                and one.status == other.status
                and _contains(one, other)
            ):
                yield _edge(one, other, strength=Strength.BESIDE)


def _is_failed_pair(one: Report, other: Report) -> bool:
    """Whether two reports of one layer may be an SDK's and its instrumentor's in two traces."""
    return (
        one.trace != other.trace
        and one.domain == other.domain
        and may_pair(one)
        and may_pair(other)
        and reports_beside(one.scope, other.scope, layer=one.layer)
    )


def _contains(one: Report, other: Report) -> bool:
    outer, inner = (one, other) if one.start_us <= other.start_us else (other, one)
    return inner.end_us <= outer.end_us or inner.start_us == outer.start_us


def _edge(one: Report, other: Report, *, strength: Strength) -> _Edge:
    low, high = sorted((one, other), key=lambda report: report.identity)
    both_exact = one.usage_state == other.usage_state == UsageState.EXACT
    contradictions = (
        (one.status != other.status)
        + (both_exact and one.tokens != other.tokens)
        + (one.billing_model != other.billing_model)
    )
    apart_us = high.start_us - low.start_us
    # Under one client request the last attempt is the one whose answer the client saw (C5).
    distance_us = -apart_us if strength is Strength.ANCESTRY else apart_us
    return _Edge(
        strength,
        one.trace != other.trace,
        contradictions,
        distance_us,
        low.identity,
        high.identity,
    )


def _call(
    members: Sequence[Report],
    requests: _Requests,
    attempts: Attempts,
    *,
    wrappers: frozenset[Identity],
    was_split: bool,
) -> CountedCall:
    """Describe one call; `members` are in order of identity."""
    billing, *others = rank(members, wrappers=wrappers)
    request = requests.of(billing.identity)
    return CountedCall(
        members=(billing.row, *(report.row for report in others)),
        reasons=tuple(
            reason(report, billing, same_request=requests.share(billing.identity, report.identity))
            for report in others
        ),
        home=members[0].row,
        layers=",".join(sorted({report.layer for report in members})),
        enforced=any(is_agent(report) for report in members),
        prompts=prompts(members, request) if request else (),
        attempt=attempts.of(billing),
        was_split=was_split,
    )
