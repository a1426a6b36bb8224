from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import spoken

NUSD = st.integers(min_value=-(2**63), max_value=2**63 - 1)


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0", "$0.00"),
        ("0.000043", "$0.000043"),
        ("0.0000434", "$0.000043"),
        ("0.4", "$0.40"),
        ("0.0537", "$0.054"),
        ("1234567.891", "$1,234,567.89"),
        ("-12.5", "-$12.50"),
        ("0.999999999", "$1.00"),
        ("2.675", "$2.68"),
        ("2.665", "$2.66"),
        (None, "–"),  # noqa: RUF001 - the dash of tables
    ],
)
def test_money_keeps_what_matters(usd: str | None, shown: str) -> None:
    assert shown == spoken.money(usd)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("0", "0"),
        ("5421", "5,421"),
        ("24.98229", "24.98"),
        ("0.00071234", "0.00071"),
        ("1234567.895", "1,234,567.90"),
        (None, "–"),  # noqa: RUF001 - the dash of tables
    ],
)
def test_quantities_are_no_money_and_keep_what_matters(number: str | None, shown: str) -> None:
    assert shown == spoken.quantity(number)


@given(NUSD)
def test_shown_money_is_within_half_of_its_last_digit(nusd: int) -> None:
    exact = Decimal(nusd) / 10**9
    shown = spoken.money(format(exact, "f"))
    digits = shown.replace("$", "").replace(",", "")
    last = Decimal(1).scaleb(-len(digits.partition(".")[2]))
    assert abs(Decimal(digits) - exact) <= last / 2
    assert (nusd != 0) is any(digit in "123456789" for digit in shown)


@given(st.integers(min_value=1, max_value=10**15))
def test_short_is_within_half_a_percent(number: int) -> None:
    text = spoken.short(number)
    size = {"k": 10**3, "M": 10**6, "B": 10**9}.get(text[-1], 1)
    assert abs(float(text.rstrip("kMB")) * size - number) <= 0.005 * number


def test_moments_are_in_the_zone_asked_for() -> None:
    at = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)
    assert spoken.moment(at, zone="Asia/Kolkata") == "2026-11-21 01:30:00"
    assert spoken.moment("2026-11-20T20:00:00Z", zone="UTC") == "2026-11-20 20:00:00"


@given(st.text(max_size=50))
def test_text_from_telemetry_can_not_become_markup(text: str) -> None:
    shown = spoken.plain(text)
    rest = shown.replace("\\\\", "")
    for sign in "*_`[]<$~|#":
        assert rest.count(sign) == rest.count(f"\\{sign}")
