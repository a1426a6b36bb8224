"""A producer's own cost that is not ours is a finding of the running system, not only of a file."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.attribution.rules import BUILT_IN
from controlplane.core.calendar import Window
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.pipelines.completeness import measure_completeness
from controlplane.pipelines.ingest import ingest_batch
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.sender import KEYLESS_SENDER
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BOOK = PriceBook(seed_version(), listed_providers())


@pytest.fixture
def store() -> Iterator[DuckDbSpanStore]:
    opened = DuckDbSpanStore(None)
    yield opened
    opened.close()


def calls(*costs: float) -> bytes:
    """Calls of 1,000 input and 100 output tokens of gpt-4o: $0.0035 by OpenAI's price page."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "app"
    scope = resource.scope_spans.add()
    scope.scope.name = "pydantic-ai"
    for number, usd in enumerate(costs, start=1):
        span = scope.spans.add(name="chat gpt-4o", kind=3)
        span.trace_id, span.span_id = number.to_bytes(16), number.to_bytes(8)
        span.start_time_unix_nano = (int(NOW.timestamp()) - 600) * 10**9
        span.end_time_unix_nano = span.start_time_unix_nano + 10**9
        for key, text in {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.model": "gpt-4o",
        }.items():
            span.attributes.add(key=key).value.string_value = text
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 1_000
        span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = 100
        span.attributes.add(key="operation.cost").value.double_value = usd
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        # Twice the price, and a twentieth less, which is within the band.
        (
            (0.007, 0.003325, 0.0035),
            ["1 of 3 calls of gpt-4o say they cost 0.007 USD, we price them 0.0035 USD"],
        ),
        ((0.0035, 0.0036), []),
        # A model that the producer has no price for is not free.
        ((0.0,), ["1 of 1 calls of gpt-4o say they cost 0 USD, we price them 0.0035 USD"]),
    ],
)
def test_a_cost_outside_the_band_is_a_finding_with_both_sums(
    store: DuckDbSpanStore, costs: tuple[float, ...], expected: list[str]
) -> None:
    entry = SpoolEntry(Payload(calls(*costs)), KEYLESS_SENDER, NOW)
    ingest_batch(
        SpoolBatch("b1", (entry,), (1,)),
        book=BOOK,
        rules=BUILT_IN,
        limits=DEFAULT_LIMITS,
        writer=store,
    )
    settle_tick(store, now=NOW, ledger=None)
    window = Window(NOW - timedelta(hours=1), NOW)
    found = measure_completeness(store.signals, ("default",), window, now=NOW).findings
    assert expected == [one.message for one in found if one.code == "reported_cost_differs"]
