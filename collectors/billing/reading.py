"""What the readers of bills share: rows of any tabular file, limits, and how texts become values."""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.billing.documents import BadLineError, document_of
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.tokens import MAX_QUANTITY
from controlplane.signals.billing import BillLine

MAX_ROWS: Final = 20_000_000
MAX_GROUP_BYTES: Final = 2**30
"""Of a Parquet file's row group, unpacked, as its footer says: the least that can be asked for at once."""
BATCH_ROWS: Final = 4_096
READ_BYTES: Final = 2**20
"""Read ahead per column of a Parquet file; without it a whole column of a row group is."""
MAX_AMOUNT: Final = Decimal(10) ** 12
COMPACT_DATE_DIGITS: Final = 8
"""20261102 is a day; as seconds it would be in 1970."""
_DELIMITERS: Final = (",", ";", "\t")
_DOLLARS: Final = re.compile(r"^([-+]?)\$\s*")
_THOUSANDS: Final = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")
_DECIMAL_COMMA: Final = re.compile(r"[-+]?(\d+|\d{1,3}(\.\d{3})+),\d+")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
Row = Mapping[str, Any]
_UNREADABLE: Final = (
    csv.Error, EOFError, OSError, RecursionError, msgspec.DecodeError,
)  # fmt: skip


