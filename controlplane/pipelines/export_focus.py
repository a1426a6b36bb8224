"""Calls of a window → charges → FOCUS rows in files, with corrections, idle time and commitments."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window, windows
from controlplane.core.errors import LimitExceededError
from controlplane.core.money import NUSD_PER_USD
from controlplane.exports import focus_schema
from controlplane.exports.charges import (
    SKU,
    UNPRICED_KEYS,
    Charges,
    amounts_of,
    charges_of,
    corrected_amounts,
    with_corrected,
)
from controlplane.exports.corrections import Corrected, corrections_of
from controlplane.exports.focus import (
    Correction,
    InvoiceOf,
    Layout,
    correction_rows,
    focus_rows,
    to_table,
)
from controlplane.exports.focus_commitments import commitment_rows
from controlplane.exports.focus_currency import in_currency
from controlplane.exports.focus_idle import idle_rows
from controlplane.pipelines.commitments import drawdowns
from controlplane.pipelines.export_calls import WRITERS
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.gpu_idle import idle_lines
from controlplane.pipelines.invoices import tied_invoices
from controlplane.pipelines.signed_directory import Part, Stamp
from controlplane.pricing.commitments import Drawdown, committed_nusd
from controlplane.pricing.currency import USD
from controlplane.pricing.providers import price_provider
from controlplane.pricing.rerate import LATE
from controlplane.signals.queries import CallQuery
from controlplane.signals.schema import TIMESTAMP
from controlplane.usage.converted import OWNERS

FOCUS_WRITERS: Final[dict[str, Callable[[pa.Table], bytes]]] = {
    "parquet": focus_schema.to_parquet,
    "csv": focus_schema.to_csv,
}
MAX_CHARGES: Final = 5_000_000
METADATA_NAME: Final = "focus-metadata.json"


class _Writing(msgspec.Struct, frozen=True):
    """A FOCUS export while it is written."""

    request: ExportRequest
    sources: ExportSources
    longest: dict[str, int] = msgspec.field(default_factory=dict)
    """The longest text of each column in the files so far."""


def focus_parts(sources: ExportSources, request: ExportRequest, stamp: Stamp) -> Iterator[Part]:
    """Yield charges in files of at most `rows_per_file`, what else is owed, and what has no price.

    Raises:
        LimitExceededError: more than MAX_CHARGES charges.
    """
    layout = Layout(
        window=request.window,
        periods=tuple(
            windows(
                request.charge_period,
                request.window,
                zone=request.zone,
                calendar=request.calendar,
            )
        ),
        zone=request.zone,
        calendar=request.calendar,
    )
    drawn = drawdowns(sources.reader, sources.book.contracts, request.window)
    asked = CallQuery(tenants=(request.tenant,), window=request.window)
    batches = sources.reader.call_batches(asked)
    charges = charges_of(batches, sources.book, periods=layout.periods, drawn=drawn)
    if charges.charges.height > MAX_CHARGES:
        raise LimitExceededError("charges of an export", MAX_CHARGES, charges.charges.height)
    writing = _Writing(request, sources)
    yield from _charge_parts(charges, layout, writing, invoice_of=_invoices(layout, writing))
    sides = sources.reader.correction_sides((request.tenant,), request.window)
    late = corrections_of(sides, sources.book)
    yield from _correction_parts(late, layout, writing)
    yield from _idle_parts(layout, writing)
    yield from _commitment_parts(drawn, layout, writing, now=stamp.created_at)
    charges = with_corrected(charges, late.unpriced, periods=layout.periods)
    yield _unpriced_part(charges, layout, request)
    yield Part(name=METADATA_NAME, body=_metadata(request, stamp, longest=writing.longest))


def _invoices(layout: Layout, writing: _Writing) -> InvoiceOf | None:
    """Return which invoice rows name: of what is billed in USD, by who holds no commitment of ours."""
    request, sources = writing.request, writing.sources
    if request.currency != USD:
        return None
    committed = {
        price_provider(one.provider) for one in sources.book.contracts if committed_nusd(one)
    }
    invoices = tied_invoices(
        sources.reconciliations,
        sources.reader,
        tenant=request.tenant,
        periods=layout.periods,
    )

    def of(provider: str | None, charged: Window) -> str | None:
        is_committed = provider is not None and price_provider(provider) in committed
        return None if is_committed else invoices.of(provider, charged)

    return of


def _charge_parts(
    charges: Charges, layout: Layout, writing: _Writing, *, invoice_of: InvoiceOf | None
) -> Iterator[Part]:
    request, sources = writing.request, writing.sources
    height = charges.charges.height
    amounts = None
    if request.currency != USD:
        tz = ZoneInfo(request.zone)
        days = [period.start.astimezone(tz).date() for period in layout.periods]
        amounts = amounts_of(charges.charges, days, sources.rates_of(request.currency))
    for number, first in enumerate(range(0, max(height, 1), request.rows_per_file)):
        some = charges.charges.slice(first, request.rows_per_file)
        part = msgspec.structs.replace(charges, charges=some)
        told = amounts and amounts[first : first + request.rows_per_file]
        rows = focus_rows(part, layout, sources.book, invoice_of=invoice_of)
        yield Part(
            name=f"focus-{number:05d}.{request.file_format}",
            body=_body(rows, writing, amounts=told),
            rows=some.height,
            total_nusd=part.total_nusd(),
        )


def _body(
    rows: Iterable[Mapping[str, Any]],
    writing: _Writing,
    *,
    amounts: Sequence[int | None] | None = None,
) -> bytes:
    """Write rows in the billing currency."""
    request = writing.request
    if request.currency != USD:
        rows = in_currency(
            rows,
            writing.sources.rates_of(request.currency),
            currency=request.currency,
            zone=request.zone,
            amounts=amounts,
        )
    table = to_table(list(rows))
    for name, length in focus_schema.longest_texts(table).items():
        writing.longest[name] = max(length, writing.longest.get(name, 0))
    return FOCUS_WRITERS[request.file_format](table)


def _why(run_id: str, price_version: str) -> str:
    if run_id == LATE:
        return "reported late"
    return f"re-rated at price version {price_version} ({run_id})"


def _correction_parts(late: Corrected, layout: Layout, writing: _Writing) -> Iterator[Part]:
    """Yield what was booked in the window about closed periods; no file where that is nothing."""
    request, sources = writing.request, writing.sources
    booked = late.buckets
    if not booked:
        return
    corrections = [
        Correction(
            booked_at=row["applied_at"],
            corrects=layout.closed_period(row["day"]).start,
            delta_nusd=int(row["cost_nusd"]),
            bucket=row["bucket"],
            quantity=int(row["quantity"]),
            owners={name: row[name] for name in OWNERS},
            sku={name: row[name] for name in SKU if name in row},
            reason=_why(row["run_id"], row["price_version"]),
        )
        for row in booked
    ]
    rows = list(correction_rows(corrections, layout, sources.book))
    amounts = corrected_amounts(booked, request.zone, sources.rates_of(request.currency))
    yield Part(
        name=f"focus-corrections.{request.file_format}",
        body=_body(rows, writing, amounts=amounts),
        rows=len(rows),
        total_nusd=sum(one.delta_nusd for one in corrections),
    )


def _idle_parts(layout: Layout, writing: _Writing) -> Iterator[Part]:
    """Yield the idle GPU time that the tenant bears; no file where that is nothing."""
    request, sources = writing.request, writing.sources
    if sources.gpu is None:
        return
    lines = [
        (one.pool, one.slice, one.bucket, one.cost_nusd)
        for one in idle_lines(sources.gpu, (request.tenant,), request.window)
    ]
    if lines:
        rows = list(idle_rows(lines, layout, tenant=request.tenant))
        yield Part(
            name=f"focus-idle.{request.file_format}",
            body=_body(rows, writing),
            rows=len(rows),
            total_nusd=sum(line[-1] for line in lines),
        )


def _commitment_parts(
    drawn: list[Drawdown], layout: Layout, writing: _Writing, *, now: datetime
) -> Iterator[Part]:
    """Yield what the tenant owes for commitments and did not use; no file where that is nothing."""
    request = writing.request
    rows = list(commitment_rows(drawn, layout, tenant=request.tenant, now=now))
    if rows:
        yield Part(
            name=f"focus-commitments.{request.file_format}",
            body=_body(rows, writing),
            rows=len(rows),
            total_nusd=int(sum(row["EffectiveCost"] for row in rows) * NUSD_PER_USD),
        )


def _unpriced_part(charges: Charges, layout: Layout, request: ExportRequest) -> Part:
    """Write the usage whose cost is not known, so that the file says what it leaves out."""
    rows: list[dict[str, Any]] = []
    for row in charges.unpriced.iter_rows(named=True):
        charged = layout.charge_period(row["period"])
        rows.append({**row, "period_start": charged.start, "period_end": charged.end})
    names = [name for name in UNPRICED_KEYS if name != "period"]
    fields: list[tuple[str, pa.DataType]] = [
        ("period_start", TIMESTAMP),
        ("period_end", TIMESTAMP),
        *((name, pa.string()) for name in names),
        *((name, pa.int64()) for name in ("calls", "input_tokens", "output_tokens", "cost_nusd")),
    ]
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name, _ in fields} for row in rows], schema=pa.schema(fields)
    )
    return Part(
        name=f"unpriced.{request.file_format}",
        body=WRITERS[request.file_format](table),
        rows=len(rows),
        unpriced_rows=len(rows),
    )


def _metadata(request: ExportRequest, stamp: Stamp, *, longest: Mapping[str, int]) -> bytes:
    """Write the metadata document that accompanies the data (FX-31)."""
    document = {
        "DataGenerator": {"DataGenerator": stamp.software},
        "Schema": [
            {
                "SchemaId": f"{focus_schema.SPEC}+{stamp.software}",
                "FocusVersion": focus_schema.SPEC.removeprefix("FOCUS "),
                "CreationDate": stamp.created_at,
                "ColumnDefinition": focus_schema.describe_columns(longest),
            }
        ],
        "x_BillingCurrency": request.currency,
        "x_ReportingZone": request.zone,
        "x_ChargePeriod": request.charge_period.value,
        "x_Basis": "EffectiveCost is the ledger; BilledCost is 0 where a commitment was consumed; usage without a known price is "
        f"in unpriced.{request.file_format} and in no cost",
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2)
