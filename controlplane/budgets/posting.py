"""What settled calls mean for budgets: pure, from call changes to sums and corrections.

A call that no agent settled is `unenforced`; it is posted as the sum per minute of what changed.
An enforced call was charged when its hold was settled, so only a difference is posted. A call that
may still turn out to be enforced waits a moment, or it would count twice until the settle comes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.budgets.budget import Budget
from controlplane.budgets.hold import HoldLine, SettledHold, corrected
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.policy.document import CALL_FACTS, Mode
from controlplane.policy.match import WILDCARD
from controlplane.policy.units import BudgetUnit

REFUSED: Final = "failed_without_usage"
"""Reason of a call whose upstream refused it; as an agent settles it, nothing was used."""
CACHE_HIT: Final = "cache_hit"
"""Reason of a gateway's own reply: a request, but no model's tokens."""
MODEL_COLUMNS: Final = ("request_model", "billing_model", "response_model")
"""A selector on the model covers the name that was asked for and the one that was billed."""
_USED: Final = (
    "call_id",
    "version",
    "sign",
    "enforced",
    "start_time",
    "duration_us",
    "cost_nusd",
    "cost_state",
    "cost_reason",
    "input_tokens",
    "output_tokens",
    "response_id",
    "gateway_call_id",
    *CALL_FACTS,
    *MODEL_COLUMNS,
)


class WaitingCall(msgspec.Struct, frozen=True, kw_only=True):
    """An unenforced call whose agent may not have spoken yet."""

    call_id: str
    window: WindowKey
    minute: datetime
    version: int
    cost_nusd: int
    """In the unit of the budget."""
    due_at: datetime


class Plan(msgspec.Struct):
    """What to write for one post."""

    sums: dict[tuple[WindowKey, int, datetime], int] = {}
    """(window, version, minute) → what unenforced calls came to, in the budget's unit."""
    waits: list[WaitingCall] = []
    settled_waits: list[WaitingCall] = []
    lines: list[tuple[str, HoldLine]] = []
    corrections: list[Entry] = []

    def entries(self, now: datetime) -> list[Entry]:
        """Return everything as ledger entries; sums of zero post nothing."""
        return self.corrections + [
            Entry(
                window=window,
                key=f"calls:{version}:{minute:%Y%m%dT%H%M}",
                kind=EntryKind.CALLS,
                at=now,
                called_at=minute,
                change=Amounts(unenforced_nusd=nusd),
            )
            for (window, version, minute), nusd in sorted(self.sums.items())
            if nusd
        ]

    def add(self, window: WindowKey, version: int, minute: datetime, *, nusd: int) -> None:
        """Add to a sum."""
        key = (window, version, minute)
        self.sums[key] = self.sums.get(key, 0) + nusd


def changes_frame(changes: pa.Table) -> pl.DataFrame:
    """Return the columns of CHANGE_SCHEMA rows that posting reads, with the minute of each."""
    frame = pl.DataFrame(pl.from_arrow(changes.select(list(_USED))))
    return frame.with_columns(
        minute=pl.col("start_time").dt.truncate("1m"),
        ended=pl.col("start_time") + pl.duration(microseconds=pl.col("duration_us")),
        tokens=_tokens(),
        requests=pl.when(_is(REFUSED)).then(0).otherwise(1).cast(pl.Int64),
    )


def _tokens() -> pl.Expr:
    """Input and output of a call together, cache included; NULL where it says neither."""
    totals = ("input_tokens", "output_tokens")
    return (
        pl.when(_is(REFUSED) | _is(CACHE_HIT))
        .then(0)
        .when(pl.any_horizontal(pl.col(*totals).is_not_null()))
        .then(pl.sum_horizontal(*totals))
        .cast(pl.Int64)
    )


def _is(reason: str) -> pl.Expr:
    return (pl.col("cost_reason") == reason).fill_null(value=False)


AMOUNTS: Final = {
    BudgetUnit.USD: "cost_nusd",
    BudgetUnit.TOKENS: "tokens",
    BudgetUnit.REQUESTS: "requests",
}
"""Unit → the column of `changes_frame` that a budget of it counts."""


