"""Count once: which reports are one call, which of them bills, and why the others do not.

A pure function of the set of reports: every choice is by a total order over event data, so the
order of arrival changes nothing (requirements/algorithms C1-C6, C9). Reports join along edges:

1. the gateway's call id, or the response's id: across layers, near in time or in one trace;
2. an ancestor edge in one trace: across layers, one to one, no ids that contradict;
3. declared pairs inside the client layer (`declared_pairs`): by id, ancestry, or side by side.

The strongest edges join first; a join that would put two reports of one layer into a call without
being declared is refused, so identical parallel calls stay apart. Equal numbers alone never join.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

import msgspec

from controlplane.ingest.declared_pairs import depth_of, reports_beside, wraps
from controlplane.signals.vocabulary import CostState, KeyRole, Layer, UsageState

REACH_US: Final = 24 * 3_600 * 1_000_000
"""Reports further apart than this never join."""

NEAR_US: Final = 60 * 1_000_000
"""Two reports in different traces must overlap or start within this to join by an id."""

MAX_HOPS: Final = 64
"""How far up a trace an ancestor is looked for."""

_RANK: Final[dict[str, int]] = {
    Layer.PROXY: 0,
    Layer.AGENT: 1,
    Layer.CLIENT: 2,
    Layer.ENGINE: 3,
}

Identity = tuple[int, int, int, int, str]
"""(start, trace high, trace low, span, domain): total order of reports."""


class Report(NamedTuple):
    """What counting needs of one usage-bearing span; `row` is the caller's."""

    row: int
    domain: str
    trace_hi: int
    trace_lo: int
    span_id: int
    start_us: int
    end_us: int
    content_hash: int
    layer: str
    key_role: str
    scope: str
    response_id: str | None
    gateway_call_id: str | None
    response_id_joins: bool
    gateway_id_joins: bool
    trace_joins: bool
    status: str
    usage_state: str
    tokens: int
    details: int
    billing_model: str | None
    cost_nusd: int | None
    cost_state: str | None
    tenant: str = ""

    @property
    def identity(self) -> Identity:
        """What makes two rows the same span."""
        return (self.start_us, self.trace_hi, self.trace_lo, self.span_id, self.domain)

    @property
    def trace(self) -> tuple[str, int, int]:
        """The trace inside its settlement domain."""
        return (self.domain, self.trace_hi, self.trace_lo)

    @property
    def is_known(self) -> bool:
        """Whether an ingest key vouches for the sender's role."""
        return self.key_role != KeyRole.UNKNOWN


class CountedCall(msgspec.Struct, frozen=True):
    """One call: rows of its reports, the billing one first, then as they may enrich it."""

    members: tuple[int, ...]
    reasons: tuple[str, ...]
    """Why each member after the first does not bill."""
    home: int
    """The member with the smallest identity; the call is named after it."""
    layers: str
    enforced: bool


Parents = Mapping[tuple[str, int, int, int], int]
"""(domain, trace high, trace low, span) -> parent span."""


class _Edge(NamedTuple):
    """A possible join; edges are tried in ascending order."""

    strength: int
    in_other_trace: bool
    contradictions: int
    distance_us: int
    low: Identity
    high: Identity


def count_once(reports: Iterable[Report], parents: Parents) -> list[CountedCall]:
    """Partition reports into calls, in order of home identity.

    `reports` must be closed: with a report come all that share a key with it.
    """
    spans = fold_revisions(reports)
    component = {identity: [identity] for identity in spans}
    for edge in sorted(_edges([spans[i] for i in sorted(spans)], parents)):
        ours, theirs = component[edge.low], component[edge.high]
        if ours is theirs or not _may_be_one(spans, ours, theirs):
            continue
        ours.extend(theirs)
        for identity in theirs:
            component[identity] = ours
    homes = {min(members): members for members in component.values()}
    return [_call([spans[i] for i in sorted(homes[home])]) for home in sorted(homes)]


def fold_revisions(reports: Iterable[Report]) -> dict[Identity, Report]:
    """Keep of each span its last word: ended over pending, then more usage, later end (C6)."""
    folded: dict[Identity, Report] = {}
    for report in reports:
        known = folded.get(report.identity)
        if known is None or _finality(report) > _finality(known):
            folded[report.identity] = report
    return folded


def _finality(report: Report) -> tuple[bool, bool, int, int, int]:
    return (
        report.end_us > report.start_us,
        report.usage_state == UsageState.EXACT,
        report.tokens,
        report.end_us,
        report.content_hash,
    )


def crosses_layers(one: Report, other: Report) -> bool:
    """Whether the two were made at different places of the stack.

    Roles of ingest keys count too: a proxy's library in a client declares the proxy's layer.
    """
    if one.layer != other.layer:
        return True
    return one.is_known and other.is_known and one.key_role != other.key_role


def _is_declared(one: Report, other: Report) -> bool:
    """Whether two reports of one layer may share a call: libraries stacked in one process.

    They need not share a trace: an instrumentor below a framework that keeps no context starts
    its own. Then the response's id must be one, and the two near.
    """
    if not one.layer == other.layer == Layer.CLIENT or one.scope == other.scope:
        return False
    same_id = one.response_id is not None and one.response_id == other.response_id
    stacked = depth_of(one.scope) != depth_of(other.scope)
    if one.trace == other.trace:
        return stacked or same_id
    return stacked and same_id and one.domain == other.domain and _is_near(one, other)


