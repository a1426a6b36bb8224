"""Budgets as people manage them, and what stands in their windows."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    and_,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from controlplane.alerts.burn import Spent
from controlplane.budgets.budget import Budget, check_budget, check_change
from controlplane.budgets.edit import Edit, Editor
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Window
from controlplane.core.errors import NotFoundError
from controlplane.policy.wire import RefusedCalls
from controlplane.store.metadata.engine import LEDGER_LOCK, reading, writing
from controlplane.store.metadata.refusals import read_refused
from controlplane.store.metadata.tables import budget, budget_edit, ledger_balance, ledger_entry
from controlplane.store.metadata.timeline import TimelineRepository

_decoder = msgspec.json.Decoder(Budget)
ACCOUNTS = ("enforced_nusd", "unproven_nusd", "unenforced_nusd", "leased_nusd", "restated_nusd")


class BudgetRepository:
    """Implements `budgets.ports.Budgets`; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, wanted: Budget, *, by: Editor | None = None) -> Budget:
        """Keep a new budget, and who made it.

        Raises:
            InvalidInputError: it can not be kept.
            ConflictError: there is one of that id.
        """
        check_budget(wanted)
        with writing(self._engine) as connection:
            connection.execute(insert(budget), {"id": wanted.id, **_to_row(wanted)})
            _remember(connection, None, wanted, by=by)
        return wanted

    def get(self, budget_id: str) -> Budget:
        """Return a budget, archived or not.

        Raises:
            NotFoundError: there is none of that id.
        """
        with reading(self._engine) as connection:
            return _get(connection, budget_id)

    def active(self, *, tenants: Collection[str] | None = None) -> list[Budget]:
        """Return the budgets that are not archived, of these tenants or all, by id."""
        query = select(budget.c.body).where(budget.c.archived_at.is_(None))
        if tenants is not None:
            query = query.where(budget.c.tenant.in_(sorted(tenants)))
        with reading(self._engine) as connection:
            return [_decoder.decode(body) for (body,) in connection.execute(query.order_by("id"))]

    def update(self, wanted: Budget, *, by: Editor | None = None) -> Budget:
        """Replace what may change of a budget: its limit, names, mode and thresholds.

        Raises:
            NotFoundError: there is none of that id.
            InvalidInputError: it changes what the budget counts.
        """
        with writing(self._engine, lock=LEDGER_LOCK) as connection:
            before = _get(connection, wanted.id)
            check_change(before, wanted)
            _remember(connection, before, wanted, by=by)
            connection.execute(
                update(budget).where(budget.c.id == wanted.id).values(**_to_row(wanted))
            )
        return wanted

    def archive(self, budget_id: str, *, now: datetime, by: Editor | None = None) -> None:
        """Stop a budget; its ledger stays. Twice is once.

        Raises:
            NotFoundError: there is none of that id.
        """
        with writing(self._engine, lock=LEDGER_LOCK) as connection:
            found = _get(connection, budget_id)
            if found.archived_at is None:
                ended = msgspec.structs.replace(found, archived_at=now)
                _remember(connection, found, ended, by=by)
                connection.execute(
                    update(budget).where(budget.c.id == budget_id).values(**_to_row(ended))
                )

    def balances(self, budgets: Sequence[Budget], *, at: datetime) -> Mapping[str, Amounts]:
        """Return by budget id what counts at `at`; zero amounts when nothing does."""
        windows = [WindowKey(one.id, one.window(at).start) for one in budgets if not one.is_rolling]
        rolling = [(one.id, one.counted_window(at)) for one in budgets if one.is_rolling]
        with reading(self._engine) as connection:
            found = amounts_of(connection, windows)
            sums = {
                budget_id: amounts_between(connection, budget_id, start=span.start, end=span.end)
                for budget_id, span in rolling
            }
        return {key.budget_id: found.get(key, Amounts()) for key in windows} | sums

    def recovering_until(self, now: datetime) -> datetime | None:
        """Return until when nothing is granted after a restore; None: the ledger is in order."""
        return TimelineRepository(self._engine).recovering_until(now)

    def spent(self, budget_id: str, spans: Sequence[Window]) -> list[Spent]:
        """Return what was spent by calls of each span, and in how many postings of calls.

        A statistic: sums are floating point, so nonsense does not overflow them.
        """
        table = ledger_entry.c
        accounts = (table.enforced_nusd, table.unproven_nusd, table.unenforced_nusd)
        total = sum((cast(one, Float) for one in accounts), literal(0.0))
        of_calls = table.kind.in_([EntryKind.SETTLE.value, EntryKind.CALLS.value])
        found = []
        with reading(self._engine) as connection:
            for span in spans:
                row = connection.execute(
                    select(func.sum(total), func.count(case((of_calls, 1)))).where(
                        table.budget_id == budget_id, _happened(start=span.start, end=span.end)
                    )
                ).one()
                found.append(Spent(int(row[0] or 0), int(row[1])))
        return found

    def spent_of(self, budget_id: str, window: Window, spans: Sequence[Window]) -> list[int]:
        """Return what calls of each span moved in windows that start in `window`, restated too.

        What is before the first span counts as in it. For a chart: sums are floating point.
        """
        table = ledger_entry.c
        total = sum(
            (cast(table[name], Float) for name in ACCOUNTS if name != "leased_nusd"), literal(0.0)
        )
        found = []
        with reading(self._engine) as connection:
            for number, span in enumerate(spans):
                query = select(func.sum(total)).where(
                    table.budget_id == budget_id,
                    table.window_start >= window.start,
                    table.window_start < window.end,
                    _happened(start=span.start if number else None, end=span.end),
                )
                found.append(int(connection.execute(query).scalar() or 0))
        return found

    def edits(self, budget_id: str, *, limit: int) -> list[Edit]:
        """Return what people did to a budget, newest first."""
        query = select(budget_edit).where(budget_edit.c.budget_id == budget_id)
        with reading(self._engine) as connection:
            return [
                Edit(
                    by=Editor(at=row.at, name=row.author, id=row.author_id),
                    before=_decoder.decode(row.before) if row.before is not None else None,
                    after=_decoder.decode(row.after),
                )
                for row in connection.execute(query.order_by(budget_edit.c.seq.desc()).limit(limit))
            ]

    def refusals(self, tenants: Collection[str], span: Window) -> list[RefusedCalls]:
        """Return the calls that agents refused in the hours that begin in a span, most first."""
        return read_refused(self._engine, tenants, span)

    def entries(self, budget_id: str, span: Window, *, limit: int) -> list[Entry]:
        """Return entries of a budget's windows that start in `span`, newest first."""
        table = ledger_entry.c
        query = select(ledger_entry).where(
            table.budget_id == budget_id,
            table.window_start >= span.start,
            table.window_start < span.end,
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(table.seq.desc()).limit(limit))
            return [
                Entry(
                    window=WindowKey(budget_id, row.window_start),
                    key=row.key,
                    kind=EntryKind(row.kind),
                    at=row.at,
                    called_at=row.called_at,
                    change=Amounts(*(getattr(row, name) for name in ACCOUNTS)),
                )
                for row in rows
            ]


