"""The demonstration's live traffic, through the real OpenTelemetry SDK and OTLP exporter."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from controlplane.simulate.demo import KEYLESS, DemoKeys
from controlplane.simulate.demo_calls import Call, draw_one
from controlplane.simulate.demo_otlp import resource_attributes
from controlplane.simulate.demo_spans import NO_PARENT, Report, reports_of

_KINDS = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT}
_EXPORT_EVERY_MS = 500


class _Fleet:
    """One tracer provider per (role, tenant, service), as separate processes would have."""

    def __init__(self, endpoint: str, keys: DemoKeys) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._providers: dict[tuple[str, str, str], TracerProvider] = {}

    def provider(self, report: Report, tenant: str) -> TracerProvider:
        """Answer the provider that sends this report."""
        identity = (report.sender, tenant, report.service)
        if identity not in self._providers:
            self._providers[identity] = self._start(*identity)
        return self._providers[identity]

    def shutdown(self) -> None:
        """Send what is buffered and end every exporter's thread."""
        for provider in self._providers.values():
            provider.shutdown()

    def _start(self, sender: str, tenant: str, service: str) -> TracerProvider:
        said = resource_attributes(tenant, service, self._keys.tenant_attribute)
        provider = TracerProvider(resource=Resource.create(said), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(
            endpoint=f"{self._endpoint}/v1/traces", headers=self._keys.headers_of(sender, tenant)
        )
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS)
        )
        return provider


def run_live(
    endpoint: str,
    stop: Event,
    *,
    clock: Callable[[], datetime],
    calls_per_second: float = 0.2,
    seed: int = 0,
    keys: DemoKeys = KEYLESS,
) -> int:
    """Report a call every few seconds until `stop` is set; answers how many.

    A collector that is away is the exporter's matter: it retries, then drops and says so.

    Args:
        endpoint: base URL of the collector's OTLP/HTTP receiver.
        stop: set it to end; buffered spans are sent before this returns.
        clock: wall time; a call ends when it is drawn.
        calls_per_second: mean rate; gaps are exponential.
        seed: of the draws, not of ids, which the SDK makes.
        keys: who sends.
    """
    rng = np.random.default_rng(seed)
    fleet = _Fleet(endpoint, keys)
    calls = 0
    try:
        while not stop.wait(float(rng.exponential(1 / calls_per_second))):
            _report_call(draw_one(clock(), rng=rng), fleet)
            calls += 1
    finally:
        fleet.shutdown()
    return calls


def _report_call(call: Call, fleet: _Fleet) -> None:
    """Emit the call's spans so that its last one ends at `call.start`."""
    reports = reports_of(call)
    lasted = max(report.offset_seconds + report.duration_seconds for report in reports)
    began = call.start - timedelta(seconds=lasted)
    spans: list[Span] = []
    for report in reports:
        tracer = fleet.provider(report, call.team.tenant).get_tracer(report.scope)
        # An empty context cuts the caller's own span off: each call is a trace of its own.
        context = Context()
        if report.parent != NO_PARENT:
            context = trace.set_span_in_context(spans[report.parent], context)
        spans.append(
            tracer.start_span(
                report.name,
                context=context,
                kind=_KINDS[report.kind],
                attributes=report.attributes,
                start_time=_unix_nano(began + timedelta(seconds=report.offset_seconds)),
            )
        )
    for span, report in zip(spans, reports, strict=True):
        if report.failed:
            span.set_status(Status(StatusCode.ERROR))
        ended = began + timedelta(seconds=report.offset_seconds + report.duration_seconds)
        span.end(_unix_nano(ended))


def _unix_nano(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000
