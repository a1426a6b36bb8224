"""Question → calls → files → signed manifest: an export, whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Period, Window, windows
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
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
    Layout,
    correction_rows,
    focus_rows,
    to_table,
)
from controlplane.exports.focus_commitments import commitment_rows
from controlplane.exports.focus_currency import in_currency
from controlplane.exports.focus_idle import idle_rows
from controlplane.exports.manifest import Manifest
from controlplane.exports.sharing import SharedRule, check_shares
from controlplane.exports.statement import BY, StatementPlan
from controlplane.exports.traces import to_csv, to_parquet, totals
from controlplane.pipelines.commitments import drawdowns
from controlplane.pipelines.export_statements import StatementRequest, name_of, statement_parts
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pipelines.gpu_idle import idle_lines
from controlplane.pipelines.signed_directory import About, Part, Stamp, write_signed
from controlplane.pricing.commitments import Drawdown
from controlplane.pricing.currency import USD, ExchangeRates, RateTable
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rerate import LATE
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery
from controlplane.signals.schema import CALL_SCHEMA, TIMESTAMP
from controlplane.usage.converted import OWNERS

Writer = Callable[[pa.Table], bytes]
WRITERS: Final[dict[str, Writer]] = {"parquet": to_parquet, "csv": to_csv}
FOCUS_WRITERS: Final[dict[str, Writer]] = {
    "parquet": focus_schema.to_parquet,
    "csv": focus_schema.to_csv,
}
MAX_ROWS_PER_FILE: Final = 250_000
MAX_CHARGES: Final = 5_000_000
METADATA_NAME: Final = "focus-metadata.json"
KINDS: Final = ("traces", "calls", "focus", "statement")
BILLED_KINDS: Final = ("focus", "statement")
"""What may be in another currency than USD."""
WIDTHS: Final = (Period.HOUR, Period.DAY)
"""How long a charge period may be."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: one tenant's calls with a start in the window.

    `charge_period`, `zone` and `calendar` say in which hours or days and in which months a FOCUS
    export is told. `by`, `owner`, `shared_rule` and `shares` are of statements, which are PDF and CSV whatever
    the format.
    """

    tenant: str
    window: Window
    kind: str = "traces"
    file_format: str = "parquet"
    rows_per_file: int = MAX_ROWS_PER_FILE
    charge_period: Period = Period.DAY
    zone: str = "UTC"
    calendar: FiscalCalendar = GREGORIAN
    currency: str = USD
    """BillingCurrency of a FOCUS export, or the currency of statements; the rates are in the files."""
    by: str = "team"
    owner: str | None = None
    shared_rule: SharedRule = SharedRule.NONE
    shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Weights by owner, of the rule `fixed`."""


class ExportSources(msgspec.Struct, frozen=True):
    """Where an export's numbers are from."""

    reader: SpanReader
    book: PriceBook
    rates: ExchangeRates | None = None
    """Without them everything is in USD."""
    gpu: GpuTools | None = None
    """Without them there is no idle time."""


def check_request(request: ExportRequest) -> None:
    """Pass a request that can be made.

    Raises:
        InvalidInputError: names the field and what it takes.
    """
    if request.kind not in KINDS:
        raise InvalidInputError("kind", f"{request.kind!r}", f"Use {', '.join(KINDS)}")
    if request.file_format not in WRITERS:
        raise InvalidInputError("format", f"{request.file_format!r}", "Write parquet or csv")
    if request.currency != USD and request.kind not in BILLED_KINDS:
        hint = f"Use kind {' or '.join(BILLED_KINDS)}"
        raise InvalidInputError("currency", f"{request.kind!r} is in USD", hint)
    if request.by not in BY:
        raise InvalidInputError("by", f"{request.by!r}", f"Use one of {', '.join(BY)}")
    if request.charge_period not in WIDTHS:
        raise InvalidInputError("charge_period", f"{request.charge_period!r}", "Use hour or day")
    check_shares(request.shared_rule, request.shares)


def write_export(
    sources: ExportSources,
    request: ExportRequest,
    out: Path,
    *,
    key: Ed25519PrivateKey,
    stamp: Stamp,
) -> Manifest:
    """Write what is asked for to the new directory `out` and return the signed manifest.

    Raises:
        InvalidInputError: an unknown kind or format, or `out` exists.
        LimitExceededError: more charges than can be held at once.
        StoreUnavailableError: nothing was written.
    """
    check_request(request)
    reader = sources.reader
    about = About(
        kind=request.kind,
        tenant=request.tenant,
        window=request.window,
        data_through=reader.data_through((request.tenant,)),
        csv_escaped=request.file_format == "csv" or request.kind == "statement",
        spec=focus_schema.SPEC if request.kind == "focus" else "",
    )
    make = {"focus": _focus_parts, "statement": _statement_parts}.get(request.kind, _call_parts)
    return write_signed(out, make(sources, request, stamp), about, key=key, stamp=stamp)


