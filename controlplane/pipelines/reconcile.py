"""A bill's lines → our ledger over the same days → what the difference is made of → a report."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from controlplane.core.calendar import Window, midnight
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd
from controlplane.pipelines.bill_currency import Rates, billed_in, in_usd
from controlplane.pipelines.invoices import invoice_of, note_of
from controlplane.pipelines.reconcile_ledger import BilledLedger, ReconcileRequest
from controlplane.pipelines.reconcile_report import ReconciliationReport, ratio, row_of
from controlplane.pricing.currency import RateTable
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.billing import BillFile, BillLine
from controlplane.signals.ports import SpanReader
from controlplane.usage.reconcile import CLASSES, Compared, Reconciliation, reconcile

MAX_DAYS: Final = 400


def reconcile_bill(
    reader: SpanReader,
    book: PriceBook,
    bill: tuple[Sequence[BillFile], Sequence[BillLine]],
    *,
    asked: ReconcileRequest,
    rates_of: Rates = RateTable.of_nothing,
) -> ReconciliationReport:
    """Compare a bill with the ledger over the bill's own days; nothing is changed.

    Lines in another currency are converted at the rate of their own day, exactly, and compared in
    USD: a product of decimals is not rounded.

    Raises:
        InvalidInputError: no usable line, a bill of more than MAX_DAYS, or of a day without a rate.
    """
    files, said = bill
    lines, rates = in_usd(said, rates_of)
    if not lines:
        raise InvalidInputError("file", "no line of it can be used", "See `rejected`")
    days = [line.day for line in lines]
    first, last = min(days), max(days) + timedelta(days=1)
    if (last - first).days > MAX_DAYS:
        raise InvalidInputError("file", f"spans {(last - first).days} days", f"At most {MAX_DAYS}")
    zone = ZoneInfo(asked.zone)
    window = Window(midnight(first, zone), midnight(last, zone))
    ours = BilledLedger(reader, book, asked=asked, window=window)
    named = [msgspec.structs.replace(line, model=ours.model_name(line.model)) for line in lines]
    dimension = ours.key_dimension({line.key for line in named if line.key})
    if dimension is None:
        named = [msgspec.structs.replace(line, key=None) for line in named]
    result = reconcile(
        Compared(
            bill=named,
            ledger=ours.lines(dimension),
            edges=list(ours.edges(dimension)),
            rate_of=ours.rate_of,
        )
    )
    report = _report(files, asked, ours=ours, result=result, dimension=dimension)
    invoice_id, note = invoice_of(files, said)
    report = msgspec.structs.replace(
        report,
        billed_in=billed_in(said),
        rates=rates,
        invoice_id=invoice_id,
        invoice_note=note,
    )
    return msgspec.structs.replace(report, invoice_note=note_of(report))


def _report(
    files: Sequence[BillFile],
    asked: ReconcileRequest,
    *,
    ours: BilledLedger,
    result: Reconciliation,
    dimension: str | None,
) -> ReconciliationReport:
    """Write what was found, as it is read."""
    unexplained = result.classes["unexplained"]
    billed = result.billed_nusd
    return ReconciliationReport(
        provider=asked.provider,
        tenants=asked.tenants,
        start=ours.window.start,
        end=ours.window.end,
        zone=asked.zone,
        currency="USD",
        key_dimension=dimension,
        files=tuple(files),
        billed_usd=format_usd(billed),
        ledger_usd=format_usd(result.ledger_nusd),
        difference_usd=format_usd(result.difference_nusd),
        classes={name: format_usd(result.classes[name]) for name in CLASSES},
        unexplained_ratio=ratio(
            sum(abs(c.classes.get("unexplained", 0)) for c in result.cells), billed
        ),
        tolerance_ratio=float(asked.tolerance.ratio),
        tolerance_usd=format_usd(asked.tolerance.nusd),
        within_tolerance=asked.tolerance.allows(unexplained, billed),
        has_quantities=result.has_quantities,
        has_costs=result.has_costs,
        unpriced_calls=ours.unpriced_calls,
        rows=tuple(row_of(cell) for cell in result.cells),
        booked_later=ours.booked_later(),
    )
