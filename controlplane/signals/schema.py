"""Arrow schemas of the shared nouns: span, call, and what a store answers with.

A stage is a function from table to table; each section below names the stage that fills it.
NULL is "not said" or "not known"; no column uses 0 or '' for that unless it says so.
"""

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from controlplane.core.tokens import BUCKET_NAMES

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

RECEIVED: Final[list["pa.Field[Any]"]] = [
    # From the receiver and the ingest key, one value per request.
    pa.field("domain", pa.string(), nullable=False),  # settlement domain
    pa.field("key_id", pa.string(), nullable=False),  # '' for a keyless loopback sender
    pa.field("key_role", pa.string(), nullable=False),  # signals.vocabulary.KeyRole
    pa.field("received_at", TIMESTAMP, nullable=False),
]
IDENTITY: Final[list["pa.Field[Any]"]] = [
    # Decode. 128-bit trace ids as two halves: 8-byte columns join and compress better than text.
    pa.field("trace_hi", pa.uint64(), nullable=False),
    pa.field("trace_lo", pa.uint64(), nullable=False),
    pa.field("span_id", pa.uint64(), nullable=False),
    pa.field("parent_span_id", pa.uint64(), nullable=False),  # 0: root
    pa.field("start_time", TIMESTAMP, nullable=False),
    pa.field("duration_us", pa.int64(), nullable=False),
    pa.field("content_hash", pa.uint64(), nullable=False),  # equal: a resend; other: a revision
    pa.field("name", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),  # internal|server|client|producer|consumer|''
    pa.field("service_name", pa.string(), nullable=False),
    pa.field("scope_name", pa.string(), nullable=False),
]
NORMALIZED: Final[list["pa.Field[Any]"]] = [
    # Normalise.
    pa.field("dialect", pa.string(), nullable=False),
    pa.field("report_kind", pa.string(), nullable=False),  # ReportKind
    pa.field("layer", pa.string(), nullable=False),  # Layer, as the dialect declares it
    pa.field("provider", pa.string()),  # gen_ai.provider.name; self-hosted for engines
    pa.field("operation", pa.string()),  # gen_ai.operation.name
    pa.field("request_model", pa.string()),
    pa.field("response_model", pa.string()),
    pa.field("billing_model", pa.string()),  # the deployed model: what the price is looked up by
    pa.field("response_id", pa.string()),  # join key across layers
    pa.field("gateway_call_id", pa.string()),  # litellm.call_id
    pa.field("gateway", pa.string()),  # registered one that a client called or that made the span
    pa.field("is_stream", pa.bool_()),
    pa.field("status", pa.string(), nullable=False),  # Status
    pa.field("error_type", pa.string()),  # ErrorType
    pa.field("http_status", pa.int16()),
    pa.field("finish_reason", pa.string()),
    pa.field("service_tier", pa.string()),  # batch, flex, priority, ...; decides the price
    pa.field("ttft_us", pa.int64()),
    pa.field("queue_us", pa.int64()),
    pa.field("prefill_us", pa.int64()),
    pa.field("decode_us", pa.int64()),
    pa.field("inter_token_us", pa.int64()),  # mean time between two output tokens
    # Totals as reported (inclusive) ...
    pa.field("input_tokens", pa.int64()),
    pa.field("cached_input_tokens", pa.int64()),
    pa.field("cache_creation_input_tokens", pa.int64()),
    pa.field("output_tokens", pa.int64()),
    pa.field("reasoning_tokens", pa.int64()),
    # ... and the exclusive buckets they decompose into (core.tokens), NULL unless usage is exact.
    *[pa.field(bucket, pa.int64()) for bucket in BUCKET_NAMES],
    pa.field("usage_state", pa.string(), nullable=False),  # UsageState
    pa.field("usage_reason", pa.string()),
    pa.field("reported_cost_nusd", pa.int64()),  # the producer's own figure, kept beside ours
    pa.field("clock_ahead_us", pa.int64()),  # start_time was later by this: the clock was ahead
    pa.field("attributes", pa.map_(pa.string(), pa.string())),  # the long tail; no content
]
ATTRIBUTED: Final[list["pa.Field[Any]"]] = [
    # Attribute. NULL is `unattributed`; `attributed_by` is JSON {dimension: rule id}.
    pa.field("tenant", pa.string(), nullable=False),
    pa.field("team", pa.string()),
    pa.field("project", pa.string()),
    pa.field("feature", pa.string()),
    pa.field("customer", pa.string()),
    pa.field("user_id", pa.string()),
    pa.field("api_key", pa.string()),
    pa.field("environment", pa.string()),
    pa.field("region", pa.string()),
    pa.field("attributed_by", pa.string()),
]
PRICED: Final[list["pa.Field[Any]"]] = [
    # Price; NULL in every column unless report_kind is `call`.
    pa.field("cost_nusd", pa.int64()),
    pa.field("cost_state", pa.string()),  # CostState
    pa.field("cost_reason", pa.string()),
    pa.field("price_id", pa.string()),
    pa.field("price_provenance", pa.string()),  # PriceProvenance
]