def _call_parts(sources: ExportSources, request: ExportRequest, _stamp: Stamp) -> Iterator[Part]:
    """Yield the calls, oldest first, in files of at most `rows_per_file`, at least one.

    What was booked in the window about closed periods is a file of its own, where there is any.
    """
    write = WRITERS[request.file_format]
    for number, table in enumerate(_in_files(_calls(sources.reader, request), request)):
        total, unpriced = totals(table)
        yield Part(
            name=f"calls-{number:05d}.{request.file_format}",
            body=write(table),
            rows=table.num_rows,
            total_nusd=total,
            unpriced_rows=unpriced,
        )
    booked = sources.reader.corrections((request.tenant,), request.window)
    if booked.num_rows:
        costs = booked.rename_columns({"delta_nusd": "cost_nusd"})
        yield Part(
            name=f"corrections.{request.file_format}",
            body=write(costs),
            rows=costs.num_rows,
            total_nusd=totals(costs)[0],
        )


def _calls(reader: SpanReader, request: ExportRequest) -> Iterator[pa.Table]:
    return reader.call_batches(CallQuery(tenants=(request.tenant,), window=request.window))


def _in_files(batches: Iterator[pa.Table], request: ExportRequest) -> Iterator[pa.Table]:
    most = request.rows_per_file
    held = CALL_SCHEMA.empty_table()
    made = 0
    for batch in batches:
        held = pa.concat_tables([held, batch])
        while held.num_rows >= most:
            yield held.slice(0, most)
            held, made = held.slice(most), made + 1
    if held.num_rows or not made:
        yield held


class _Writing(msgspec.Struct, frozen=True):
    """A FOCUS export while it is written."""

    request: ExportRequest
    sources: ExportSources
    longest: dict[str, int] = msgspec.field(default_factory=dict)
    """The longest text of each column in the files so far."""


def _focus_parts(sources: ExportSources, request: ExportRequest, stamp: Stamp) -> Iterator[Part]:
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
    charges = charges_of(
        _calls(sources.reader, request), sources.book, periods=layout.periods, drawn=drawn
    )
    if charges.charges.height > MAX_CHARGES:
        raise LimitExceededError("charges of an export", MAX_CHARGES, charges.charges.height)
    writing = _Writing(request, sources)
    yield from _charge_parts(charges, layout, writing)
    sides = sources.reader.correction_sides((request.tenant,), request.window)
    late = corrections_of(sides, sources.book)
    yield from _correction_parts(late, layout, writing)
    yield from _idle_parts(layout, writing)
    yield from _commitment_parts(drawn, layout, writing, now=stamp.created_at)
    charges = with_corrected(charges, late.unpriced, periods=layout.periods)
    yield _unpriced_part(charges, layout, request)
    yield Part(name=METADATA_NAME, body=_metadata(request, stamp, longest=writing.longest))


def _statement_parts(
    sources: ExportSources, request: ExportRequest, _stamp: Stamp
) -> Iterator[Part]:
    plan = StatementPlan(
        tenant=request.tenant,
        by=request.by,
        window=request.window,
        period=name_of(request.window, zone=request.zone, calendar=request.calendar),
        zone=request.zone,
        shared_rule=request.shared_rule,
        shares=request.shares,
        calendar=request.calendar,
    )
    asked = StatementRequest(plan=plan, owner=request.owner, currency=request.currency)
    return statement_parts(sources.reader, sources.book, asked, rates=_rates(sources, request))


def _rates(sources: ExportSources, request: ExportRequest) -> RateTable:
    return RateTable(sources.rates.of(request.currency) if sources.rates else ())


def _charge_parts(charges: Charges, layout: Layout, writing: _Writing) -> Iterator[Part]:
    request, sources = writing.request, writing.sources
    height = charges.charges.height
    amounts = None
    if request.currency != USD:
        tz = ZoneInfo(request.zone)
        days = [period.start.astimezone(tz).date() for period in layout.periods]
        amounts = amounts_of(charges.charges, days, _rates(sources, request))
    for number, first in enumerate(range(0, max(height, 1), request.rows_per_file)):
        some = charges.charges.slice(first, request.rows_per_file)
        part = msgspec.structs.replace(charges, charges=some)
        told = amounts and amounts[first : first + request.rows_per_file]
        rows = focus_rows(part, layout, sources.book)
        yield Part(
            name=f"focus-{number:05d}.{request.file_format}",
            body=_focus_body(rows, writing, amounts=told),
            rows=some.height,
            total_nusd=part.total_nusd(),
        )


def _focus_body(
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
            _rates(writing.sources, request),
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
    amounts = corrected_amounts(booked, request.zone, _rates(sources, request))
    yield Part(
        name=f"focus-corrections.{request.file_format}",
        body=_focus_body(rows, writing, amounts=amounts),
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
            body=_focus_body(rows, writing),
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
            body=_focus_body(rows, writing),
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
