"""FOCUS rows in a billing currency other than USD: each amount converted once, at its row's own rate.

Prices and the ledger are in USD: PricingCurrency stays USD, and x_UsdEffectiveCost says what was
accounted. Billed and effective cost are converted from it half-even to billionths, unit prices to
PRICE_SCALE decimals, and costs by unit price are made of those, so that the products hold exactly.
The rate is the newest of the latest day up to the charge period's first local day; it is on the row.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

from controlplane.core.errors import InvalidInputError
from controlplane.exports.focus import PRICE_SCALE, exact, times
from controlplane.pricing.currency import ExchangeRate, RateTable

NANO: Final = 9
_WHOLE: Final = ("BilledCost", "EffectiveCost")
_BY_PRICE: Final = ("Contracted", "List")


def in_currency(
    rows: Iterable[Mapping[str, Any]], rates: RateTable, *, currency: str, zone: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows with every amount in a currency, and the rate that made it.

    Raises:
        InvalidInputError: no rate holds on a row's day; nothing is guessed.
    """
    tz = ZoneInfo(zone)
    found: dict[date, ExchangeRate] = {}
    for row in rows:
        day = row["ChargePeriodStart"].astimezone(tz).date()
        rate = found.get(day) or rates.on(day)
        if rate is None:
            raise InvalidInputError(
                "currency",
                f"no {currency} rate up to {day}",
                "Add one: `controlplane rates import`",
            )
        found[day] = rate
        yield _converted(row, rate, currency)


def _converted(row: Mapping[str, Any], rate: ExchangeRate, currency: str) -> dict[str, Any]:
    per_unit = Fraction(rate.usd_per_unit)
    made = dict(row)
    for name in _WHOLE:
        made[name] = exact(Fraction(row[name]) / per_unit, NANO)
    for kind in _BY_PRICE:
        price, cost = f"{kind}UnitPrice", f"{kind}Cost"
        if row.get(price) is None:
            made[cost] = exact(Fraction(row[cost]) / per_unit, NANO)
            continue
        made[price] = exact(Fraction(row[price]) / per_unit, PRICE_SCALE)
        made[cost] = times(made[price], row["PricingQuantity"])
    if row.get("PricingQuantity") is not None and made["EffectiveCost"]:
        made["x_RoundingCost"] = made["EffectiveCost"] - made["ContractedCost"]
    return {
        **made,
        "BillingCurrency": currency,
        "x_ExchangeRateDay": rate.day.isoformat(),
        "x_ExchangeRateSource": rate.source,
        "x_ExchangeRateUsdPerUnit": Decimal(rate.usd_per_unit),
    }
