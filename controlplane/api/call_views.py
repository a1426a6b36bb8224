"""Events and reports of a call as the API writes them."""

from collections.abc import Mapping
from typing import Any

from controlplane.api.tables import rfc3339
from controlplane.signals.hex_ids import span_hex, trace_hex


def event_view(event: Mapping[str, Any]) -> dict[str, Any]:
    """Write an event; ids that were not said are null."""
    has_trace = bool(event["trace_hi"] or event["trace_lo"])
    return {
        "kind": event["kind"],
        "name": event["name"],
        "score": event["score"],
        "label": event["label"],
        "action": event["action"],
        "time": rfc3339(event["time"]),
        "source": event["source"],
        "author": event["author"],
        "service_name": event["service_name"],
        "trace_id": trace_hex(event["trace_hi"], event["trace_lo"]) if has_trace else None,
        "span_id": span_hex(event["span_id"]) if event["span_id"] else None,
        "response_id": event["response_id"],
    }


def report_view(report: Mapping[str, Any]) -> dict[str, Any]:
    """Write a report that does not bill."""
    return {
        "trace_id": trace_hex(report["trace_hi"], report["trace_lo"]),
        "span_id": span_hex(report["span_id"]),
        "start_time": rfc3339(report["start_time"]),
        "reason": report["reason"],
    }
