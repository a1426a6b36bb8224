"""The course of a budget and its edits as the API shows them; amounts are in the budget's unit."""

from datetime import datetime
from typing import Final

import msgspec

from controlplane.budgets.budget import Budget, Increase
from controlplane.budgets.edit import Edit
from controlplane.pipelines.budget_course import Course
from controlplane.policy.units import BudgetUnit, write_amount

AMOUNTS: Final = {"limit_nusd": "limit", "escrow_nusd": "escrow"}
PERCENT: Final = 100


class ReachedView(msgspec.Struct, frozen=True):
    """What the window had come to."""

    at: datetime
    spent: str


class ExpectedView(msgspec.Struct, frozen=True):
    """What the window is likely to have come to: one in ten below p10, one in ten above p90."""

    at: datetime
    p10: str
    p50: str
    p90: str


class CourseView(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `GET /api/v1/budgets/{id}/course`."""

    window_start: datetime
    window_end: datetime
    as_of: datetime
    unit: BudgetUnit
    limit: str
    spent: str
    """Settled, observed and restated, as `used_ratio` has it; what is leased is not spent."""
    reached: tuple[ReachedView, ...]
    """From the window's start to now; empty for a rolling window, which has no start."""
    expected: tuple[ExpectedView, ...]
    """From now to the window's end; empty under three whole days, and for windows under six."""
    exhausted_at: datetime | None
    """When the median meets the limit; null: not within this window, or not known."""
    thresholds_crossed: tuple[int, ...]


class FieldView(msgspec.Struct, frozen=True):
    """One field that was changed."""

    field: str
    before: str
    after: str


class EditView(msgspec.Struct, frozen=True, kw_only=True):
    """One edit: what kind, by whom, of what."""

    at: datetime
    kind: str
    """`made`, `changed` or `stopped`."""
    author: str
    fields: tuple[FieldView, ...]


class EditList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/budgets/{id}/edits`, newest first."""

    rows: tuple[EditView, ...]


def course_to_wire(budget: Budget, found: Course, now: datetime) -> CourseView:
    """Cross to the wire."""
    unit, limit = budget.unit, budget.limit_at(now)
    return CourseView(
        window_start=found.window.start,
        window_end=found.window.end,
        as_of=now,
        unit=unit,
        limit=write_amount(unit, limit),
        spent=write_amount(unit, found.used),
        reached=tuple(ReachedView(one.at, write_amount(unit, one.amount)) for one in found.reached),
        expected=tuple(
            ExpectedView(
                one.at,
                *(
                    write_amount(unit, amount)
                    for amount in (one.amounts.p10, one.amounts.p50, one.amounts.p90)
                ),
            )
            for one in found.expected
        ),
        exhausted_at=found.exhausted_at,
        thresholds_crossed=tuple(
            percent
            for percent in sorted(budget.thresholds)
            if found.used > 0 and found.used * PERCENT >= limit * percent
        ),
    )


def edit_to_wire(edit: Edit) -> EditView:
    """Cross to the wire."""
    before, after = edit.before, edit.after
    kind = "made" if before is None else "stopped" if after.archived_at else "changed"
    fields: tuple[FieldView, ...] = ()
    if before is not None:
        fields = tuple(
            FieldView(AMOUNTS.get(name, name), _written(before, name), _written(after, name))
            for name in edit.fields
        )
    return EditView(at=edit.by.at, kind=kind, author=edit.by.name, fields=fields)


def _written(budget: Budget, name: str) -> str:
    value: object = getattr(budget, name)
    if name in AMOUNTS and isinstance(value, int):
        return write_amount(budget.unit, value)
    if isinstance(value, tuple):
        return ", ".join(_one(budget, each) for each in value)
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value)


def _one(budget: Budget, value: object) -> str:
    if isinstance(value, Increase):
        said = f"{write_amount(budget.unit, value.amount_nusd)} until {value.until.isoformat()}"
        return f"{said} ({value.reason})" if value.reason else said
    return str(value)
