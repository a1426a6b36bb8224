"""FOCUS rows in a billing currency other than USD, each with the dated rate of its day.

Prices and the ledger are in USD: PricingCurrency stays USD, and x_UsdEffectiveCost says what was
accounted. Effective cost is the row's part of what its owner's day at that price converts to, in
billionths (`usage.converted`): within a billionth of the row's own quotient, and summing to what cost
answers and statements say. Rows that those do not have (idle time, commitments) are converted each.
Unit prices have PRICE_SCALE decimals, and costs by unit price are made of those, so that the products
hold exactly. The rate is the newest of the latest day up to the charge period's first local day.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    rows: Iterable[Mapping[str, Any]],
    rates: RateTable,
    *,
    currency: str,
    zone: str,
    amounts: Sequence[int | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows with every amount in a currency, and the rate that made it.

    `amounts` are the rows' effective costs in billionths; without them each is converted by itself.

    Raises:
        InvalidInputError: no rate holds on a row's day; nothing is guessed.
    """
    tz = ZoneInfo(zone)
    found: dict[date, ExchangeRate] = {}
    for place, row in enumerate(rows):
        day = row["ChargePeriodStart"].astimezone(tz).date()
        rate = found.get(day) or rates.on(day)
        if rate is None:
            raise InvalidInputError(
                "currency",
                f"no {currency} rate up to {day}",
                "Add one: `controlplane rates import`",
            )
        found[day] = rate
        yield {
            **_converted(row, Fraction(rate.usd_per_unit), amounts[place] if amounts else None),
            "BillingCurrency": currency,
            "x_ExchangeRateDay": rate.day.isoformat(),
            "x_ExchangeRateSource": rate.source,
            "x_ExchangeRateUsdPerUnit": Decimal(rate.usd_per_unit),
        }


def _converted(
    row: Mapping[str, Any], per_unit: Fraction, amount_nano: int | None
) -> dict[str, Any]:
    made = dict(row)
    told: dict[Decimal, Decimal] = {}
    if amount_nano is not None:
        told[row["EffectiveCost"]] = Decimal(f"{amount_nano}E-{NANO}")

    def of(usd: Decimal) -> Decimal:
        return told[usd] if usd in told else exact(Fraction(usd) / per_unit, NANO)

    for name in _WHOLE:
        made[name] = of(row[name])
    for kind in _BY_PRICE:
        price, cost = f"{kind}UnitPrice", f"{kind}Cost"
        if row.get(price) is None:
            made[cost] = of(row[cost])
            continue
        made[price] = exact(Fraction(row[price]) / per_unit, PRICE_SCALE)
        made[cost] = times(made[price], row["PricingQuantity"])
    if row.get("PricingQuantity") is not None and made["EffectiveCost"]:
        made["x_RoundingCost"] = made["EffectiveCost"] - made["ContractedCost"]
    return made
