"""Exact rates: a source's decimal per named unit, compiled to one reduced fraction.

A rate is nano-USD per unit as numerator over denominator, so that quantity times rate is an integer
product and one division, rounded half-even once per line item and never before.
"""

from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from math import gcd

import msgspec

from controlplane.core.money import NUSD_PER_USD, divide_half_even


class Rate(msgspec.Struct, frozen=True):
    """Nano-USD per unit, reduced; `numerator` 0 is an explicit price of nothing.

    A stand-in is a wider bucket's rate where the source has none of the bucket's own (input for a
    cache read): it prices the call, and the answer says so (UX-C09).
    """

    numerator: int
    denominator: int
    stand_in: bool = False

    def cost_nusd(self, quantity: int) -> int:
        """Return the line item, rounded once."""
        return divide_half_even(quantity * self.numerator, self.denominator)

    def nusd_per_million(self) -> int:
        """Return nano-USD per million units, rounded up: for ceilings, never for bills."""
        return -(-1_000_000 * self.numerator // self.denominator)


def rate(usd: Decimal, *, per: int, stand_in: bool = False) -> Rate:
    """Compile `usd` per `per` units.

    Raises:
        ValueError: negative or not finite.
    """
    if not usd.is_finite() or usd < 0:
        msg = f"{usd} is not a price"
        raise ValueError(msg)
    numerator, denominator = (usd * NUSD_PER_USD).as_integer_ratio()
    denominator *= per
    shared = gcd(numerator, denominator)
    return Rate(numerator // shared, denominator // shared, stand_in)


class Tier(msgspec.Struct, frozen=True):
    """Rates of calls whose total input is above `above_input_tokens`: the whole call pays them."""

    above_input_tokens: int
    rates: Mapping[str, Rate]


class Validity(msgspec.Struct, frozen=True):
    """When a row applies, UTC: from a day, until a day (exclusive), within hours of each day.

    Hours may wrap past midnight; empty hours (start equals end) mean the whole day.
    """

    since: date | None = None
    until: date | None = None
    daily_from: time = time.min
    daily_to: time = time.min

    @property
    def is_always(self) -> bool:
        """Whether no instant is outside."""
        return self == ALWAYS


ALWAYS = Validity()


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One price of one model; `tiers` has at least the base one, above -1 tokens.

    `service_tier` is what the call must have been served as (batch, flex, priority, …); empty is
    the standard tier.
    """

    price_id: str
    validity: Validity
    tiers: tuple[Tier, ...]
    service_tier: str = ""
    contract: str = ""
    """The contract that changed the list's rates, if one did."""
