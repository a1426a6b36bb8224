"""What an organisation agreed with a provider, as data: a discount, a margin, nothing to pay.

A contract changes the rates of the price list, exactly and in fractions, for its models and while
it is valid; nothing else of the list changes. Of several contracts that hold at once for a model
the last one listed applies, and they never compound. A price of the organisation's own is no list
price: no contract changes it. A commitment is an amount promised for a period: it prices no call,
and what of it is not used is a cost that belongs to no call.
"""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from hashlib import sha256
from re import compile as compile_pattern
from typing import Final

import msgspec

from controlplane.core.errors import ConfigError, InvalidInputError
from controlplane.core.money import parse_usd
from controlplane.pricing.providers import price_provider
from controlplane.pricing.rates import PriceRow, Rate, Tier, Validity

SETTING: Final = "contracts"
_HUNDRED: Final = Fraction(100)
HOLDER: Final = "default"
_ID: Final = compile_pattern(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
"""An id is part of price ids, between a `*` and an `@`."""
_MAX_PERCENT: Final = Decimal(1_000_000)


class CommitmentPeriod(StrEnum):
    """What a committed amount is promised for."""

    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agreement; percentages and amounts are decimals as text, days are UTC.

    `models` is a pattern over the price list's model names (`gpt-4o*`). The rate that applies is
    list x (1 - discount/100) x (1 + margin/100), or 0 with `free`.
    """

    id: str
    provider: str
    models: str = "*"
    discount_percent: str = "0"
    margin_percent: str = "0"
    free: bool = False
    valid_from: date | None = None
    valid_to: date | None = None
    commitment_usd: str | None = None
    commitment_period: CommitmentPeriod = CommitmentPeriod.MONTH
    holder: str = HOLDER
    """The tenant that owes the commitment: its export has the purchase and what was not used."""
    note: str = ""

    def covers(self, provider: str, model: str) -> bool:
        """Whether a listed model is meant."""
        same = price_provider(self.provider) == provider
        return same and fnmatchcase(model.lower(), self.models.lower())

    def factor(self) -> Fraction:
        """Return what a list rate is multiplied by."""
        if self.free:
            return Fraction(0)
        discount, margin = Fraction(self.discount_percent), Fraction(self.margin_percent)
        return (1 - discount / _HUNDRED) * (1 + margin / _HUNDRED)

    def digest(self) -> str:
        """Name the content, so that an edited contract gives another price id."""
        told = msgspec.to_builtins(self)
        if self.holder == HOLDER:
            del told["holder"]  # as before there were holders
        return sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:8]


def read_contracts(listed: object) -> list[Contract]:
    """Read a parsed YAML list of contracts.

    Raises:
        ConfigError: names the contract and its field.
    """
    try:
        contracts = msgspec.convert(listed, list[Contract])
        for contract in contracts:
            check_contract(contract)
    except msgspec.ValidationError as wrong:
        raise ConfigError(SETTING, str(wrong), "See deploy/docs/prices.md") from None
    except InvalidInputError as wrong:
        raise ConfigError(SETTING, str(wrong), "See deploy/docs/prices.md") from None
    ids = [contract.id for contract in contracts]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice:
        raise ConfigError(SETTING, f"id {twice!r} twice", "Rename one")
    return contracts


def check_contract(contract: Contract) -> None:
    """Check what people say.

    Raises:
        InvalidInputError: names the field.
    """
    where = f"contract {contract.id}"
    if not _ID.fullmatch(contract.id):
        raise InvalidInputError("id", f"{contract.id!r}", "Letters, digits and . _ : -")
    for field, low, high in (
        ("discount_percent", Decimal(0), Decimal(100)),
        ("margin_percent", Decimal(-100), _MAX_PERCENT),
    ):
        text = getattr(contract, field)
        try:
            percent = Decimal(text)
        except InvalidOperation:
            raise InvalidInputError(f"{where}.{field}", f"{text!r}", 'Write "12.5"') from None
        if not percent.is_finite() or not low <= percent <= high:
            raise InvalidInputError(f"{where}.{field}", f"{text!r}", f"Between {low} and {high}")
    since, until = contract.valid_from, contract.valid_to
    if since and until and since >= until:
        raise InvalidInputError(f"{where}.valid_to", "is not after valid_from")
    promised = contract.commitment_usd
    if promised is not None and parse_usd(promised, field=f"{where}.commitment_usd") < 0:
        raise InvalidInputError(f"{where}.commitment_usd", "is below zero")


def is_contracted(price_id: str | None) -> bool:
    """Whether a price is a list price as a contract changes it."""
    _, star, edition = (price_id or "").rpartition("*")
    return bool(star) and "@" in edition


def with_contracts(
    rows: tuple[PriceRow, ...], contracts: Sequence[Contract], *, provider: str, model: str
) -> tuple[PriceRow, ...]:
    """Append, per contract, the rows as it changes them: of those valid the last one applies."""
    changed = list(rows)
    for contract in contracts:
        if contract.covers(provider, model):
            changed += [
                piece for row in rows for piece in (_changed(row, contract),) if piece is not None
            ]
    return tuple(changed)


def _changed(row: PriceRow, contract: Contract) -> PriceRow | None:
    validity = _both(row.validity, contract)
    if validity is None:
        return None
    factor = contract.factor()
    return PriceRow(
        price_id=f"{row.price_id}*{contract.id}@{contract.digest()}",
        validity=validity,
        tiers=tuple(
            Tier(
                tier.above_input_tokens,
                {bucket: _times(rate, factor) for bucket, rate in tier.rates.items()},
            )
            for tier in row.tiers
        ),
        service_tier=row.service_tier,
        contract=contract.id,
    )


def _both(validity: Validity, contract: Contract) -> Validity | None:
    since = max(filter(None, (validity.since, contract.valid_from)), default=None)
    until = min(filter(None, (validity.until, contract.valid_to)), default=None)
    if since and until and since >= until:
        return None
    return msgspec.structs.replace(validity, since=since, until=until)


def _times(rate: Rate, factor: Fraction) -> Rate:
    product = Fraction(rate.numerator, rate.denominator) * factor
    return Rate(product.numerator, product.denominator, rate.stand_in)