def _happened(*, start: datetime | None, end: datetime) -> ColumnElement[bool]:
    """Say when the calls of an entry were, as far as it knows; else when it was posted.

    Two conditions, each with an index of its own: late calls are where they belong.
    """
    table = ledger_entry.c
    called, posted = [table.called_at < end], [table.called_at.is_(None), table.at < end]
    if start is not None:
        called.append(table.called_at >= start)
        posted.append(table.at >= start)
    return or_(and_(*called), and_(*posted))


def amounts_of(connection: Connection, windows: Collection[WindowKey]) -> dict[WindowKey, Amounts]:
    """Return what stands in each window's accounts; a window without entries is absent."""
    if not windows:
        return {}
    table = ledger_balance.c
    keys = [(key.budget_id, key.start) for key in windows]
    pair = tuple_(table.budget_id, table.window_start)
    rows = connection.execute(select(ledger_balance).where(pair.in_(keys)))
    return {
        WindowKey(row.budget_id, row.window_start): Amounts(
            *(getattr(row, name) for name in ACCOUNTS)
        )
        for row in rows
    }


def amounts_between(
    connection: Connection, budget_id: str, *, start: datetime, end: datetime
) -> Amounts:
    """Return the sum over a budget's windows that start in `[start, end)`."""
    table = ledger_balance.c
    rows = connection.execute(
        select(*(table[name] for name in ACCOUNTS)).where(
            table.budget_id == budget_id, table.window_start >= start, table.window_start < end
        )
    )
    # Added here: a sum in SQL may pass 64 bits, where SQLite fails and Postgres turns to numeric.
    return sum((Amounts(*row) for row in rows), Amounts())


def read_budgets(connection: Connection, ids: Collection[str] | None) -> dict[str, Budget]:
    """Return budgets that are not archived, of these ids or all."""
    query = select(budget.c.body).where(budget.c.archived_at.is_(None))
    if ids is not None:
        query = query.where(budget.c.id.in_(sorted(ids)))
    found = [_decoder.decode(body) for (body,) in connection.execute(query.order_by("id"))]
    return {one.id: one for one in found}


def _remember(
    connection: Connection, before: Budget | None, after: Budget, *, by: Editor | None
) -> None:
    """Keep who changed what; what no person did (a simulation, a seed) is nobody's edit."""
    if by is None or before == after:
        return
    row = {
        "budget_id": after.id,
        "at": by.at,
        "author": by.name,
        "author_id": by.id,
        "before": msgspec.json.encode(before).decode() if before is not None else None,
        "after": msgspec.json.encode(after).decode(),
    }
    connection.execute(insert(budget_edit), row)


def _get(connection: Connection, budget_id: str) -> Budget:
    row = connection.execute(select(budget.c.body).where(budget.c.id == budget_id)).first()
    if row is None:
        raise NotFoundError("budget", budget_id)
    return _decoder.decode(row.body)


def _to_row(one: Budget) -> dict[str, object]:
    return {
        "tenant": one.tenant,
        "limit_nusd": one.limit_nusd,
        "body": msgspec.json.encode(one).decode(),
        "archived_at": one.archived_at,
    }
