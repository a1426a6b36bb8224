"""Scores and guardrails find their call, once, and only for who may see it."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.signals.attach import events_of_call
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch
from tests.api.conftest import NOW, _table, own_spans

spans = pytest.fixture(name="spans")(own_spans)

ACME = f"{sum(b'acme'):016x}"
TRACE, SPAN = f"{ACME}{2:016x}", f"{3:016x}"


def _call_id(client: Any, trace_id: str) -> str:
    rows = client.get("/api/v1/calls", params={"range": "24h"}).json()["rows"]
    (found,) = [row["call_id"] for row in rows if row["trace_id"] == trace_id]
    return str(found)


def test_a_score_is_read_with_its_call_and_counts_once(api: Any, acme: str) -> None:
    order = {"name": "helpful", "score": 0.9, "trace_id": TRACE, "span_id": SPAN, "id": "vote-1"}
    with api.client(acme) as client:
        first = client.post("/api/v1/scores", json=order)
        again = client.post("/api/v1/scores", json=order)
        assert (201, True) == (first.status_code, first.json()["is_new"])
        assert (201, False) == (again.status_code, again.json()["is_new"])
        detail = client.get(f"/api/v1/calls/{_call_id(client, TRACE)}").json()
    assert TRACE == detail["call"]["trace_id"]
    assert [("helpful", 0.9, "feedback", "api")] == [
        tuple(event[name] for name in ("name", "score", "kind", "source"))
        for event in detail["events"]
    ]
    assert ("1.500000001", "1500000001") == (
        detail["call"]["cost_usd"],
        detail["call"]["cost_nusd"],
    )


def test_a_score_of_an_unknown_span_is_of_its_traces_only_call(api: Any, acme: str) -> None:
    order = {"name": "x", "label": "good", "trace_id": f"{ACME}{3:016x}", "span_id": "f" * 16}
    with api.client(acme) as client:
        assert 201 == client.post("/api/v1/scores", json=order).status_code
        # Its trace has one call only, so that it can be about no other.
        detail = client.get(f"/api/v1/calls/{_call_id(client, f'{ACME}{3:016x}')}").json()
    assert ["x"] == [event["name"] for event in detail["events"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trace_id": None}, "trace_id"),
        ({"trace_id": "xyz"}, "trace_id"),
        ({"trace_id": "0" * 32}, "trace_id"),
        ({"span_id": "1"}, "span_id"),
        ({"score": None}, "score"),
        ({"name": ""}, "name"),
        ({"label": "l" * 300}, "label"),
        ({"at": "2026-11-20T10:00:00"}, "at"),
    ],
)
def test_a_wrong_score_says_which_field(
    api: Any, acme: str, change: dict[str, Any], field: str
) -> None:
    order = {"name": "n", "score": 1, "trace_id": TRACE, **change}
    with api.client(acme) as client:
        answer = client.post("/api/v1/scores", json=order)
    assert 400 == answer.status_code
    assert field in answer.json()["detail"]


def test_nobody_scores_for_another_tenant(api: Any, acme: str, admin: str) -> None:
    order = {"name": "n", "score": 1, "trace_id": TRACE}
    with api.client(acme) as client:
        refused = client.post("/api/v1/scores", json={**order, "tenant": "globex"})
        assert 403 == refused.status_code
        assert 404 == client.get(f"/api/v1/calls/call_{'0' * 32}").status_code
        assert 404 == client.get("/api/v1/calls/nonsense").status_code
    with api.client(admin) as client:
        assert 400 == client.post("/api/v1/scores", json=order).status_code
        kept = client.post("/api/v1/scores", json={**order, "tenant": "globex", "id": "g"})
        assert ("globex", True) == (kept.json()["tenant"], kept.json()["is_new"])


def test_violations_and_requests_in_progress_are_metrics(api: Any, admin: str) -> None:
    def guard(number: int, action: str) -> dict[str, Any]:
        return {
            "tenant": "acme", "kind": "guardrail", "name": "pii", "action": action,
            "event_hash": number, "time": NOW,
        }  # fmt: skip

    def running(minute: int, value: float) -> dict[str, Any]:
        return {
            "tenant": "acme", "emitter": "vllm", "model": "m", "kind": "gauge", "value": value,
            "meaning": "running_requests", "series_hash": 77, "time": NOW - timedelta(minutes=minute),
        }  # fmt: skip

    batch = SignalBatch(
        samples=_table([running(10, 9), running(1, 4)], SAMPLE_SCHEMA),
        events=_table([guard(901, "blocked"), guard(902, "allowed")], EVENT_SCHEMA),
        accounts=ACCOUNT_SCHEMA.empty_table(),
        rejections=REJECTION_SCHEMA.empty_table(),
    )
    api.services.signal_writer.write_signals(batch, batch_id="guards")
    with api.client(admin) as client:
        text = client.get("/metrics").text
    assert 'ai_guardrail_violations_total{action="blocked",guardrail="pii"} 1.0' in text
    assert 'action="allowed"' not in text
    assert 'ai_active_requests{emitter="vllm",model="m"} 4.0' in text


def _row(**said: Any) -> dict[str, Any]:
    plain = {"trace_hi": 0, "trace_lo": 1, "span_id": 0, "parent_span_id": 0, "response_id": None}
    return {**plain, **said}


@pytest.mark.parametrize(
    ("event", "alone", "attached"),
    [
        (_row(span_id=5), False, True),  # on the call's own span
        (_row(span_id=6), False, True),  # on a report that does not bill
        (_row(span_id=9, parent_span_id=5), False, True),  # a span below it
        (_row(span_id=9), False, False),  # on some other span of a trace with several calls
        (_row(), False, False),
        (_row(), True, True),
        (_row(trace_lo=2, span_id=5), True, False),  # another trace
        (_row(trace_lo=0, response_id="chatcmpl-1"), False, True),
        (_row(trace_lo=0, response_id="chatcmpl-2"), True, False),
    ],
)
def test_which_events_are_about_a_call(
    event: dict[str, Any],
    alone: bool,  # noqa: FBT001 - a parameter
    attached: bool,  # noqa: FBT001 - a parameter
) -> None:
    call = _row(span_id=5, response_id="chatcmpl-1")
    found = events_of_call(call, [_row(span_id=6)], [event], is_alone_in_trace=alone)
    assert attached == bool(found)


def test_a_short_response_id_names_nothing() -> None:
    call = _row(span_id=5, response_id="17")
    event = _row(trace_lo=0, response_id="17")
    assert [] == events_of_call(call, [], [event], is_alone_in_trace=False)
