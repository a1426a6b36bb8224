"""Own prices over HTTP: every change is a version of the price book, and prices calls by its dates."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.pricing.history import EntryKind, PriceEntry, append_next, build_book
from controlplane.pricing.quote import quote
from controlplane.store.metadata.prices import PriceRepository

URL = "/api/v1/own-prices"
NOV = datetime(2026, 11, 20, tzinfo=UTC)
LLAMA = {"provider": "self-hosted", "model": "meta-llama/Llama-3.1-8B"}
DEAR = {**LLAMA, "usd": {"input_uncached": "0.10", "output_text": "0.30"}, "aliases": ["llama8"]}
CHEAP = {**LLAMA, "usd": {"input_uncached": "0.05", "output_text": "0.20"},
         "valid_from": "2026-12-01"}  # fmt: skip


@pytest.fixture
def history(services: Any) -> PriceRepository:
    kept: PriceRepository = services.price_history
    return kept


def test_prices_are_versions_that_price_calls_by_their_dates(
    api: Any, admin: str, history: PriceRepository
) -> None:
    """$0.30 a million output tokens in November, $0.20 from December, in version 2; gone in 3."""
    with api.client(admin) as client:
        first = client.put(URL, json={"prices": [DEAR]})
        assert (200, "prices@1") == (first.status_code, first.json()["price_book_version"])
        again = client.put(URL, json={"prices": [DEAR, CHEAP]})
        assert "prices@2" == again.json()["price_book_version"]
        (row,) = client.get(URL).json()["rows"]
        assert ("meta-llama/Llama-3.1-8B", 2, False) == (
            row["model"], len(row["prices"]), row["is_fixed"]
        )  # fmt: skip
        assert 204 == client.delete(URL, params=LLAMA).status_code
        assert [] == client.get(URL).json()["rows"]
        assert 404 == client.delete(URL, params=LLAMA).status_code
        versions = client.get("/api/v1/prices/versions").json()["rows"]
    assert ["prices@3", "prices@2", "prices@1"] == [one["version"] for one in versions]
    assert "own prices of self-hosted/meta-llama/Llama-3.1-8B removed" == versions[0]["note"]
    costs = []
    for version, at in ((1, NOV), (2, NOV), (2, NOV.replace(month=12)), (3, NOV)):
        book = build_book("b", history.entries(version))
        said = quote(
            book, provider="self-hosted", model="llama8", at=at, usage={"output_text": 10**6}
        )
        costs.append(said.total_nusd)
    assert [300_000_000, 300_000_000, 200_000_000, None] == costs


@pytest.mark.parametrize(
    "prices",
    [
        [],
        [DEAR, {**DEAR, "model": "other"}],
        [{**DEAR, "usd": {}}],
        [{**DEAR, "usd": {"tokens": "1"}}],
        [{**DEAR, "usd": {"input_uncached": "-1"}}],
        [{**DEAR, "usd": {"input_uncached": "free"}}],
        [{**DEAR, "color": "red"}],
        [{**DEAR, "model": ""}],
        [{**DEAR, "valid_from": "2026-12-01", "valid_to": "2026-11-01"}],
    ],
)
def test_what_is_no_price_is_refused_and_nothing_is_appended(
    api: Any, admin: str, history: PriceRepository, prices: list[dict[str, Any]]
) -> None:
    with api.client(admin) as client:
        assert 400 == client.put(URL, json={"prices": prices}).status_code
    assert 0 == history.latest()


def test_the_file_and_other_models_names_are_not_touched(
    api: Any, admin: str, acme: str, history: PriceRepository
) -> None:
    body = '[{"provider":"self-hosted","model":"meta-llama/Llama-3.1-8B","usd":{"input_uncached":"1"}}]'
    entry = PriceEntry(EntryKind.FILE_OWN, "self-hosted/meta-llama/Llama-3.1-8B", body)
    append_next(history, [entry], source="file", note="", by="controlplane", now=NOV)
    with api.client(admin) as client:
        (row,) = client.get(URL).json()["rows"]
        assert row["is_fixed"]
        assert 409 == client.put(URL, json={"prices": [DEAR]}).status_code
        assert 409 == client.delete(URL, params=LLAMA).status_code
        other = {**DEAR, "model": "other", "aliases": ["META-LLAMA/llama-3.1-8b"]}
        clash = client.put(URL, json={"prices": [other]})
        assert 409 == clash.status_code
        assert "is a name of" in clash.json()["detail"]
    with api.client(acme) as client:
        assert 403 == client.put(URL, json={"prices": [DEAR]}).status_code
    assert 1 == history.latest()
