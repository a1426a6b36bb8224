"""Idle GPU time → FOCUS rows: one per pool, slice and charge period, in the ledger's dollars.

With them the rows of a tenant are its calls and the idle time that it bears, so that tenants and
idle are the pools' bills. The quantity is the hours in which the pool was billed; a unit price is
what such an hour cost idle, to PRICE_SCALE decimals.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from controlplane.exports.focus import (
    PRICE_SCALE,
    Layout,
    account,
    exact,
    periods_of,
    sold_by,
    times,
    usd,
)
from controlplane.exports.vendors import SELF_HOSTED

_QUARTERS: Final = 4


def idle_rows(
    lines: Iterable[tuple[str, str, datetime, int]], layout: Layout, *, tenant: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of lines (pool, slice, quarter of an hour, nano-USD), in order."""
    sums: dict[tuple[int, str, str], tuple[int, int]] = {}
    starts = [period.start for period in layout.periods]
    for pool, part, bucket, nusd in lines:
        number = max(n for n, start in enumerate(starts) if start <= bucket)
        cost, quarters = sums.get((number, pool, part), (0, 0))
        sums[number, pool, part] = (cost + nusd, quarters + 1)
    for (number, pool, part), (cost, quarters) in sorted(sums.items()):
        yield _row((pool, part), layout, number, tenant=tenant, cost_nusd=cost, quarters=quarters)


def _row(
    of: tuple[str, str],
    layout: Layout,
    number: int,
    *,
    tenant: str,
    cost_nusd: int,
    quarters: int,
) -> dict[str, Any]:
    charged = layout.charge_period(number)
    name = "/".join(filter(None, of))
    cost, hours = usd(cost_nusd), exact(Fraction(quarters, _QUARTERS), 2)
    unit = exact(Fraction(cost) / Fraction(hours), PRICE_SCALE)
    by_price = times(unit, hours)
    return {
        **account(tenant),
        **sold_by(SELF_HOSTED),
        **periods_of(layout, charged),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"Idle GPU time, {name}",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "PricingUnit": "Hours",
        "SkuId": f"{SELF_HOSTED}/{of[0]}",
        "SkuMeter": "Idle GPU hours",
        "SkuPriceId": f"gpu:{of[0]}:idle",
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ContractedCost": by_price,
        "ContractedUnitPrice": unit,
        "ListCost": by_price,
        "ListUnitPrice": unit,
        "PricingCurrencyContractedUnitPrice": unit,
        "PricingCurrencyListUnitPrice": unit,
        "PricingCurrencyEffectiveCost": cost,
        "PricingQuantity": hours,
        "ConsumedQuantity": hours,
        "ConsumedUnit": "Hours",
        "x_CostState": "estimated",
        "x_PriceId": f"gpu:{of[0]}",
        "x_RoundingCost": cost - by_price,
        "x_UsageBucket": "gpu_idle",
    }
