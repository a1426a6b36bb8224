"""5,000 spans a second with people looking: fresh, quick, and every acknowledged span once."""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from playwright.sync_api import Page, sync_playwright
from typing_extensions import override

from controlplane.bench.load import SPANS_PER_REQUEST
from controlplane.bench.processes import cpu_seconds
from controlplane.bench.sender import Plan

SPANS_PER_SECOND = 5_000
LEAST_SHARE = {True: 0.95, False: 0.2}
"""Of that rate, what has to be sent at full size, and on a machine that does other things."""
MARK_SECONDS = 0.25
LOOK_SECONDS = 0.15  # the markers; it adds to what is measured as freshness
ASK_SECONDS = 0.25
DRAIN_SECONDS = 120.0
PROMISED = (2.0, 200.0)
"""p95 of freshness in seconds and of an API answer in milliseconds, on two cores of our own."""
TOLERATED = (20.0, 5_000.0)
"""The same on a machine that does other things."""
TEAM = "markers"
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]  # containers: no user namespace, small shm
ASKED: list[tuple[str, dict[str, str | int]]] = [
    ("costs", {"range": "24h", "granularity": "hour", "group_by": "model"}),
    ("costs", {"range": "24h", "group_by": "team,feature", "compare": "previous"}),
    ("calls", {"range": "1h", "limit": 100}),
    ("budgets", {}),
    ("traces", {}),
]


class Repeated(threading.Thread):
    """Does one thing again and again until told to stop, and keeps what went wrong."""

    def __init__(self, work: Callable[[], None], *, seconds: float) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.seconds = seconds
        self.stopping = threading.Event()
        self.failed: list[Exception] = []

    @override
    def run(self) -> None:
        while not self.stopping.wait(self.seconds):
            try:
                self.work()
            except (httpx.HTTPError, AssertionError) as wrong:
                self.failed.append(wrong)

    def stop(self) -> None:
        self.stopping.set()
        self.join()
        assert [] == self.failed


class Markers:
    """Calls of our own among the load: when each was acknowledged, and when the API showed it."""

    def __init__(self, system: Any, chat: Any) -> None:
        self.system, self.chat = system, chat
        self.acked: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.looks = 0

    def send(self) -> None:
        sent = self.chat(TEAM, input_tokens=1_000, output_tokens=100)
        assert 200 == self.system.send(sent.body).status_code
        self.acked[sent.trace_id] = time.monotonic()

    def look(self) -> None:
        answer = self.system.ask("calls", range="1h", limit=100, **{"filter.team": TEAM})
        rows = answer.raise_for_status().json()["rows"]
        now = time.monotonic()
        self.looks += 1
        for row in rows:
            self.seen.setdefault(row["trace_id"], now)

    def freshness(self) -> list[float]:
        return [max(0.0, self.seen[one] - at) for one, at in self.acked.items()]


class Reader:
    """Asks what people ask, one after the other, and keeps how long each answer took."""

    def __init__(self, system: Any, markers: Markers) -> None:
        self.system, self.markers = system, markers
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.turn = 0

    def ask(self) -> None:
        path, params = ASKED[self.turn % len(ASKED)]
        self.turn += 1
        name = path
        if path == "traces":
            if not self.markers.seen:
                return
            path = f"traces/{list(self.markers.seen)[-1]}"
        began = time.monotonic()
        self.system.ask(path, **params).raise_for_status()
        self.seconds[name].append(time.monotonic() - began)

    def milliseconds(self) -> dict[str, dict[str, float]]:
        return {name: _quantiles(took, scale=1_000) for name, took in self.seconds.items()}


