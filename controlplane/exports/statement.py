"""Showback and chargeback statements: whose cost it is, line by line, with an id that names it.

A statement's id is the hash of everything on it: the same calls and the same rule give the same id,
and a changed cost another. Lines sum to the total, statements of all owners to the ledger; cost that
has no owner is a statement of its own, or is shared out by a stated rule, exactly.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from hashlib import sha256
from itertools import groupby
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar, month_name
from controlplane.core.money import format_usd
from controlplane.exports.charges import amounts_of, corrected_amounts
from controlplane.exports.sharing import UNATTRIBUTED, SharedRule, divide, weights_by
from controlplane.exports.statement_currency import Billing, Cell, Conversion, bill, in_currency
from controlplane.exports.vendors import METERS, vendor
from controlplane.pricing.currency import RateTable
from controlplane.pricing.itemize import WHOLE_CALL
from controlplane.pricing.providers import price_provider
from controlplane.usage.converted import OWNERS

BY: Final = tuple(name for name in OWNERS if name != "tenant")
ID_DIGITS: Final = 24
_SUMMED: Final = ("quantity", "calls", "cost_nusd")


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One meter of one model, or the owner's part of what has no owner (`is_shared`)."""

    provider: str
    model: str
    meter: str
    quantity: int
    calls: int
    cost_nusd: int
    is_shared: bool = False


class Statement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one owner is shown or charged for one period, and the period before for comparison."""

    tenant: str
    by: str
    owner: str | None
    start: datetime
    end: datetime
    period: str
    zone: str
    shared_rule: SharedRule
    lines: tuple[StatementLine, ...]
    total_nusd: int
    previous_nusd: int
    unpriced_calls: int
    unpriced_tokens: int
    billing: Billing | None = None
    """Without one it is in USD; it is then in no hash, either."""
    share: tuple[int, int] | None = None
    """The owner's weight of all weights, where the rule is `fixed`."""

    @property
    def content_sha256(self) -> str:
        """Return the hash over everything on it."""
        return sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def id(self) -> str:
        """Return the name that the statement is quoted by."""
        return f"stmt_{self.content_sha256[:ID_DIGITS]}"


class _Drawn(msgspec.Struct, frozen=True):
    """A line, and its days where it is converted."""

    line: StatementLine
    cells: tuple[Cell, ...] = ()


class StatementPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What statements are made of beside charges."""

    tenant: str
    by: str
    window: Window
    period: str
    zone: str
    shared_rule: SharedRule = SharedRule.NONE
    shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Weights by owner of the rule `fixed`."""
    calendar: FiscalCalendar = GREGORIAN


def statements_of(
    charges: pl.DataFrame,
    unpriced: pl.DataFrame,
    previous: Mapping[str | None, int],
    *,
    corrections: Iterable[Mapping[str, Any]] = (),
    plan: StatementPlan,
    conversion: Conversion | None = None,
) -> list[Statement]:
    """Make a statement for every owner that has cost or usage, by name; the ownerless last.

    `previous` is what each owner's own calls cost in the period before; `corrections` are
    `Corrected.buckets` that were booked in the period about closed ones. With a `conversion` the
    statements are in its currency, too.

    Raises:
        InvalidInputError: no rate of the currency holds on a day that cost something.
    """
    drawn: dict[str | None, list[_Drawn]] = {}
    keys = [plan.by, "provider", "billing_model", "bucket"]
    days = conversion.days if conversion else ()
    rates = conversion.rates if conversion else None
    if rates:  # a day without a rate is refused by `bill`
        made = [amount or 0 for amount in amounts_of(charges, days, rates)]
        charges = charges.with_columns(pl.Series("amount_nano", made, pl.Int128))
    booked = list(corrections)
    for owner, line in [*_charged(charges, keys, days), *_corrected(booked, plan, rates)]:
        drawn.setdefault(owner, []).append(line)
    left_out: dict[str | None, tuple[int, int]] = {}
    for row in unpriced.iter_rows(named=True):
        calls, tokens = left_out.get(row[plan.by], (0, 0))
        more = int(row["input_tokens"]) + int(row["output_tokens"])
        left_out[row[plan.by]] = (calls + int(row["calls"]), tokens + more)
        drawn.setdefault(row[plan.by], [])
    lines = {owner: [one.line for one in some] for owner, some in drawn.items()}
    weights = _weights(lines, plan)
    for owner in weights:  # who bears a part may have nothing of its own
        drawn.setdefault(owner, [])
        lines.setdefault(owner, [])
    whole = sum(weights.values())
    shared = divide(sum(line.cost_nusd for line in lines.get(None, [])), weights)
    billings = _billings(drawn, weights, conversion) if conversion else {}
    is_fixed = plan.shared_rule is SharedRule.FIXED
    return [
        Statement(
            tenant=plan.tenant,
            by=plan.by,
            owner=owner,
            start=plan.window.start,
            end=plan.window.end,
            period=plan.period,
            zone=plan.zone,
            shared_rule=plan.shared_rule,
            share=(weights[owner], whole) if is_fixed and owner in weights else None,
            lines=(*lines[owner], *(_part(cost) for cost in _share(shared, owner))),
            total_nusd=sum(line.cost_nusd for line in lines[owner]) + sum(_share(shared, owner)),
            previous_nusd=previous.get(owner, 0),
            unpriced_calls=left_out.get(owner, (0, 0))[0],
            unpriced_tokens=left_out.get(owner, (0, 0))[1],
            billing=billings.get(owner),
        )
        for owner in sorted(lines, key=lambda name: (name is None, name or ""))
    ]


