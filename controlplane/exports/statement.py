"""Showback and chargeback statements: whose cost it is, line by line, with an id that names it.

A statement's id is the hash of everything on it: the same calls and the same rule give the same id,
and a changed cost another. Lines sum to the total, statements of all owners to the ledger; cost that
has no owner is a statement of its own, or is shared out by a stated rule, exactly.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar, month_name
from controlplane.core.money import format_usd, split_largest_remainder
from controlplane.exports.charges import OWNERS
from controlplane.exports.vendors import METERS, vendor
from controlplane.pricing.providers import price_provider

BY: Final = tuple(name for name in OWNERS if name != "tenant")
UNATTRIBUTED: Final = "unattributed"
ID_DIGITS: Final = 24


class SharedRule(StrEnum):
    """What becomes of cost that has no owner."""

    NONE = "none"
    """It stays a statement of its own."""
    PROPORTIONAL = "proportional"
    """In proportion to what each owner's own calls cost."""
    EVEN = "even"


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One meter of one model, or the owner's part of what has no owner (`is_shared`)."""

    provider: str
    model: str
    meter: str
    quantity: int
    calls: int
    cost_nusd: int
    is_shared: bool = False


class Statement(msgspec.Struct, frozen=True, kw_only=True):
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

    @property
    def content_sha256(self) -> str:
        """Return the hash over everything on it."""
        return sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def id(self) -> str:
        """Return the name that the statement is quoted by."""
        return f"stmt_{self.content_sha256[:ID_DIGITS]}"


class StatementPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What statements are made of beside charges."""

    tenant: str
    by: str
    window: Window
    period: str
    zone: str
    shared_rule: SharedRule = SharedRule.NONE
    calendar: FiscalCalendar = GREGORIAN


def statements_of(
    charges: pl.DataFrame,
    unpriced: pl.DataFrame,
    previous: Mapping[str | None, int],
    *,
    corrections: Iterable[Mapping[str, Any]] = (),
    plan: StatementPlan,
) -> list[Statement]:
    """Make a statement for every owner that has cost or usage, by name; the ownerless last.

    `previous` is what each owner's own calls cost in the period before; `corrections` are
    CORRECTION_SCHEMA rows that were booked in the period about closed ones.
    """
    lines: dict[str | None, list[StatementLine]] = {}
    keys = [plan.by, "provider", "billing_model", "bucket"]
    summed = charges.group_by(keys).agg(pl.col("quantity", "calls", "cost_nusd").sum())
    for row in summed.sort(keys, nulls_last=True).iter_rows(named=True):
        lines.setdefault(row[plan.by], []).append(_line(row))
    for owner, corrected in _corrected(corrections, plan):
        lines.setdefault(owner, []).append(corrected)
    left_out: dict[str | None, tuple[int, int]] = {}
    for row in unpriced.iter_rows(named=True):
        calls, tokens = left_out.get(row[plan.by], (0, 0))
        more = int(row["input_tokens"]) + int(row["output_tokens"])
        left_out[row[plan.by]] = (calls + int(row["calls"]), tokens + more)
        lines.setdefault(row[plan.by], [])
    shared = _shared(lines, plan.shared_rule)
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
            lines=(*lines[owner], *shared.get(owner, ())),
            total_nusd=sum(line.cost_nusd for line in (*lines[owner], *shared.get(owner, ()))),
            previous_nusd=previous.get(owner, 0),
            unpriced_calls=left_out.get(owner, (0, 0))[0],
            unpriced_tokens=left_out.get(owner, (0, 0))[1],
        )
        for owner in sorted(lines, key=lambda name: (name is None, name or ""))
    ]


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
    corrections: Iterable[Mapping[str, Any]], plan: StatementPlan
) -> Iterator[tuple[str | None, StatementLine]]:
    """Yield a line an owner, model and closed month whose cost was booked now."""
    sums: dict[tuple[str | None, str | None, str | None, str], int] = {}
    for row in corrections:
        month = month_name(row["day"].date(), plan.calendar)
        key = (row[plan.by], row["provider"], row["billing_model"], month)
        sums[key] = sums.get(key, 0) + row["delta_nusd"]
    for key, nusd in sorted(sums.items(), key=lambda item: [(k is None, k or "") for k in item[0]]):
        owner, provider, model, month = key
        if nusd:
            yield (
                owner,
                StatementLine(
                    provider=vendor(price_provider(provider) if provider else None),
                    model=model or "unknown model",
                    meter=f"correction of {month}",
                    quantity=0,
                    calls=0,
                    cost_nusd=nusd,
                ),
            )


def _shared(
    lines: Mapping[str | None, list[StatementLine]], rule: SharedRule
) -> dict[str | None, list[StatementLine]]:
    """Return each owner's part of what has no owner, and its way out of the ownerless."""
    owners = sorted(owner for owner in lines if owner is not None)
    ownerless = sum(line.cost_nusd for line in lines.get(None, []))
    if rule is SharedRule.NONE or not owners or not ownerless:
        return {}
    # A correction can leave an owner below nothing, who then bears no part.
    own = [max(0, sum(line.cost_nusd for line in lines[owner])) for owner in owners]
    weights = own if rule is SharedRule.PROPORTIONAL and any(own) else [1] * len(owners)
    parts = split_largest_remainder(ownerless, weights)
    given = [*zip(owners, parts, strict=True), (None, -ownerless)]
    return {owner: [_part(cost)] for owner, cost in given}


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
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


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
        }
        for one in statements
    ]
