"""What we count of real clients is what the upstream served, token for token.

The clients and their instrumentors are those of PyPI and npm, run live against an upstream that keeps its
own bill. Newer Anthropic SDKs send spans by themselves, so that every message has two reports.
(LiteLLM's proxy is compared in the same way, to the nano-dollar, in test_litellm.)
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "clients" / "bin" / "python"
DRIVER = Path(__file__).with_name("live_clients.py")
VISIBLE_SECONDS = 120.0
VERCEL = ROOT / ".venvs" / "vercel"
FAILED = {"openinference": 2, "traceloop": 2, "none": 1, "vercel": 1}
"""Calls that the upstream refuses: one of each client that is instrumented."""


def _command(maker: str) -> list[str]:
    """Return what runs the clients; skip, counted, where they are not installed."""
    if maker != "vercel":
        if not PYTHON.exists():
            pytest.skip("no environment of clients: `make .venvs/clients/.installed` makes it")
        return [str(PYTHON), str(DRIVER)]
    node = shutil.which("node")
    if node is None or not (VERCEL / "node_modules").exists():
        pytest.skip("no Node, or no Vercel AI SDK: `make .venvs/vercel/.installed` installs it")
    return [node, str(VERCEL / "live.mjs")]


def _run(command: list[str]) -> None:
    clean = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    quiet = {"OTEL_TRACES_EXPORTER": "none", "TRACELOOP_TELEMETRY": "false"}
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**clean, **quiet},
    )
    assert 0 == ran.returncode, ran.stderr[-3_000:]


def _says(maker: str, bill: dict[str, Any]) -> bool:
    """Whether the spans hold the cached tokens: AI SDK 5 puts them on streams only."""
    return maker != "vercel" or bool(bill["stream"])


@pytest.mark.parametrize("maker", FAILED)
def test_tokens_counted_are_tokens_served(system: Any, upstream: str, maker: str) -> None:
    model = f"live-{maker}"
    told = [upstream, system.otlp, *([] if maker == "vercel" else [maker]), model]
    _run([*_command(maker), *told])
    bills = [bill for bill in httpx.get(f"{upstream}/_log").json() if bill["model"] == model]
    assert len(bills) > 5
    served = {
        "calls": len(bills) + FAILED[maker],
        "errors": FAILED[maker],
        "input_tokens": sum(bill["input_tokens"] for bill in bills),
        "cached_input_tokens": sum(bill["cached_tokens"] for bill in bills if _says(maker, bill)),
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
