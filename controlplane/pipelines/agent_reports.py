"""Settles of a node → reports of layer `agent` → priced → stored: ADR 004.

Count-once joins them with the proxy's and the client's reports of the same call; a call that has
one is enforced, and a call whose trace was sampled out is still on the pages.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec
import pyarrow as pa

from controlplane.auth.principal import Principal
from controlplane.core.ids import DEFAULT_DOMAIN, DEFAULT_TENANT
from controlplane.core.tokens import BUCKET_NAMES, INPUT_BUCKETS, OUTPUT_BUCKETS, is_possible
from controlplane.ingest.dialects.providers import canonical_provider
from controlplane.policy.wire import Settle
from controlplane.pricing.price import price
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.ports import SpanWriter
from controlplane.signals.schema import ATTRIBUTED, ATTRIBUTED_SCHEMA
from controlplane.signals.vocabulary import KeyRole, Layer, ReportKind, UsageState

DIALECT: Final = "agent"
RULE: Final = "agent:policy-dimension-map"
IMPOSSIBLE: Final = "quantity_out_of_range"
_DIMENSIONS: Final = [
    field.name for field in ATTRIBUTED if field.name not in {"tenant", "attributed_by"}
]


def store_settles(
    settles: Sequence[Settle],
    caller: Principal,
    *,
    book: PriceBook,
    writer: SpanWriter,
    now: datetime,
) -> None:
    """Write one report per settle, exactly once however often a settle is resent.

    Raises:
        StoreUnavailableError: nothing was written; the node sends the settles again.
    """
    if not settles:
        return
    rows = [_row(settle, caller, now) for settle in settles]
    spans = price(pa.Table.from_pylist(rows, schema=ATTRIBUTED_SCHEMA), book)
    digest = sha256(msgspec.json.encode([settle.hold_id for settle in settles])).hexdigest()
    writer.write(spans, batch_id=f"settle:{caller.id}:{digest}")


def _row(settle: Settle, caller: Principal, now: datetime) -> dict[str, object]:
    identity = sha256(f"{caller.id}/{settle.hold_id}".encode()).digest()
    halves = [int.from_bytes(identity[i : i + 8], "big") for i in (0, 8, 16)]
    content = sha256(msgspec.json.encode(settle)).digest()
    duration = settle.ended_at - settle.started_at
    told = {"tenant": RULE, **dict.fromkeys(settle.dimensions.keys() & set(_DIMENSIONS), RULE)}
    return {
        "domain": DEFAULT_DOMAIN,
        "key_id": caller.id,
        "key_role": KeyRole.AGENT.value,
        "received_at": now,
        "trace_hi": halves[0],
        "trace_lo": halves[1],
        "span_id": halves[2] or 1,
        "parent_span_id": 0,
        "start_time": settle.started_at,
        "duration_us": int(duration.total_seconds() * 1_000_000),
        "content_hash": int.from_bytes(content[:8], "big"),
        "name": "settle",
        "kind": "internal",
        "service_name": "controlplane-agent",
        "scope_name": DIALECT,
        "dialect": DIALECT,
        "report_kind": ReportKind.CALL.value,
        "layer": Layer.AGENT.value,
        "provider": canonical_provider(settle.provider),
        "operation": settle.operation,
        "request_model": settle.model,
        "billing_model": settle.model,
        "response_id": settle.response_id,
        # Its hold must be found again by the ledger, or the call would be charged twice.
        "gateway_call_id": settle.call_id or settle.hold_id,
        "status": settle.status,
        "error_type": settle.error_type,
        "http_status": settle.http_status,
        **_usage(settle),
        "tenant": _tenant(settle, caller),
        **{name: settle.dimensions.get(name) for name in _DIMENSIONS},
        "attributed_by": msgspec.json.encode(told, order="sorted").decode(),
    }


def _usage(settle: Settle) -> dict[str, object]:
    if not settle.usage:
        state = UsageState.UNKNOWN if settle.usage is None else UsageState.ABSENT
        return {"usage_state": state.value}
    if not is_possible(settle.usage):
        return {"usage_state": UsageState.IMPOSSIBLE.value, "usage_reason": IMPOSSIBLE}
    buckets = {name: settle.usage.get(name) for name in BUCKET_NAMES}
    return {
        **buckets,
        "usage_state": UsageState.EXACT.value,
        "input_tokens": sum(settle.usage.get(name, 0) for name in INPUT_BUCKETS),
        "cached_input_tokens": buckets["cache_read"],
        "output_tokens": sum(settle.usage.get(name, 0) for name in OUTPUT_BUCKETS),
        "reasoning_tokens": buckets["output_reasoning"],
    }


def _tenant(settle: Settle, caller: Principal) -> str:
    """Return the tenant the node names, if its key acts for it; else the key's own."""
    named = settle.dimensions.get("tenant")
    if named is not None and caller.may_see(named):
        return named
    return caller.tenants[0] if caller.tenants else DEFAULT_TENANT
