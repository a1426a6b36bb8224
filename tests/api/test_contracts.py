"""Contracts over HTTP: every change is a version of the price book; commitments are drawn down."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from controlplane.auth.roles import Scope
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.contracts import Contract
from controlplane.pricing.history import EntryKind, PriceEntry, append_next, build_book
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.seed import listed_providers
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import priced

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


def test_the_basis_is_contracted_where_a_contract_priced_any_of_it(
    serve: Any, admin: str, history: Any, span_rows: Callable[..., pa.Table]
) -> None:
    """UX-C13: by window, filter and trace; also when the contract is gone. Else it is the list's."""
    contract = Contract(id="openai-2026", provider="openai", discount_percent="20")
    body = msgspec.json.encode(contract).decode()
    entries = [PriceEntry(EntryKind.CONTRACT, "openai-2026", body)]
    listed = PriceBook("seed", listed_providers(), contracts=[contract])
    start = NOV - timedelta(days=1)
    calls = [
        {"tenant": "acme", "team": team, "provider": who, "billing_model": model,
         "start_time": start, "trace_lo": n, "span_id": n, "content_hash": n,
         "input_tokens": 7, "output_tokens": 3}
        for n, (team, who, model) in enumerate(
            [("a", "openai", "gpt-4o"), ("b", "anthropic", "claude-sonnet-4-5")], start=1
        )
    ]  # fmt: skip
    store = DuckDbSpanStore(None)
    store.write(priced(span_rows, calls, listed), batch_id="b")
    settle_tick(store, now=NOV, ledger=None)
    window = {"start": "2026-11-19T00:00:00Z", "end": "2026-11-20T00:00:00Z"}
    with serve(reader=store).client(admin) as client:

        def basis(path: str = "costs", **asked: str) -> Any:
            answer = client.get(f"/api/v1/{path}", params=asked)
            assert 200 == answer.status_code, answer.text
            return answer.json()["meta"]["basis"]

        append_next(history, entries, source="api", note="", by="t", now=NOV)
        append_next(
            history, [PriceEntry(EntryKind.CONTRACT, "openai-2026", None)],
            source="api", note="", by="t", now=NOV,
        )  # fmt: skip
        assert "contracted" == basis(**window) == basis("unit-costs", **window)
        assert "contracted" == basis(**window, **{"filter.team": "a"})
        assert "list" == basis(**window, **{"filter.team": "b"})
        assert "list" == basis(start="2026-11-18T00:00:00Z", end="2026-11-19T00:00:00Z")
        traces = [
            row["trace_id"]
            for team in ("a", "b")
            for row in client.get("/api/v1/calls", params={**window, "filter.team": team}).json()[
                "rows"
            ]
        ]
        assert ["contracted", "list"] == [basis(f"traces/{trace}") for trace in traces]
    store.close()


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
