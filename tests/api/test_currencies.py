"""Costs in another currency: rates by hand, kept with every row."""

from decimal import Decimal
from typing import Any

RATES = {
    "source": "ecb",
    "rates": [{"currency": "EUR", "day": "2026-11-20", "usd_per_unit": "1.25"}],
}


def test_days_carry_their_rate_and_days_without_one_no_amount(
    api: Any, admin: str, acme: str
) -> None:
    """Five priced calls of $1.500000001, all of the 20th; the 19th has no rate."""
    with api.client(admin) as client:
        assert 201 == client.post("/api/v1/currencies/rates", json=RATES).status_code
        wrong = {**RATES, "rates": [{**RATES["rates"][0], "usd_per_unit": "0"}]}  # type: ignore[dict-item]  # a test of types
        assert 400 == client.post("/api/v1/currencies/rates", json=wrong).status_code
        assert (
            400 == client.post("/api/v1/currencies/rates", json={**RATES, "rates": []}).status_code
        )
    with api.client(acme) as client:
        body = client.get(
            "/api/v1/currencies/costs", params={"currency": "eur", "range": "7d"}
        ).json()
        assert ("EUR", "7.500000005", 0) == (
            body["currency"],
            body["cost_usd"],
            body["days_without_rate"],
        )
        (day,) = body["days"]
        assert ("2026-11-20", "1.25", "ecb") == (
            day["day"],
            day["usd_per_unit"],
            day["rate_source"],
        )
        assert Decimal("6.000000004") == Decimal(day["amount"]) == Decimal(body["amount"])
        none = client.get("/api/v1/currencies/costs", params={"currency": "SEK"}).json()
        assert ("0", 1) == (none["amount"], none["days_without_rate"])
        listed = client.get("/api/v1/currencies/rates", params={"currency": "EUR"}).json()["rates"]
        assert ["1.25"] == [rate["usd_per_unit"] for rate in listed]
        assert 400 == client.get("/api/v1/currencies/rates").status_code
        assert 403 == client.post("/api/v1/currencies/rates", json=RATES).status_code
