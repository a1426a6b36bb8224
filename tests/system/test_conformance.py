"""Every recording through a running collector: the same calls as `controlplane inspect` finds."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

TESTS = Path(__file__).parents[1]
PAYLOADS = sorted(
    path
    for root in ("corpus", "recordings")
    for suffix in (".pb", ".json")
    for path in (TESTS / root).rglob(f"*{suffix}")
    if ".metrics." not in path.name and ".expected." not in path.name
)
SPAN_OF_RECORDINGS = {"start": "2026-11-20T00:00:00Z", "end": "2026-11-25T19:45:00Z"}
FACTS = (
    *("call_id", "provider", "operation", "request_model", "response_model", "input_tokens"),
    *("cached_input_tokens", "cache_creation_input_tokens", "output_tokens", "reasoning_tokens"),
    *("is_stream", "status", "error_type", "http_status", "cost_usd", "cost_state"),
    *("cost_reason", "price_id"),
)
SETTLED_SECONDS = 120.0


def test_a_collector_counts_what_inspect_counts(system: Any) -> None:
    """Files in any order, each twice; a settlement may happen between any two of them."""
    draw = random.Random(7)
    for path in draw.sample(PAYLOADS, len(PAYLOADS)) + draw.sample(PAYLOADS, len(PAYLOADS)):
        kind = "application/json" if path.suffix == ".json" else "application/x-protobuf"
        answer = system.send(path.read_bytes(), content_type=kind)
        assert 200 == answer.status_code, (path, answer.text)
    expected = {call["call_id"]: call for call in inspected()}
    end = time.monotonic() + SETTLED_SECONDS
    while (found := listed(system)) != expected and time.monotonic() < end:
        time.sleep(0.2)  # a real process is polled; nothing here can be told
    assert expected.keys() == found.keys()
    assert [] == [(expected[i], found[i]) for i in expected if expected[i] != found[i]]


def inspected() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "controlplane", "inspect", "--json", *map(str, PAYLOADS)]
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    document: dict[str, Any] = msgspec.json.decode(printed)
    return [{fact: call[fact] for fact in FACTS} for call in document["calls"]]


def listed(system: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    params: dict[str, Any] = {**SPAN_OF_RECORDINGS, "limit": 1000}
    while True:
        page = system.ask("calls", **params).raise_for_status().json()
        found |= {row["call_id"]: {fact: row[fact] for fact in FACTS} for row in page["rows"]}
        if page["meta"]["next_cursor"] is None:
            return found
        params["cursor"] = page["meta"]["next_cursor"]
