"""Contracts over HTTP: every change is a version of the price book; commitments are drawn down."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.auth.roles import Scope
from controlplane.pricing.contracts import Contract
from controlplane.pricing.history import EntryKind, PriceEntry, append_next, build_book
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.seed import listed_providers
from controlplane.store.metadata.prices import PriceRepository

NOV = datetime(2026, 11, 20, tzinfo=UTC)
AGREED = {"id": "openai-2026", "provider": "openai", "models": "gpt-4o*", "discount_percent": "20"}


@pytest.fixture
def history(services: Any) -> PriceRepository:
    kept: PriceRepository = services.price_history
    return kept


def test_a_contract_is_kept_as_a_version_and_read_back(
    api: Any, admin: str, history: PriceRepository
) -> None:
    """Changed once, removed once: three versions, and each of them can be read again."""
    with api.client(admin) as client:
        url = "/api/v1/contracts/openai-2026"
        assert "prices@1" == client.put(url, json=AGREED).json()["price_book_version"]
        client.put(url, json={**AGREED, "discount_percent": "30"})
        body = client.get("/api/v1/contracts").json()
        assert ("prices@2", "30", False) == (
            body["price_book_version"],
            body["rows"][0]["contract"]["discount_percent"],
            body["rows"][0]["is_fixed"],
        )
        assert 204 == client.delete(url).status_code
        assert [] == client.get("/api/v1/contracts").json()["rows"]
        assert 404 == client.delete(url).status_code
        versions = client.get("/api/v1/prices/versions").json()["rows"]
    assert ["prices@3", "prices@2", "prices@1"] == [one["version"] for one in versions]
    assert "contract openai-2026 removed" == versions[0]["note"]
    for version, expected in ((1, "20"), (2, "30")):
        (entry,) = history.entries(version)
        assert f'"discount_percent":"{expected}"' in (entry.body or "")


def test_a_contract_from_the_api_prices_calls(api: Any, admin: str, history: Any) -> None:
    """gpt-4o output lists at $10 a million; 20 % off is $8."""
    with api.client(admin) as client:
        client.put("/api/v1/contracts/openai-2026", json=AGREED)
    book = build_book("b", history.entries(1))
    listed = PriceBook("seed", listed_providers(), contracts=book.contracts)
    answer = quote(listed, provider="openai", model="gpt-4o", at=NOV, usage={"output_text": 10**6})
    assert 8 * 10**9 == answer.total_nusd


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("other", AGREED, 400, "id"),
        ("openai-2026", {**AGREED, "discount_percent": "200"}, 400, "discount_percent"),
        ("a b", {**AGREED, "id": "a b"}, 400, "id"),
        ("a*b", {**AGREED, "id": "a*b"}, 400, "id"),
        ("openai-2026", {**AGREED, "commitment_usd": "-1"}, 400, "commitment_usd"),
        ("from-file", {**AGREED, "id": "from-file"}, 409, None),
    ],
)
def test_wrong_contracts_are_refused(
    api: Any, admin: str, history: Any, *, path: str, body: Any, status: int, field: str | None
) -> None:
    """Also one that the settings' file has; nothing is appended."""
    fixed = PriceEntry(
        EntryKind.FILE_CONTRACT, "0000:from-file", '{"id":"from-file","provider":"openai"}'
    )
    append_next(history, [fixed], source="files", note="", by="t", now=NOV)
    with api.client(admin) as client:
        answer = client.put(f"/api/v1/contracts/{path}", json=body)
    assert status == answer.status_code, answer.text
    if field:
        assert field in answer.json()["errors"][0]["field"]
    assert 1 == history.latest()


def test_only_who_may_change_prices_of_all_tenants_makes_contracts(api: Any, keys: Any) -> None:
    for key in (
        keys.add("acme", scopes=frozenset({Scope.PRICES_WRITE})),
        keys.add(scopes=frozenset({Scope.PRICES_READ}), all_tenants=True),
    ):
        with api.client(key) as client:
            answer = client.put("/api/v1/contracts/openai-2026", json=AGREED)
        assert 403 == answer.status_code


class Fixed(PriceBook):
    """A book that only has contracts."""

    def __init__(self, *contracts: Contract) -> None:
        super().__init__("b", [], contracts=contracts)


def test_commitments_say_what_is_left_and_what_was_not_used(
    serve: Any, admin: str, acme: str
) -> None:
    """Nothing is priced by them here: November runs, October is over."""
    book = Fixed(Contract(id="c", provider="openai", commitment_usd="50"))
    api = serve(prices=book)
    window = {"start": "2026-10-05T00:00:00Z", "end": "2026-11-20T00:00:00Z"}
    with api.client(admin) as client:
        rows = client.get("/api/v1/contracts/commitments", params=window).json()["rows"]
    told = (
        "start",
        "is_closed",
        "committed_usd",
        "effective_usd",
        "remaining_usd",
        "shortfall_usd",
    )
    assert [
        ("2026-10-01T00:00:00Z", True, "50", "50", "0", "50"),
        ("2026-11-01T00:00:00Z", False, "50", "0", "50", "0"),
    ] == [tuple(row[name] for name in told) for row in rows]
    with api.client(acme) as client:
        assert 403 == client.get("/api/v1/contracts/commitments").status_code