class OtherLine(msgspec.Struct, frozen=True):
    """A line of another service: not read, but its invoice is of more than what was."""

    invoice_id: str


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV, TSV, JSON Lines, JSON array or Parquet file, `.gz` too.

    Raises:
        InvalidInputError: it is none of these.
        LimitExceededError: more rows or bytes than are read.
    """
    try:
        for number, row in enumerate(_rows(path)):
            if number >= MAX_ROWS:
                raise LimitExceededError("rows of a bill", MAX_ROWS)
            yield row
    except UnicodeDecodeError:
        raise InvalidInputError("file", f"{path.name} is not UTF-8", "Save it as UTF-8") from None
    except _UNREADABLE as wrong:
        raise InvalidInputError("file", f"{path.name}: {wrong}", "Name a readable export") from None
    except pa.ArrowException as wrong:
        told = str(wrong).partition("\n")[0]
        raise InvalidInputError("file", f"{path.name}: {told}", "Name a Parquet file") from None


def lines_of(
    path: Path,
    line_of: Callable[[Row], BillLine | None],
    *,
    invoice_of: Callable[[Row], str | None] | None = None,
) -> Iterator[BillLine | OtherLine | BadLineError]:
    """Yield what each row comes to: a line, why it is none, or nothing at all.

    With `invoice_of` lines have their invoice, and of a row that is no line its invoice is told.

    Raises:
        InvalidInputError, LimitExceededError: as `rows_of`.
    """
    for row in rows_of(path):
        invoice_id = invoice_of(row) if invoice_of else None
        try:
            line = line_of(row)
        except BadLineError as wrong:
            yield wrong
            continue
        if line is not None:
            yield msgspec.structs.replace(line, invoice_id=invoice_id) if invoice_id else line
        elif invoice_id:
            yield OtherLine(invoice_id)


def _rows(path: Path) -> Iterator[Row]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet_rows(path)
    elif name.endswith((".jsonl", ".ndjson")):
        with _opened(path) as text:
            for line in text:
                if line.strip():
                    yield msgspec.json.decode(line, type=dict[str, Any])
    elif name.endswith(".json"):
        document = document_of(path)
        found = document.get("data") if isinstance(document, dict) else document
        if not isinstance(found, list):
            raise InvalidInputError("file", f"{path.name} holds no list", "Export rows")
        yield from (row for row in found if isinstance(row, dict))
    else:
        with _opened(path) as text:
            yield from _table_rows(text)


def _table_rows(text: io.TextIOWrapper) -> Iterator[Row]:
    """Read text with a line of names, separated by whatever separates most of these."""
    head = text.readline()
    text.seek(0)
    delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([head], delimiter=mark), [])))
    rows = csv.DictReader(text, delimiter=delimiter)
    rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    if delimiter == ";":  # where a comma can not separate cells it is in numbers
        yield from ({name: _with_point(cell) for name, cell in row.items()} for row in rows)
    else:
        yield from rows


def _with_point(cell: Any) -> Any:
    if isinstance(cell, str) and _DECIMAL_COMMA.fullmatch(cell.strip()):
        return cell.strip().replace(".", "").replace(",", ".")
    return cell


def _parquet_rows(path: Path) -> Iterator[Row]:
    """Read a batch at a time; memory is in proportion to a batch and to the pages of a row group."""
    with pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
        for group in range(file.metadata.num_row_groups):
            if file.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
                raise LimitExceededError("bytes of a Parquet row group", MAX_GROUP_BYTES)
        for batch in file.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


def _opened(path: Path) -> io.TextIOWrapper:
    """Open UTF-8, or UTF-16 that says so, as spreadsheets write it."""
    raw = gzip.GzipFile(path) if path.name.endswith(".gz") else path.open("rb")
    start = raw.read(len(codecs.BOM_UTF16_LE))
    raw.seek(0)
    is_wide = start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
    return io.TextIOWrapper(raw, encoding="utf-16" if is_wide else "utf-8-sig", newline="")


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns; nothing for JSON that is no table."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        try:
            return list(pq.read_schema(path).names)
        except pa.ArrowException:
            return []
    try:
        first = next(rows_of(path), None)
    except InvalidInputError:
        return []
    return list(first) if first else []


def day_of(value: object) -> date:
    """Read the UTC day of a date, an instant, or seconds since 1970.

    Raises:
        BadLineError: it is none.
    """
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).date()
    if isinstance(value, date):
        return value
    text = str(value or "").strip()
    try:
        if text.isascii() and text.isdigit() and len(text) != COMPACT_DATE_DIGITS:
            return datetime.fromtimestamp(int(text), UTC).date()
        at = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    except (ValueError, OverflowError, OSError):
        raise BadLineError(f"no date in {text[:40]!r}") from None
    return at.astimezone(UTC).date() if at.tzinfo else at.date()


def amount_of(value: object) -> Decimal | None:
    """Read an amount of money; None where there is none.

    Raises:
        BadLineError: it is no finite number, or beyond any bill.
    """
    text = str("" if value is None else value).strip()
    text = _DOLLARS.sub(r"\1", text)
    if not text:
        return None
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise BadLineError(f"no amount in {text[:40]!r}") from None
    if not amount.is_finite() or abs(amount) > MAX_AMOUNT:
        raise BadLineError(f"no amount in {text[:40]!r}")
    return amount


def quantity_of(value: object, *, times: int = 1) -> int | None:
    """Read a quantity as a whole number of units; None where there is none.

    Raises:
        BadLineError: negative, not whole after `times`, or impossible.
    """
    number = amount_of(value)
    if number is None:
        return None
    whole = number * times
    rounded = whole.to_integral_value()
    # Sources divide by a thousand or a million with a limited number of digits.
    if abs(whole - rounded) > Decimal("0.01") or not 0 <= rounded <= MAX_QUANTITY:
        raise BadLineError(f"no quantity in {value!r}")
    return int(rounded)


def decimals_of(amounts: Iterable[Decimal | None]) -> int:
    """Return how many decimals a source writes at most."""
    most = 0
    for amount in amounts:
        if amount is not None:
            exponent = amount.as_tuple().exponent
            most = max(most, -exponent if isinstance(exponent, int) else 0)
    return most


def currency_of(said: object) -> str:
    """Read a currency's code; USD where nothing is said.

    Raises:
        BadLineError: it is no code.
    """
    code = str(said or "USD").strip().upper()
    if not _CURRENCY.fullmatch(code):
        raise BadLineError(f"currency {said!r} is no ISO code")
    return code


def text_of(row: Row, *names: str) -> str | None:
    """Return the first of these columns that says something; a list or an object says nothing."""
    for name in names:
        value = row.get(name)
        if value is not None and not isinstance(value, list | dict) and str(value):
            return str(value)
    return None
