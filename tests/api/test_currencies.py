"""Costs in another currency: rates by hand, kept with every row."""

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.pricing.currency import ExchangeRate, RateTable

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


def test_groups_sum_to_the_day_and_filters_hold(api: Any, admin: str) -> None:
    """Two tenants of 5 x $1.500000001 at 1.25: 6.000000004 each; thirds are split to the billionth."""
    with api.client(admin) as client:
        client.post("/api/v1/currencies/rates", json=RATES)
        asked = {"currency": "EUR", "range": "7d", "group_by": "tenant"}
        body = client.get("/api/v1/currencies/costs", params=asked).json()
        told = {one["group"]: (one["cost_usd"], one["amount"]) for one in body["groups"]}
        assert {("7.500000005", "6.000000004")} == set(told.values())
        assert Decimal(body["amount"]) == sum(Decimal(one["amount"]) for one in body["groups"])
        plain = client.get("/api/v1/currencies/costs", params={"currency": "EUR", "range": "7d"})
        assert (body["amount"], []) == (plain.json()["amount"], plain.json()["groups"])
        none = client.get("/api/v1/currencies/costs", params={**asked, "filter.team": "nobody"})
        assert ("0", []) == (none.json()["amount"], none.json()["groups"])
        assert 400 == client.get(
            "/api/v1/currencies/costs", params={**asked, "group_by": "color"}
        ).status_code  # fmt: skip


def test_a_group_of_which_nothing_is_known_is_null_and_no_point(
    api: Any, admin: str, acme: str
) -> None:
    """As in `GET /costs`: the only call without a team has no price, and is no 0 EUR."""
    with api.client(admin) as client:
        client.post("/api/v1/currencies/rates", json=RATES)
    asked = {"currency": "EUR", "range": "7d", "group_by": "team", "top": "5"}
    with api.client(acme) as client:
        body = client.get("/api/v1/currencies/costs", params=asked).json()
        unrated = client.get("/api/v1/currencies/costs", params={**asked, "currency": "SEK"}).json()
    told = {one["group"]: (one["cost_usd"], one["amount"]) for one in body["groups"]}
    assert {"acme-team": ("7.500000005", "6.000000004"), None: (None, None)} == told
    assert ["acme-team"] == [point["group"] for point in body["series"]]
    assert ("7.500000005", "6.000000004") == (body["cost_usd"], body["amount"])
    # No rate holds on any day: a cost, but no amount.
    assert [("7.500000005", None), (None, None)] == [
        (one["cost_usd"], one["amount"]) for one in unrated["groups"]
    ]


@given(parts=st.lists(st.integers(-(10**13), 10**15), max_size=9), usd=st.integers(1, 10**7))
def test_parts_of_a_day_sum_to_the_day_whatever_the_rate(parts: list[int], usd: int) -> None:
    rate = ExchangeRate(
        currency="EUR", day=date(2026, 1, 1), usd_per_unit=str(Decimal(usd).scaleb(-6)),
        source="s", recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    table = RateTable([rate])
    made = table.convert_parts(parts, date(2026, 1, 2))
    whole = table.convert(sum(parts), date(2026, 1, 2))
    assert made is not None
    assert whole is not None
    assert whole.amount_nano == sum(made)
    per_unit = Fraction(usd, 10**6)
    assert all(abs(one - part / per_unit) < 1 for one, part in zip(made, parts, strict=True))
    assert table.convert_parts(parts, date(2025, 12, 31)) is None