def _charged(
    charges: pl.DataFrame, keys: Sequence[str], days: Sequence[date]
) -> Iterator[tuple[str | None, _Drawn]]:
    """Yield a line an owner, model and meter, with its part of each period where those are `days`."""
    told = (*_SUMMED, "amount_nano") if days else _SUMMED
    summed = charges.group_by([*keys, "period"]).agg(pl.col(told).sum())
    rows = summed.sort([*keys, "period"], nulls_last=True).iter_rows(named=True)
    for key, some in groupby(rows, key=lambda row: tuple(row[name] for name in keys)):
        parts = list(some)
        whole = {name: sum(part[name] for part in parts) for name in _SUMMED}
        cells = tuple(
            Cell(days[part["period"]], *(int(part[name]) for name in told))
            for part in parts
            if days
        )
        yield key[0], _Drawn(_line({**parts[0], **whole}), cells)


def _line(row: Mapping[str, Any]) -> StatementLine:
    provider = price_provider(row["provider"]) if row["provider"] else None
    return StatementLine(
        provider=vendor(provider),
        model=row["billing_model"] or "unknown model",
        meter=METERS[row["bucket"]],
        quantity=int(row["quantity"]),
        calls=int(row["calls"]),
        cost_nusd=int(row["cost_nusd"]),
    )


def _corrected(
    corrections: Sequence[Mapping[str, Any]], plan: StatementPlan, rates: RateTable | None
) -> Iterator[tuple[str | None, _Drawn]]:
    """Yield a line an owner, model, closed month and meter whose cost was booked now."""
    tz = ZoneInfo(plan.zone)
    sums: dict[tuple[str | None, ...], dict[date, tuple[int, int, int]]] = {}
    amounts = corrected_amounts(corrections, plan.zone, rates or RateTable(()))
    for row, amount in zip(corrections, amounts, strict=True):
        month = month_name(row["day"].date(), plan.calendar)
        what = (row[plan.by], row["provider"], row["billing_model"], month, row["bucket"])
        booked = sums.setdefault(what, {})
        day = row["applied_at"].astimezone(tz).date()
        quantity, nusd, nano = booked.get(day, (0, 0, 0))
        booked[day] = (
            quantity + int(row["quantity"]),
            nusd + int(row["cost_nusd"]),
            nano + (amount or 0),
        )
    for key, booked in sorted(
        sums.items(), key=lambda item: [(k is None, k or "") for k in item[0]]
    ):
        owner, provider, model, closed, bucket = key
        quantity, nusd, _ = (sum(part) for part in zip(*booked.values(), strict=True))
        if quantity or nusd:
            line = StatementLine(
                provider=vendor(price_provider(provider) if provider else None),
                model=model or "unknown model",
                meter=f"{METERS[bucket or WHOLE_CALL]}, correction of {closed}",
                quantity=quantity,
                calls=0,
                cost_nusd=nusd,
            )
            cells = (
                Cell(day, booked[day][0], 0, cost_nusd=booked[day][1], amount_nano=booked[day][2])
                for day in sorted(booked)
            )
            yield owner, _Drawn(line, tuple(cells))


