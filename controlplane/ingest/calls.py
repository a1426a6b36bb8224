"""Reports to calls, a column at a time: `count_once` decides, this builds the tables."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final, Union

import pyarrow as pa
import pyarrow.compute as pc

from controlplane.ingest.attributed_by import merge_rules
from controlplane.ingest.billing import SAME_REQUEST, trust_order
from controlplane.ingest.count_once import CountedCall, count_once
from controlplane.ingest.prompts import Reprice, add_prompts
from controlplane.ingest.report import Parents, Report
from controlplane.ingest.settlement import (
    CHOICES_KEY,
    CONTEXT_COLUMNS,
    EDGE_SCHEMA,
    IDENTITY_SCHEMA,
    IS_CONTEXT,
    JOIN_FLAGS,
    MAX_CHOICES_DIGITS,
    MEMBER_SCHEMA,
    REPORT_SCHEMA,
    Settled,
    Unsettled,
)
from controlplane.ingest.span_hash import call_ids, start_micros
from controlplane.signals.schema import CALL_SCHEMA
from controlplane.signals.vocabulary import UNKNOWN_USAGE, Layer, ReportKind

ENRICHED_COLUMNS: Final = (
    "request_model",
    "response_model",
    "response_id",
    "gateway_call_id",
    "is_stream",
    "finish_reason",
    "http_status",
    "error_type",
    "ttft_us",
    "queue_us",
    "prefill_us",
    "decode_us",
    "inter_token_us",
)
"""NULL on the billing report, these are taken from the next report that says them.

