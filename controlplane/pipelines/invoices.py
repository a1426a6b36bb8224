"""Bills that name their invoice → which invoices tie out with the ledger → whose rows name them.

FOCUS wants the sum of BilledCost per InvoiceId to be what the invoice says is payable. So a row names
an invoice where that holds, and none where it does not (ADR 074).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.core.money import NUSD_PER_USD, divide_half_even, parse_usd
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pricing.providers import price_provider
from controlplane.signals.billing import BillFile, BillLine
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery
from controlplane.usage.ports import KeptReconciliations

MAX_REPORTS: Final = 10_000
"""How many of the newest recorded reports are looked at."""
NOT_NAMED: Final = "no line names an invoice"
SEVERAL: Final = "lines of several invoices, or of none yet: reconcile each invoice by itself"
NOT_WHOLE: Final = "the invoice has lines that were not read"
DIFFERS: Final = "the ledger differs from the invoice by more than rounding"
NO_COSTS: Final = "the bill states no costs in USD"
_CENT_NUSD: Final = NUSD_PER_USD // 100


class TiedInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider billed in a window, by the newest recorded report of it."""

    id: str | None
    """None: it does not tie out, or not any more."""
    provider: str
    start: datetime
    end: datetime


class Invoices:
    """The invoices that rows of an export may name."""

    def __init__(self, newest_first: Sequence[TiedInvoice] = ()) -> None:
        self._invoices = newest_first

    def of(self, provider: str | None, charged: Window) -> str | None:
        """Return the invoice of what a provider charged in a period; None where none is proven."""
        who = price_provider(provider) if provider else None
        for one in self._invoices:
            if one.provider == who and one.start <= charged.start and charged.end <= one.end:
                return one.id
        return None


def invoice_of(files: Iterable[BillFile], lines: Iterable[BillLine]) -> tuple[str | None, str]:
    """Return the one invoice that a bill is, or why it is none."""
    told = list(lines)
    ids = {line.invoice_id for line in told}
    if ids == {None}:
        return None, NOT_NAMED
    if len(ids) > 1:
        return None, SEVERAL
    (found,) = ids
    if any(file.rejected_lines or found in file.other_invoices for file in files):
        return found, NOT_WHOLE
    return found, "" if {line.currency for line in told} == {"USD"} else NO_COSTS


def note_of(report: ReconciliationReport) -> str:
    """Return why a report's invoice does not tie out; empty where it does.

    It does where nothing but rounding is between them, and both are the same to the cent.
    """
    if report.invoice_id is None or report.invoice_note:
        return report.invoice_note
    if not report.has_costs:
        return NO_COSTS
    between = {name for name, usd in report.classes.items() if _nusd(usd)}
    cents = {
        divide_half_even(_nusd(usd), _CENT_NUSD) for usd in (report.billed_usd, report.ledger_usd)
    }
    return "" if between <= {"rounding"} and len(cents) == 1 else DIFFERS


def tied_invoices(
    kept: KeptReconciliations | None,
    reader: SpanReader,
    *,
    tenant: str,
    periods: Sequence[Window],
) -> Invoices:
    """Return the invoices of a tenant's charge periods, each still tied to the ledger as it is now.

    One that begins or ends within a charge period can not be told by rows, and is not named.
    """
    window = Window(periods[0].start, periods[-1].end)
    found = []
    for one in kept.kept(limit=MAX_REPORTS) if kept else ():
        if tenant not in one.tenants or one.end <= window.start or window.end <= one.start:
            continue
        report = msgspec.json.decode(one.body, type=ReconciliationReport)
        edges = (one.start, one.end)
        is_tied = (
            report.invoice_id is not None
            and not report.invoice_note
            and not any(p.start < edge < p.end for p in periods for edge in edges)
            and _is_same_still(report, reader)
        )
        found.append(
            TiedInvoice(
                id=report.invoice_id if is_tied else None,
                provider=price_provider(one.provider),
                start=one.start,
                end=one.end,
            )
        )
    return Invoices(found)


def _is_same_still(report: ReconciliationReport, reader: SpanReader) -> bool:
    """Whether calls of the report's days cost what they did when it was made."""
    window, who = Window(report.start, report.end), price_provider(report.provider)
    query = CostQuery(tenants=report.tenants, window=window, group_by=("provider", "corrects"))
    cost = sum(
        row["cost_nusd"] or 0
        for row in reader.costs(query).to_pylist()
        if row["corrects"] is None and price_provider(row["provider"] or "") == who
    )
    return cost == _nusd(report.ledger_usd)


def _nusd(usd: str) -> int:
    return parse_usd(usd, field="usd")
