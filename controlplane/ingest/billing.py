"""Which report of a call bills, and why the others do not."""

from collections.abc import Sequence
from typing import Final

from controlplane.ingest.declared_pairs import MAX_OVERSTATED, OVERSTATING_SCOPES, Depth, depth_of
from controlplane.ingest.report import Identity, Report
from controlplane.signals.vocabulary import CostState, KeyRole, Layer, UsageState

SAME_REQUEST: Final = "same_request_sequence"
"""Why a further span of the request that bills does not: its usage is added to the call's."""

_RANK: Final[dict[str, int]] = {
    Layer.PROXY: 0,
    Layer.AGENT: 1,
    Layer.CLIENT: 2,
    Layer.ENGINE: 3,
}


def is_agent(report: Report) -> bool:
    """Whether an agent settled it; a client that calls itself an agent proves nothing."""
    return report.layer == Layer.AGENT and report.key_role == KeyRole.AGENT


def rank(members: Sequence[Report], *, wrappers: frozenset[Identity] = frozenset()) -> list[Report]:
    """Order a call's reports: the one that bills, then the others as they may enrich it.

    `wrappers` are spans around several requests: what they say is a sum or the last one's, and
    bills only where nothing else is said of the call.
    """
    inner = sorted((one for one in members if one.identity not in wrappers), key=_billing_order)
    outer = sorted((one for one in members if one.identity in wrappers), key=_billing_order)
    ranked = [*inner, *outer]
    billing = _dearest_equal(inner or outer)
    return [billing, *(report for report in ranked if report is not billing)]


def trust_order(members: Sequence[tuple[int, str, str]]) -> list[int]:
    """Order a call's reports as they are believed on who pays: (row, key role, layer) → rows.

    A proxy or an agent knows who asked; an engine and a sender without a role come next, and what a
    client's key says of itself last. Among equals the order given stands.
    """
    return [row for row, _, _ in sorted(members, key=_distrust)]


def _distrust(member: tuple[int, str, str]) -> tuple[int, int]:
    _, key_role, layer = member
    if key_role == KeyRole.UNKNOWN:
        return 2, _RANK.get(layer, len(_RANK))
    return {KeyRole.PROXY: 0, KeyRole.AGENT: 0, KeyRole.CLIENT: 3}.get(KeyRole(key_role), 1), 0


def _billing_order(report: Report) -> tuple[bool, bool, int, bool, int, int, Identity]:
    """Known usage first, then vouched-for roles, then proxy, agent, client, engine.

    A request on the wire knows nothing of what it carries, and stands in for others only.
    """
    place = report.key_role if report.is_known else report.layer
    return (
        report.usage_state != UsageState.EXACT,
        not report.is_known,
        _RANK.get(place, len(_RANK)),
        depth_of(report.scope) is Depth.WIRE,
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
            and not _overstates(report, first)
        ):
            best = report
    return best


def _overstates(report: Report, other: Report) -> bool:
    """Whether the SDK below an instrumentor corrects the count of the same process."""
    return (
        report.scope in OVERSTATING_SCOPES
        and depth_of(other.scope) is Depth.NATIVE
        and (report.service, report.key_id) == (other.service, other.key_id)
        and report.input_tokens == other.input_tokens
        and report.tokens - other.tokens <= MAX_OVERSTATED
    )


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


def reason(report: Report, billing: Report, *, same_request: bool) -> str:
    """Say why `report` does not bill."""
    if same_request:
        return SAME_REQUEST
    if report.layer == billing.layer and report.key_role == billing.key_role:
        return "same_call_same_layer"
    if is_agent(report):
        return "agent_settle"
    return f"billed_by_{billing.layer}"
