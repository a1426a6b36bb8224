"""What a reconciliation says, for a page, a person or another program."""

from datetime import date, datetime

import msgspec

from controlplane.core.money import format_usd
from controlplane.pipelines.bill_currency import UsedRate
from controlplane.signals.billing import BillFile
from controlplane.usage.reconcile import ReconciledCell


class ReconciledRow(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the bill, as it is read."""

    day: date
    model: str | None
    key: str | None
    meter: str | None
    billed_usd: str
    ledger_usd: str
    difference_usd: str
    billed_quantity: int | None
    ledger_quantity: int | None
    classes: dict[str, str]


class ReconciliationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a page, a person or another program needs of a reconciliation."""

    provider: str
    tenants: tuple[str, ...]
    start: datetime
    end: datetime
    zone: str
    currency: str
    key_dimension: str | None
    files: tuple[BillFile, ...]
    billed_usd: str
    ledger_usd: str
    difference_usd: str
    classes: dict[str, str]
    unexplained_ratio: float
    tolerance_ratio: float
    tolerance_usd: str
    within_tolerance: bool
    has_quantities: bool
    has_costs: bool
    unpriced_calls: int
    rows: tuple[ReconciledRow, ...]
    billed_in: dict[str, str] = {}
    """What was billed by currency, as the bill says it."""
    rates: tuple[UsedRate, ...] = ()
    booked_later: dict[str, str] = {}
    """What corrections of these days came to, by the month (in `zone`) that they were booked in."""
    invoice_id: str | None = None
    """The invoice that the whole bill is, where its lines name one."""
    invoice_note: str = ""
    """Why exports do not name the invoice; empty where it ties out and they do (ADR 074)."""


def ratio(part: int, whole: int) -> float:
    """Divide for display; everything is unexplained where nothing was billed."""
    return round(part / abs(whole), 6) if whole else float(bool(part))


def row_of(cell: ReconciledCell) -> ReconciledRow:
    """Write a cell as it is read."""
    return ReconciledRow(
        day=cell.day,
        model=cell.model,
        key=cell.key,
        meter=cell.meter,
        billed_usd=format_usd(cell.billed_nusd),
        ledger_usd=format_usd(cell.ledger_nusd),
        difference_usd=format_usd(cell.billed_nusd - cell.ledger_nusd),
        billed_quantity=cell.billed_quantity,
        ledger_quantity=cell.ledger_quantity,
        classes={name: format_usd(amount) for name, amount in cell.classes.items()},
    )