DECODED_SCHEMA: Final = pa.schema(RECEIVED + IDENTITY)
NORMALIZED_SCHEMA: Final = pa.schema(RECEIVED + IDENTITY + NORMALIZED)
ATTRIBUTED_SCHEMA: Final = pa.schema(RECEIVED + IDENTITY + NORMALIZED + ATTRIBUTED)
SPAN_SCHEMA: Final = pa.schema([*RECEIVED, *IDENTITY, *NORMALIZED, *ATTRIBUTED, *PRICED])
"""What a store is given and gives back; the store adds `batch_seq` for its own use."""

_OF_SPANS: Final = {"report_kind", "layer", "gateway", "clock_ahead_us", "attributes"}
CALL: Final[list["pa.Field[Any]"]] = [
    pa.field("call_id", pa.string(), nullable=False),
    pa.field("domain", pa.string(), nullable=False),
    pa.field("trace_hi", pa.uint64(), nullable=False),  # of the billing report
    pa.field("trace_lo", pa.uint64(), nullable=False),
    pa.field("span_id", pa.uint64(), nullable=False),
    pa.field("start_time", TIMESTAMP, nullable=False),  # home time: start of the billing report
    pa.field("version", pa.int64(), nullable=False),
    pa.field("reports", pa.int32(), nullable=False),
    pa.field("layers", pa.string(), nullable=False),  # sorted, comma-joined
    pa.field("enforced", pa.bool_(), nullable=False),  # an agent settled it
    pa.field("duration_us", pa.int64(), nullable=False),
    pa.field("service_name", pa.string(), nullable=False),
    *[f for f in NORMALIZED if f.name not in _OF_SPANS],
    *ATTRIBUTED,
    *PRICED,
]
CALL_SCHEMA: Final = pa.schema(CALL)
"""One row per call: the billing report's facts, enriched by the reports it suppressed."""

CORRECTION: Final[list["pa.Field[Any]"]] = [
    pa.field("applied_at", TIMESTAMP, nullable=False),  # when it was booked
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("price_version", pa.string(), nullable=False),
    pa.field("day", TIMESTAMP, nullable=False),  # midnight UTC of the day it is about
    *[
        pa.field(name, pa.string())
        for name in (
            *("tenant", "team", "project", "feature", "customer", "api_key", "environment"),
            *("region", "provider", "billing_model", "operation", "price_id", "cost_state"),
        )
    ],
    pa.field("calls", pa.int64(), nullable=False),
    pa.field("delta_nusd", pa.int64(), nullable=False),  # new less old; unknown counts as 0
    *[pa.field(bucket, pa.int64(), nullable=False) for bucket in BUCKET_NAMES],  # new less old
]
CORRECTION_SCHEMA: Final = pa.schema(CORRECTION)
"""What re-rates and late reports changed about calls of closed periods, which stay as they were."""

_CORRECTION_SIDE: Final[list["pa.Field[Any]"]] = [
    *CORRECTION[: [field.name for field in CORRECTION].index("calls")],
    pa.field("call_id", pa.string(), nullable=False),
    pa.field("start_time", TIMESTAMP, nullable=False),  # of the call
    pa.field("side_price_id", pa.string()),  # what this side was priced with
    pa.field("cost_nusd", pa.int64()),  # NULL: no price was known, and `cost_reason` says why
    pa.field("cost_reason", pa.string()),
    pa.field("input_tokens", pa.int64()),
    pa.field("output_tokens", pa.int64()),
    *[pa.field(bucket, pa.int64()) for bucket in BUCKET_NAMES],
    pa.field("sign", pa.int8(), nullable=False),
]
CORRECTION_SIDE_SCHEMA: Final = pa.schema(_CORRECTION_SIDE)
"""A corrected call as it was booked before (-1) or as it is booked now (+1)."""

SUPPRESSED: Final[list["pa.Field[Any]"]] = [
    pa.field("call_id", pa.string(), nullable=False),
    pa.field("trace_hi", pa.uint64(), nullable=False),
    pa.field("trace_lo", pa.uint64(), nullable=False),
    pa.field("span_id", pa.uint64(), nullable=False),
    pa.field("start_time", TIMESTAMP, nullable=False),
    pa.field("reason", pa.string(), nullable=False),
]
SUPPRESSED_SCHEMA: Final = pa.schema(SUPPRESSED)
"""One row per report that does not bill, and why."""

DUPLICATES: Final[list["pa.Field[Any]"]] = [
    pa.field("service_name", pa.string(), nullable=False),  # whose reports do not bill
    pa.field("dialect", pa.string(), nullable=False),
    pa.field("billing_service", pa.string()),  # whose do; NULL: another tenant's
    pa.field("billing_dialect", pa.string()),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("reports", pa.int64(), nullable=False),
    pa.field("input_tokens", pa.int64(), nullable=False),
    pa.field("output_tokens", pa.int64(), nullable=False),
    pa.field("cost_nusd", pa.int64(), nullable=False),  # what is priced of what was not billed
    pa.field("unpriced_reports", pa.int64(), nullable=False),  # their cost is in no amount
]
DUPLICATES_SCHEMA: Final = pa.schema(DUPLICATES)
"""Reports that do not bill, summed by who made them and who bills instead."""


def durations_schema(group_by: Iterable[str]) -> pa.Schema:
    """Return the schema of `SpanReader.durations`."""
    groups: list[pa.Field[Any]] = [pa.field(name, pa.string()) for name in group_by]
    numbers = [pa.field(name, pa.int64(), nullable=False) for name in ("calls", "p50_us", "p95_us")]
    return pa.schema([*groups, *numbers])
