"""Which keys of which reports may join them, over a set of reports that never was stored."""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from typing import Any, Final

import pyarrow as pa

from controlplane.core.instants import HOUR_US, MINUTE_US
from controlplane.ingest.declared_pairs import HALVED_SCOPES, Depth, depth_of
from controlplane.ingest.join_keys import (
    MAX_IN_REQUEST,
    MAX_IN_TRACE,
    MAX_SHARERS,
    WeakEmitter,
    gateway_cell,
    is_join_key,
)
from controlplane.ingest.report import join_id
from controlplane.ingest.settlement import IS_CONTEXT, JOIN_FLAGS, JOINABLE_SCHEMA
from controlplane.ingest.span_hash import start_micros
from controlplane.signals.vocabulary import KeyRole, Layer, Status, UsageState

Row = dict[str, Any]
_READ: Final = (
    *("domain", "tenant", "key_id", "key_role", "service_name", "scope_name", "layer", "status"),
    *("trace_hi", "trace_lo", "response_id", "gateway_call_id", "input_tokens", "duration_us"),
    *("usage_state", "gateway", "billing_model", "output_tokens"),
)


def with_join_flags(reports: pa.Table, weak: Collection[WeakEmitter] = ()) -> pa.Table:
    """Append JOIN_FLAGS to a closed set of REPORT_SCHEMA rows.

    `weak` is what was learned of emitters whose ids repeat: an input, like the reports.
    """
    starts_us = start_micros(reports).tolist()
    rows = [
        {**row, "start_us": start_us}
        for row, start_us in zip(reports.select(_READ).to_pylist(), starts_us, strict=True)
    ]
    since = {(one.domain, one.service_name, one.scope_name): one.since_us for one in weak}
    usable = [_are_ids_usable(row, since) for row in rows]
    flags = [
        _uncrowded(
            [_id_cell(row, "response_id", ok) for row, ok in zip(rows, usable, strict=True)]
        ),
        _uncrowded(
            [_id_cell(row, "gateway_call_id", ok) for row, ok in zip(rows, usable, strict=True)]
        ),
        _few([(row["domain"], row["trace_hi"], row["trace_lo"]) for row in rows], MAX_IN_TRACE),
        _few([_request_cell(row) for row in rows], MAX_IN_REQUEST),
        _few([_pair_cell(row) for row in rows], MAX_IN_TRACE),
        _few_alike([_gateway_cells(row) for row in rows]),
    ]
    for field, values in zip(JOIN_FLAGS, flags, strict=True):
        reports = reports.append_column(field, pa.array(values, pa.bool_()))
    never = pa.repeat(pa.scalar(value=False), reports.num_rows)
    return reports.append_column(IS_CONTEXT, never).cast(JOINABLE_SCHEMA)


def _are_ids_usable(row: Row, since: dict[tuple[str, str, str], int]) -> bool:
    learned = since.get((row["domain"], row["service_name"], row["scope_name"]))
    return learned is None or row["start_us"] < learned


def _id_cell(row: Row, name: str, usable: bool) -> tuple[Hashable, Hashable] | None:  # noqa: FBT001 - zipped
    """Return (id within its hour, who shares it); None where the id is no key."""
    value = join_id(row[name], layer=row["layer"]) if name == "response_id" else row[name]
    if not usable or not is_join_key(value):
        return None
    side = (row["layer"], row["key_role"], row["scope_name"], row["start_us"])
    return (row["domain"], value, row["start_us"] // HOUR_US), side


def _uncrowded(cells: Sequence[tuple[Hashable, Hashable] | None]) -> list[bool]:
    sharers: defaultdict[Hashable, set[Hashable]] = defaultdict(set)
    for cell in cells:
        if cell is not None:
            sharers[cell[0]].add(cell[1])
    return [cell is not None and len(sharers[cell[0]]) <= MAX_SHARERS for cell in cells]


def _few(cells: Sequence[Hashable | None], most: int) -> list[bool]:
    counts: defaultdict[Hashable, int] = defaultdict(int)
    for cell in cells:
        counts[cell] += 1
    return [cell is not None and counts[cell] <= most for cell in cells]


def _few_alike(cells: Sequence[Sequence[Hashable]]) -> list[bool]:
    """Like `_few`, of rows that lie in several cells and are judged by their first."""
    counts = Counter(cell for those in cells for cell in those)
    return [bool(those) and counts[those[0]] <= MAX_IN_TRACE for those in cells]


def _gateway_cells(row: Row) -> Sequence[Hashable]:
    """Return the minute that a report is matched in; a gateway's may have begun in the one before."""
    is_gateway = row["key_role"] == KeyRole.PROXY or row["layer"] == Layer.PROXY
    if row["gateway"] is None or not (is_gateway or row["layer"] == Layer.CLIENT):
        return ()
    used, made = (row[name] or 0 for name in ("input_tokens", "output_tokens"))
    alike = (*(row[n] for n in ("domain", "gateway", "billing_model", "status")), used, used + made)
    cell, hour = gateway_cell(row["start_us"], is_gateway=is_gateway), row["start_us"] // HOUR_US
    return [(*alike, at, hour) for at in ((cell, cell - 1) if is_gateway else (cell,))]


def _emitter(row: Row) -> tuple[Hashable, ...]:
    return (row["domain"], row["tenant"], row["key_id"], row["service_name"])


def _request_cell(row: Row) -> Hashable | None:
    if row["layer"] != Layer.ENGINE or not row["response_id"]:
        return None
    whole = join_id(row["response_id"], layer=row["layer"])
    is_item = whole != row["response_id"]
    arrival = () if is_item else (row["start_us"], row["input_tokens"])
    return (*_emitter(row), row["scope_name"], whole, *arrival, row["start_us"] // HOUR_US)


def _pair_cell(row: Row) -> Hashable | None:
    if row["layer"] != Layer.CLIENT or row["response_id"]:
        return None
    is_failed = row["status"] == Status.ERROR and depth_of(row["scope_name"]) in _PAIRED
    # A finished call of such a scope has its usage and a length; the halves of a stream lack one.
    is_of_stream = row["scope_name"] in HALVED_SCOPES and (
        row["duration_us"] == 0 or row["usage_state"] != UsageState.EXACT
    )
    is_half = is_failed or is_of_stream
    return (*_emitter(row), row["start_us"] // MINUTE_US) if is_half else None


_PAIRED: Final = frozenset({Depth.NATIVE, Depth.INSTRUMENTOR})
