"""Half of what the machine can take, for long: memory stays where it is and nothing is lost."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typing_extensions import override

from controlplane.bench.load import SPANS_PER_REQUEST
from controlplane.bench.sender import Plan

LOOK_SECONDS = 0.25
DRAIN_SECONDS = 300.0
WARM_SHARE = 0.4
"""Of a run at whose start caches fill; growth is judged after it."""
MIB = 2**20
GROWTH_LIMIT_MIB = {"collector": (64.0, 2.0), "api": (768.0, 16.0)}
"""Fitted growth of each process after warming up: at most in a short run, and a minute in a long one.

The hub's database keeps recent blocks in memory up to its own limit (`store.spans.database`), which a
short run does not reach.
"""


class Watch(threading.Thread):
    """Notes the resident memory of each role until told to stop."""

    def __init__(self, pids: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.pids = pids
        self.at: list[float] = []
        self.mib: dict[str, list[float]] = {name: [] for name in pids}
        self.stopping = threading.Event()

    @override
    def run(self) -> None:
        while not self.stopping.wait(LOOK_SECONDS):
            self.at.append(time.monotonic())
            for name, pid in self.pids.items():
                self.mib[name].append(_resident(pid) / MIB)

    def stop(self) -> None:
        self.stopping.set()
        self.join()

    def growth_per_second(self, name: str) -> float:
        """Answer the fitted slope after warming up, MiB a second."""
        first = int(len(self.at) * WARM_SHARE)
        slope, _ = np.polyfit(self.at[first:], self.mib[name][first:], 1)
        return float(slope)


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def _roles(family: list[tuple[int, str]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pid, _ in family:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"--role" in line:
            found[line[line.index(b"--role") + 1].decode()] = pid
    return {name: found[name] for name in GROWTH_LIMIT_MIB}


def _send(otlp: str, *, seconds: float, rate: float) -> dict[str, Any]:
    plan = Plan(f"{otlp}/v1/traces", seconds, 2, "gzip", rate)
    command = [sys.executable, "-m", "controlplane.bench.sender"]
    done = subprocess.run(
        [*command, msgspec.json.encode(plan).decode()], check=True, capture_output=True
    )
    sent: dict[str, Any] = json.loads(done.stdout)
    return sent


def _drain(system: Any, spans: int) -> float:
    """Wait until so many spans are stored; answer how long that took."""
    began = time.monotonic()
    waiting = threading.Event()
    while system.metric("controlplane_ingest_stored_spans_total") < spans:
        assert time.monotonic() < began + DRAIN_SECONDS, "spans that were acknowledged are missing"
        waiting.wait(0.1)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(2_400)
def test_memory_is_flat_at_half_of_what_the_machine_can_take(
    tmp_path: Path,
    start_program: Any,
    system_over: Any,
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    probe_seconds, seconds = (30.0, 900.0) if full_size else (2.0, 8.0)
    program = start_program(tmp_path, "up", "--json")
    try:
        system = system_over(tmp_path, program)
        told = _soak(system, program, probe_seconds=probe_seconds, seconds=seconds)
    finally:
        program.clear_away()
    limits = {
        name: a_minute * seconds / 60 if full_size else short
        for name, (short, a_minute) in GROWTH_LIMIT_MIB.items()
    }
    within = all(told["growth_mib"][name] <= limit for name, limit in limits.items())
    told = {"growth_limits_mib": limits, "is_within_limits": within, **told}
    with capsys.disabled():
        sys.stdout.write(json.dumps(told) + "\n")
    write_proof("soak", told)
    assert 0 == told["refused_requests"]
    assert within, told["growth_mib"]


def _soak(system: Any, program: Any, *, probe_seconds: float, seconds: float) -> dict[str, Any]:
    probe = _send(system.otlp, seconds=probe_seconds, rate=0.0)
    capacity = probe["spans"] / (probe["seconds"] + _drain(system, probe["spans"]))
    watch = Watch(_roles(program.family))
    watch.start()
    sent = _send(system.otlp, seconds=seconds, rate=capacity / 2 / SPANS_PER_REQUEST)
    watch.stop()
    _drain(system, probe["spans"] + sent["spans"])
    judged = seconds * (1 - WARM_SHARE)
    return {
        "seconds": seconds,
        "capacity_spans_per_second": round(capacity),
        "sent_spans": sent["spans"],
        "refused_requests": sent["refused"],
        "ack_p99_ms": round(sent["ack_p99_ms"], 1),
        "growth_mib": {n: round(watch.growth_per_second(n) * judged, 2) for n in watch.pids},
        "largest_mib": {name: round(max(values), 1) for name, values in watch.mib.items()},
    }
