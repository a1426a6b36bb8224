"""What the readers of bills share: rows of any tabular file, limits, and how texts become values."""

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

from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.tokens import MAX_QUANTITY
from controlplane.signals.billing import BillLine

MAX_JSON_BYTES: Final = 256 * 2**20
"""A JSON document is held whole; tables are read row by row."""
MAX_ROWS: Final = 20_000_000
MAX_AMOUNT: Final = Decimal(10) ** 12
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
Row = Mapping[str, Any]
_UNREADABLE: Final = (
    csv.Error, EOFError, OSError, RecursionError, UnicodeDecodeError, msgspec.DecodeError,
)  # fmt: skip


class BadLineError(ValueError):
    """A line that can not be used; the rest of the file can."""


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
            head = text.readline()
            text.seek(0)
            delimiter = "\t" if head.count("\t") > head.count(",") else ","
            yield from csv.DictReader(text, delimiter=delimiter)


def _parquet_rows(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(10_000):
            yield from batch.to_pylist()


def _opened(path: Path) -> io.TextIOWrapper:
    if path.name.endswith(".gz"):
        return io.TextIOWrapper(gzip.GzipFile(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def document_of(path: Path) -> Any:
    """Read a JSON document; numbers keep every digit that is written.

    Raises:
        InvalidInputError: not JSON.
        LimitExceededError: too large to hold.
    """
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        body = file.read(MAX_JSON_BYTES + 1)
    if len(body) > MAX_JSON_BYTES:
        raise LimitExceededError("bytes of a JSON bill", MAX_JSON_BYTES)
    try:
        return _EXACT.decode(body.decode("utf-8-sig"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise InvalidInputError("file", f"{path.name} is not JSON: {wrong}") from None


_EXACT: Final = msgspec.json.Decoder(Any, float_hook=Decimal)


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
        if text.isascii() and text.isdigit():
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
    text = str("" if value is None else value).strip().removeprefix("$").replace(",", "")
    if not text:
        return None
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
    """Return the first of these columns that says something."""
    for name in names:
        value = row.get(name)
        if value not in {None, ""}:
            return str(value)
    return None
