"""Charges → rows of FOCUS 1.2.

Which cost is which: EffectiveCost is the ledger, the sum of the calls' own costs, to the nano-dollar;
BilledCost is the same, but 0 where a commitment was consumed, which is billed by its purchase.
ContractedCost is the unit price paid times the quantity and ListCost the public one times the
quantity, both exact and not rounded; x_RoundingCost is what per-call rounding made of it.
Usage without a known price is no row: its cost is unknown, and a row would have to call it 0.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Period, Window, window_at
from controlplane.core.fiscal import FiscalCalendar
from controlplane.core.money import NUSD_PER_USD
from controlplane.exports.charges import Charges
from controlplane.exports.focus_schema import FOCUS_SCHEMA
from controlplane.exports.vendors import BLOCKS, METERS, UNITS, pricing_unit, service, vendor
from controlplane.pricing.itemize import WHOLE_CALL
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.providers import price_provider

PRICE_SCALE: Final = 12
"""Decimals of a unit price; prices that need more (a third of a cent) are rounded there."""
_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_TAGS: Final = ("team", "feature", "customer", "environment", "api_key")
_DYNAMIC: Final = frozenset({"batch", "flex"})
_COMMITTED: Final = frozenset({"provisioned", "scale", "reserved"})


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A change of cost that was booked in an open period about a closed one (FX-29)."""

    booked_at: datetime
    corrects: datetime
    """First instant of the period that it is about."""
    delta_nusd: int
    owners: Mapping[str, str | None]
    sku: Mapping[str, str | None]
    reason: str
    bucket: str = WHOLE_CALL
    quantity: int = 0
    """How many units of the bucket it moved; a re-rate moves none."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """In which days and months charges are told; everything is written in UTC."""

    window: Window
    periods: tuple[Window, ...]
    zone: str
    calendar: FiscalCalendar

    def charge_period(self, number: int) -> Window:
        """Return a charge's period, cut to what was exported."""
        return self.periods[number].clip(self.window)

    def billing_period(self, at: datetime) -> Window:
        """Return the organisation's month that holds an instant."""
        return window_at(Period.MONTH, at, zone=self.zone, calendar=self.calendar)

    def closed_period(self, day: datetime) -> Window:
        """Return the month that holds a local day, told as its midnight in UTC."""
        noon = day.replace(hour=12, tzinfo=ZoneInfo(self.zone))
        return self.billing_period(noon.astimezone(UTC))


InvoiceOf = Callable[[str | None, Window], str | None]
"""Which invoice a provider's charges of a period are on; None: not known."""


