"""A period's calls → a statement per owner, as PDF and CSV."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from controlplane.core.calendar import Period, Window, period_name, window_at, windows
from controlplane.core.fiscal import FiscalCalendar
from controlplane.exports.charges import charges_of, with_corrected
from controlplane.exports.corrections import corrections_of
from controlplane.exports.sharing import UNATTRIBUTED, SharedRule
from controlplane.exports.statement import (
    Statement,
    StatementPlan,
    overview,
    statements_of,
    to_table,
)
from controlplane.exports.statement_currency import Conversion, previous_in
from controlplane.exports.statement_lines import IdleCost
from controlplane.exports.statement_pdf import to_pdf
from controlplane.exports.traces import to_csv
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pipelines.gpu_idle import idle_costs, idle_lines, pool_users
from controlplane.pipelines.signed_directory import Part, Stamp
from controlplane.pipelines.unit_costs import local_days
from controlplane.pricing.currency import USD, RateTable
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.usage.converted import CELL, CellKey, keys_in

INDEX_NAME: Final = "statements.json"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
MAX_SLUG: Final = 40


class StatementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose statements: one per value of `by`; `plan` has the rest."""

    plan: StatementPlan
    owner: str | None = None
    """Only this owner's; all of them without one."""
    currency: str = USD


def make_statements(
    reader: SpanReader,
    book: PriceBook,
    request: StatementRequest,
    *,
    rates: RateTable | None = None,
    gpu: GpuTools | None = None,
) -> list[Statement]:
    """Make the statements; nothing is written. Without `gpu` there is no idle time.

    Raises:
        InvalidInputError: no rate of the currency holds on a day that cost something.
    """
    plan = request.plan
    window = plan.window
    batches = reader.call_batches(CallQuery(tenants=(plan.tenant,), window=window))
    days = (
        tuple(windows(Period.DAY, window, zone=plan.zone)) if request.currency != USD else (window,)
    )
    found = charges_of(batches, book, periods=days)
    before = Window(window.start - (window.end - window.start), window.start)
    asked = CostQuery(tenants=(plan.tenant,), window=before, group_by=(plan.by,))
    previous = reader.costs(asked)
    costs = {row[plan.by]: row["cost_nusd"] for row in previous.to_pylist()}
    idle_before = _idle(reader, request, gpu, window=before, rates=rates)
    if idle_before:
        costs[None] = costs.get(None, 0) + sum(one.cost_nusd for one in idle_before)
    late = corrections_of(reader.correction_sides((plan.tenant,), window), book)
    found = with_corrected(found, late.unpriced, periods=days)
    conversion = None
    if request.currency != USD:
        conversion = _conversion(
            reader, request, asked, days=days, rates=rates, idle_before=idle_before
        )
    made = statements_of(
        found.charges,
        found.unpriced,
        costs,
        corrections=late.buckets,
        idle=_idle(reader, request, gpu, window=window, rates=rates),
        plan=plan,
        conversion=conversion,
    )
    wanted = request.owner
    return made if wanted is None else [s for s in made if (s.owner or UNATTRIBUTED) == wanted]


def _idle(
    reader: SpanReader,
    request: StatementRequest,
    gpu: GpuTools | None,
    *,
    window: Window,
    rates: RateTable | None,
) -> list[IdleCost]:
    """Return the idle GPU time that the tenant bears in a window, and who used its pools."""
    if gpu is None:
        return []
    plan = request.plan
    query = CostQuery(tenants=(plan.tenant,), window=window)
    is_by_use = plan.idle_rule is SharedRule.PROPORTIONAL
    return idle_costs(
        idle_lines(gpu, (plan.tenant,), window),
        zone=plan.zone,
        rates=rates or RateTable.of_nothing(request.currency),
        users=pool_users(reader, query, by=plan.by) if is_by_use else {},
    )


def _conversion(
    reader: SpanReader,
    request: StatementRequest,
    asked: CostQuery,
    *,
    days: Sequence[Window],
    rates: RateTable | None,
    idle_before: Sequence[IdleCost],
) -> Conversion:
    """Return what the statements are converted with; `asked` is the question about the time before."""
    table = rates or RateTable.of_nothing(request.currency)
    by, tz = request.plan.by, ZoneInfo(request.plan.zone)
    daily = msgspec.structs.replace(
        asked, granularity=Granularity.DAY, zone=request.plan.zone, group_by=CELL
    )
    told = reader.costs(daily)
    columns = (told[name].to_pylist() for name in (by, "bucket_start", "cost_nusd"))
    before = [
        (owner, at.astimezone(tz).date(), cell, nusd)
        for cell, owner, at, nusd in zip(keys_in(told), *columns, strict=True)
    ]
    for one in idle_before:
        what: CellKey = ("idle", one.pool, one.slice)
        before += [(None, cell.day, what, cell.cost_nusd) for cell in one.cells]
    return Conversion(
        currency=request.currency,
        rates=table,
        days=tuple(day.start.astimezone(tz).date() for day in days),
        previous=previous_in(before, table),
    )


def statement_parts(
    sources: ExportSources, request: ExportRequest, _stamp: Stamp
) -> Iterator[Part]:
    """Yield a PDF and a CSV per statement, and an index of them."""
    plan = StatementPlan(
        tenant=request.tenant,
        by=request.by,
        window=request.window,
        period=name_of(request.window, zone=request.zone, calendar=request.calendar),
        zone=request.zone,
        shared_rule=request.shared_rule,
        shares=request.shares,
        idle_rule=request.idle_rule,
        idle_shares=request.idle_shares,
        calendar=request.calendar,
    )
    asked = StatementRequest(plan=plan, owner=request.owner, currency=request.currency)
    made = make_statements(
        sources.reader,
        sources.book,
        asked,
        rates=sources.rates_of(request.currency),
        gpu=sources.gpu,
    )
    for number, one in enumerate(made):
        slug = _UNSAFE.sub("-", one.owner or UNATTRIBUTED)[:MAX_SLUG].strip("-.") or "owner"
        name = f"statement-{number:04d}-{slug}"
        yield Part(name=f"{name}.pdf", body=to_pdf(one))
        yield Part(
            name=f"{name}.csv",
            body=to_csv(to_table(one)),
            rows=len(one.billing.rows if one.billing else one.lines),
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
