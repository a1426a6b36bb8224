"""The hub is killed under load: the collector goes on acknowledging, and nothing is lost or doubled."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import httpx
from typing_extensions import override

BEFORE, WITHOUT, AFTER = 1.5, 3.0, 1.5
PAUSE_SECONDS = 0.02
DRAIN_SECONDS = 120.0


class Sender(threading.Thread):
    """Sends one call after the other, and remembers when each was acknowledged."""

    def __init__(self, url: str, chat: Any) -> None:
        super().__init__(daemon=True)
        self.url = f"{url}/v1/traces"
        self.chat = chat
        self.acked: dict[str, float] = {}
        self.refused: list[str] = []
        self.done = threading.Event()

    @override
    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not self.done.wait(PAUSE_SECONDS):
                sent = self.chat("restarted", input_tokens=100, output_tokens=10)
                headers = {"content-type": "application/x-protobuf"}
                answer = client.post(self.url, content=sent.body, headers=headers)
                if answer.status_code == 200:
                    self.acked[sent.trace_id] = time.monotonic()
                else:
                    self.refused.append(answer.text)


def test_hub_killed_under_load_loses_and_doubles_nothing(
    tmp_path: Path, start_program: Any, chat: Any
) -> None:
    hub = start_program(tmp_path, "serve", "--role", "api")
    collector = start_program(tmp_path, "serve", "--role", "collector")
    sender = Sender(collector.ready["http"], chat)
    programs = [hub, collector]
    try:
        sender.start()
        time.sleep(BEFORE)
        hub.end(signal.SIGKILL)
        killed = time.monotonic()
        time.sleep(WITHOUT)
        programs.append(start_program(tmp_path, "serve", "--role", "api"))
        back = time.monotonic()
        time.sleep(AFTER)
        sender.done.set()
        sender.join()
        assert [] == sender.refused
        meanwhile = [at for at in sender.acked.values() if killed < at < back]
        assert len(meanwhile) > 20
        _until_counted(tmp_path, programs[-1].ready["api"], calls=len(sender.acked))
    finally:
        sender.done.set()
        for program in reversed(programs):
            program.end(signal.SIGTERM)
            program.clear_away()
    assert sorted(sender.acked) == _stored(tmp_path / "data" / "spans.duckdb")


def _until_counted(folder: Path, api: str, *, calls: int) -> None:
    """Wait until the API counts the calls, and see that it stays there; their cost is exact."""
    command = [sys.executable, "-m", "controlplane", "keys", "create", "--json"]
    command += ["--kind", "service", "--role", "admin", "--data-dir", str(folder / "data")]
    key = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["text"]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=api, headers=headers, trust_env=False, timeout=60) as client:
        end = time.monotonic() + DRAIN_SECONDS
        while (seen := _totals(client))["calls"] < calls and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.0)
        seen = _totals(client)
    # 100 x 150 + 10 x 600 nano-USD each: gpt-4o-mini
    assert (calls, calls * 21_000) == (seen["calls"], int(seen["cost_nusd"]))


def _totals(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/api/v1/costs", params={"range": "24h", "filter.team": "restarted"})
    totals: dict[str, Any] = answer.raise_for_status().json()["meta"]["totals"]
    return totals


def _stored(path: Path) -> list[str]:
    """Read the trace of every stored span, past all our own code."""
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute("SELECT trace_hi, trace_lo FROM span").fetchall()
    return sorted(f"{high:016x}{low:016x}" for high, low in rows)
