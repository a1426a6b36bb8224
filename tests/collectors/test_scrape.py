"""Scraping real HTTP servers that expose what the engines expose, found in every way."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from typing_extensions import override

from collectors.scrape.discover import Discovery, resolve
from collectors.scrape.jobs import DnsNames, Engine, ScrapeJob
from collectors.scrape.scraper import Scraper
from collectors.spool import SqliteSpool
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import ConfigError
from controlplane.ingest.metrics import decode_metrics
from controlplane.ingest.ports import SpoolEntry
from controlplane.telemetry import REGISTRY

TEXT = "text/plain; version=0.0.4"
WAIT_SECONDS = 60.0


class Endpoint:
    """One /metrics of a test's own; what it answers may change between scrapes."""

    def __init__(self) -> None:
        self.body: bytes = b""
        self.kind = TEXT
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.hold = threading.Event()
        self.hold.set()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked.append(dict(self.headers))
                endpoint.hold.wait(WAIT_SECONDS)
                self.send_response(endpoint.status)
                self.send_header("content-type", endpoint.kind)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(endpoint.body)

            @override
            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def redirect(self, location: str) -> None:
        self.status = 302
        self.headers["location"] = location

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


class Spooled:
    """A spool that says when something came."""

    def __init__(self, spool: SqliteSpool) -> None:
        self._spool = spool
        self._came = threading.Condition()
        self.entries: list[SpoolEntry] = []

    def append(self, entry: SpoolEntry) -> None:
        self._spool.append(entry)
        with self._came:
            self.entries.append(entry)
            self._came.notify_all()

    def wait_for(self, count: int) -> list[SpoolEntry]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.entries) >= count, WAIT_SECONDS)
            return list(self.entries)


@pytest.fixture
def spooled(open_spool: Callable[..., SqliteSpool]) -> Spooled:
    return Spooled(open_spool())


@pytest.fixture
def scrape(spooled: Spooled) -> Iterator[Callable[..., Scraper]]:
    running: list[Scraper] = []

    def start(**said: Any) -> Scraper:
        plain = {"job": "engines", "engine": "vllm", "interval_seconds": 0.05}
        jobs = [ScrapeJob(**{**plain, **said})]
        scraper = Scraper(jobs, spool=spooled, clock=SystemClock())
        running.append(scraper)
        scraper.start()
        return scraper

    yield start
    for scraper in running:
        scraper.stop()


def _failures(reason: str) -> float:
    labels = {"job": "engines", "reason": reason}
    return REGISTRY.get_sample_value("controlplane_scrape_failures_total", labels) or 0.0


def _until(reached: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(WAIT_SECONDS / 0.02)):
        if reached():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


def _rows(entries: list[SpoolEntry]) -> list[dict[str, Any]]:
    decoded = decode_metrics(entries)
    assert not decoded.rejected
    rows: list[dict[str, Any]] = decoded.rows.to_pylist()
    return rows


def _exposed(*series: tuple[str, str, float, dict[str, str]], openmetrics: bool = False) -> bytes:
    registry = CollectorRegistry()
    kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
    for kind, name, value, labels in series:
        made: Any = kinds[kind](name, "what it is", list(labels), registry=registry)
        child = made.labels(**labels) if labels else made
        getattr(child, {"counter": "inc", "gauge": "set", "histogram": "observe"}[kind])(value)
    write: Any = generate_openmetrics if openmetrics else generate_latest
    written: bytes = write(registry)
    return written


MODEL = {"model_name": "llama-3.1-8b"}
GPU = {"UUID": "GPU-1", "Hostname": "node-1", "pod": "llama-0"}
TRITON = b"""\
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="ens",version="1"} 5
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="ens",version="1"} 1500000
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.75
"""
ENGINES: list[tuple[Engine, bytes, dict[str, float]]] = [
    (
        "vllm",
        _exposed(
            ("counter", "vllm:prompt_tokens", 1_000, MODEL),
            ("counter", "vllm:generation_tokens", 50, MODEL),
            ("gauge", "vllm:num_requests_running", 3, MODEL),
            ("gauge", "vllm:kv_cache_usage_perc", 0.5, MODEL),
            ("histogram", "vllm:request_prefill_time_seconds", 0.25, MODEL),
            ("gauge", "vllm:lora_requests_info", 1, MODEL),
        ),
        {
            "input_tokens": 1_000, "output_tokens": 50, "running_requests": 3,
            "kv_usage_ratio": 0.5, "prefill_seconds": 0.25,
        },
    ),
    (
        "sglang",
        _exposed(
            ("counter", "sglang:prompt_tokens", 7, MODEL),
            ("counter", "sglang:cached_tokens", 2, MODEL),
            ("gauge", "sglang:num_queue_reqs", 4, MODEL),
            ("gauge", "sglang:token_usage", 0.25, MODEL),
        ),
        {
            "input_tokens": 7, "cached_input_tokens": 2, "waiting_requests": 4,
            "kv_usage_ratio": 0.25,
        },
    ),
    (
        "tgi",
        _exposed(
            ("histogram", "tgi_request_input_length", 120, {}),
            ("histogram", "tgi_request_generated_tokens", 30, {}),
            ("gauge", "tgi_queue_size", 1, {}),
        ),
        {"input_tokens": 120, "output_tokens": 30, "waiting_requests": 1},
    ),
    (
        "triton",
        TRITON,
        {"requests": 5, "queue_seconds": 1.5, "gpu_utilization_ratio": 0.75},
    ),
    (
        "dcgm",
        _exposed(
            ("gauge", "DCGM_FI_DEV_GPU_UTIL", 80, GPU),
            ("gauge", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.7, GPU),
            ("gauge", "DCGM_FI_DEV_FB_USED", 2, GPU),
            ("counter", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 9_000, GPU),
        ),
        {
            "gpu_utilization_ratio": 0.8, "gpu_active_ratio": 0.7,
            "gpu_memory_used_bytes": 2 * 1_048_576, "gpu_energy_joules": 9,
        },
    ),
    (
        "litellm",
        _exposed(
            ("counter", "litellm_input_tokens_metric", 11, {"model": "gpt-4o", "team": "t"}),
            ("counter", "litellm_spend_metric", 0.5, {"model": "gpt-4o", "team": "t"}),
        ),
        {"input_tokens": 11, "spend_usd": 0.5},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "body", "expected"), ENGINES, ids=[e[0] for e in ENGINES])
