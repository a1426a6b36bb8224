"""Canaries over recorded calls: on by steps, ended by their own calls."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Engine

from controlplane.pipelines.canaries import canary_tick
from controlplane.pipelines.publish import PublishTools, RateCard, publish
from controlplane.pipelines.settle import settle_tick
from controlplane.policy.bundle import Signer, decode_document
from controlplane.policy.document import AbortIf, Canary
from controlplane.policy.history import Cause
from controlplane.policy.rules import PolicyRules
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.policies import PolicyRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
RULES = PolicyRules(
    rules=(
        Canary(
            id="c",
            to="next",
            match={"model": ("big*",)},
            steps=(5, 100),
            step_seconds=60,
            min_calls=10,
            abort_if=AbortIf(error_ratio=0.1),
        ),
    )
)


@pytest.fixture
def tools(metadata_engine: Engine) -> PublishTools:
    return PublishTools(
        policies=PolicyRepository(metadata_engine),
        budgets=BudgetRepository(metadata_engine),
        rate_card=lambda _now: RateCard({}, "book-1"),
        signer=Signer(bytes(range(32))),
    )


@pytest.fixture
def spans() -> Iterator[DuckDbSpanStore]:
    store = DuckDbSpanStore(None)
    yield store
    store.close()


def called(
    store: DuckDbSpanStore, span_rows: Callable[..., pa.Table], model: str, calls: int, **said: Any
) -> None:
    rows = [
        {
            "trace_lo": hash((model, n)) & 0xFFFFFFFF,
            "span_id": n + 1,
            "start_time": NOW + timedelta(seconds=1 + n),
            "billing_model": model,
            "request_model": model,
            **said,
        }
        for n in range(calls)
    ]
    store.write(span_rows(*rows), batch_id=f"{model}-{said}")
    settle_tick(store, now=NOW + timedelta(minutes=5), ledger=None)


def share(tools: PublishTools) -> tuple[int | None, Cause]:
    newest = tools.policies.newest("default")
    assert newest is not None
    (rule,) = decode_document(newest.body).rules
    assert isinstance(rule, Canary)
    return rule.share_percent, newest.change.cause


def test_canary_goes_on_with_good_calls(
    tools: PublishTools, spans: DuckDbSpanStore, span_rows: Any
) -> None:
    """Not before its time, not without its calls, and a generation for each step."""
    publish("default", NOW, tools=tools, rules=RULES)
    assert (5, Cause.RULES) == share(tools)
    later = NOW + timedelta(minutes=5)
    assert [] == canary_tick(later, tools=tools, reader=spans)
    called(spans, span_rows, "big-1", 30)
    called(spans, span_rows, "next", 10)
    assert [] == canary_tick(NOW + timedelta(seconds=59), tools=tools, reader=spans)
    assert 1 == len(canary_tick(later, tools=tools, reader=spans))
    assert (100, Cause.CANARY) == share(tools)
    assert [] == canary_tick(later + timedelta(hours=1), tools=tools, reader=spans)


def test_canary_ends_with_bad_calls_and_stays_ended(
    tools: PublishTools, spans: DuckDbSpanStore, span_rows: Any
) -> None:
    """Applying the same file again does not bring it back."""
    publish("default", NOW, tools=tools, rules=RULES)
    called(spans, span_rows, "next", 10, status="error", error_type="server_error")
    canary_tick(NOW + timedelta(seconds=30), tools=tools, reader=spans)
    assert (0, Cause.CANARY) == share(tools)
    newest = tools.policies.newest("default")
    assert newest is not None
    assert "error ratio 1.000" in newest.change.message
    publish("default", NOW + timedelta(minutes=1), tools=tools, rules=RULES)
    assert 0 == share(tools)[0]
