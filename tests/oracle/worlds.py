"""Made-up worlds: a few real calls, alike in model, usage and time, as some layers report them."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

AT = datetime(2026, 11, 30, 23, 59, 59, 900_000, tzinfo=UTC)
"""Just before a month ends: layers of one call start on both sides."""

Row = dict[str, Any]

LAYERS = {
    "client": "opentelemetry.instrumentation.openai.v1",
    "proxy": "litellm",
    "engine": "sglang server",
}
IDS: dict[str, Callable[[int], str | None]] = {
    "unique": lambda call: f"chatcmpl-{call:012d}",
    "none": lambda _: None,
    "empty": lambda _: "",
    "small": lambda call: f"chatcmpl-{call % 3}",
    "constant": lambda _: "chatcmpl-constant-for-ever",
    "reused": lambda call: f"chatcmpl-{call % 2:012d}",
}


def world(
    calls: int, *, layers: Iterable[str], ids: str, propagates: bool, in_one_trace: bool = False
) -> tuple[list[Row], list[int]]:
    """Return reports and the real call of each; every call starts at the same instant."""
    rows: list[Row] = []
    owner: list[int] = []
    for call in range(calls):
        above = 0
        for depth, layer in enumerate(layers):
            number = len(rows) + 1
            own_trace = call + 1 if propagates else number
            rows.append(
                {
                    "trace_lo": 1 if in_one_trace else own_trace,
                    "span_id": number,
                    "parent_span_id": above if propagates else 0,
                    "content_hash": number,
                    "start_time": AT + timedelta(milliseconds=60 * depth),
                    "duration_us": 2_000_000 - 200_000 * depth,
                    "layer": layer,
                    "scope_name": LAYERS[layer],
                    "response_id": IDS[ids](call),
                }
            )
            owner.append(call)
            above = number
    return rows, owner


SERVICES = {"client": "app", "proxy": "gate", "engine": "gpu"}


def reports(
    call: int, *, layers: Iterable[str], propagates: bool, start: datetime, **said: object
) -> list[Row]:
    """One call as its layers report it, 60 ms apart."""
    rows: list[Row] = []
    for depth, layer in enumerate(layers):
        number = 10 * call + depth + 1
        scope, service = LAYERS[layer], SERVICES[layer]
        rows.append(
            {
                "trace_lo": call + 1 if propagates else number,
                "span_id": number,
                "parent_span_id": number - 1 if propagates and depth else 0,
                "content_hash": number,
                "start_time": start + timedelta(milliseconds=60 * depth),
                "duration_us": 2_000_000 - 200_000 * depth,
                "layer": layer,
                "scope_name": scope,
                "service_name": service,
                "gateway": "gate" if layer in {"client", "proxy"} else None,
                "call": call,
                **said,
            }
        )
    return rows


def burst(calls: int) -> list[Row]:
    return [
        row
        for call in range(calls)
        for row in reports(call, layers=("client", "proxy"), propagates=False, start=AT)
    ]


def chain(minutes: int) -> list[Row]:
    """A health check over every turn of the minute: each minute's leftover is the next one's."""
    return [
        row
        for call in range(minutes)
        for row in reports(
            call,
            layers=("client", "proxy"),
            propagates=False,
            start=AT - timedelta(seconds=1) + call * timedelta(minutes=1),
        )
    ]


def mixed_world() -> list[Row]:
    """A call of three layers, a retry that failed, a revision, and a span of another call."""
    (client, proxy, engine), _ = world(1, layers=tuple(LAYERS), ids="unique", propagates=True)
    lost = {"response_id": None, "status": "error", "usage_state": "absent", "input_tokens": None}
    failed = {**proxy, **lost, "span_id": 4, "content_hash": 4, "start_time": AT}
    pending = {**client, "content_hash": 5, "duration_us": 0, "usage_state": "absent"}
    other = {**client, "span_id": 6, "content_hash": 6, "response_id": "chatcmpl-another-one"}
    return [client, proxy, engine, failed, pending, other]