def test_each_engine_is_read_for_what_it_means(
    endpoint: Endpoint,
    spooled: Spooled,
    scrape: Callable[..., Scraper],
    engine: Engine,
    body: bytes,
    expected: dict[str, float],
) -> None:
    endpoint.body = body
    scrape(engine=engine, targets=(endpoint.address,), labels={"pool": "a100"}, tenant="acme")
    (entry, *_) = spooled.wait_for(1)
    rows = _rows([entry])
    assert {name: pytest.approx(value) for name, value in expected.items()} == {
        row["meaning"]: row["value"] for row in rows
    }
    assert {("acme", "engines", endpoint.address, "a100")} == {
        (row["tenant"], row["emitter"], row["instance"], row["pool"]) for row in rows
    }
    hosts = {row["host"] for row in rows}
    assert hosts == ({"node-1"} if engine == "dcgm" else {None})


def test_openmetrics_says_when_a_counter_began(
    endpoint: Endpoint, spooled: Spooled, scrape: Callable[..., Scraper]
) -> None:
    endpoint.body = _exposed(("counter", "vllm:prompt_tokens", 5, MODEL), openmetrics=True)
    endpoint.kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    scrape(targets=(endpoint.address,))
    (row,) = _rows(spooled.wait_for(1)[:1])
    assert ("counter", "cumulative", 5.0) == (row["kind"], row["temporality"], row["value"])
    assert row["start_time"] is not None
    assert row["start_time"] <= row["time"]
    assert "application/openmetrics-text" in endpoint.asked[0]["accept"]


def test_a_target_that_comes_back_is_up_again(
    endpoint: Endpoint, spooled: Spooled, scrape: Callable[..., Scraper]
) -> None:
    labels = {"job": "engines", "instance": endpoint.address}
    endpoint.status = 500
    before = _failures("status")
    scrape(targets=(endpoint.address,))
    _until(lambda: _failures("status") > before)
    assert REGISTRY.get_sample_value("controlplane_scrape_up", labels) == 0.0
    endpoint.body, endpoint.status = ENGINES[0][1], 200
    spooled.wait_for(1)
    _until(lambda: REGISTRY.get_sample_value("controlplane_scrape_up", labels) == 1.0)
    name = "controlplane_scrape_last_success_timestamp_seconds"
    assert (REGISTRY.get_sample_value(name, labels) or 0) > 1_700_000_000


@pytest.mark.parametrize(
    ("reason", "prepare", "said"),
    [
        ("too_large", lambda e: setattr(e, "body", b"# x\n" * 1_000), {"max_bytes": 500}),
        ("too_many_samples", lambda e: setattr(e, "body", ENGINES[0][1]), {"max_samples": 2}),
        ("malformed", lambda e: setattr(e, "body", b"vllm:prompt_tokens{ 1 2 3\n"), {}),
        ("not_text", lambda e: setattr(e, "body", b"\xff\xfe"), {}),
        ("not_text", lambda e: e.headers.update({"content-encoding": "gzip"}), {}),
        ("status", lambda e: e.redirect("/elsewhere"), {}),
        ("timeout", lambda e: e.hold.clear(), {"timeout_seconds": 0.2}),
    ],
)
def test_a_bad_target_is_counted_by_reason_and_spools_nothing(
    endpoint: Endpoint,
    spooled: Spooled,
    scrape: Callable[..., Scraper],
    reason: str,
    prepare: Callable[[Endpoint], object],
    said: dict[str, Any],
) -> None:
    prepare(endpoint)
    before = _failures(reason)
    scrape(targets=(endpoint.address,), **said)
    _until(lambda: _failures(reason) > before)
    assert [] == spooled.entries


