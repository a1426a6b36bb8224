"""A model that nobody has a price for, from its first call to full coverage, through the real parts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from controlplane.agent.admit import Claim, claim
from controlplane.agent.bounds import bound_request
from controlplane.agent.refusal import Refusal
from controlplane.alerts.alert import AlertState
from controlplane.bootstrap.price_books import LiveBook
from controlplane.bootstrap.publishing import RateCards
from controlplane.bootstrap.rerates import Closing, run_waiting
from controlplane.budgets.budget import Unpriced
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.watch import Sources, watch_round
from controlplane.policy.document import BudgetClause, PolicyDocument
from controlplane.store.metadata.alerts import AlertRepository
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.metadata.rerates import RerateRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import priced

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)
WINDOW = {"start": "2026-11-20T00:00:00Z", "end": "2026-11-21T00:00:00Z"}
LIST = (
    "provider,model,bucket,usd\n"
    "openai,gpt-4o,input_uncached,2.5\nopenai,gpt-4o,output_text,10\n"
    "openai,gpt-4o-mini,input_uncached,0.15\nopenai,gpt-4o-mini,output_text,0.6\n"
)
NEW = "openai,fable-9,input_uncached,4\nopenai,fable-9,output_text,20\n"
CALL = {"tenant": "acme", "provider": "openai", "start_time": NOW - timedelta(minutes=5),
        "input_tokens": 1_000, "input_uncached": 1_000, "output_tokens": 100,
        "output_text": 100}  # fmt: skip
MODELS = ("gpt-4o", "gpt-4o", "fable-9", "fable-9", "fable-9")


@pytest.fixture
def book(metadata: Engine) -> LiveBook:
    """Look for a newer version at every question."""
    ticks = count(0, 10)
    repository, runs = PriceRepository(metadata), RerateRepository(metadata)
    return LiveBook(repository, runs=runs, elapsed=lambda: float(next(ticks)))


def import_list(client: Any, text: str) -> None:
    params = {"format": "csv", "effective": "2026-01-01", **WINDOW}
    url, headers = "/api/v1/prices/imports", {"content-type": "application/octet-stream"}
    shown = client.post(url, params=params, content=text, headers=headers).json()
    params["accept"] = shown["review"]
    done = client.post(url, params=params, content=text, headers=headers)
    assert "applied" == done.json()["state"]


def held(book: LiveBook, rule: str, *, input_nusd: int = 0) -> tuple[str, int]:
    """Ask a hard budget with a rule for a call of fable-9: how it ends, and what its output holds."""
    card = RateCards(book)(NOW)
    document = msgspec.json.decode(b'{"issued_at": "2026-01-01T00:00:00Z"}', type=PolicyDocument)
    document = msgspec.structs.replace(
        document, rate_card=card.rates, provider_ceilings=card.provider_ceilings
    )
    said = {"id": "b", "name": "b", "owner": "o", "match": {}, "limit_nusd": 10**12,
            "mode": "hard", "unpriced": rule, "window_start": "2026-11-01T00:00:00Z",
            "window_end": "2026-12-01T00:00:00Z"}  # fmt: skip
    request = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
    bound = bound_request("chat", {**request, "model": "fable-9"})
    names = (("openai/fable-9", "fable-9"),)
    budget = msgspec.convert(said, BudgetClause)
    made = claim(document, (budget,), bound, candidates=names, cap_tokens=None)
    if isinstance(made, Refusal):
        return made.code, 0
    assert isinstance(made, Claim)
    output_nusd = made.held_nusd - (input_nusd * bound.input_tokens if made.amounts else 0)
    return "admitted", output_nusd // 100 * 100  # a hold is rounded up by some nano-dollars


def test_from_the_first_unknown_call_to_full_coverage(
    serve: Callable[..., Any],
    admin: str,
    span_rows: Callable[..., pa.Table],
    metadata: Engine,
    book: LiveBook,
) -> None:
    """Coverage 2 of 5 calls = 0.4; the range is the list's cheapest and dearest text model.

    Low 3 x (1,000 x 0.15 + 100 x 0.60) / 10^6 = $0.00063, high 3 x (1,000 x 2.50 + 100 x 10) / 10^6
    = $0.0105; priced at last 3 x (1,000 x 4 + 100 x 20) / 10^6 = $0.018.
    """
    store, alerts = DuckDbSpanStore(None), AlertRepository(metadata)
    ledger = LedgerPosting(LedgerRepository(metadata), unenforced_grace_seconds=60)
    api = serve(reader=store, prices=book, alerts=alerts)
    ids = SequentialIds()

    def watched(minute: int) -> list[Any]:
        now = NOW + timedelta(minutes=minute)
        watch_round(
            Sources(store, store.signals), [], alerts, receivers=["slack"], ids=ids, now=now
        )
        return [one for one in alerts.alerts() if one.labels["alertname"] == "UnpricedUsage"]

    with api.client(admin) as client:
        import_list(client, LIST)
        calls = [{**CALL, "billing_model": model, "trace_lo": n, "span_id": n, "content_hash": n}
                 for n, model in enumerate(MODELS, start=1)]  # fmt: skip
        store.write(priced(span_rows, calls, book.current()), batch_id="b")
        settle_tick(store, now=NOW, ledger=ledger)

        unknown = client.get("/api/v1/calls", params={**WINDOW, "filter.model": "fable-9"})
        assert [(None, "unpriced", "unknown_model")] * 3 == [
            (row["cost_usd"], row["cost_state"], row["cost_reason"])
            for row in unknown.json()["rows"]
        ]
        before = client.get("/api/v1/prices/coverage", params=WINDOW).json()
        assert (0.4, 3, "0.00063", "0.0105") == tuple(
            before[name] for name in ("coverage_ratio", "unpriced_calls", "low_usd", "high_usd")
        )
        (alert,) = watched(0)
        assert (AlertState.FIRING, "fable-9") == (alert.state, alert.labels["model"])
        assert [alert.labels] == [
            one["labels"] for one in client.get("/api/v1/alerts").json()["rows"]
        ]
        assert ("budget_unpriced_model", 0) == held(book, "block")
        assert ("admitted", 0) == held(book, "allow")
        assert ("admitted", 100 * 10_000) == held(book, "ceiling", input_nusd=2_500)

        import_list(client, LIST + NEW)
        still = client.get("/api/v1/prices/coverage", params=WINDOW).json()
        assert 0.4 == still["coverage_ratio"], "an import moves no call"
        asked = client.post("/api/v1/rerates", json={**WINDOW, "apply": True})
        run_waiting(
            store.rerates, RerateRepository(metadata), book=book, ledger=ledger,
            closing=Closing(before=None, zone="UTC"), now=NOW,
        )  # fmt: skip
        settle_tick(store, now=NOW, ledger=ledger)
        report = client.get(f"/api/v1/rerates/{asked.json()['id']}").json()["report"]
        assert (3, "0.018") == (report["calls"], report["moved_usd"])

        after = client.get("/api/v1/prices/coverage", params=WINDOW).json()
        assert (1.0, 0, "0", []) == tuple(
            after[name] for name in ("coverage_ratio", "unpriced_calls", "high_usd", "unpriced")
        )
        totals = client.get("/api/v1/costs", params=WINDOW).json()["meta"]["totals"]
        assert "0.025" == totals["cost_usd"]  # and two calls of gpt-4o at $0.0035
    states = [watched(minute)[0].state for minute in range(1, 11)]
    assert AlertState.RESOLVED == states[-1], "within the hour: the price did it, not time"
    for rule in Unpriced:
        assert ("admitted", 100 * 20_000) == held(book, rule, input_nusd=4_000)
    store.close()
