"""The demonstration's load, received by a real HTTP server and read back by official classes."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from typing_extensions import override

from controlplane.core.errors import UnavailableError
from controlplane.simulate import demo, demo_calls, demo_otlp, demo_spans
from controlplane.simulate.demo_live import run_live
from controlplane.simulate.demo_world import INCIDENTS, TENANTS, UNPRICED_MODEL

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)
KEYS = demo.DemoKeys(
    proxy="cp_ingest_p", engine="cp_ingest_e", clients={t: f"cp_ingest_{t}" for t in TENANTS}
)


class OtlpSink:
    """An OTLP/HTTP receiver; requests in arrival order; `refuse_next` answers come before any success."""

    def __init__(self) -> None:
        self.requests: list[tuple[str | None, bytes]] = []
        self.refuse_next: list[tuple[int, dict[str, str]]] = []
        self.url = ""
        self._lock = Lock()

    def take(self, authorization: str | None, body: bytes) -> tuple[int, dict[str, str]]:
        with self._lock:
            if self.refuse_next:
                return self.refuse_next.pop(0)
            self.requests.append((authorization, body))
            return 200, {}

    def spans(self) -> list[tuple[str | None, dict[str, str], str, Span]]:
        """Every span received: (authorization, resource, scope, span)."""
        found = []
        for authorization, body in self.requests:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                said = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    found += [(authorization, said, scope.scope.name, s) for s in scope.spans]
        return found


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    kept = OtlpSink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, headers = kept.take(self.headers.get("authorization"), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_port}"
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


def values(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}


def test_same_seed_and_now_send_the_same_bytes(sink: OtlpSink) -> None:
    demo.run_history(sink.url, seed=7, now=NOW, days=2)
    first = list(sink.requests)
    sink.requests.clear()
    demo.run_history(sink.url, seed=7, now=NOW, days=2)
    assert first == sink.requests
    sink.requests.clear()
    demo.run_history(sink.url, seed=8, now=NOW, days=2)
    assert first != sink.requests


def test_official_classes_read_back_every_field(sink: OtlpSink) -> None:
    progress = demo.run_history(sink.url, seed=7, now=NOW, days=1)
    calls = [
        c
        for h in demo_calls.hours_back(NOW, 1)[0]
        for c in demo_calls.draw_hour(h, seed=7, newest=NOW)
    ]
    wanted = {}
    for call in calls:
        for report, encoded in zip(
            demo_spans.reports_of(call),
            demo_otlp.encode_call(call, demo_spans.reports_of(call)),
            strict=True,
        ):
            wanted[Span.FromString(encoded.body).span_id] = (call, report)
    received = sink.spans()
    assert progress.spans == len(received) == len(wanted)
    for _, resource, scope, span in received:
        call, report = wanted[span.span_id]
        assert (scope, span.name, span.kind) == (report.scope, report.name, report.kind)
        assert resource["service.name"] == report.service
        assert resource["tenant.id"] == call.team.tenant
        assert values(span) == report.attributes
        assert (span.status.code == 2) is report.failed
        assert len(span.trace_id) == 16
        lasted = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert lasted == pytest.approx(report.duration_seconds, abs=1e-6)


def test_children_name_a_span_of_their_own_trace(sink: OtlpSink) -> None:
    demo.run_history(sink.url, seed=7, now=NOW, days=1)
    ids = {(span.trace_id, span.span_id) for *_, span in sink.spans()}
    children = [span for *_, span in sink.spans() if span.parent_span_id]
    assert children
    assert all((span.trace_id, span.parent_span_id) in ids for span in children)


def test_history_is_newest_first_and_never_later_than_now(sink: OtlpSink) -> None:
    seen: list[demo.HistoryProgress] = []
    demo.run_history(sink.url, seed=7, now=NOW, days=3, on_progress=seen.append)
    assert [p.days_done for p in seen] == [1, 2, 3]
    assert [p.state for p in seen] == ["running", "running", "done"]
    starts = [span.start_time_unix_nano / 1e9 for *_, span in sink.spans()]
    assert max(starts) <= NOW.timestamp()
    assert min(starts) >= (NOW - timedelta(days=3, hours=1)).timestamp()
    first, last = starts[0], starts[-1]
    assert first > NOW.timestamp() - 86_400 > last


def test_stopping_ends_between_days(sink: OtlpSink) -> None:
    progress = demo.run_history(sink.url, seed=7, now=NOW, days=3, should_stop=lambda: True)
    assert (progress.state, progress.spans) == ("stopped", 0)


def test_each_role_sends_with_its_own_key(sink: OtlpSink) -> None:
    demo.run_history(sink.url, seed=7, now=NOW, days=1, keys=KEYS)
    used: dict[str | None, set[str]] = {}
    for authorization, resource, scope, _ in sink.spans():
        used.setdefault(authorization, set()).add(f"{scope}@{resource['tenant.id']}")
    assert {s.split("@")[0] for s in used["Bearer cp_ingest_p"]} == {"litellm"}
    assert {s.split("@")[0] for s in used["Bearer cp_ingest_e"]} == {"vllm.tracing.otel"}
    for tenant in ("acme", "globex"):
        assert {s.split("@")[1] for s in used[f"Bearer cp_ingest_{tenant}"]} == {tenant}


def test_ninety_days_hold_every_story_within_the_span_limit() -> None:
    shapes: Counter[str] = Counter()
    models: Counter[str] = Counter()
    spans = 0
    for day in demo_calls.hours_back(NOW, 90)[::9]:
        for hour in day:
            for call in demo_calls.draw_hour(hour, seed=1, newest=NOW):
                shapes[call.shape] += 1
                models[call.model.name] += 1
                spans += len(demo_spans.reports_of(call))
    assert set(shapes) == set(demo_spans.SHAPES)
    assert models[UNPRICED_MODEL] > 0
    assert 60_000 < spans * 9 < 200_000


def test_an_incident_multiplies_the_teams_tokens() -> None:
    incident = INCIDENTS[0]

    def tokens(around: datetime) -> int:
        hours = [around + timedelta(hours=i) for i in range(8)]
        calls = [c for h in hours for c in demo_calls.draw_hour(h, seed=1, newest=NOW)]
        return sum(c.input_tokens for c in calls if c.team.name == incident.team)

    began = (NOW - timedelta(hours=incident.from_hours_ago)).replace(minute=0)
    during = tokens(began)
    week_before = tokens(began - timedelta(days=7))
    assert during > 4 * week_before


def test_refusals_that_may_be_retried_are_and_nothing_is_lost(sink: OtlpSink) -> None:
    sink.refuse_next = [(429, {"retry-after": "0"}), (503, {})]
    progress = demo.run_history(sink.url, seed=7, now=NOW, days=1)
    assert progress.spans == len(sink.spans())


def test_a_refused_key_ends_the_load_with_the_reason(sink: OtlpSink) -> None:
    sink.refuse_next = [(401, {})]
    with pytest.raises(UnavailableError, match="401"):
        demo.run_history(sink.url, seed=7, now=NOW, days=1)


class StopAfter(Event):
    """Set after a number of waits, so that no test sleeps."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self._left = waits

    @override
    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self._left -= 1
        return self._left < 0


def test_live_calls_arrive_through_the_sdk_before_it_returns(sink: OtlpSink) -> None:
    keys = demo.DemoKeys(proxy="cp_proxy")
    calls = run_live(sink.url, StopAfter(40), clock=lambda: NOW, seed=3, keys=keys)
    assert calls == 40
    received = sink.spans()
    assert {r["telemetry.sdk.name"] for _, r, *_ in received} == {"opentelemetry"}
    assert len({span.trace_id for *_, span in received}) == 40
    assert {"Bearer cp_proxy"} == {key for key, _, scope, _ in received if scope == "litellm"}
    assert max(span.end_time_unix_nano for *_, span in received) <= NOW.timestamp() * 1e9 + 2000


def test_children_of_other_services_share_their_trace(sink: OtlpSink) -> None:
    run_live(sink.url, StopAfter(60), clock=lambda: NOW, seed=3)
    by_id = {span.span_id: span for *_, span in sink.spans()}
    nested = [
        span for *_, scope, span in sink.spans() if scope == "litellm" and span.parent_span_id
    ]
    assert nested
    assert all(by_id[span.parent_span_id].trace_id == span.trace_id for span in nested)
