"""Prometheus: our own series, and usage series of the caller's tenants only."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

import pyarrow as pa
from litestar import Controller, Response, get
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from controlplane import telemetry
from controlplane.api.describe import PROMETHEUS, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.ranges import QUARTER_HOUR, align_up
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Window
from controlplane.core.money import NUSD_PER_USD
from controlplane.pipelines.completeness import measure_completeness
from controlplane.signals.meanings import Meaning
from controlplane.signals.queries import LATENCY_BOUNDS_US, CostQuery
from controlplane.signals.samples import VIOLATIONS
from controlplane.usage.dimensions import CALLS_ONLY

EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Counters count from here: before any trace of ours."""
DAY: Final = timedelta(days=1)
FRESH: Final = timedelta(minutes=2)
"""A gauge that was not said for longer says nothing about now."""
US_PER_SECOND: Final = 1_000_000
UNKNOWN: Final = "unknown"
SERIES_LABELS: Final = ("model", "endpoint")


class MetricsController(Controller):
    """`/metrics`."""

    path = "/metrics"
    tags: Sequence[str] | None = ("metrics",)

    @get(
        "/",
        **needs(Scope.METRICS_READ),
        sync_to_thread=True,
        operation_class=documented(answer=PROMETHEUS),
    )
    def metrics(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer Prometheus text, or OpenMetrics where the Accept header asks for it.

        `controlplane_*` is this process; `ai_*` counts calls of the caller's tenants. `type` is
        exclusive: input without cached, cached, output.
        """
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry = CollectorRegistry()
        tenants = tenants_of(request, services)
        for family in (
            *telemetry.REGISTRY.collect(),
            *_usage(services, tenants),
            *_guardrails(services, tenants),
            _active(services, tenants),
            *_completeness(services, tenants),
        ):
            registry.register(_Read(family))
        return Response(encode(registry), media_type=content_type)


class _Read:
    """One family that was read already, in the shape that the encoder asks for."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]


def _usage(services: Services, tenants: tuple[str, ...]) -> list[Metric]:
    window = Window(EPOCH, align_up(services.clock.now() + QUARTER_HOUR))
    query = CostQuery(
        tenants=tenants, window=window, group_by=("model", "operation"), filters=CALLS_ONLY
    )
    tokens = CounterMetricFamily(
        "ai_tokens", "Tokens of calls; types do not overlap.", labels=("model", "type", "endpoint")
    )
    spend = CounterMetricFamily("ai_cost_usd", "List cost of priced calls.", labels=SERIES_LABELS)
    unpriced = CounterMetricFamily(
        "ai_unpriced_calls", "Calls that ai_cost_usd_total excludes.", labels=SERIES_LABELS
    )
    for row in services.reader.costs(query).to_pylist():
        series = (row["model"] or UNKNOWN, row["operation"] or UNKNOWN)
        kinds = {
            "input": row["input_tokens"] - row["cached_input_tokens"],
            "cached": row["cached_input_tokens"],
            "output": row["output_tokens"],
        }
        for kind, count in kinds.items():
            tokens.add_metric((series[0], kind, series[1]), count)
        # The exposition format knows doubles only; nothing computes with this one.
        spend.add_metric(series, row["cost_nusd"] / NUSD_PER_USD)
        unpriced.add_metric(series, row["unpriced_calls"])
    return [tokens, spend, unpriced, _latency(services.reader.latencies(query))]


def _guardrails(services: Services, tenants: tuple[str, ...]) -> list[Metric]:
    """Count what broke a rule; a guardrail that let everything pass has no series."""
    violations = CounterMetricFamily(
        "ai_guardrail_violations",
        "Guardrail results that blocked, masked or flagged content.",
        labels=("guardrail", "action"),
    )
    for row in services.signals.guardrails(tenants).to_pylist():
        if row["action"] in VIOLATIONS:
            violations.add_metric((row["name"] or UNKNOWN, row["action"]), row["events"])
    return [violations]


def _active(services: Services, tenants: tuple[str, ...]) -> GaugeMetricFamily:
    """Repeat what engines and proxies last said; layers report the same requests, each its own."""
    active = GaugeMetricFamily(
        "ai_active_requests",
        "Requests in progress as engines and proxies last said.",
        labels=("model", "emitter"),
    )
    now = services.clock.now()
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for row in services.signals.gauges(tenants, Window(now - FRESH, now)).to_pylist():
        if row["meaning"] == Meaning.RUNNING_REQUESTS:
            sums[row["model"] or UNKNOWN, row["emitter"]] += row["last"]
    for series, value in sorted(sums.items()):
        active.add_metric(series, value)
    return active


def _completeness(services: Services, tenants: tuple[str, ...]) -> list[Metric]:
    now = services.clock.now()
    window = Window(now - DAY, align_up(now))
    meter = measure_completeness(services.signals, tenants, window, now=now)
    missing = GaugeMetricFamily(
        "ai_missing_tokens",
        "Tokens that emitters counted in the last 24 hours and whose calls are not here.",
        labels=("emitter", "model"),
    )
    for check in meter.counters:
        missing.add_metric((check.emitter, check.model or UNKNOWN), check.missing_tokens)
    silent = GaugeMetricFamily(
        "ai_silent_emitters", "Emitters of traces that fell silent in the last 24 hours."
    )
    silent.add_metric((), sum(found.code == "silent_emitter" for found in meter.findings))
    return [missing, silent]


def _latency(table: pa.Table) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "ai_llm_latency_seconds", "Duration of calls.", labels=SERIES_LABELS
    )
    by_series: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    sums_us: dict[tuple[str, str], int] = defaultdict(int)
    for row in table.to_pylist():
        series = (row["model"] or UNKNOWN, row["operation"] or UNKNOWN)
        counts = by_series[series]
        counts[row["bucket"]] = counts.get(row["bucket"], 0) + row["calls"]
        sums_us[series] += row["duration_us"]
    bounds = [*(str(bound / US_PER_SECOND) for bound in LATENCY_BOUNDS_US), "+Inf"]
    for series, counts in sorted(by_series.items()):
        running = accumulate(counts.get(i, 0) for i in range(len(bounds)))
        buckets = list(zip(bounds, running, strict=True))
        family.add_metric(series, buckets=buckets, sum_value=sums_us[series] / US_PER_SECOND)
    return family