def test_nobody_there_is_unreachable(scrape: Callable[..., Scraper]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        before = _failures("unreachable")
        scrape(targets=(f"127.0.0.1:{taken.getsockname()[1]}",))
        _until(lambda: _failures("unreachable") > before)


def test_a_full_spool_refuses_a_scrape_too(
    endpoint: Endpoint, open_spool: Callable[..., SqliteSpool]
) -> None:
    endpoint.body = ENGINES[0][1]
    job = ScrapeJob(
        job="engines", engine="vllm", targets=(endpoint.address,), interval_seconds=0.05
    )
    scraper = Scraper([job], spool=open_spool(max_bytes=10), clock=SystemClock())
    before = _failures("spool_full")
    scraper.start()
    _until(lambda: _failures("spool_full") > before)
    scraper.stop()


def test_a_token_is_read_anew_for_each_scrape(
    endpoint: Endpoint, spooled: Spooled, scrape: Callable[..., Scraper], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    endpoint.body = ENGINES[0][1]
    scrape(targets=(endpoint.address,), bearer_token_file=str(token))
    spooled.wait_for(1)
    token.write_text("second\n")
    _until(lambda: endpoint.asked[-1]["authorization"] == "Bearer second")
    assert "Bearer first" == endpoint.asked[0]["authorization"]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_file_of_targets_is_read_again_when_it_changes(
    endpoint: Endpoint,
    spooled: Spooled,
    scrape: Callable[..., Scraper],
    tmp_path: Path,
    suffix: str,
) -> None:
    listed = tmp_path / f"targets.{suffix}"
    listed.write_text("[]")
    endpoint.body = ENGINES[0][1]
    scrape(files=(str(listed),), refresh_seconds=0.05)
    groups = [{"targets": [endpoint.address], "labels": {"pool": "h100"}}]
    new = tmp_path / "new"
    new.write_text(json.dumps(groups))  # JSON is YAML
    os.replace(new, listed)  # noqa: PTH105 - what configuration managers do
    rows = _rows(spooled.wait_for(1)[:1])
    assert {"h100"} == {row["pool"] for row in rows}


def test_a_file_that_breaks_keeps_the_targets_it_had(tmp_path: Path) -> None:
    listed = tmp_path / "targets.json"
    listed.write_text('[{"targets":["a:1","b:2","a:1"]}]')
    job = ScrapeJob(job="j", engine="vllm", files=(str(listed),))
    discovery = Discovery(job, lookup=lambda names: list(names.names))
    assert ["a:1", "b:2"] == [target.address for target in discovery.targets()]
    for broken in ("{", '{"targets":1}', ""):
        listed.write_text(broken)
        found = [target.address for target in discovery.targets()]
        assert found == (["a:1", "b:2"] if broken else [])
    listed.unlink()
    assert [] == discovery.targets()
    assert 3 == discovery.failures


class NameServer:
    """A DNS server that knows one SRV name and one A name."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        known = {
            ("_metrics._tcp.vllm.test.", "SRV"): ["0 0 8000 pod-1.test.", "0 0 8001 pod-2.test."],
            ("tgi.test.", "A"): ["10.0.0.7"],
        }
        while True:
            wire, peer = self.socket.recvfrom(4096)
            if wire == b"stop":
                return
            query = dns.message.from_wire(wire)
            (question,) = query.question
            name = question.name.to_text()
            kind = "SRV" if int(question.rdtype) == 33 else "A"
            answer = dns.message.make_response(query)
            records = known.get((name, kind), [])
            if records:
                answer.answer.append(dns.rrset.from_text(name, 1, "IN", kind, *records))
            self.socket.sendto(answer.to_wire(), peer)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"stop", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.close()


def test_records_of_a_real_name_server_are_targets(name_server: NameServer) -> None:
    srv = DnsNames(names=("_metrics._tcp.vllm.test",), server=name_server.address)
    assert ["pod-1.test:8000", "pod-2.test:8001"] == sorted(resolve(srv))
    a = DnsNames(names=("tgi.test",), type="A", port=9000, server=name_server.address)
    assert ["10.0.0.7:9000"] == resolve(a)
    with pytest.raises(OSError, match=r"gone\.test"):
        resolve(DnsNames(names=("gone.test",), server=name_server.address))


def test_a_name_server_that_is_away_keeps_the_targets_it_gave() -> None:
    answers: list[list[str]] = [["a:1"]]

    def lookup(names: DnsNames) -> list[str]:
        if not answers:
            raise OSError(f"no answer for {names.names}")
        return answers.pop()

    job = ScrapeJob(job="j", engine="vllm", dns=DnsNames(names=("x",)))
    discovery = Discovery(job, lookup=lookup)
    assert ["a:1"] == [t.address for t in discovery.targets()]
    assert ["a:1"] == [t.address for t in discovery.targets()]
    assert 1 == discovery.failures


def test_two_jobs_of_one_name_are_refused(spooled: Spooled) -> None:
    job = ScrapeJob(job="j", engine="vllm", targets=("a:1",))
    with pytest.raises(ConfigError, match="one name"):
        Scraper([job, job], spool=spooled, clock=SystemClock())