def _weights(
    lines: Mapping[str | None, list[StatementLine]], plan: StatementPlan
) -> dict[str, int]:
    """Return what each owner's part of the cost without an owner is in proportion to."""
    if not sum(line.cost_nusd for line in lines.get(None, [])):
        return {}
    own = {
        owner: sum(line.cost_nusd for line in some)
        for owner, some in lines.items()
        if owner is not None
    }
    return weights_by(plan.shared_rule, own, plan.shares)


def _share(shares: Mapping[str | None, int], owner: str | None) -> tuple[int, ...]:
    return (shares[owner],) if owner in shares else ()


def _billings(
    drawn: Mapping[str | None, Sequence[_Drawn]],
    weights: Mapping[str, int],
    conversion: Conversion,
) -> dict[str | None, Billing]:
    """Convert every owner's lines, and share out what the ownerless came to in the currency."""
    cells = {owner: [one.cells for one in some] for owner, some in drawn.items()}
    whole = bill(None, cells.get(None, []), conversion)
    shared = divide(sum(row.cost_nusd for row in whole.rows), weights)
    amounts = divide(whole.total_nano, weights)
    return {
        owner: bill(
            owner,
            some,
            conversion,
            share=(shared[owner], amounts[owner]) if owner in shared else None,
        )
        for owner, some in cells.items()
    }


def _part(cost_nusd: int) -> StatementLine:
    return StatementLine(
        provider="-",
        model="Cost without an owner",
        meter="share",
        quantity=0,
        calls=0,
        cost_nusd=cost_nusd,
        is_shared=True,
    )


_COLUMNS: Final = (
    "statement_id", "tenant", "by", "owner", "period", "start_time", "end_time", "provider",
    "model", "meter", "quantity", "calls", "is_shared", "cost_nusd",
)  # fmt: skip


def to_table(statement: Statement) -> pa.Table:
    """Return the statement's lines as a table; every line names its statement."""
    lines = statement.lines
    about = {
        "statement_id": statement.id,
        "tenant": statement.tenant,
        "by": statement.by,
        "owner": statement.owner or UNATTRIBUTED,
        "period": statement.period,
        "start_time": statement.start,
        "end_time": statement.end,
    }
    rows = [{**about, **msgspec.structs.asdict(line)} for line in lines]
    fields: list[tuple[str, pa.DataType]] = [(name, _kind(name)) for name in _COLUMNS]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    return in_currency(table, statement.billing) if statement.billing else table


def _kind(name: str) -> pa.DataType:
    if name.endswith("_time"):
        return pa.timestamp("us", tz="UTC")
    if name == "is_shared":
        return pa.bool_()
    return pa.int64() if name in {"quantity", "calls", "cost_nusd"} else pa.string()


def overview(statements: Iterable[Statement]) -> list[dict[str, Any]]:
    """Return a row a statement: what a list of them shows."""
    return [
        {
            "id": one.id,
            "sha256": one.content_sha256,
            "owner": one.owner or UNATTRIBUTED,
            "lines": len(one.lines),
            "total_usd": format_usd(one.total_nusd),
            "previous_usd": format_usd(one.previous_nusd),
            "unpriced_calls": one.unpriced_calls,
            **(_amounts(one.billing) if one.billing else {}),
        }
        for one in statements
    ]


def _amounts(billing: Billing) -> dict[str, Any]:
    before = billing.previous_nano
    return {
        "currency": billing.currency,
        "total_amount": format_usd(billing.total_nano),
        "previous_amount": None if before is None else format_usd(before),
        "rates": [
            {"day": use.day, "usd_per_unit": use.usd_per_unit, "source": use.source}
            for use in billing.rates
        ],
    }