Usage, price, tenant and time are the billing report's alone: a bill is never mixed. Who pays is
taken from the report that is believed most (`billing.trust_order`).
"""

ATTRIBUTED_COLUMNS: Final = tuple(name for name in CONTEXT_COLUMNS if name != "attributed_by")

_DETAILS: Final = ("cached_input_tokens", "cache_creation_input_tokens", "reasoning_tokens")
_FLAGS: Final = tuple(flag.name for flag in JOIN_FLAGS)
_READ: Final = (
    *_FLAGS,
    *("domain", "trace_hi", "trace_lo", "span_id", "duration_us", "content_hash", "layer"),
    *("key_role", "scope_name", "response_id", "gateway_call_id", "status", "usage_state"),
    *("input_tokens", "output_tokens", "billing_model", "cost_nusd", "cost_state"),
    *("tenant", "service_name", "key_id", "choices", "gateway"),
    "clock_ahead_us",
    *_DETAILS,
)

Column = Union["pa.Array[Any]", "pa.ChunkedArray[Any]"]


def settle(unsettled: Unsettled, *, reprice: Reprice | None = None) -> Settled:
    """Turn the grouped reports into calls; equal for equal sets, whatever their order.

    Args:
        unsettled: what a store took.
        reprice: gives new PRICED columns to rows whose usage was added up from several reports;
            without it such calls are unpriced.
    """
    grouped = unsettled.grouped
    counted = _counted(unsettled)
    names: Column = call_ids(grouped) if grouped.num_rows else pa.array([], pa.string())
    return Settled(
        through=unsettled.through,
        calls=_calls(grouped, counted, names, version=unsettled.through, reprice=reprice),
        suppressed=_members(grouped, counted, names),
        examined=_examined(grouped, counted),
        split_calls=sum(call.was_split for call in counted),
    )


def _counted(unsettled: Unsettled) -> list[CountedCall]:
    """Count, and leave out the calls of which not everything is known."""
    grouped = unsettled.grouped
    if not grouped.num_rows:
        return []
    is_context = grouped.column(IS_CONTEXT).to_pylist()
    return [
        call
        for call in count_once(_reports(grouped), _parents(unsettled.edges))
        if not all(is_context[row] for row in call.members)
    ]


def _examined(grouped: pa.Table, counted: Sequence[CountedCall]) -> pa.Table:
    """Return the identity of each report, revisions too, whose call is known."""
    identities = grouped.select(IDENTITY_SCHEMA.names)
    if True not in grouped.column(IS_CONTEXT).to_pylist():
        return identities
    names = list(zip(*(column.to_pylist() for column in identities.columns), strict=True))
    known = {names[row] for call in counted for row in call.members}
    return identities.filter(pa.array([name in known for name in names], pa.bool_()))


def _call_table(billing: pa.Table, made: dict[str, Column]) -> pa.Table:
    columns = [made[name] if name in made else billing.column(name) for name in CALL_SCHEMA.names]
    return pa.table(columns, schema=CALL_SCHEMA)


def _reports(table: pa.Table) -> list[Report]:
    """Read the few columns that counting needs."""
    read = {name: table.column(name).to_pylist() for name in _READ}
    starts_us = start_micros(table).tolist()
    ends_us = [at + took for at, took in zip(starts_us, read["duration_us"], strict=True)]
    tokens = [
        (used or 0) + (made or 0)
        for used, made in zip(read["input_tokens"], read["output_tokens"], strict=True)
    ]
    said = zip(*(read[name] for name in _DETAILS), strict=True)
    details = [3 - parts.count(None) for parts in said]
    columns = [
        *(read[name] for name in ("domain", "trace_hi", "trace_lo", "span_id")),
        starts_us,
        ends_us,
        *(read[name] for name in ("content_hash", "layer", "key_role", "scope_name")),
        *(read[name] for name in ("response_id", "gateway_call_id")),
        *(read[name] for name in _FLAGS[:3]),
        *(read[name] for name in ("status", "usage_state")),
        tokens,
        details,
        *(read[name] for name in ("billing_model", "cost_nusd", "cost_state", "tenant")),
        *(read[name] for name in ("service_name", "key_id")),
        [used or 0 for used in read["input_tokens"]],
        *(read[name] for name in _FLAGS[3:5]),
        *(read[name] for name in ("choices", "gateway", "cell_joins")),
        [ahead_us or 0 for ahead_us in read["clock_ahead_us"]],
    ]
    return [Report(*row) for row in zip(range(table.num_rows), *columns, strict=True)]


def _parents(edges: pa.Table) -> Parents:
    """Read the parent of each span; of one that was sent with two parents, the larger."""
    columns = [edges.column(name).to_pylist() for name in EDGE_SCHEMA.names]
    parents: dict[tuple[str, int, int, int], int] = {}
    for domain, hi, lo, span, parent in zip(*columns, strict=True):
        key = (domain, hi, lo, span)
        parents[key] = max(parent, parents.get(key, 0))
    return parents


def _calls(
    grouped: pa.Table,
    counted: Sequence[CountedCall],
    names: Column,
    *,
    version: int,
    reprice: Reprice | None,
) -> pa.Table:
    # One column of row numbers per rank: the billing reports, then the first enrichers, ...
    ranks = _ranks([c.members for c in counted])
    if not ranks:
        return CALL_SCHEMA.empty_table()
    roles, layers = (list(map(str, grouped.column(n).to_pylist())) for n in ("key_role", "layer"))
    made: dict[str, Column] = {
        "call_id": names.take(pa.array([c.home for c in counted])),
        "version": pa.repeat(pa.scalar(version, pa.int64()), len(counted)),
        "reports": pa.array([len(c.members) for c in counted], pa.int32()),
        "layers": pa.array([c.layers for c in counted], pa.string()),
        "enforced": pa.array([c.enforced for c in counted], pa.bool_()),
    }
    for name in ENRICHED_COLUMNS:
        column = grouped.column(name)
        made[name] = pc.coalesce(*(column.take(rank) for rank in ranks))
    believed = _ranks(
        [trust_order([(row, roles[row], layers[row]) for row in c.members]) for c in counted]
    )
    for name in ATTRIBUTED_COLUMNS:
        column = grouped.column(name)
        made[name] = pc.coalesce(*(column.take(rank) for rank in believed))
    made["attributed_by"] = merge_rules(
        [grouped.column("attributed_by").take(rank) for rank in believed]
    )
    billing = add_prompts(grouped.take(ranks[0]), grouped, counted, reprice=reprice)
    made["cost_reason"] = _cost_reasons(billing, counted)
    return _call_table(billing, made)


def _ranks(members: Sequence[Sequence[int]]) -> list[Column]:
    return [pa.array(rank, pa.int64()) for rank in zip_longest(*members)]


def _cost_reasons(billing: pa.Table, counted: Sequence[CountedCall]) -> Column:
    """Say what became of a request whose attempt was given up on without usage (C5)."""
    attempts = {row: call.attempt for row, call in enumerate(counted) if call.attempt}
    reasons: list[str | None] = billing.column("cost_reason").to_pylist() if attempts else []
    told = False
    for row, attempt in attempts.items():
        if (reasons[row] or "").startswith(UNKNOWN_USAGE):
            reasons[row], told = f"{UNKNOWN_USAGE}:{attempt}", True
    return pa.array(reasons, pa.string()) if told else billing.column("cost_reason")


def _members(grouped: pa.Table, counted: Sequence[CountedCall], names: Column) -> pa.Table:
    rows = [row for call in counted for row in call.members[1:]]
    homes = [call.home for call in counted for _ in call.members[1:]]
    reasons = [reason for call in counted for reason in call.reasons]
    members = grouped.take(pa.array(rows, pa.int64()))
    billing = grouped.take(pa.array([c.members[0] for c in counted for _ in c.reasons], pa.int64()))
    made: dict[str, Column] = {
        "call_id": names.take(pa.array(homes, pa.int64())),
        "reason": pa.array(reasons, pa.string()),
        "billing_tenant": billing.column("tenant"),
        "billing_service": billing.column("service_name"),
        "billing_dialect": billing.column("dialect"),
        **_not_counted_again(members, reasons),
    }
    columns = [made[name] if name in made else members.column(name) for name in MEMBER_SCHEMA.names]
    return pa.table(columns, schema=MEMBER_SCHEMA)


def _not_counted_again(members: pa.Table, reasons: Sequence[str]) -> dict[str, Column]:
    """Of another span of one request only the prompt is: its output is part of the call."""
    whole = pa.array([reason != SAME_REQUEST for reason in reasons], pa.bool_())
    return {
        name: pc.if_else(whole, members.column(name), pa.scalar(None, pa.int64()))
        for name in ("output_tokens", "cost_nusd")
    }


def report_rows(spans: pa.Table) -> pa.Table:
    """Keep the rows and columns of a SPAN_SCHEMA table that settlement reads."""
    is_report = pc.equal(spans.column("report_kind"), pa.scalar(ReportKind.CALL.value))
    reports = spans.filter(is_report)
    layers = reports.column("layer").to_pylist()
    choices: list[int | None] = [None] * len(layers)
    if Layer.ENGINE in layers:
        maps = reports.column("attributes").to_pylist()
        choices = [
            _choices(said) if layer == Layer.ENGINE else None
            for layer, said in zip(layers, maps, strict=True)
        ]
    reports = reports.append_column("choices", pa.array(choices, pa.int32()))
    return reports.select(REPORT_SCHEMA.names).cast(REPORT_SCHEMA)


def _choices(attributes: Sequence[tuple[str, str]] | None) -> int | None:
    said = dict(attributes or ()).get(CHOICES_KEY, "")
    is_number = said.isascii() and said.isdigit() and len(said) <= MAX_CHOICES_DIGITS
    return int(said) if is_number else None
