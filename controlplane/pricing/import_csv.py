"""A price list as CSV → sheets: one rate a line.

Columns: provider, model, bucket, usd; and optional per, service_tier, above_input_tokens, valid_from,
valid_to. `per` is the number of units the price is for: a million tokens, one of anything else, where
it is left out. Lines of one model and the same dates and tiers make one row; a context tier starts
from the row's base and replaces what it names.
"""

import csv
import io
from collections.abc import Mapping
from datetime import date
from typing import Final, NamedTuple

from controlplane.core.errors import InvalidInputError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.sheet import (
    Sheet,
    SheetRow,
    SheetTier,
    Usd,
    check_sheet,
    per_unit,
    with_stand_ins,
)

REQUIRED: Final = ("provider", "model", "bucket", "usd")
OPTIONAL: Final = ("per", "service_tier", "above_input_tokens", "valid_from", "valid_to")
MAX_LINES: Final = 200_000


class _RowKey(NamedTuple):
    valid_from: date | None
    valid_to: date | None
    service_tier: str


Tiers = dict[int, dict[str, Usd]]


def read_csv(body: bytes, *, source: str) -> tuple[Sheet, ...]:
    """Read the file; UTF-8, with a header line.

    Raises:
        InvalidInputError: names the line and the column.
    """
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig")), restkey="more")
    except UnicodeDecodeError:
        raise InvalidInputError("file", "is not UTF-8") from None
    header = reader.fieldnames or []
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in {*REQUIRED, *OPTIONAL}]
    if missing or unknown:
        raise InvalidInputError(
            "header",
            f"misses {missing}" if missing else f"has unknown columns {unknown}",
            f"Columns: {', '.join([*REQUIRED, *OPTIONAL])}",
        )
    models: dict[tuple[str, str], dict[_RowKey, Tiers]] = {}
    for number, line in enumerate(reader, start=2):
        if number > MAX_LINES:
            raise InvalidInputError("file", f"has more than {MAX_LINES} lines")
        _add(models, line, where=f"line {number}")
    sheets = tuple(
        Sheet(
            provider=provider,
            model=model,
            rows=tuple(_row(key, tiers) for key, tiers in rows.items()),
            source=source,
        )
        for (provider, model), rows in models.items()
    )
    for sheet in sheets:
        check_sheet(sheet)
    return sheets


def _add(
    models: dict[tuple[str, str], dict[_RowKey, Tiers]], line: Mapping[str, str], *, where: str
) -> None:
    said = {name: (line.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)}
    empty = next((name for name in REQUIRED if not said[name]), None)
    if empty or "more" in line:
        raise InvalidInputError(
            f"{where}.{empty or 'columns'}", "is empty" if empty else "are many"
        )
    bucket = said["bucket"]
    if bucket not in BUCKET_NAMES:
        raise InvalidInputError(
            f"{where}.bucket", f"{bucket!r} is not one", f"Known: {', '.join(BUCKET_NAMES)}"
        )
    key = _RowKey(
        _day(said["valid_from"], where=f"{where}.valid_from"),
        _day(said["valid_to"], where=f"{where}.valid_to"),
        said["service_tier"],
    )
    above = _whole(said["above_input_tokens"], -1, where=f"{where}.above_input_tokens")
    per = _whole(said["per"], per_unit(bucket), where=f"{where}.per")
    rows = models.setdefault((said["provider"], said["model"]), {})
    rates = rows.setdefault(key, {}).setdefault(above, {})
    if bucket in rates:
        raise InvalidInputError(where, f"{bucket} has a price for the same call already")
    rates[bucket] = Usd(said["usd"], per)


def _row(key: _RowKey, tiers: Tiers) -> SheetRow:
    filled: dict[str, Usd] = {}
    laid = []
    for above in sorted({-1, *tiers}):
        filled |= tiers.get(above, {})
        laid.append(SheetTier(above_input_tokens=above, usd=with_stand_ins(filled)))
    return SheetRow(
        tiers=tuple(laid),
        valid_from=key.valid_from,
        valid_to=key.valid_to,
        service_tier=key.service_tier,
    )


def _day(text: str, *, where: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidInputError(where, f"{text!r}", 'Write "2026-11-01"') from None


def _whole(text: str, default: int, *, where: str) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(where, f"{text!r} is not a whole number")
    return int(text)
