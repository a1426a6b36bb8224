"""What an import would change: old and new rate of every bucket, reviewed before it is recorded.

A source that says no dates must not rewrite the past: where its price differs from what applies on
the day it takes effect, a dated row is appended to the model's sheet and the rows before it stay. A
source with dates of its own (the data set) replaces the sheet, and the diff compares row by row.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

import msgspec

from controlplane.pricing.price_book import is_valid
from controlplane.pricing.rates import Validity
from controlplane.pricing.sheet import Sheet, SheetRow, SheetTier, Usd, with_stand_ins

MILLION: Final = 1_000_000


class Change(StrEnum):
    """What happens to a model's prices."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class RateChange(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket's rate before and after, USD per million units; None is no rate."""

    row: str
    above_input_tokens: int
    bucket: str
    old_usd_per_million: str | None
    new_usd_per_million: str | None


class SheetChange(msgspec.Struct, frozen=True, kw_only=True):
    """One model's change, and the sheet to record."""

    key: str
    change: Change
    rates: tuple[RateChange, ...]
    sheet: Sheet | None


def undated_changes(
    known: Mapping[str, Sheet], offered: Iterable[Sheet], *, effective: date
) -> list[SheetChange]:
    """Compare with a list that says today's prices only; models it does not name stay as they are.

    A model that is new gets its price for all time: its calls were unpriced until now.
    """
    changes = []
    for sheet in offered:
        before = known.get(sheet.key)
        if before is None:
            changes.append(_added(sheet))
            continue
        differing = [
            (old, row)
            for row in sheet.rows
            for old in (_applying(before, effective, row.service_tier),)
            if _own_rates(old) != _own_rates(row)
        ]
        if not differing:
            continue
        rates = [one for old, new in differing for one in _rates(old, new, shared_only=True)]
        if not rates:
            continue
        dated = [
            msgspec.structs.replace(_laid_over(old, row), valid_from=effective, source=sheet.source)
            for old, row in differing
        ]
        # The rows before keep their ids: they are the same prices from the same source.
        after = msgspec.structs.replace(before, rows=(*before.rows, *dated))
        changes.append(
            SheetChange(key=sheet.key, change=Change.CHANGED, rates=tuple(rates), sheet=after)
        )
    return changes


def _laid_over(old: SheetRow | None, new: SheetRow) -> SheetRow:
    """Keep the rates that the new list is silent about."""
    tiers = []
    for tier in new.tiers:
        below = [
            one
            for one in (old.tiers if old else ())
            if one.above_input_tokens <= tier.above_input_tokens
        ]
        kept = _said(below[-1]) if below else {}
        tiers.append(msgspec.structs.replace(tier, usd=with_stand_ins({**kept, **_said(tier)})))
    return msgspec.structs.replace(new, tiers=tuple(tiers))


def _said(tier: SheetTier) -> dict[str, Usd]:
    """Return the rates that the source says itself: no stand-in, and no reasoning that is output."""
    output = tier.usd.get("output_text")
    return {
        bucket: usd
        for bucket, usd in tier.usd.items()
        if not usd.stand_in and not (bucket == "output_reasoning" and usd == output)
    }


def dated_changes(known: Mapping[str, Sheet], offered: Iterable[Sheet]) -> list[SheetChange]:
    """Compare with a list that says all its dates: it replaces every model it names."""
    changes = []
    for sheet in offered:
        before = known.get(sheet.key)
        if before is None:
            changes.append(_added(sheet))
        elif before.content() != sheet.content():
            old_rows = {row.label(): row for row in before.rows}
            new_rows = {row.label(): row for row in sheet.rows}
            rates = [
                one
                for label in dict.fromkeys([*old_rows, *new_rows])
                for one in _rates(old_rows.get(label), new_rows.get(label), shared_only=False)
            ]
            changes.append(
                SheetChange(key=sheet.key, change=Change.CHANGED, rates=tuple(rates), sheet=sheet)
            )
    return changes


def removed_changes(known: Mapping[str, Sheet], offered: Iterable[Sheet]) -> list[SheetChange]:
    """Return the models that a complete list no longer names."""
    named = {sheet.key for sheet in offered}
    return [
        SheetChange(
            key=key,
            change=Change.REMOVED,
            rates=tuple(r for row in sheet.rows for r in _rates(row, None, shared_only=False)),
            sheet=None,
        )
        for key, sheet in known.items()
        if key not in named
    ]


def _added(sheet: Sheet) -> SheetChange:
    rates = tuple(one for row in sheet.rows for one in _rates(None, row, shared_only=False))
    return SheetChange(key=sheet.key, change=Change.ADDED, rates=rates, sheet=sheet)


def _applying(sheet: Sheet, day: date, service_tier: str) -> SheetRow | None:
    """Return the row that prices a call at noon of a day."""
    noon = datetime.combine(day, time(12), UTC)
    return next(
        (
            row
            for row in reversed(sheet.rows)
            if row.service_tier == service_tier
            and is_valid(Validity(row.valid_from, row.valid_to, row.daily_from, row.daily_to), noon)
        ),
        None,
    )


def _own_rates(row: SheetRow | None) -> dict[tuple[int, str], Fraction]:
    """Return what the source says, as fractions of USD per unit."""
    if row is None:
        return {}
    return {
        (tier.above_input_tokens, bucket): Fraction(Decimal(usd.usd)) / usd.per
        for tier in row.tiers
        for bucket, usd in _said(tier).items()
    }


def _rates(old: SheetRow | None, new: SheetRow | None, *, shared_only: bool) -> list[RateChange]:
    """List the rates that differ; with `shared_only` a rate the new row lacks is no change."""
    before, after = _own_rates(old), _own_rates(new)
    label = (new or old or SheetRow(tiers=())).label()
    wanted = list(dict.fromkeys([*after] if shared_only else [*before, *after]))
    return [
        RateChange(
            row=label,
            above_input_tokens=above,
            bucket=bucket,
            old_usd_per_million=_shown(before.get((above, bucket))),
            new_usd_per_million=_shown(after.get((above, bucket))),
        )
        for above, bucket in wanted
        if before.get((above, bucket)) != after.get((above, bucket))
    ]


def _shown(rate: Fraction | None) -> str | None:
    """Write a rate as a decimal; one that has no end (per hour of 3,600 s) to 12 places."""
    if rate is None:
        return None
    text = f"{Decimal((rate * MILLION).numerator) / Decimal((rate * MILLION).denominator):.12f}"
    return text.rstrip("0").rstrip(".")
