"""Showback and chargeback statements: whose cost it is, line by line, with an id that names it.

A statement's id is the hash of everything on it: the same calls and the same rule give the same id,
and a changed cost another. Lines sum to the total, statements of all owners to the ledger, idle GPU
time included; cost that has no owner and idle time are lines of a statement of their own, or are shared
out by a stated rule each, exactly.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
from controlplane.core.money import format_usd
from controlplane.exports.charges import amounts_of
from controlplane.exports.sharing import (
    UNATTRIBUTED,
    SharedRule,
    bearers,
    divide,
    idle_weights_by,
    weights_by,
)
from controlplane.exports.statement_currency import Billing, Conversion, bill, in_currency
from controlplane.exports.statement_lines import (
    Drawn,
    IdleCost,
    StatementLine,
    charged,
    corrected,
    part_of,
)
from controlplane.pricing.currency import RateTable
from controlplane.usage.converted import OWNERS

BY: Final = tuple(name for name in OWNERS if name != "tenant")
ID_DIGITS: Final = 24


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
    idle_rule: SharedRule = SharedRule.NONE
    """How the idle GPU time that the tenant bears was divided; `none` where there is none."""
    idle_share: tuple[int, int] | None = None

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
    shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Weights by owner of the rule `fixed`."""
    idle_rule: SharedRule = SharedRule.NONE
    idle_shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    calendar: FiscalCalendar = GREGORIAN


def statements_of(  # noqa: PLR0913 - what a period's cost is made of
    charges: pl.DataFrame,
    unpriced: pl.DataFrame,
    previous: Mapping[str | None, int],
    *,
    corrections: Iterable[Mapping[str, Any]] = (),
    idle: Sequence[IdleCost] = (),
    plan: StatementPlan,
    conversion: Conversion | None = None,
) -> list[Statement]:
    """Make a statement for every owner that has cost or usage, by name; the ownerless last.

    `previous` is what each owner's own calls cost in the period before; `corrections` are
    `Corrected.buckets` that were booked in the period about closed ones, `idle` the idle GPU time
    that the tenant bears. With a `conversion` the statements are in its currency, too.

    Raises:
        InvalidInputError: no rate of the currency holds on a day that cost something.
    """
    drawn = _drawn(charges, corrections, plan=plan, conversion=conversion)
    left_out: dict[str | None, tuple[int, int]] = {}
    for row in unpriced.iter_rows(named=True):
        calls, tokens = left_out.get(row[plan.by], (0, 0))
        more = int(row["input_tokens"]) + int(row["output_tokens"])
        left_out[row[plan.by]] = (calls + int(row["calls"]), tokens + more)
        drawn.setdefault(row[plan.by], [])
    shared = _shared(drawn, idle, plan, unpriced={owner for owner in left_out if owner})
    if idle:
        drawn.setdefault(None, []).extend(one.drawn() for one in idle)
    for owner in shared.parts:  # who bears a part may have nothing of its own
        drawn.setdefault(owner, [])
    made = []
    for owner in sorted(drawn, key=lambda name: (name is None, name or "")):
        own, parts = drawn[owner], shared.parts.get(owner, [])
        lines = (*(one.line for one in own), *(one.line for one in parts))
        billing = None
        if conversion:
            moved = [(one.line.cost_nusd, one.amount_nano) for one in parts]
            billing = bill(owner, [one.cells for one in own], conversion, parts=moved)
        made.append(
            Statement(
                tenant=plan.tenant,
                by=plan.by,
                owner=owner,
                start=plan.window.start,
                end=plan.window.end,
                period=plan.period,
                zone=plan.zone,
                shared_rule=plan.shared_rule,
                share=shared.weight_of(owner, plan.shared_rule, shared.ownerless),
                idle_rule=plan.idle_rule if idle else SharedRule.NONE,
                idle_share=shared.weight_of(owner, plan.idle_rule, shared.idle),
                lines=lines,
                total_nusd=sum(line.cost_nusd for line in lines),
                previous_nusd=previous.get(owner, 0),
                unpriced_calls=left_out.get(owner, (0, 0))[0],
                unpriced_tokens=left_out.get(owner, (0, 0))[1],
                billing=billing,
            )
        )
    return made


def _drawn(
    charges: pl.DataFrame,
    corrections: Iterable[Mapping[str, Any]],
    *,
    plan: StatementPlan,
    conversion: Conversion | None,
) -> dict[str | None, list[Drawn]]:
    """Return every owner's own lines."""
    keys = [plan.by, "provider", "billing_model", "bucket"]
    days = conversion.days if conversion else ()
    rates = conversion.rates if conversion else RateTable(())
    if conversion:  # a day without a rate is refused by `bill`
        made = [amount or 0 for amount in amounts_of(charges, days, rates)]
        charges = charges.with_columns(pl.Series("amount_nano", made, pl.Int128))
    booked = corrected(corrections, by=plan.by, zone=plan.zone, calendar=plan.calendar, rates=rates)
    drawn: dict[str | None, list[Drawn]] = {}
    for owner, line in [*charged(charges, keys, days), *booked]:
        drawn.setdefault(owner, []).append(line)
    return drawn


class _Part(msgspec.Struct, frozen=True):
    """An owner's part of one thing that is shared."""

    line: StatementLine
    amount_nano: int


class _Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What goes from the ownerless to owners, and the weights that it goes by."""

    parts: dict[str | None, list[_Part]]
    ownerless: Mapping[str, int]
    idle: Mapping[str, int]

    def weight_of(
        self, owner: str | None, rule: SharedRule, weights: Mapping[str, int]
    ) -> tuple[int, int] | None:
        """Return an owner's weight of all weights, where the rule is `fixed`."""
        if owner is None or rule is not SharedRule.FIXED or owner not in weights:
            return None
        return (weights[owner], sum(weights.values()))


def _shared(
    drawn: Mapping[str | None, Sequence[Drawn]],
    idle: Sequence[IdleCost],
    plan: StatementPlan,
    *,
    unpriced: Container[str],
) -> _Shared:
    """Divide what has no owner and what was idle, in USD and in the currency, each by its rule."""
    costs = {
        owner: sum(one.line.cost_nusd for one in some)
        for owner, some in drawn.items()
        if owner is not None
    }
    own = bearers(costs, unpriced)
    parts: dict[str | None, list[_Part]] = {}

    def move(what: str, cost: tuple[int, int], weights: Mapping[str, int]) -> Mapping[str, int]:
        if not cost[0]:
            return {}
        amounts = divide(cost[1], weights)
        for owner, nusd in divide(cost[0], weights).items():
            parts.setdefault(owner, []).append(_Part(part_of(what, nusd), amounts[owner]))
        return weights

    whole = drawn.get(None, ())
    cost = (sum(one.line.cost_nusd for one in whole), sum(one.amount_nano for one in whole))
    by_rule = weights_by(plan.shared_rule, own, plan.shares)
    ownerless = move("Cost without an owner", cost, by_rule)
    of_idle: Mapping[str, int] = {}
    for pool in idle:
        line = pool.drawn()
        weights = idle_weights_by(plan.idle_rule, own, plan.idle_shares, users=pool.users)
        cost = (line.line.cost_nusd, line.amount_nano)
        of_idle = move(f"Idle GPU time, {line.line.model}", cost, weights) or of_idle
    return _Shared(parts=parts, ownerless=ownerless, idle=of_idle)


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