def focus_rows(
    charges: Charges, layout: Layout, book: PriceBook, *, invoice_of: InvoiceOf | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row a charge, in the charges' order."""
    for charge in charges.charges.iter_rows(named=True):
        charged = layout.charge_period(charge["period"])
        row = {
            **_owner(charge),
            **_sku(charge, book),
            **periods_of(layout, charged),
            **_amounts(charge),
            "InvoiceId": invoice_of(charge["provider"], charged) if invoice_of else None,
        }
        row |= consumed(charge["commitment"], row["EffectiveCost"])
        row["x_CallCount"] = charge["calls"]
        above = charge["above_input_tokens"]
        row["x_ContextTierAboveTokens"] = above if above >= 0 else None
        yield row


def consumed(commitment: str | None, cost: Decimal) -> dict[str, Any]:
    """Return what a charge says of the commitment that it consumed; nothing without one."""
    if commitment is None:
        return {}
    return {
        **commitment_of(commitment, quantity=cost, status="Used"),
        "BilledCost": Decimal(0),
        "PricingCategory": "Committed",
    }


def commitment_of(name: str, *, quantity: Decimal, status: str | None) -> dict[str, Any]:
    """Return the columns that name a commitment and an amount of it, in USD."""
    return {
        "CommitmentDiscountCategory": "Spend",
        "CommitmentDiscountId": name,
        "CommitmentDiscountName": name,
        "CommitmentDiscountQuantity": quantity,
        "CommitmentDiscountStatus": status,
        "CommitmentDiscountType": "Committed Spend",
        "CommitmentDiscountUnit": "USD",
    }


def correction_rows(
    corrections: Iterable[Correction], layout: Layout, book: PriceBook
) -> Iterator[dict[str, Any]]:
    """Yield a row a correction: charged when it was booked, without a unit price."""
    for one in corrections:
        facts = {**dict.fromkeys(_FACTS), **one.owners, **one.sku, "bucket": one.bucket}
        period = next(p for p in layout.periods if p.contains(one.booked_at))
        cost = usd(one.delta_nusd)
        yield {
            **_owner(facts),
            **_sku(facts, book),
            **periods_of(layout, period.clip(layout.window)),
            **dict.fromkeys(("BilledCost", "EffectiveCost", "ContractedCost", "ListCost"), cost),
            "PricingCurrencyEffectiveCost": cost,
            "ChargeClass": "Correction",
            "ChargeDescription": f"Correction: {one.reason}",
            "x_CorrectsPeriodStart": one.corrects,
            "x_RoundingCost": Decimal(0),
            # Of neither is anything said in a correction.
            **dict.fromkeys(("PricingUnit", "PricingCategory")),
            **_moved(one),
        }


def _moved(one: Correction) -> dict[str, Any]:
    """Return the meter of a correction, and how much of it was used more, or less."""
    if one.bucket == WHOLE_CALL:
        return {"x_UsageBucket": None}
    if not one.quantity:
        return {}
    return {"ConsumedQuantity": Decimal(one.quantity), "ConsumedUnit": UNITS[one.bucket]}


def to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Put rows under the schema; what a row does not say is null."""
    rows = [{"x_UsdEffectiveCost": row["PricingCurrencyEffectiveCost"], **row} for row in rows]
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], field.type)
        for field in FOCUS_SCHEMA
    }
    return pa.table(columns, schema=FOCUS_SCHEMA)


def usd(nusd: int) -> Decimal:
    """Write nano-USD as an exact decimal of USD."""
    return Decimal(f"{nusd}E-9")


def times(price: Decimal, quantity: Decimal) -> Decimal:
    """Return unit price times quantity, exactly."""
    return exact(Fraction(price) * Fraction(quantity), 18)


def exact(value: Fraction, scale: int) -> Decimal:
    """Write a fraction with at most `scale` decimals, rounded half-even where it needs more."""
    return _WIDE.create_decimal(Decimal(f"{round(value * 10**scale)}E-{scale}"))


_FACTS: Final = (
    "tenant", "team", "project", "feature", "customer", "api_key", "environment", "region",
    "provider", "billing_model", "operation", "service_tier", "price_id", "price_provenance",
    "cost_state",
)  # fmt: skip


def _owner(charge: Mapping[str, Any]) -> dict[str, Any]:
    tags = {name: charge[name] for name in _TAGS if charge[name]}
    project, region = charge["project"] or None, charge["region"] or None
    return {
        **account(charge["tenant"]),
        "SubAccountId": project,
        "SubAccountName": project,
        "SubAccountType": "Project" if project else None,
        "RegionId": region,
        "RegionName": region,
        "Tags": msgspec.json.encode(tags).decode() if tags else None,
    }


def _sku(charge: Mapping[str, Any], book: PriceBook) -> dict[str, Any]:
    provider = price_provider(charge["provider"]) if charge["provider"] else None
    model, bucket, tier = charge["billing_model"], charge["bucket"], charge["service_tier"]
    maker = book.maker_of(model) if model else None
    sku = f"{provider or 'unknown'}/{model or 'unknown'}"
    details = {"x_Model": model, "x_Meter": bucket, "x_ServiceTier": tier}
    return {
        **sold_by(provider, maker=maker),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{METERS[bucket]}, {model or 'unknown model'}",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": _pricing_category(tier),
        "PricingUnit": pricing_unit(bucket),
        "SkuId": sku,
        "SkuMeter": METERS[bucket],
        "SkuPriceDetails": msgspec.json.encode(
            {name: value for name, value in details.items() if value}
        ).decode(),
        "SkuPriceId": f"{charge['price_id'] or sku}:{bucket}",
        "x_CostState": charge["cost_state"],
        "x_Operation": charge["operation"],
        "x_PriceId": charge["price_id"],
        "x_PriceProvenance": charge["price_provenance"],
        "x_ServiceTier": tier,
        "x_UsageBucket": bucket,
    }


def _pricing_category(tier: str | None) -> str:
    if tier in _DYNAMIC:
        return "Dynamic"
    return "Committed" if tier in _COMMITTED else "Standard"


def account(tenant: str) -> dict[str, str]:
    """Return the columns of who pays."""
    return {
        "BillingAccountId": tenant,
        "BillingAccountName": tenant,
        "BillingAccountType": "Organization",
    }


def sold_by(provider: str | None, *, maker: str | None = None) -> dict[str, str]:
    """Return the columns of who sells inference, and of who made it where that is another."""
    return {
        "BillingCurrency": "USD",
        "InvoiceIssuerName": vendor(provider),
        "PricingCurrency": "USD",
        "ProviderName": vendor(provider),
        "PublisherName": vendor(maker or provider),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": service(provider),
        "ServiceSubcategory": "Generative AI",
    }


def periods_of(layout: Layout, charged: Window) -> dict[str, datetime]:
    """Return the columns of when it was charged, and the month that bills it."""
    billed = layout.billing_period(charged.start)
    return {
        "BillingPeriodStart": billed.start,
        "BillingPeriodEnd": billed.end,
        "ChargePeriodStart": charged.start,
        "ChargePeriodEnd": charged.end,
    }


def _amounts(charge: Mapping[str, Any]) -> dict[str, Any]:
    bucket, quantity = charge["bucket"], int(charge["quantity"])
    block = BLOCKS.get(bucket, 1)
    priced = Fraction(quantity, block)
    paid, listed = (
        exact(Fraction(charge[f"{kind}_numerator"] * block, charge[f"{kind}_denominator"])
              / NUSD_PER_USD, PRICE_SCALE)
        for kind in ("rate", "list")
    )  # fmt: skip
    contracted, public = (exact(Fraction(price) * priced, 18) for price in (paid, listed))
    billed = usd(int(charge["cost_nusd"]))
    return {
        "BilledCost": billed,
        "EffectiveCost": billed,
        "ContractedCost": contracted,
        "ListCost": public,
        "ContractedUnitPrice": paid,
        "ListUnitPrice": listed,
        "PricingCurrencyContractedUnitPrice": paid,
        "PricingCurrencyListUnitPrice": listed,
        "PricingCurrencyEffectiveCost": billed,
        "PricingQuantity": exact(priced, 18),
        "ConsumedQuantity": Decimal(quantity),
        "ConsumedUnit": UNITS[bucket],
        "x_RoundingCost": _WIDE.subtract(billed, contracted),
    }
