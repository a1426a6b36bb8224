"""Business metrics that come over OTLP."""

from typing import Final

from controlplane.core.clock import Clock
from controlplane.pipelines.business_metrics import keep_business_metrics
from controlplane.settings import Settings
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.workers.rounds import Rounds

BUSINESS_SECONDS: Final = 60.0


def business_rounds(
    settings: Settings, spans: DuckDbSpanStore, kept: FinanceRepository, *, clock: Clock
) -> Rounds:
    """Return the worker that keeps the days of business metrics."""
    return Rounds(
        "business_metrics",
        lambda: keep_business_metrics(
            spans.signals,
            kept,
            tenants=spans.gpu.sample_tenants(),
            names=settings.business_metrics,
            zone=settings.zone,
            now=clock.now(),
        ),
        seconds=BUSINESS_SECONDS,
    )
