"""Arrow schemas of what is not a span: measurements, events about calls, and emitters' accounts.

NULL is "not said", as in `schema`.
"""

from enum import StrEnum
from typing import Any, Final

import pyarrow as pa

from controlplane.signals.schema import TIMESTAMP


class SampleKind(StrEnum):
    """How a series' numbers are to be read."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    """`value` is the sum of what was observed, `count` how often."""


class Temporality(StrEnum):
    """What a counter or histogram sample counts from; a gauge has none."""

    CUMULATIVE = "cumulative"
    DELTA = "delta"
    NONE = ""


class EventKind(StrEnum):
    """What an event says about a call."""

    EVALUATION = "evaluation"
    FEEDBACK = "feedback"
    GUARDRAIL = "guardrail"


class GuardrailAction(StrEnum):
    """What a guardrail did; every producer's word is one of these."""

    ALLOWED = "allowed"
    BLOCKED = "blocked"
    MASKED = "masked"
    FLAGGED = "flagged"
    FAILED = "failed"
    """The guardrail itself did not work."""


VIOLATIONS: Final = (GuardrailAction.BLOCKED, GuardrailAction.MASKED, GuardrailAction.FLAGGED)
"""Actions that say that content broke a rule."""

_SENT_BY: Final[list["pa.Field[Any]"]] = [
    pa.field("domain", pa.string(), nullable=False),
    pa.field("tenant", pa.string(), nullable=False),  # as the key or its map says
    pa.field("key_id", pa.string(), nullable=False),
]
SAMPLE_SCHEMA: Final = pa.schema(
    [
        *_SENT_BY,
        pa.field("emitter", pa.string(), nullable=False),  # service.name, or the scrape job
        pa.field("instance", pa.string(), nullable=False),  # service.instance.id, or the target
        pa.field("metric", pa.string(), nullable=False),
        pa.field("meaning", pa.string(), nullable=False),  # signals.meanings.Meaning, '' unknown
        pa.field("kind", pa.string(), nullable=False),  # SampleKind
        pa.field("temporality", pa.string(), nullable=False),  # Temporality
        # Over emitter, instance, metric and every label, also those that are not kept.
        pa.field("series_hash", pa.uint64(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("operation", pa.string()),
        pa.field("host", pa.string()),
        pa.field("gpu", pa.string()),
        pa.field("pool", pa.string()),
        pa.field("labels", pa.string(), nullable=False),  # JSON of the other labels worth keeping
        pa.field("start_time", TIMESTAMP),  # what a cumulative value counts from
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("value", pa.float64(), nullable=False),  # in the meaning's unit
        pa.field("count", pa.int64()),
        pa.field("received_at", TIMESTAMP, nullable=False),
    ]
)
EVENT_SCHEMA: Final = pa.schema(
    [
        *_SENT_BY,
        pa.field("kind", pa.string(), nullable=False),  # EventKind
        pa.field("name", pa.string(), nullable=False),  # of the evaluation or guardrail
        pa.field("source", pa.string(), nullable=False),  # span_event | log | span | api
        pa.field("trace_hi", pa.uint64(), nullable=False),  # 0 and 0: not said
        pa.field("trace_lo", pa.uint64(), nullable=False),
        pa.field("span_id", pa.uint64(), nullable=False),  # 0: not said
        pa.field("parent_span_id", pa.uint64(), nullable=False),  # of a guardrail's own span
        pa.field("response_id", pa.string()),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("score", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("action", pa.string()),  # GuardrailAction
        pa.field("author", pa.string()),  # who scored, through the API
        pa.field("service_name", pa.string(), nullable=False),
        pa.field("event_hash", pa.uint64(), nullable=False),  # equal: a resend
    ]
)
_EMITTER: Final[list["pa.Field[Any]"]] = [
    pa.field("tenant", pa.string(), nullable=False),
    pa.field("key_id", pa.string(), nullable=False),
    pa.field("service_name", pa.string(), nullable=False),
    pa.field("signal", pa.string(), nullable=False),  # traces | metrics | logs
]
ACCOUNT_SCHEMA: Final = pa.schema(
    [
        *_EMITTER,
        pa.field("hour", TIMESTAMP, nullable=False),  # of arrival
        pa.field("received", pa.int64(), nullable=False),
        pa.field("late", pa.int64(), nullable=False),  # arrived LATE after their start
        pa.field("ahead", pa.int64(), nullable=False),  # start in the future: a clock is wrong
        pa.field("last_received", TIMESTAMP, nullable=False),
    ]
)
"""Of one batch, per emitter and hour; the store adds what became of it."""
_INSTANCE: Final[list["pa.Field[Any]"]] = [
    pa.field("tenant", pa.string(), nullable=False),
    pa.field("key_id", pa.string(), nullable=False),
    pa.field("service_name", pa.string(), nullable=False),
    pa.field("instance", pa.string(), nullable=False),  # service.instance.id, else pod or host
    pa.field("received", pa.int64(), nullable=False),
    pa.field("last_received", TIMESTAMP, nullable=False),
]
INSTANCE_SCHEMA: Final = pa.schema(_INSTANCE)
"""Of one batch, per emitter of spans and replica of it; those that say no instance are none."""
MAX_INSTANCES: Final = 64
"""Replicas of one emitter that are known at a time: programs that live for a request have thousands."""
REJECTION_SCHEMA: Final = pa.schema(
    [
        *_EMITTER,
        pa.field("hour", TIMESTAMP, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
    ]
)