def _may_be_one(
    spans: Mapping[Identity, Report], ours: Sequence[Identity], theirs: Sequence[Identity]
) -> bool:
    return all(
        crosses_layers(spans[a], spans[b]) or _is_declared(spans[a], spans[b])
        for a in ours
        for b in theirs
    )


def _edges(reports: Sequence[Report], parents: Parents) -> Iterator[_Edge]:
    by_gateway = ((r.gateway_call_id, r) for r in reports if r.gateway_id_joins)
    by_response = ((r.response_id, r) for r in reports if r.response_id_joins)
    yield from _id_edges(by_gateway, strength=0)
    yield from _id_edges(by_response, strength=1)
    in_trace = [report for report in reports if report.trace_joins]
    by_span = {(*report.trace, report.span_id): report for report in in_trace}
    for report in in_trace:
        ancestor = _nearest_report(report, by_span, parents)
        if ancestor and _joins_by_ancestry(ancestor, report):
            yield _edge(ancestor, report, strength=2)
    yield from _beside_edges(in_trace)


def _id_edges(keyed: Iterable[tuple[str | None, Report]], *, strength: int) -> Iterator[_Edge]:
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
        return one.trace == other.trace or _is_near(one, other)
    return _is_declared(one, other)


def _is_near(one: Report, other: Report) -> bool:
    """Whether one response can have been seen by both; an agent settles after the call's end."""
    starts_apart_us = abs(one.start_us - other.start_us)
    gap_us = max(one.start_us, other.start_us) - min(one.end_us, other.end_us)
    if Layer.AGENT in {one.layer, other.layer}:
        return gap_us <= NEAR_US
    return gap_us < 0 or starts_apart_us <= NEAR_US


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
                yield _edge(one, other, strength=3)


def _contains(one: Report, other: Report) -> bool:
    outer, inner = (one, other) if one.start_us <= other.start_us else (other, one)
    return inner.end_us <= outer.end_us or inner.start_us == outer.start_us


def _edge(one: Report, other: Report, *, strength: int) -> _Edge:
    low, high = sorted((one, other), key=lambda report: report.identity)
    both_exact = one.usage_state == other.usage_state == UsageState.EXACT
    contradictions = (
        (one.status != other.status)
        + (both_exact and one.tokens != other.tokens)
        + (one.billing_model != other.billing_model)
    )
    apart_us = high.start_us - low.start_us
    # Under one client request the last attempt is the one whose answer the client saw (C5).
    distance_us = -apart_us if strength == 2 else apart_us  # noqa: PLR2004 - ancestry
    return _Edge(
        strength,
        one.trace != other.trace,
        contradictions,
        distance_us,
        low.identity,
        high.identity,
    )


def _call(members: Sequence[Report]) -> CountedCall:
    """Name the billing report of one call; `members` are in order of identity."""
    ranked = sorted(members, key=_billing_order)
    billing = _dearest_equal(ranked)
    others = [report for report in ranked if report is not billing]
    return CountedCall(
        members=(billing.row, *(report.row for report in others)),
        reasons=tuple(_reason(report, billing) for report in others),
        home=members[0].row,
        layers=",".join(sorted({report.layer for report in members})),
        enforced=any(_is_agent(report) for report in members),
    )


def _is_agent(report: Report) -> bool:
    """Whether an agent settled it; a client that calls itself an agent proves nothing."""
    return report.layer == Layer.AGENT and report.key_role == KeyRole.AGENT


def _billing_order(report: Report) -> tuple[bool, bool, int, int, int, Identity]:
    """Known usage first, then vouched-for roles, then proxy, agent, client, engine."""
    place = report.key_role if report.is_known else report.layer
    return (
        report.usage_state != UsageState.EXACT,
        not report.is_known,
        _RANK.get(place, len(_RANK)),
        -report.details,
        depth_of(report.scope),
        report.identity,
    )


def _dearest_equal(ranked: Sequence[Report]) -> Report:
    """Let no unknown sender lower the bill of another over the same model (C4).

    A reply from the gateway's cache is free whatever the client believes (C2). Between clients of
    different tenants nobody vouches for either: the dearer word stands, and its sender pays it.
    """
    first = ranked[0]
    if first.key_role == KeyRole.CLIENT:
        return _dearest_tenant(ranked)
    if first.is_known or first.cost_state != CostState.PRICED:
        return first
    best = first
    for report in ranked[1:]:
        if (
            report.usage_state == UsageState.EXACT
            and report.billing_model == first.billing_model
            and (report.cost_nusd or 0) > (best.cost_nusd or 0)
        ):
            best = report
    return best


def _dearest_tenant(ranked: Sequence[Report]) -> Report:
    """Return the first report, unless another tenant's client key says that the call cost more."""
    best = first = ranked[0]
    for report in ranked[1:]:
        if (
            report.key_role == KeyRole.CLIENT
            and report.tenant != first.tenant
            and report.usage_state == UsageState.EXACT
            and (report.cost_nusd or 0) > (best.cost_nusd or 0)
        ):
            best = report
    return best


def _reason(report: Report, billing: Report) -> str:
    """Say why `report` does not bill."""
    if report.layer == billing.layer and report.key_role == billing.key_role:
        return "same_call_same_layer"
    if _is_agent(report):
        return "agent_settle"
    return f"billed_by_{billing.layer}"
