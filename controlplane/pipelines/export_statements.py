"""A period's calls → a statement per owner, as PDF and CSV."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import msgspec

from controlplane.core.calendar import Period, Window, period_name, window_at
from controlplane.core.fiscal import FiscalCalendar
from controlplane.exports.charges import charges_of
from controlplane.exports.statement import (
    UNATTRIBUTED,
    Statement,
    StatementPlan,
    overview,
    statements_of,
    to_table,
)
from controlplane.exports.statement_pdf import to_pdf
from controlplane.exports.traces import to_csv
from controlplane.pipelines.signed_directory import Part
from controlplane.pipelines.unit_costs import local_days
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery, CostQuery

INDEX_NAME: Final = "statements.json"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
MAX_SLUG: Final = 40


class StatementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose statements: one per value of `by`; `plan` has the rest."""

    plan: StatementPlan
    owner: str | None = None
    """Only this owner's; all of them without one."""


def make_statements(
    reader: SpanReader, book: PriceBook, request: StatementRequest
) -> list[Statement]:
    """Make the statements; nothing is written."""
    plan = request.plan
    window = plan.window
    batches = reader.call_batches(CallQuery(tenants=(plan.tenant,), window=window))
    found = charges_of(batches, book, periods=(window,))
    before = Window(window.start - (window.end - window.start), window.start)
    previous = reader.costs(CostQuery(tenants=(plan.tenant,), window=before, group_by=(plan.by,)))
    costs = {row[plan.by]: row["cost_nusd"] for row in previous.to_pylist()}
    corrections = reader.corrections((plan.tenant,), window).to_pylist()
    made = statements_of(found.charges, found.unpriced, costs, corrections=corrections, plan=plan)
    wanted = request.owner
    return made if wanted is None else [s for s in made if (s.owner or UNATTRIBUTED) == wanted]


def statement_parts(
    reader: SpanReader, book: PriceBook, request: StatementRequest
) -> Iterator[Part]:
    """Yield a PDF and a CSV per statement, and an index of them."""
    made = make_statements(reader, book, request)
    for number, one in enumerate(made):
        slug = _UNSAFE.sub("-", one.owner or UNATTRIBUTED)[:MAX_SLUG].strip("-.") or "owner"
        name = f"statement-{number:04d}-{slug}"
        yield Part(name=f"{name}.pdf", body=to_pdf(one))
        yield Part(
            name=f"{name}.csv",
            body=to_csv(to_table(one)),
            rows=len(one.lines),
            total_nusd=one.total_nusd,
        )
    index = msgspec.json.format(msgspec.json.encode(overview(made)), indent=2)
    yield Part(name=INDEX_NAME, body=index)


def name_of(window: Window, *, zone: str, calendar: FiscalCalendar) -> str:
    """Name a period: a whole month, quarter or year of the calendar by its name, others by days."""
    for period in (Period.MONTH, Period.QUARTER, Period.YEAR):
        if window == window_at(period, window.start, zone=zone, calendar=calendar):
            return period_name(window.start, period, zone=zone, calendar=calendar)
    days = local_days(window, zone)
    return f"{days.start} to {days.end - timedelta(days=1)}"
