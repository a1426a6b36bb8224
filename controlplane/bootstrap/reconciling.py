"""Bills read from files or uploads, compared with the ledger, and kept when asked."""

import io
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Final

import msgspec

from collectors.billing.files import MAX_LINES, read_bill
from collectors.billing.plain import mapping_of
from collectors.otlp.inflate import inflate
from controlplane.api.services import BillUpload, ReconcileBill
from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.places import SPANS_FILE
from controlplane.bootstrap.price_books import load_book
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.money import parse_usd
from controlplane.ingest.limits import Limits
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pricing.currency import ExchangeRates, RateTable
from controlplane.pricing.price_book import PriceBook
from controlplane.settings import Settings
from controlplane.signals.billing import BillFile, BillLine
from controlplane.signals.ports import SpanReader
from controlplane.store.metadata.currencies import ExchangeRateRepository
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.ports import KeptReconciliation
from controlplane.usage.reconcile import Tolerance

MAX_PERCENT = 100
MAX_NAME_BYTES: Final = 200
MAX_BILLS: Final = 100
ARCHIVE: Final = "bills.zip"
"""What several bills come in, as one."""
UNPACKED: Final = Limits(max_decompressed_bytes=32 * 2**20)
"""Of an uploaded bill: rows take many times their bytes, in the process that serves everybody."""
MAX_UPLOADED_LINES: Final = 500_000
"""Some 250 MB; compressed columns hold far more lines than their bytes let expect."""


class ReconcileOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, as text from the command line."""

    provider: str
    tenants: tuple[str, ...]
    source: str | None
    mapping: str | None
    zone: str
    tolerance_percent: str
    tolerance_usd: str
    record: bool


def reconcile(
    settings: Settings, files: Sequence[Path], order: ReconcileOrder
) -> ReconciliationReport:
    """Compare bills with the span store's file; the hub must not be running on it.

    Raises:
        InvalidInputError: a wrong option, or a file that is no bill.
        StoreUnavailableError: the hub owns the file: `reconcile_remotely` asks it.
    """
    tolerance = tolerance_of(order.tolerance_percent, order.tolerance_usd)
    bill = read_bills(files, source=order.source, mapping=order.mapping)
    book = load_book(settings)
    store, engine = DuckDbSpanStore(settings.data_dir / SPANS_FILE), open_metadata(settings)
    try:
        request = ReconcileRequest(
            tenants=order.tenants or store.tenants(),
            provider=order.provider,
            zone=order.zone,
            tolerance=tolerance,
        )
        rates = ExchangeRateRepository(engine)
        report = reconcile_bill(store, book, bill, asked=request, rates_of=rates_in(rates))
    finally:
        store.close()
        engine.dispose()
    if order.record:
        FinanceRepository(engine).keep(_kept(report))
        engine.dispose()
    return report


def rates_in(kept: ExchangeRates) -> Callable[[str], RateTable]:
    """Return what answers the rates of a currency."""
    return lambda currency: RateTable(kept.of(currency))


def read_bills(
    files: Sequence[Path], *, source: str | None, mapping: str | None, most: int = MAX_LINES
) -> tuple[list[BillFile], list[BillLine]]:
    """Read every file into one bill.

    Raises:
        InvalidInputError: a file that is not there or no bill.
        LimitExceededError: they hold more than `most` lines together.
    """
    columns = mapping_of(mapping) if mapping else None
    told: list[BillFile] = []
    lines: list[BillLine] = []
    for path in files:
        if not path.is_file():
            raise InvalidInputError("file", f"{path} is not a file", "Name a bill")
        file, found = read_bill(path, source=source, mapping=columns, most=most - len(lines))
        told.append(file)
        lines += found
    return told, lines


def tolerance_of(percent: str, usd: str) -> Tolerance:
    """Read what may stay unexplained.

    Raises:
        InvalidInputError: no number, or out of range.
    """
    try:
        ratio = Fraction(Decimal(percent)) / MAX_PERCENT
    except (InvalidOperation, ValueError, OverflowError):
        raise InvalidInputError("tolerance-percent", f"{percent!r}", 'Write "0.5"') from None
    if not 0 <= ratio <= 1:
        raise InvalidInputError("tolerance-percent", f"{percent!r}", "Between 0 and 100")
    return Tolerance(ratio, abs(parse_usd(usd, field="tolerance-usd")))


def uploaded_bills(reader: SpanReader, book: PriceBook, rates: ExchangeRates) -> ReconcileBill:
    """Return what compares a bill that came over HTTP; its file is gone when it answers."""

    def run(upload: BillUpload) -> ReconciliationReport:
        tolerance = tolerance_of(upload.tolerance_percent, upload.tolerance_usd)
        with tempfile.TemporaryDirectory(prefix="bill-") as folder:
            paths = []
            for number, (name, body) in enumerate(_unpacked(upload)):
                path = Path(folder, str(number), name)  # two bills may have one name
                path.parent.mkdir()
                path.write_bytes(body)
                paths.append(path)
            bill = read_bills(
                paths,
                source=upload.source,
                mapping=upload.mapping,
                most=MAX_UPLOADED_LINES,
            )
        request = ReconcileRequest(
            tenants=upload.tenants,
            provider=upload.provider,
            zone=upload.zone,
            tolerance=tolerance,
        )
        return reconcile_bill(reader, book, bill, asked=request, rates_of=rates_in(rates))

    return run


def _unpacked(upload: BillUpload) -> list[tuple[str, bytes]]:
    """Return the bills of an upload: file names, never paths of the sender's, and bytes, unpacked.

    Raises:
        InvalidInputError: no name of a file, or damaged bytes.
        LimitExceededError: they unpack to more than `UNPACKED`, or are more than `MAX_BILLS`.
    """
    if not upload.name.endswith(".zip"):
        return [_one(upload.name, upload.body, UNPACKED)]
    found: list[tuple[str, bytes]] = []
    left = UNPACKED
    for name, packed in _members(upload.body):
        found.append(_one(name, packed, left))
        left = Limits(max_decompressed_bytes=left.max_decompressed_bytes - len(found[-1][1]))
    return found


def _one(said: str, body: bytes, limits: Limits) -> tuple[str, bytes]:
    told = Path(said).name
    name = told.removesuffix(".gz")
    if name in {"", ".", ".."} or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidInputError("name", "is no name of a file", 'Write it like "bill.csv"')
    if name == told:
        return name, body
    return name, inflate(body, encoding="gzip", limits=limits)


def _members(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a zip archive, never more than `UNPACKED` in all."""
    left = UNPACKED.max_decompressed_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            inside = [one for one in archive.infolist() if not one.is_dir()]
            if len(inside) > MAX_BILLS:
                raise LimitExceededError("bills at once", MAX_BILLS)
            for one in inside:
                with archive.open(one) as file:
                    unpacked = file.read(left + 1)
                left -= len(unpacked)
                if left < 0:
                    raise LimitExceededError(
                        "max_decompressed_bytes", UNPACKED.max_decompressed_bytes
                    )
                yield one.filename, unpacked
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as wrong:
        raise InvalidInputError(
            "body", f"is no zip archive that can be read: {wrong}", "Pack it without a password"
        ) from None
    if not inside:
        raise InvalidInputError("body", "holds no file", "Pack a bill")


def _kept(report: ReconciliationReport) -> KeptReconciliation:
    return KeptReconciliation(
        id=UlidIds().new("rec"),
        tenants=report.tenants,
        provider=report.provider,
        start=report.start,
        end=report.end,
        recorded_at=SystemClock().now(),
        body=msgspec.json.encode(report).decode(),
    )
