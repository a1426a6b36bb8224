"""Cache savings over HTTP: the caller's calls, exact strings, unknown where a price does not tell."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import ModelPrices, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Tier, rate
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.api.conftest import NOW, _table, report

USD = {"input_uncached": "3", "cache_read": "0.3", "cache_write_5m": "3.75"}
PATH = "/api/v1/costs/cache"


def _model(model: str) -> ModelPrices:
    rates = {bucket: rate(Decimal(usd), per=1_000_000) for bucket, usd in USD.items()}
    row = PriceRow(price_id=f"house/{model}", validity=ALWAYS, tiers=(Tier(-1, rates),))
    return ModelPrices(provider="openai", model=model, rows=(row,))


BOOK = PriceBook("house@1", [], overrides=[_model("reads"), _model("writes")])


@pytest.fixture
def cached(serve: Any) -> Iterator[Any]:
    """Acme reads 10,000 tokens with one model and writes 4,000 with another; globex reads."""
    read = {
        "billing_model": "reads", "price_id": "house/reads", "team": "support",
        "input_uncached": 10_000, "cache_read": 10_000, "cost_nusd": 30_000_000 + 3_000_000,
    }  # fmt: skip
    written = {
        "billing_model": "writes", "price_id": "house/writes",
        "cache_write_5m": 4_000, "cost_nusd": 15_000_000,
    }  # fmt: skip
    rows = [
        report("acme", 0, **read),
        report("acme", 1, **written),
        report("acme", 2, **{**read, "billing_model": "gone"}),
        report("globex", 0, **read),
    ]
    store = DuckDbSpanStore(None)
    store.write(_table(rows, SPAN_SCHEMA), batch_id="b1")
    settle_tick(store, now=NOW, ledger=None)
    yield serve(reader=store, prices=BOOK)
    store.close()


def test_saving_premium_and_net_are_exact_by_model_and_in_all(cached: Any, acme: str) -> None:
    """10,000 x 2,700 = 0.027 USD; 4,000 x 750 = 0.003 USD."""
    with cached.client(acme) as client:
        body = client.get(PATH, params={"range": "24h"}).json()
        team = client.get(
            PATH, params={"range": "24h", "group_by": "team,tenant", "filter.team": "support"}
        ).json()
    names = ("read_saving_usd", "write_premium_usd", "net_saving_usd", "unknown_calls")
    by_model = {row["model"]: tuple(row[name] for name in names) for row in body["rows"]}
    assert {
        "reads": ("0.027", "0", "0.027", 0),
        "writes": ("0", "0.003", "-0.003", 0),
        "gone": (None, None, None, 1),
    } == by_model
    total = body["meta"]["totals"]
    assert ("0.027", "0.003", "0.024", 1) == tuple(total[name] for name in names)
    assert ("24000000", 10_000, 2) == (
        total["net_saving_nusd"],
        total["unknown_tokens"],
        total["hit_calls"],
    )
    # 20,000 of 44,000 tokens, 2 of 3 calls
    assert (0.4545, 0.6667) == (total["hit_ratio_tokens"], total["hit_ratio_calls"])
    assert "house@1" == body["meta"]["price_book_version"].partition("+")[0]
    assert any("write premium" in line for line in body["meta"]["formula"])
    (row,) = team["rows"]
    assert ("support", "acme", 2, "0.027") == (
        row["team"],
        row["tenant"],
        row["calls"],
        row["net_saving_usd"],
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_by": "corrects"},
        {"group_by": "nothing"},
        {"group_by": "team,model,tenant,feature"},
        {"start": "2026-01-01T00:00:00Z", "end": "2026-11-20T00:00:00Z"},
    ],
)
def test_wrong_questions_are_refused(api: Any, acme: str, wrong: dict[str, str]) -> None:
    with api.client(acme) as client:
        assert 400 == client.get(PATH, params=wrong).status_code


def test_another_tenants_calls_are_refused_and_never_counted(cached: Any, acme: str) -> None:
    with cached.client(acme) as client:
        assert 403 == client.get(PATH, params={"tenant": "globex"}).status_code
        body = client.get(PATH, params={"range": "24h"}).json()
    assert 3 == body["meta"]["totals"]["calls"]
    assert ["acme"] == body["meta"]["tenants"]
