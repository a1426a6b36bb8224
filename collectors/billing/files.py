"""A file of a bill, whatever it is: told by its columns unless the caller says."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Final

import msgspec

from collectors.billing import anthropic, aws, focus, litellm, openai, opencost, plain
from collectors.billing.documents import BadLineError, document_of
from collectors.billing.reading import OtherLine, columns_of, decimals_of
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.signals.billing import BillFile, BillLine

Found = BillLine | OtherLine | BadLineError
Reader = Callable[[Path], Iterator[Found]]
READERS: Final[Mapping[str, Reader]] = {
    "openai": openai.read,
    "anthropic": anthropic.read,
    "litellm": litellm.read,
    "opencost": opencost.read,
    "aws": aws.read,
    "focus": focus.read,
}
SOURCES: Final = (*READERS, "plain")
MAX_LINES: Final = 5_000_000
MAX_TOLD: Final = 20
_SIGNS: Final = (
    # columns that only this source has
    ("focus", {"BilledCost", "ChargePeriodStart"}),
    ("aws", {"line_item_usage_type"}),
    ("aws", {"lineItem/UsageType"}),
    ("litellm", {"spend", "startTime"}),
    ("openai", {"amount_value"}),
    ("openai", {"start_time", "num_model_requests"}),
)


def read_bill(
    path: Path,
    *,
    source: str | None = None,
    mapping: Mapping[str, str] | None = None,
    most: int = MAX_LINES,
) -> tuple[BillFile, list[BillLine]]:
    """Read one file into lines; a line that can not be used is counted and told, not guessed.

    Args:
        path: the file.
        source: one of `SOURCES`; told by its columns otherwise.
        mapping: columns of a plain table.
        most: lines to hold.

    Raises:
        InvalidInputError: the source is not known or can not be told.
        LimitExceededError: the file is too large.
    """
    named = source or ("plain" if mapping else _tell(path))
    if named not in SOURCES:
        raise InvalidInputError("format", f"{named!r}", f"Use one of {', '.join(SOURCES)}")
    if named == "plain" and not mapping:
        raise InvalidInputError("map", "missing", "Name columns like day=Date,cost=Amount")
    found = plain.read(path, mapping or {}) if named == "plain" else READERS[named](path)
    lines, rejected, others = _split(found, most)
    precision = decimals_of(line.cost_usd for line in lines)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    told = BillFile(
        name=path.name,
        source=named,
        sha256=digest,
        lines=len(lines),
        rejected=tuple(
            f"{reason} ({times} lines)" for reason, times in rejected.most_common(MAX_TOLD)
        ),
        rejected_lines=rejected.total(),
        other_invoices=tuple(sorted(others)),
    )
    return told, [msgspec.structs.replace(line, decimals=precision) for line in lines]


def _split(found: Iterable[Found], most: int) -> tuple[list[BillLine], Counter[str], set[str]]:
    """Return the lines, why others can not be used, and the invoices of what was not read."""
    lines: list[BillLine] = []
    rejected: Counter[str] = Counter()
    others: set[str] = set()
    for line in found:
        if isinstance(line, BadLineError):
            rejected[str(line)] += 1
        elif isinstance(line, OtherLine):
            others.add(line.invoice_id)
        elif len(lines) >= most:
            raise LimitExceededError("lines of a bill", most)
        else:
            lines.append(line)
    return lines, rejected, others


def _tell(path: Path) -> str:
    """Return which source a file is of, by what only that source has."""
    if path.name.removesuffix(".gz").endswith(".json"):
        named = _tell_document(document_of(path))
        if named:
            return named
    columns = set(columns_of(path))
    for source, signs in _SIGNS:
        if signs <= columns:
            return source
    raise InvalidInputError(
        "format",
        f"{path.name} is none that is known by its columns",
        f"Say --format {'|'.join(READERS)}, or --map day=…,cost=…",
    )


def _tell_document(document: object) -> str | None:
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, dict) or not isinstance(first.get("data"), list):
        return None
    bucket = next((each for each in first["data"] if isinstance(each, dict)), {})
    if "starting_at" in bucket:
        return "anthropic"
    if "results" in bucket:
        return "openai"
    return "opencost" if first.get("code") is not None else None