def _quantiles(values: list[float], *, scale: float = 1) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"p50": round(cuts[9] * scale, 3), "p95": round(cuts[18] * scale, 3)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sustained_load_is_fresh_and_quick(
    tmp_path: Path,
    start_program: Any,
    system_over: Any,
    chat: Any,
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = 120.0 if full_size else 15.0
    program = start_program(tmp_path, "up", "--json")
    try:
        system = system_over(tmp_path, program)
        figures = _measure(system, program, Markers(system, chat), seconds=seconds)
        assert figures["acknowledged_spans"] >= LEAST_SHARE[full_size] * SPANS_PER_SECOND * seconds
    finally:
        program.end(signal.SIGINT)
        program.clear_away()
    limits = PROMISED if full_size else TOLERATED
    judged = (figures["freshness_seconds"]["p95"], figures["api_milliseconds"]["p95"])
    within = [value <= limit for value, limit in zip(judged, limits, strict=True)]
    told = {"limits": limits, "is_within_limits": all(within), **figures}
    with capsys.disabled():
        sys.stdout.write(json.dumps(told) + "\n")
    write_proof("sustained", told)
    assert [True, True] == within, f"{judged} is over {limits}"


def _measure(system: Any, program: Any, markers: Markers, *, seconds: float) -> dict[str, Any]:
    reader = Reader(system, markers)
    _make_budgets(system)
    markers.send()
    system.wait_for(TEAM, calls=1)  # an empty dashboard explains itself instead
    with _dashboard(system) as page, _watching(markers, reader):
        pids = [pid for pid, _ in program.family]
        load_before, cpu_before = os.getloadavg(), [cpu_seconds([pid]) for pid in pids]
        sent = _send_load(system.otlp, seconds=seconds, page=page)
        cpu = [cpu_seconds([pid]) - was for pid, was in zip(pids, cpu_before, strict=True)]
        load_after = os.getloadavg()
    drained = _drained(system, calls=sent["spans"] + len(markers.acked))
    markers.look()
    assert markers.acked.keys() == markers.seen.keys()
    api = [took for each in reader.seconds.values() for took in each]
    return {
        "seconds": seconds,
        "spans_per_second": round(sent["spans"] / sent["seconds"]),
        "acknowledged_spans": sent["spans"],
        "ack_p99_ms": round(sent["ack_p99_ms"], 1),
        "markers": len(markers.acked),
        "freshness_seconds": {
            **_quantiles(markers.freshness()),
            "max": round(max(markers.freshness()), 3),
        },
        "api_milliseconds": _quantiles(api, scale=1_000),
        "api_requests_per_second": round((len(api) + markers.looks) / sent["seconds"], 1),
        "routes_milliseconds": reader.milliseconds(),
        "drained_seconds": round(drained, 2),
        "dashboard_open": page is not None,
        "cores_used": dict(
            zip(_names(pids), (round(one / sent["seconds"], 3) for one in cpu), strict=True)
        ),
        "cores": os.cpu_count(),
        "load_average_before": load_before,
        "load_average_after": load_after,
    }


@contextlib.contextmanager
def _watching(markers: Markers, reader: Reader) -> Iterator[None]:
    threads = [
        Repeated(markers.send, seconds=MARK_SECONDS),
        Repeated(markers.look, seconds=LOOK_SECONDS),
        Repeated(reader.ask, seconds=ASK_SECONDS),
    ]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.stop()


@contextlib.contextmanager
def _dashboard(system: Any) -> Iterator[Page | None]:
    """Keep the overview open in a browser; None where there is no Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page()
        page.goto(system.sign_in_url, timeout=120_000)
        page.get_by_text("Data through").wait_for(timeout=120_000)
        yield page
        browser.close()


def _send_load(otlp: str, *, seconds: float, page: Page | None) -> dict[str, Any]:
    """Send the reference load from a process of its own."""
    rate = SPANS_PER_SECOND / SPANS_PER_REQUEST
    plan = Plan(f"{otlp}/v1/traces", seconds, 2, "identity", rate)
    command = [sys.executable, "-m", "controlplane.bench.sender"]
    command.append(msgspec.json.encode(plan).decode())
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            # A page is only alive while its driver listens.
            page.wait_for_timeout(200) if page else time.sleep(0.2)
        assert process.stdout
        sent: dict[str, Any] = json.loads(process.stdout.read())
    assert 0 == sent["refused"]
    return sent


def _drained(system: Any, *, calls: int) -> float:
    """Wait until every acknowledged span is a call of its own; answer how long that took."""
    began = time.monotonic()
    while (seen := _calls(system)) < calls and time.monotonic() < began + DRAIN_SECONDS:
        time.sleep(0.1)
    took = time.monotonic() - began
    time.sleep(1.0)  # what is counted twice would still be on its way
    assert (calls, calls) == (seen, _calls(system))
    assert calls == system.metric("controlplane_ingest_stored_spans_total")
    assert 0 == system.metric("controlplane_ingest_duplicate_spans_total")
    return took


def _calls(system: Any) -> int:
    answer = system.ask("costs", range="24h").raise_for_status()
    calls: int = answer.json()["meta"]["totals"]["calls"]
    return calls


def _make_budgets(system: Any) -> None:
    for name in ("everything", "one team"):
        order: dict[str, Any] = {
            "name": name,
            "owner": "finance",
            "tenant": "default",
            "limit_usd": "1000000",
        }
        narrow: dict[str, Any] = {"match": {"team": ["team-01"]}, "mode": "soft"}
        order |= narrow if name == "one team" else {}
        held = {"Authorization": f"Bearer {system.admin}"}
        made = system.api.post("/api/v1/budgets", json={**order, "period": "month"}, headers=held)
        assert made.is_success, made.text


def _names(pids: list[int]) -> list[str]:
    """Name each process by its role."""
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids]
    return [
        line[line.index(b"--role") + 1].decode() if b"--role" in line else "supervisor"
        for line in lines
    ]
