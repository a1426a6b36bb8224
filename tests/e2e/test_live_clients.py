"""What we count of real clients is what the upstream served, token for token.

The clients and their instrumentors are those of PyPI, run live against an upstream that keeps its
own bill. Newer Anthropic SDKs send spans by themselves, so that every message has two reports.
(LiteLLM's proxy is compared in the same way, to the nano-dollar, in test_litellm.)
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "clients" / "bin" / "python"
DRIVER = Path(__file__).with_name("live_clients.py")
VISIBLE_SECONDS = 60.0
FAILED = {"openinference": 2, "traceloop": 2, "none": 1}
"""Calls that the upstream refuses: one of each client that is instrumented."""


def _run(upstream: str, otlp: str, maker: str, model: str) -> None:
    clean = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    quiet = {"OTEL_TRACES_EXPORTER": "none", "TRACELOOP_TELEMETRY": "false"}
    ran = subprocess.run(
        [str(PYTHON), str(DRIVER), upstream, otlp, maker, model],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**clean, **quiet},
    )
    assert 0 == ran.returncode, ran.stderr[-3_000:]


@pytest.mark.parametrize("maker", FAILED)
def test_tokens_counted_are_tokens_served(system: Any, upstream: str, maker: str) -> None:
    if not PYTHON.exists():
        pytest.skip("no environment of clients: `make .venvs/clients/.installed` makes it")
    model = f"live-{maker}"
    _run(upstream, system.otlp, maker, model)
    bills = [bill for bill in httpx.get(f"{upstream}/_log").json() if bill["model"] == model]
    assert len(bills) > 5
    served = {
        "calls": len(bills) + FAILED[maker],
        "errors": FAILED[maker],
        "input_tokens": sum(bill["input_tokens"] for bill in bills),
        "cached_input_tokens": sum(bill["cached_tokens"] for bill in bills),
        "output_tokens": sum(bill["output_tokens"] for bill in bills),
    }
    headers = {"Authorization": f"Bearer {system.operator}"}
    deadline = time.monotonic() + VISIBLE_SECONDS
    counted: dict[str, int] = {}
    while counted != served and time.monotonic() < deadline:
        answer = httpx.get(
            f"{system.api}/api/v1/costs",
            params={"range": "1h", "filter.team": model},
            headers=headers,
        )
        totals = answer.raise_for_status().json()["meta"]["totals"]
        counted = {name: totals[name] for name in served}
        time.sleep(0.2)
    assert served == counted
