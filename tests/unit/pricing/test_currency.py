"""A day is converted once, at a dated rate that is said; nothing is guessed."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.currency import ExchangeRate, RateTable, check_rate

AT = datetime(2026, 11, 20, tzinfo=UTC)
FIRST = date(2026, 11, 1)


def _rate(usd: str, *, day: date = FIRST, later: int = 0, currency: str = "EUR") -> ExchangeRate:
    return ExchangeRate(
        currency=currency,
        day=day,
        usd_per_unit=usd,
        source="ecb",
        recorded_at=AT + timedelta(hours=later),
    )


def test_the_latest_rate_up_to_a_day_holds_and_none_before_the_first() -> None:
    table = RateTable([_rate("1.25", day=date(2026, 11, 10)), _rate("1.00")])
    days = [date(2026, 10, 31), FIRST, date(2026, 11, 9), date(2026, 11, 10), date(2027, 1, 1)]
    assert [None, "1.00", "1.00", "1.25", "1.25"] == [
        rate.usd_per_unit if (rate := table.on(day)) else None for day in days
    ]
    assert None is table.convert(5, days[0])


def test_a_later_record_of_a_day_replaces_it() -> None:
    table = RateTable([_rate("1.10", later=2), _rate("1.00", later=1)])
    converted = table.convert(1_100_000_000, FIRST)
    assert converted
    assert (1_000_000_000, "1.10") == (converted.amount_nano, converted.rate.usd_per_unit)


@given(st.integers(-(10**18), 10**18), st.decimals("0.0001", "1000", places=4))
def test_conversion_is_one_half_even_rounding(nusd: int, usd: Decimal) -> None:
    converted = RateTable([_rate(str(usd))]).convert(nusd, FIRST)
    assert converted
    assert round(Fraction(nusd) / Fraction(usd)) == converted.amount_nano


@pytest.mark.parametrize("usd", ["0", "-1", "x", "NaN", "Infinity", "1000001"])
def test_what_is_no_rate_is_refused(usd: str) -> None:
    with pytest.raises(InvalidInputError, match="usd_per_unit"):
        check_rate(_rate(usd))


@pytest.mark.parametrize("currency", ["USD", "eur", "EURO", ""])
def test_what_is_no_other_currency_is_refused(currency: str) -> None:
    with pytest.raises(InvalidInputError, match="currency"):
        check_rate(_rate("1", currency=currency))
    check_rate(_rate("1"))
