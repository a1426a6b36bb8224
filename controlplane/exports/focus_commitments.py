"""Commitments → FOCUS rows: what was bought for a period, and what of it nobody used.

A purchase bills the amount and costs nothing in effect; the usage that consumes it costs and is not
billed; what is left at the end of the period is a row of its own. So over a whole period the purchase
is the used and the unused part, to the nano-dollar (FX-27).
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.exports.focus import Layout, account, commitment_of, periods_of, sold_by, usd
from controlplane.pricing.commitments import Drawdown
from controlplane.pricing.contracts import CommitmentPeriod
from controlplane.pricing.providers import price_provider

_PERIODS: Final = {
    CommitmentPeriod.MONTH: "Months",
    CommitmentPeriod.QUARTER: "Quarters",
    CommitmentPeriod.YEAR: "Years",
}
_INSTANT: Final = timedelta(microseconds=1)
_NOTHING: Final = Decimal(0)
_ONE: Final = Decimal(1)


def commitment_rows(
    drawdowns: Iterable[Drawdown], layout: Layout, *, tenant: str, now: datetime
) -> Iterator[dict[str, Any]]:
    """Yield the holder's purchases that start, and its unused amounts that end, in the window."""
    for one in drawdowns:
        if one.contract.holder != tenant:
            continue
        if layout.window.contains(one.period.start):
            yield _purchase(one, layout)
        ended = layout.window.start < one.period.end <= layout.window.end
        if ended and one.is_closed(now) and one.left_nusd:
            yield _unused(one, layout)


def _purchase(one: Drawdown, layout: Layout) -> dict[str, Any]:
    amount = usd(one.amount_nusd)
    period = _PERIODS[one.contract.commitment_period]
    return {
        **_about(one, layout, at=one.period.start),
        **commitment_of(one.contract.id, quantity=amount, status=None),
        **_prices(amount, quantity=_ONE),
        "BilledCost": amount,
        "EffectiveCost": _NOTHING,
        "PricingCurrencyEffectiveCost": _NOTHING,
        "ChargeCategory": "Purchase",
        "ChargeDescription": f"Commitment {one.contract.id}, {one.period.start:%Y-%m-%d} to"
        f" {one.period.end:%Y-%m-%d}",
        "ChargeFrequency": "Recurring",
        "PricingUnit": period,
        "x_RoundingCost": _NOTHING,
    }


def _unused(one: Drawdown, layout: Layout) -> dict[str, Any]:
    left = usd(one.left_nusd)
    return {
        **_about(one, layout, at=one.period.end),
        **commitment_of(one.contract.id, quantity=left, status="Unused"),
        **_prices(_ONE, quantity=left),
        "BilledCost": _NOTHING,
        "EffectiveCost": left,
        "PricingCurrencyEffectiveCost": left,
        "ChargeCategory": "Usage",
        "ChargeDescription": f"Commitment {one.contract.id}: not used",
        "ChargeFrequency": "Usage-Based",
        "PricingUnit": "USD",
        "x_RoundingCost": _NOTHING,
    }


def _about(one: Drawdown, layout: Layout, *, at: datetime) -> dict[str, Any]:
    """Return whose charge it is and when: the first day of the period, or its last."""
    inside = at if at == one.period.start else at - _INSTANT
    charged = _charge_period(layout, inside)
    provider, tenant = price_provider(one.contract.provider), one.contract.holder
    return {
        **account(tenant),
        **sold_by(provider),
        **periods_of(layout, charged),
        "PricingCategory": "Committed",
        "SkuId": f"{provider}/commitment",
        "SkuMeter": "Committed spend",
        "SkuPriceDetails": msgspec.json.encode({"x_Models": one.contract.models}).decode(),
        "SkuPriceId": f"commitment/{one.contract.id}@{one.contract.digest()}",
        "x_CommitmentPeriodStart": one.period.start,
        "x_CommitmentPeriodEnd": one.period.end,
    }


def _charge_period(layout: Layout, at: datetime) -> Window:
    period = next(p for p in layout.periods if p.contains(at))
    return period.clip(layout.window)


def _prices(unit: Decimal, *, quantity: Decimal) -> dict[str, Any]:
    cost = unit * quantity
    return {
        "ContractedCost": cost,
        "ContractedUnitPrice": unit,
        "ListCost": cost,
        "ListUnitPrice": unit,
        "PricingCurrencyContractedUnitPrice": unit,
        "PricingCurrencyListUnitPrice": unit,
        "PricingQuantity": quantity,
    }
