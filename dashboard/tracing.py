"""Calls and spans in the shape that the trace page draws."""

import re
from collections import defaultdict
from typing import Any, Final, NamedTuple

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table
from dashboard.frames import UNATTRIBUTED

CALL_COLUMNS: Final = (
    "time", "model", "tenant", "team", "cost", "state", "input", "output", "duration", "first_token", "inter_token",
    "status",    "reports",
)  # fmt: skip
REPORT_COLUMNS: Final = (
    "name", "layer", "why", "model", "cost", "state", "input", "cached", "output",
    "provenance", "price_id",
)  # fmt: skip
TOOLTIPS: Final = (
    "milliseconds", "name", "service", "duration", "tokens", "cost", "kind", "why",
)  # fmt: skip
MAX_BARS: Final = 400
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")


def is_trace_id(text: str) -> bool:
    """Whether the text is 32 lowercase hex digits."""
    return _TRACE_ID.fullmatch(text) is not None


def call_rows(answer: Table, names: dict[str, str], *, zone: str) -> pa.Table:
    """Turn a page of calls into the table of the trace list."""
    rows = answer.rows.to_pylist()
    shown: dict[str, list[Any]] = {
        "time": [spoken.moment(row["start_time"], zone=zone) for row in rows],
        "model": [row["billing_model"] or row["request_model"] or "" for row in rows],
        "tenant": [row["tenant"] for row in rows],
        "team": [row["team"] or UNATTRIBUTED for row in rows],
        "cost": [spoken.money(row["cost_usd"]) for row in rows],
        "state": [_state(row) for row in rows],
        "input": [row["input_tokens"] for row in rows],
        "output": [row["output_tokens"] for row in rows],
        "duration": [spoken.milliseconds(row["duration_us"]) for row in rows],
        "first_token": [spoken.milliseconds(row["ttft_us"]) for row in rows],
        "inter_token": [spoken.milliseconds(row["inter_token_us"]) for row in rows],
        "status": [row["error_type"] or row["status"] for row in rows],
        "reports": [row["reports"] for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def report_rows(answer: Table, names: dict[str, str]) -> pa.Table:
    """List the spans that report a call: its price and where that came from, or why not billed."""
    rows = [row for row in answer.rows.to_pylist() if row["report_kind"] == "call"]
    shown: dict[str, list[Any]] = {
        "name": [row["name"] for row in rows],
        "layer": [row["layer"] for row in rows],
        "why": [row["suppressed_reason"] or row["cost_reason"] or "" for row in rows],
        "model": [row["billing_model"] or row["request_model"] or "" for row in rows],
        "cost": [
            spoken.UNKNOWN if _suppressed(row) else spoken.money(row["cost_usd"]) for row in rows
        ],
        "state": [_state(row) for row in rows],
        "input": [row["input_tokens"] for row in rows],
        "cached": [row["cached_input_tokens"] for row in rows],
        "output": [row["output_tokens"] for row in rows],
        "provenance": [row["price_provenance"] or "" for row in rows],
        "price_id": [row["price_id"] or "" for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def waterfall(answer: Table, kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Order spans as a tree, depth first, and place them on the trace's own time axis.

    At most MAX_BARS; a span whose parent is not in the answer is a root.
    """
    spans = answer.rows.to_pylist()
    if not spans:
        return []
    began = min(span["start_time"] for span in spans)
    return [
        _bar(span, depth=depth, row=row, at_ms=(span["start_time"] - began).total_seconds() * 1e3,
             kinds=kinds)
        for row, (span, depth) in enumerate(_tree(spans)[:MAX_BARS])
    ]  # fmt: skip


def _tree(spans: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    known = {span["span_id"] for span in spans}
    children: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for span in sorted(spans, key=lambda s: (s["start_time"], s["span_id"])):
        parent = span["parent_span_id"]
        children[parent if parent in known and parent != span["span_id"] else None].append(span)
    ordered: list[tuple[dict[str, Any], int]] = []
    # Roots first; then every span, so that those whose parents form a ring are not lost.
    waiting = [(span, 0) for span in reversed([*children[None], *spans])]
    seen: set[str] = set()
    while waiting:  # a loop and not a recursion: depth is the producer's choice
        span, depth = waiting.pop()
        if span["span_id"] in seen:
            continue
        seen.add(span["span_id"])
        ordered.append((span, depth))
        waiting += [(child, depth + 1) for child in reversed(children[span["span_id"]])]
    return ordered


def _bar(
    span: dict[str, Any], *, depth: int, row: int, at_ms: float, kinds: dict[str, str]
) -> dict[str, Any]:
    kind = kind_of(span)
    cost = spoken.money(span["cost_usd"]) if kind in {"billed", "unpriced"} else spoken.UNKNOWN
    tokens = f"{spoken.count(span['input_tokens'])} / {spoken.count(span['output_tokens'])}"
    return {
        "row": row,
        "start_ms": at_ms,
        "end_ms": at_ms + span["duration_us"] / 1e3,
        "name": span["name"],
        "service": span["service_name"],
        "kind": kinds[kind],
        "duration": spoken.milliseconds(span["duration_us"]),
        "tokens": tokens,
        "cost": cost,
        "why": span["suppressed_reason"] or span["cost_reason"] or "",
        "label": "  " * depth + span["name"] + (f"  {cost}" if kind == "billed" else ""),
    }


def kind_of(span: dict[str, Any]) -> str:
    """Answer what a span is to the bill: billed, unpriced, suppressed or other."""
    if span["report_kind"] != "call":
        return "other"
    if _suppressed(span):
        return "suppressed"
    return "unpriced" if span["cost_usd"] is None else "billed"


def _suppressed(span: dict[str, Any]) -> bool:
    return span["suppressed_reason"] is not None


def _state(row: dict[str, Any]) -> str:
    state, reason = row["cost_state"] or "", row["cost_reason"]
    return f"{state} ({reason})" if state and reason else state


class RecordedText(NamedTuple):
    """One recorded text, and what to say of it."""

    side: str
    attribute: str
    text: str
    is_cut: bool
    redactions: str
    kept_until: str


def recorded_texts(answer: Table, *, zone: str) -> list[RecordedText]:
    """List the texts of a trace, what went in before what came out."""
    rows = sorted(
        answer.rows.to_pylist(), key=lambda row: (row["start_time"], row["span_id"], row["side"])
    )
    return [
        RecordedText(
            side=row["side"],
            attribute=row["name"],
            text=row["text"],
            is_cut=row["is_cut"],
            redactions=row["redactions"].replace(",", ", "),
            kept_until=spoken.moment(row["kept_until"], zone=zone),
        )
        for row in rows
    ]
