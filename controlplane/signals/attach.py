"""Which events are about a call."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Row = Mapping[str, Any]

MIN_ID_CHARS: Final = 8
"""A shorter response id may be a counter that many calls share."""


def events_of_call(
    call: Row, reports: Iterable[Row], events: Sequence[Row], *, is_alone_in_trace: bool
) -> list[Row]:
    """Choose a call's events, in their order.

    An event is about a call if it was said on one of its reports or on a span below one, if it
    names the call's response, or if it names no report at all and the call is its trace's only one.
    """
    spans = {(r["trace_hi"], r["trace_lo"], r["span_id"]) for r in (call, *reports)}
    traces = {(high, low) for high, low, _ in spans}
    return [
        event
        for event in events
        if _is_on(event, spans)
        or _names_response(event, call["response_id"])
        or (is_alone_in_trace and (event["trace_hi"], event["trace_lo"]) in traces)
    ]


def _is_on(event: Row, spans: set[tuple[int, int, int]]) -> bool:
    trace = (event["trace_hi"], event["trace_lo"])
    return any(
        event[name] and (*trace, event[name]) in spans for name in ("span_id", "parent_span_id")
    )


def _names_response(event: Row, response_id: str | None) -> bool:
    return (
        response_id is not None
        and len(response_id) >= MIN_ID_CHARS
        and event["response_id"] == response_id
    )