def counted(frame: pl.DataFrame, budget: Budget) -> pl.DataFrame:
    """Return the calls that a budget counts; the same reading of selectors as `policy.match`."""
    keep = (pl.col("tenant") == budget.tenant) & (pl.col("start_time") >= budget.counts_from)
    for key, values in budget.match.items():
        columns = MODEL_COLUMNS if key == "model" else (key,)
        keep &= pl.any_horizontal(_covers(column, value) for column in columns for value in values)
    return frame.filter(keep)


def counted_with_children(
    frame: pl.DataFrame, budget: Budget, budgets: Sequence[Budget]
) -> pl.DataFrame:
    """Return the calls that a budget or one below it counts, from the budget's own start."""
    family = [budget]
    for one in family:  # grows while it is read; parents form no ring, compiling refuses one
        family += [child for child in budgets if child.parent == one.id and child not in family]
    if len(family) == 1:
        return counted(frame, budget)
    numbered = frame.with_row_index("row")
    rows = {row for one in family for row in counted(numbered, one)["row"].to_list()}
    mine = pl.col("row").is_in(sorted(rows)) & (pl.col("start_time") >= budget.counts_from)
    return numbered.filter(mine).drop("row")


def _covers(column: str, value: str) -> pl.Expr:
    if value.endswith(WILDCARD):
        return pl.col(column).str.starts_with(value[:-1]).fill_null(value=False)
    return (pl.col(column) == value).fill_null(value=False)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger knows already of the calls at hand."""

    holds: Sequence[SettledHold]
    waiting: Sequence[WaitingCall]
    leased_budgets: Collection[str]
    """Budgets that agents lease from: their calls may wait for a settle."""


def plan(
    frame: pl.DataFrame,
    budgets: Sequence[Budget],
    known: Known,
    *,
    now: datetime,
    grace_seconds: float,
) -> Plan:
    """Say what to post for these changes.

    Args:
        frame: `changes_frame` of versions that are not posted yet.
        budgets: every budget that is not archived.
        known: of the calls in `frame`.
        now: aware UTC.
        grace_seconds: how long after its end a call may wait for its agent's settle.
    """
    made = Plan()
    holds = _HoldIndex(known.holds)
    for budget in budgets:
        rows = counted_with_children(frame, budget, budgets)
        if rows.is_empty():
            continue
        rows = rows.with_columns(amount=pl.col(AMOUNTS[budget.unit]))
        loose = _apart(made, rows, budget, holds=holds, now=now)
        may_wait = budget.mode is Mode.HARD and budget.id in known.leased_budgets
        waiting = {w.call_id: w for w in known.waiting if w.window.budget_id == budget.id}
        _post_unenforced(
            made, loose, budget, waiting=waiting, now=now, grace=grace_seconds if may_wait else None
        )
    return made


def restatements(frame: pl.DataFrame, budgets: Sequence[Budget], *, now: datetime) -> list[Entry]:
    """Say what re-rated and corrected calls move in each budget window: one entry a version and window.

    Held and loose calls alike: a hold was settled at the price known then, and stays as it was. A
    price moves money only; a late report moves tokens and requests too.

    Args:
        frame: `changes_frame` of adjustments, each call before (-1) and after (+1).
        budgets: every budget that is not archived.
        now: aware UTC.
    """
    moved: dict[tuple[WindowKey, int], int] = {}
    for budget in budgets:
        rows = counted_with_children(frame, budget, budgets)
        rows = rows.with_columns(amount=pl.col(AMOUNTS[budget.unit]))
        window_of = _window_starts(budget)
        for version, minute, nusd in _sums(rows):
            key = (window_of(minute), version)
            moved[key] = moved.get(key, 0) + nusd
    return [
        Entry(
            window=window,
            key=f"restate:{-version}",
            kind=EntryKind.RESTATE,
            at=now,
            change=Amounts(restated_nusd=nusd),
        )
        for (window, version), nusd in sorted(moved.items())
        if nusd
    ]


class _HoldIndex:
    """Finds the holds of a call by the response's id and by the gateway's.

    A hold without either is found by its own id, which its report then carries as the gateway's.
    """

    def __init__(self, holds: Sequence[SettledHold]) -> None:
        self._by_response: dict[str, list[SettledHold]] = {}
        self._by_call: dict[str, list[SettledHold]] = {}
        for hold in holds:
            self._by_call.setdefault(hold.call_id or hold.id, []).append(hold)
            if hold.response_id:
                self._by_response.setdefault(hold.response_id, []).append(hold)

    def find(self, response_id: str | None, call_id: str | None) -> list[SettledHold]:
        """Return the holds a call may have; more than one can not be told apart."""
        answered = self._by_response.get(response_id or "", [])
        asked = self._by_call.get(call_id or "", [])
        # Some engines number their responses from one: the gateway's id then tells them apart.
        both = [hold for hold in answered if hold in asked]
        return both or answered or asked


def _apart(
    made: Plan, rows: pl.DataFrame, budget: Budget, *, holds: _HoldIndex, now: datetime
) -> pl.DataFrame:
    """Correct the holds of enforced calls; return the rows that no hold of this budget covers."""
    covered: list[int] = []
    indexed = rows.with_row_index("row")
    for row in indexed.filter(pl.col("enforced")).iter_rows(named=True):
        found = holds.find(row["response_id"], row["gateway_call_id"])
        lines = [
            (hold, line)
            for hold in found
            for line in hold.lines
            if line.window.budget_id == budget.id
        ]
        if not lines:
            continue
        covered.append(row["row"])
        used, version = row["amount"], row["version"]
        if len(lines) == 1 and row["sign"] > 0 and used is not None:
            _correct(made, *lines[0], used_nusd=used, version=version, now=now)
    return indexed.filter(~pl.col("row").is_in(covered)).drop("row")


def _correct(
    made: Plan, hold: SettledHold, line: HoldLine, *, used_nusd: int, version: int, now: datetime
) -> None:
    after, change = corrected(line, used_nusd)
    if change == Amounts():
        return
    made.lines.append((hold.id, after))
    made.corrections.append(
        Entry(
            window=line.window,
            key=f"correct:{hold.id}:{version}",
            kind=EntryKind.CORRECT,
            at=now,
            change=change,
        )
    )


def _post_unenforced(
    made: Plan,
    rows: pl.DataFrame,
    budget: Budget,
    *,
    waiting: Mapping[str, WaitingCall],
    now: datetime,
    grace: float | None,
) -> None:
    """Sum what changed per minute, leaving out what waits and what waited for this."""
    window_of = _window_starts(budget)
    if waiting:
        back = rows.filter((pl.col("sign") < 0) & pl.col("call_id").is_in(list(waiting)))
        made.settled_waits += [waiting[call_id] for call_id in back["call_id"]]
        rows = rows.join(back, on=("call_id", "sign"), how="anti")
    if grace is not None:
        ready = now - timedelta(seconds=grace)
        late = (pl.col("sign") > 0) & ~pl.col("enforced") & (pl.col("ended") > ready)
        late &= pl.col("amount").is_not_null()
        for row in rows.filter(late).iter_rows(named=True):
            made.waits.append(
                WaitingCall(
                    call_id=row["call_id"],
                    window=window_of(row["minute"]),
                    minute=row["minute"],
                    version=row["version"],
                    cost_nusd=row["amount"],
                    # A client that says its call ends next year is seen now (L5).
                    due_at=min(row["ended"], now) + timedelta(seconds=grace),
                )
            )
        rows = rows.filter(~late | late.is_null())
    for version, minute, nusd in _sums(rows):
        made.add(window_of(minute), version, minute, nusd=nusd)


def _sums(rows: pl.DataFrame) -> Iterator[tuple[int, datetime, int]]:
    # Summed in 128 bits: an Int64 sum wraps without a word.
    signed = pl.col("sign").cast(pl.Int128) * pl.col("amount").cast(pl.Int128)
    grouped = rows.group_by("version", "minute").agg(nusd=signed.sum())
    yield from grouped.iter_rows()


def _window_starts(budget: Budget) -> Callable[[datetime], WindowKey]:
    """Return a lookup of the window that a minute falls in, each computed once."""
    found: dict[datetime, WindowKey] = {}

    def window_of(minute: datetime) -> WindowKey:
        key = found.get(minute)
        if key is None:
            key = found[minute] = WindowKey(budget.id, budget.window(minute).start)
        return key

    return window_of
