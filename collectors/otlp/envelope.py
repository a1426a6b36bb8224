"""What a body holds, looked at once before the ack: how many items, and which can never be kept.

What could never be stored is refused while the sender still listens. Spans are cut apart, not
parsed: 0.3 µs each. Metrics and logs are few, and read whole.
"""

from collections import Counter
from typing import Final

import msgspec

from controlplane.core.errors import LimitExceededError
from controlplane.ingest.call_events import flaws_of_logs, parse_logs
from controlplane.ingest.limits import Limits
from controlplane.ingest.metrics import flaws_of_metrics, parse_metrics
from controlplane.ingest.otlp import split_payload
from controlplane.ingest.ports import Payload
from controlplane.ingest.span_flaws import flaws_of_spans

ITEMS: Final = {"traces": "spans", "metrics": "data_points", "logs": "log_records"}


class Examined(msgspec.Struct, frozen=True):
    """Items in a request, and those of them that will not be stored, by reason."""

    count: int
    flaws: Counter[str]

    @property
    def rejected(self) -> int:
        """How many items will not be stored."""
        return self.flaws.total()

    def told(self, items: str) -> str:
        """Write what a sender is told; empty where everything is kept."""
        if not self.flaws:
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.flaws.items()))
        return f"{self.rejected} of {self.count} {items.replace('_', ' ')} not kept: {reasons}"


def examine(payload: Payload, *, limits: Limits) -> Examined:
    """Look at a body.

    Raises:
        PayloadError: not such a request.
        LimitExceededError: more spans than `max_spans_per_request`, or points or records.
    """
    if payload.signal == "traces":
        spans = split_payload(payload, limits=limits).spans
        return Examined(len(spans), flaws_of_spans(spans))
    if payload.signal == "metrics":
        count, flaws = flaws_of_metrics(parse_metrics(payload))
    else:
        count, flaws = flaws_of_logs(parse_logs(payload))
    if count > limits.max_spans_per_request:
        raise LimitExceededError("max_spans_per_request", limits.max_spans_per_request, count)
    return Examined(count, flaws)
