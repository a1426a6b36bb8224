"""`controlplane bench ingest`: processor time per span, stage by stage and as a whole."""

import functools
import os
import platform
import subprocess
import sys
import time
from typing import Any, Final

import msgspec

from controlplane.bench.load import SPANS_PER_REQUEST
from controlplane.bench.peers import measure_phoenix, measure_rotel
from controlplane.bench.processes import cpu_seconds
from controlplane.bench.sender import Plan, Sent
from controlplane.bench.stages import measure_stages
from controlplane.bench.topology import RunningSystem, running_system

CONNECTIONS: Final = 4
WARM_UP_SECONDS: Final = 2.0
ENCODINGS: Final = ("identity", "gzip")


def run(*, seconds: float = 10.0) -> dict[str, Any]:
    """Measure in the shape of design section 13.

    CPU is user + system of the hub and the collector, from the first request until everything
    acknowledged is in the store; the sender is a process of its own and not counted. `whole` is
    the uncompressed load, `whole.gzip` the same compressed. Half load is half the measured rate.
    """
    send = functools.partial(_send, seconds=seconds)
    load_average = list(os.getloadavg())
    stages = measure_stages(seconds=seconds)
    whole = {encoding: _measure_whole(send, encoding) for encoding in ENCODINGS}
    rotel = {encoding: measure_rotel(send, encoding=encoding) for encoding in ENCODINGS}
    figures: dict[str, Any] = {**whole["identity"], "gzip": whole["gzip"]}
    if rotel["identity"]:
        ours = whole["identity"]["spans_per_cpu_second"]
        figures["rotel_ratio"] = ours / rotel["identity"]["spans_per_cpu_second"]
    return {
        "stages": stages,
        "whole": figures,
        "peers": {
            "rotel": rotel["identity"] and {**rotel["identity"], "gzip": rotel["gzip"]},
            "phoenix": measure_phoenix(send),
        },
        "load_average": load_average,
        "config": {
            "seconds": seconds,
            "connections": CONNECTIONS,
            "spans_per_request": SPANS_PER_REQUEST,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
    }


def _measure_whole(send: functools.partial[Sent], encoding: str) -> dict[str, float]:
    with running_system() as system:
        send(system.traces_url, encoding=encoding, seconds=WARM_UP_SECONDS)
        system.wait_until_stored()
        full = _measure_full(system, send, encoding)
        rate = full["spans_per_second"] / SPANS_PER_REQUEST / 2
        half = send(system.traces_url, encoding=encoding, rate=rate)
        system.wait_until_stored()
    return {
        **full,
        "ack_p50_ms": half.ack_p50_ms,
        "ack_p99_ms": half.ack_p99_ms,
        "half_load_spans_per_second": half.spans / half.seconds,
        "refused_requests": full["refused_requests"] + half.refused,
    }


def _measure_full(
    system: RunningSystem, send: functools.partial[Sent], encoding: str
) -> dict[str, float]:
    before = {role: cpu_seconds([pid]) for role, pid in system.pids.items()}
    stored_before = system.metric("controlplane_ingest_stored_spans_total")
    started = time.monotonic()
    sent = send(system.traces_url, encoding=encoding)
    system.wait_until_stored()
    took = time.monotonic() - started
    cpu = {role: cpu_seconds([pid]) - before[role] for role, pid in system.pids.items()}
    stored = system.metric("controlplane_ingest_stored_spans_total") - stored_before
    return {
        "spans_per_cpu_second": stored / sum(cpu.values()),
        "spans_per_second": stored / took,
        "acknowledged_spans": sent.spans,
        "stored_spans": stored,
        **{f"{role}_cpu_us_per_span": used / stored * 1e6 for role, used in cpu.items()},
        "full_load_ack_p99_ms": sent.ack_p99_ms,
        "refused_requests": sent.refused,
    }


def _send(url: str, *, seconds: float, encoding: str, rate: float = 0.0) -> Sent:
    plan = msgspec.json.encode(Plan(url, seconds, CONNECTIONS, encoding, rate)).decode()
    command = [sys.executable, "-m", "controlplane.bench.sender", plan]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return msgspec.json.decode(output, type=Sent)
