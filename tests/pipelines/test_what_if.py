"""What is recorded of latency beside a what-if's cost, and how much of a window is read."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from controlplane.api.routes.replay import same_model
from controlplane.core.calendar import Window
from controlplane.core.errors import LimitExceededError
from controlplane.pipelines import what_if
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.what_if import NO_CALLS, NO_MODEL, Comparison, compare
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.what_if import Scenario
from controlplane.signals.queries import CallQuery
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
DAYS = Window(AT - timedelta(hours=10), AT + timedelta(days=2))
Rows = Callable[..., pa.Table]


def _calls() -> Iterator[dict[str, Any]]:
    """Acme: 20 of gpt-4o (1 to 20 s) and 10 of two names of gpt-4o-mini (0.1 to 1 s); globex: none of it."""
    for n in range(1, 21):
        yield {"tenant": "acme", "billing_model": "gpt-4o", "duration_us": n * 1_000_000}
        yield {"tenant": "globex", "billing_model": "gpt-4o", "duration_us": n * 1_000_000}
    for n in range(1, 11):
        name = "gpt-4o-mini" if n % 2 else "gpt-4o-mini-2024-07-18"
        yield {"tenant": "acme", "billing_model": name, "duration_us": n * 100_000, "team": "b"}
    yield {"tenant": "acme", "billing_model": "gpt-4o-mini", "duration_us": 90_000_000,
           "status": "error"}  # fmt: skip
    yield {"tenant": "acme", "billing_model": "gpt-4o-mini", "duration_us": 90_000_000,
           "provider": "azure.ai.openai"}  # fmt: skip
    yield {"tenant": "acme", "billing_model": "gpt-4o", "operation": "embeddings",
           "duration_us": 5_000}  # fmt: skip


@pytest.fixture(scope="module")
def store(span_rows: Rows) -> DuckDbSpanStore:
    made = DuckDbSpanStore(None)
    rows = [
        {"trace_lo": n, "span_id": n, "content_hash": n, **row,
         "start_time": DAYS.start + timedelta(hours=n)}
        for n, row in enumerate(_calls(), start=1)
    ]  # fmt: skip
    made.write(span_rows(*rows), batch_id="b")
    settle_tick(made, now=AT + timedelta(days=3), ledger=None)
    return made


def _asked(
    store: DuckDbSpanStore, book: PriceBook, scenario: Scenario, **filters: Any
) -> Comparison:
    asked = CallQuery(tenants=("acme", "globex"), window=DAYS, filters=filters)
    return compare(store, book, asked, scenario=scenario, is_same=same_model(book))


def test_latency_is_what_the_other_models_own_calls_took(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """By hand: of 1 to 20 s the ranks are 10 and 19; of 0.1 to 1 s 0.5 and 1; errors and Azure are others."""
    found = _asked(store, book, Scenario(provider="openai", model="gpt-4o-mini"))
    assert found.latency_reason is None
    told = {(one.tenant, one.provider, one.model, one.operation): one for one in found.latency}
    chat = told["acme", "openai", "gpt-4o", "chat"]
    assert (20, 10_000, 19_000) == (chat.recorded.calls, chat.recorded.p50_ms, chat.recorded.p95_ms)
    assert chat.other is not None
    assert (10, 500, 1_000) == (chat.other.calls, chat.other.p50_ms, chat.other.p95_ms)
    assert (-9_500, -18_000, None) == (chat.p50_change_ms, chat.p95_change_ms, chat.reason)
    for unknown in (
        ("globex", "openai", "gpt-4o", "chat"),
        ("acme", "openai", "gpt-4o", "embeddings"),
    ):
        one = told.pop(unknown)
        assert (None, None, None, NO_CALLS) == (
            one.other, one.p50_change_ms, one.p95_change_ms, one.reason
        )  # fmt: skip
    azure = told.pop(("acme", "azure.ai.openai", "gpt-4o-mini", "chat"))
    assert (500 - 90_000) == azure.p50_change_ms
    assert {("acme", "openai", "gpt-4o", "chat")} == {*told}, (
        "what is that model already is left out"
    )


def test_a_filter_is_of_the_calls_that_move_and_not_of_the_others(
    store: DuckDbSpanStore, book: PriceBook
) -> None:
    """Only team b calls the small model, and whoever asks about the rest still learns of it."""
    found = _asked(store, book, Scenario(model="gpt-4o-mini"), team=(None,), model=("gpt-4o",))
    acme = next(x for x in found.latency if (x.tenant, x.operation) == ("acme", "chat"))
    assert acme.other is not None
    assert 10 == acme.other.calls


def test_a_tier_says_nothing_of_latency(store: DuckDbSpanStore, book: PriceBook) -> None:
    found = _asked(store, book, Scenario(service_tier="batch"))
    assert ((), NO_MODEL) == (found.latency, found.latency_reason)


@pytest.mark.parametrize("filters", [{}, {"user": (None,)}])
def test_more_calls_than_can_be_read_are_refused(
    store: DuckDbSpanStore,
    book: PriceBook,
    monkeypatch: pytest.MonkeyPatch,
    filters: dict[str, Any],
) -> None:
    """By the cube before one is read, by counting where the cube does not know the filter."""
    whole = sum(
        group.calls + group.not_compared
        for group in _asked(store, book, Scenario(model="gpt-4o")).groups
    )
    assert sum(1 for _ in _calls()) == whole
    monkeypatch.setattr(what_if, "MAX_CALLS", whole)
    assert whole == sum(
        group.calls + group.not_compared
        for group in _asked(store, book, Scenario(model="gpt-4o"), **filters).groups
    )
    monkeypatch.setattr(what_if, "MAX_CALLS", whole - 1)
    with pytest.raises(
        LimitExceededError, match=r"calls of a what-if: at most 52, got 53\. Ask for a shorter"
    ):
        _asked(store, book, Scenario(model="gpt-4o"), **filters)
