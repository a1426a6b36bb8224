"""What passes between a span store and settlement: Arrow tables, no behavior."""

from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa

from controlplane.signals.schema import ATTRIBUTED, CALL_SCHEMA, SPAN_SCHEMA, TIMESTAMP

CHOICES_KEY: Final = "gen_ai.request.n"
"""How many samples of each prompt a request asked an engine for; vLLM's spelling."""

MAX_CHOICES_DIGITS: Final = 4

REPORT_SCHEMA: Final = SPAN_SCHEMA.remove(SPAN_SCHEMA.get_field_index("attributes")).append(
    pa.field("choices", pa.int32())
)
"""A stored span whose report_kind is `call`: everything that settlement reads. `choices` is the
attribute CHOICES_KEY of an engine's span, NULL if it is not said or no small number."""

JOIN_FLAGS: Final[list["pa.Field[Any]"]] = [
    pa.field("response_id_joins", pa.bool_(), nullable=False),
    pa.field("gateway_id_joins", pa.bool_(), nullable=False),
    pa.field("trace_joins", pa.bool_(), nullable=False),
    pa.field("sequence_joins", pa.bool_(), nullable=False),
    pa.field("pair_joins", pa.bool_(), nullable=False),
    pa.field("cell_joins", pa.bool_(), nullable=False),
]
IS_CONTEXT: Final = "is_context"
JOINABLE_SCHEMA: Final = pa.schema(
    [*REPORT_SCHEMA, *JOIN_FLAGS, pa.field(IS_CONTEXT, pa.bool_(), nullable=False)]
)
"""A report with which of its ids may join it to others (`join_keys`), and whether it is there only
for what it takes from others: a call of such reports alone is not known in full, and stays as it
was."""

EDGE: Final[list["pa.Field[Any]"]] = [
    pa.field("domain", pa.string(), nullable=False),
    pa.field("trace_hi", pa.uint64(), nullable=False),
    pa.field("trace_lo", pa.uint64(), nullable=False),
    pa.field("span_id", pa.uint64(), nullable=False),
    pa.field("parent_span_id", pa.uint64(), nullable=False),
]
EDGE_SCHEMA: Final = pa.schema(EDGE)
"""Parent edges of the traces that grouped reports belong to, other spans included."""

IDENTITY_NAMES: Final = ("domain", "trace_hi", "trace_lo", "span_id", "start_time")

MEMBER: Final[list["pa.Field[Any]"]] = [
    pa.field("call_id", pa.string(), nullable=False),
    pa.field("domain", pa.string(), nullable=False),
    pa.field("trace_hi", pa.uint64(), nullable=False),
    pa.field("trace_lo", pa.uint64(), nullable=False),
    pa.field("span_id", pa.uint64(), nullable=False),
    pa.field("start_time", TIMESTAMP, nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("tenant", pa.string(), nullable=False),
    pa.field("service_name", pa.string(), nullable=False),
    pa.field("dialect", pa.string(), nullable=False),
    # What would have been billed twice, and by whom it is billed; NULL as the report says it.
    pa.field("input_tokens", pa.int64()),
    pa.field("output_tokens", pa.int64()),
    pa.field("cost_nusd", pa.int64()),
    pa.field("billing_tenant", pa.string(), nullable=False),
    pa.field("billing_service", pa.string(), nullable=False),
    pa.field("billing_dialect", pa.string(), nullable=False),
]
MEMBER_SCHEMA: Final = pa.schema(MEMBER)
"""A report that does not bill, with the call it belongs to."""

IDENTITY_SCHEMA: Final = pa.schema([REPORT_SCHEMA.field(name) for name in IDENTITY_NAMES])

CHANGE_COLUMNS: Final = (
    *("call_id", "start_time", "version", "enforced", "duration_us", "cost_nusd", "cost_state"),
    *("cost_reason", "response_id", "gateway_call_id", "provider", "operation", "request_model"),
    *("response_model", "billing_model", "input_tokens", "cached_input_tokens", "output_tokens"),
    *(field.name for field in ATTRIBUTED if field.name != "attributed_by"),
)
"""What a ledger may ask of a call. Whole calls would cost more to read than to store."""

CHANGE_SCHEMA: Final = pa.schema(
    [
        *(CALL_SCHEMA.field(name) for name in CHANGE_COLUMNS),
        pa.field("sign", pa.int8(), nullable=False),
    ]
)
"""A call before (-1) or after (+1) the settlement `version` it carries."""

_CLOSING: Final[list["pa.Field[Any]"]] = [
    pa.field("before", TIMESTAMP, nullable=False),
    pa.field("zone", pa.string(), nullable=False),
    pa.field("batch_id", pa.string()),
    pa.field("closed_at", TIMESTAMP, nullable=False),
]
CLOSING_SCHEMA: Final = pa.schema(_CLOSING)
"""Everything that starts before an instant, closed for what comes after a batch; NULL is the first."""

CONTEXT_COLUMNS: Final = tuple(f.name for f in ATTRIBUTED if f.name != "tenant")
"""What a report that does not bill may still say about the call."""


class Unsettled(msgspec.Struct, frozen=True):
    """What one settlement works on."""

    through: int
    """Watermark that `apply` moves to; also the version of the calls settled from this."""

    lone_reports: int
    """New reports that can join no other: each is a call, and the store's alone to keep."""

    grouped: pa.Table
    """JOINABLE_SCHEMA rows, new and old, closed under shared keys."""

    edges: pa.Table
    """EDGE_SCHEMA rows of the grouped reports' traces."""

    closed_before: datetime | None = None
    """Calls that start before it stay as they are, whatever comes of these reports."""

    has_long_chains: bool = False
    """Keys lead from a new report further than any call reaches: somebody's ids are mixed up."""


class Settled(msgspec.Struct, frozen=True):
    """What settlement made of an `Unsettled`."""

    through: int
    calls: pa.Table
    """CALL_SCHEMA rows of the grouped reports; they replace what those reports were before."""

    suppressed: pa.Table
    """MEMBER_SCHEMA rows of the grouped reports."""

    examined: pa.Table
    """IDENTITY_SCHEMA rows: every grouped report."""

    split_calls: int = 0
    """Calls that came of a component with more reports than one call has."""


def empty_unsettled(through: int) -> Unsettled:
    """No report is waiting."""
    return Unsettled(through, 0, JOINABLE_SCHEMA.empty_table(), EDGE_SCHEMA.empty_table())
