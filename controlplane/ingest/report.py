"""What counting needs of one usage-bearing span, and how revisions of it fold into one."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from controlplane.ingest.declared_pairs import depth_of
from controlplane.signals.vocabulary import KeyRole, Layer, UsageState

REACH_US: Final = 24 * 3_600 * 1_000_000
"""Reports further apart than this never join."""

NEAR_US: Final = 60 * 1_000_000
"""Two reports in different traces must overlap or start within this to join by an id."""

_ITEM: Final = re.compile(r"(cmpl-.+)-([0-9]{1,4})")
"""vLLM's id of one prompt of a completions request; the response has the part before it
(vllm/entrypoints/openai/serving_completion.py: `f"{request_id}-{i}"`)."""

Identity = tuple[int, int, int, int, str]
"""(start, trace high, trace low, span, domain): total order of reports."""


Parents = Mapping[tuple[str, int, int, int], int]
"""(domain, trace high, trace low, span) -> parent span."""


class Report(NamedTuple):
    """One usage-bearing span; `row` is the caller's."""

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
    service: str = ""
    key_id: str = ""
    input_tokens: int = 0
    sequence_joins: bool = True
    pair_joins: bool = True
    choices: int | None = None
    gateway: str | None = None
    cell_joins: bool = True
    ahead_us: int = 0

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

    @property
    def join_id(self) -> str | None:
        """The response's id as other layers see it."""
        return join_id(self.response_id, layer=self.layer)


def join_id(response_id: str | None, *, layer: str) -> str | None:
    """Return the id of the whole response; an engine appends the number of a prompt."""
    if response_id is None or layer != Layer.ENGINE:
        return response_id
    return split_item(response_id)[0]


def split_item(response_id: str) -> tuple[str, str]:
    """Split an engine's request id into the response's id and the prompt's number, '' if none."""
    if not response_id.startswith("cmpl-"):
        return response_id, ""
    found = _ITEM.fullmatch(response_id)
    return (found[1], found[2]) if found else (response_id, "")


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


def is_declared(one: Report, other: Report) -> bool:
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
    return stacked and same_id and one.domain == other.domain and is_near(one, other)


def is_near(one: Report, other: Report) -> bool:
    """Whether one response can have been seen by both; an agent settles after the call's end.

    A start that was moved back, because a clock was ahead of ours, is also taken as it was said: it
    may be our clock that was wrong for a while, and only one of the two came in then.
    """
    if one.ahead_us == other.ahead_us:
        return _is_near(one, other)
    return _is_near(one, other) or _is_near(_as_said(one), _as_said(other))


def _as_said(report: Report) -> Report:
    start_us, end_us = report.start_us + report.ahead_us, report.end_us + report.ahead_us
    return report._replace(start_us=start_us, end_us=end_us)


def _is_near(one: Report, other: Report) -> bool:
    starts_apart_us = abs(one.start_us - other.start_us)
    gap_us = max(one.start_us, other.start_us) - min(one.end_us, other.end_us)
    if Layer.AGENT in {one.layer, other.layer}:
        return gap_us <= NEAR_US
    return gap_us < 0 or starts_apart_us <= NEAR_US
