"""The completeness meter over HTTP, of the caller's tenants only."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch
from tests.api.conftest import NOW, _table, own_spans

spans = pytest.fixture(name="spans")(own_spans)


def _fill(api: Any) -> None:
    account = {
        "tenant": "acme", "key_id": "k1", "service_name": "acme-gateway", "signal": "logs",
        "hour": NOW - timedelta(hours=3), "received": 30, "last_received": NOW - timedelta(hours=2),
    }  # fmt: skip
    counted = {
        "tenant": "acme", "emitter": "acme-gateway", "metric": "litellm_input_tokens_metric",
        "meaning": "input_tokens", "kind": "counter", "temporality": "delta", "model": "gpt-4o",
        "series_hash": 5, "time": NOW - timedelta(minutes=30), "value": 50_000.0,
    }  # fmt: skip
    batch = SignalBatch(
        samples=_table([counted], SAMPLE_SCHEMA),
        events=EVENT_SCHEMA.empty_table(),
        accounts=_table([account], ACCOUNT_SCHEMA),
        rejections=_table(
            [{**account, "reason": "missing_time", "rejected": 30}], REJECTION_SCHEMA
        ),
    )
    api.services.signal_writer.write_signals(batch, batch_id="completeness")


def test_the_meter_adds_up_and_names_what_is_missing(api: Any, acme: str, admin: str) -> None:
    _fill(api)
    with api.client(acme) as client:
        body = client.get("/api/v1/quality/completeness", params={"range": "24h"}).json()
        globex = client.get("/api/v1/quality/completeness", params={"tenant": "globex"})
    (account,) = body["accounts"]
    assert 30 == account["received"] == account["rejected"]
    assert {"missing_time": 30} == account["rejected_by_reason"]
    assert 0 == account["stored"] + account["duplicates"]
    (check,) = body["counters"]
    # Five priced calls of acme: 100 of 50,000 input tokens, 150 tokens for $7.500000005.
    assert (50_000, 100, 49_900) == tuple(
        check[n] for n in ("counted_input_tokens", "call_input_tokens", "missing_tokens")
    )
    assert str(7_500_000_005 * 49_900 // 150) == check["missing_nusd"]
    codes = {found["code"] for found in body["findings"]}
    assert {"items_rejected", "counters_ahead_of_calls"} == codes
    assert 403 == globex.status_code
    with api.client(admin) as client:
        text = client.get("/metrics").text
    assert 'ai_missing_tokens{emitter="acme-gateway",model="gpt-4o"} 49900.0' in text
    assert "ai_silent_emitters 0.0" in text


def test_silence_is_of_the_windows_end_and_outlasts_a_short_window(api: Any, acme: str) -> None:
    """It sent for 20 hours until two hours ago: silent now, not on the day before, gone after."""
    sent = {
        "tenant": "acme", "key_id": "k1", "service_name": "acme-app", "signal": "traces",
        "received": 1_000,
    }  # fmt: skip
    hours = [
        {**sent, "hour": NOW - timedelta(hours=ago), "last_received": NOW - timedelta(hours=ago)}
        for ago in (40, 30, 20, 10, 2)
    ]
    for number, hour in enumerate(hours):
        batch = SignalBatch(
            samples=SAMPLE_SCHEMA.empty_table(),
            events=EVENT_SCHEMA.empty_table(),
            accounts=_table([hour], ACCOUNT_SCHEMA),
            rejections=REJECTION_SCHEMA.empty_table(),
        )
        api.services.signal_writer.write_signals(batch, batch_id=f"silence-{number}")
    asked = {
        "hour": {"range": "1h"},
        "day": {"range": "24h"},
        "before": {
            "start": (NOW - timedelta(hours=48)).isoformat(),
            "end": (NOW - timedelta(hours=30)).isoformat(),
        },
    }
    silent = {}
    with api.client(acme) as client:
        for name, window in asked.items():
            answer = client.get("/api/v1/quality/completeness", params=window)
            assert 200 == answer.status_code, answer.text
            silent[name] = [
                (found["emitter"], found["message"].split(",")[0])
                for found in answer.json()["findings"]
                if found["code"] == "silent_emitter"
            ]
    now = ("acme-app", "nothing for 120 minutes")
    assert {"hour": [now], "day": [now], "before": []} == silent
