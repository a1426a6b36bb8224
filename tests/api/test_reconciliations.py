"""Bills over HTTP: compared, kept, listed; never of another tenant."""

import gzip
import json
from typing import Any

import pytest

from controlplane.auth.roles import ROLE_SCOPES, Role

URL = "/api/v1/reconciliations"
# The fixture's price: 2.50 per million uncached input tokens and nothing else; its calls cost
# 1.500000001 each by decree, five on the day of the 20th in UTC.
BILL = {
    "data": [
        {
            "start_time": 1795132800,  # 2026-11-20T00:00:00Z
            "results": [
                {"amount": {"value": 8.500000005, "currency": "usd"}, "line_item": "gpt-4o, output"}
            ],
        }
    ]
}


@pytest.fixture
def finance(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])
    return key


def _post(client: Any, body: object, **params: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(URL, content=content, params={"provider": "openai", **params})


def test_a_bill_is_compared_and_nothing_is_kept(api: Any, finance: str) -> None:
    """One dollar more than ours, at a meter that no call of ours splits into."""
    with api.client(finance) as client:
        answer = _post(client, BILL)
        assert 200 == answer.status_code
        report = answer.json()
        assert [] == client.get(URL).json()["rows"]
    assert ("8.500000005", "7.500000005", "1") == (
        report["billed_usd"],
        report["ledger_usd"],
        report["difference_usd"],
    )
    assert ("openai", 1) == (report["files"][0]["source"], report["files"][0]["lines"])
    assert ["acme"] == report["tenants"]
    assert 1 == report["unpriced_calls"]


def test_a_kept_report_is_listed_and_read_by_its_tenants_only(
    api: Any, finance: str, keys: Any
) -> None:
    with api.client(finance) as client:
        report = _post(client, BILL, record="yes").json()
        (row,) = client.get(URL).json()["rows"]
        assert report == client.get(f"{URL}/{row['id']}").json()
        assert 404 == client.get(f"{URL}/rec_nothing").status_code
    assert ("1", False) == (row["difference_usd"], row["unexplained_ratio"] > 1)
    other = keys.add("globex", scopes=ROLE_SCOPES[Role.FINANCE])
    with api.client(other) as client:
        assert [] == client.get(URL).json()["rows"]
        assert 404 == client.get(f"{URL}/{row['id']}").status_code


@pytest.mark.parametrize(
    ("body", "params", "field"),
    [
        (BILL, {"provider": ""}, "provider"),
        (BILL, {"format": "abacus"}, "format"),
        (BILL, {"zone": "Mars"}, "zone"),
        (b"a,b\n1,2\n", {"name": "x.csv"}, "format"),
        (b"a,b\n1,2\n", {"name": "x.csv", "map": "cost=a"}, "map"),
        (b"\xff\xfe{", {"name": "../../x.json"}, "file"),
        (b"", {}, "file"),
        (BILL, {"name": ".."}, "name"),
        (BILL, {"name": "...gz"}, "name"),
        (BILL, {"name": "bill\x00.json"}, "name"),
        (BILL, {"name": f"{'é' * 101}.json"}, "name"),
        (BILL, {"name": "bill.json.gz"}, "gzip"),
    ],
)
def test_what_is_no_bill_is_refused_by_name(
    api: Any, finance: str, body: object, params: dict[str, str], field: str
) -> None:
    with api.client(finance) as client:
        answer = _post(client, body, **params)
    assert 400 == answer.status_code
    assert field in answer.json()["detail"]


def test_a_packed_bill_is_read_and_one_that_only_unpacks_to_much_is_refused(
    api: Any, finance: str
) -> None:
    with api.client(finance) as client:
        packed = _post(client, gzip.compress(json.dumps(BILL).encode()), name="bill.json.gz")
        bomb = _post(client, gzip.compress(bytes(33 * 2**20)), name="bill.csv.gz")
    assert "8.500000005" == packed.json()["billed_usd"]
    assert (413, "limit_exceeded") == (bomb.status_code, bomb.json()["code"])


def test_a_plain_table_needs_its_mapping(api: Any, finance: str) -> None:
    """Quantities of a meter; commas separate columns."""
    table = b"Date,SKU,What,Amount\n2026-11-20,gpt-4o,call,7.500000005\n"
    asked = {"name": "bill.csv", "map": "day=Date,model=SKU,cost=Amount"}
    with api.client(finance) as client:
        report = _post(client, table, **asked).json()
    assert ("0", True) == (report["difference_usd"], report["within_tolerance"])


def test_a_reader_may_look_but_not_compare(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        assert 403 == _post(client, BILL).status_code
        assert 200 == client.get(URL).status_code
