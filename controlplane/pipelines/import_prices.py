"""A price file → what it would change → what that moves of stored calls → a version of the book.

Nothing counts before it is accepted: an import is planned, shown with the calls it moves, and only
then appended. `review` names exactly what was shown: the file's entries over one version of the book.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.errors import InvalidInputError
from controlplane.pipelines.rerate import RerateReport, report_of
from controlplane.pipelines.rerate_answer import RerateAnswer
from controlplane.pricing.history import (
    EntryKind,
    PriceEntry,
    build_book,
    changed_entries,
    list_entries,
    sheet_entry,
    sheets_of,
    version_name,
)
from controlplane.pricing.import_csv import read_csv
from controlplane.pricing.import_genai import read_genai_prices
from controlplane.pricing.import_litellm import read_litellm
from controlplane.pricing.list_diff import (
    SheetChange,
    dated_changes,
    removed_changes,
    undated_changes,
)
from controlplane.pricing.price import reprice
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rerate import RerateGroup, RerateOrder
from controlplane.pricing.seed import PriceList, seed
from controlplane.pricing.what_if import COLUMNS

CANDIDATE: Final = "candidate"
REVIEW_DIGITS: Final = 16
_BY_POOLS: Final = "gpu:"
"""Such a call costs its part of a pool's bill, whatever prices are."""


class PriceFormat(StrEnum):
    """What a price file can be."""

    LITELLM = "litellm"
    CSV = "csv"
    GENAI_PRICES = "genai-prices"


class OfferedPrices(msgspec.Struct, frozen=True, kw_only=True):
    """A price file as it came; without a body it is the data set that came with the program."""

    format: PriceFormat
    body: bytes | None
    effective: date


class PlannedImport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import changes of a version of the book, and the entries that record it."""

    source: str
    base_version: int
    changes: list[SheetChange]
    entries: list[PriceEntry]
    left_out: dict[str, int] = {}
    effective: date | None = None

    @property
    def review(self) -> str:
        """Name what was shown: accepting it accepts these entries over this version, or nothing."""
        told = msgspec.json.encode([self.base_version, self.entries])
        return sha256(told).hexdigest()[:REVIEW_DIGITS]


class ImportAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an import changes, and what that moves of the calls that are stored."""

    source: str
    state: str
    review: str
    version_before: str
    version: str | None
    effective: date | None
    added: int
    changed: int
    removed: int
    left_out: dict[str, int]
    changes: list[SheetChange]
    calls: RerateAnswer | None
    """What the stored calls of the window would cost; None where they can not be read."""
    calls_note: str | None


def plan_import(
    offered: OfferedPrices, known: Sequence[PriceEntry], *, base_version: int
) -> PlannedImport:
    """Compare a price file with the entries of a version of the book; nothing is recorded.

    Raises:
        InvalidInputError: the file is not what it is said to be.
    """
    sheets = sheets_of(known)
    if offered.format is PriceFormat.GENAI_PRICES:
        listed = seed() if offered.body is None else read_genai_prices(offered.body)
        changes = [*dated_changes(sheets, listed.sheets), *removed_changes(sheets, listed.sheets)]
        return PlannedImport(
            source=listed.version,
            base_version=base_version,
            changes=changes,
            entries=[*_entries(changes), *_providers(listed, known)],
        )
    if offered.body is None:
        raise InvalidInputError("file", "is missing", f"Name the {offered.format.value} file")
    source = f"{offered.format.value}:{sha256(offered.body).hexdigest()[:8]}"
    left_out: dict[str, int] = {}
    if offered.format is PriceFormat.CSV:
        told = read_csv(offered.body, source=source)
    else:
        imported = read_litellm(offered.body, source=source)
        told, left_out = imported.sheets, dict(imported.left_out)
    dated = [sheet for sheet in told if any(row.valid_from for row in sheet.rows)]
    undated = [sheet for sheet in told if sheet not in dated]
    changes = [
        *dated_changes(sheets, dated),
        *undated_changes(sheets, undated, effective=offered.effective),
    ]
    return PlannedImport(
        source=source,
        base_version=base_version,
        changes=changes,
        entries=_entries(changes),
        left_out=left_out,
        effective=offered.effective,
    )


def candidate_book(planned: PlannedImport, known: Iterable[PriceEntry]) -> PriceBook:
    """Return the book as it would be."""
    newest = {(entry.kind, entry.key): entry for entry in (*known, *planned.entries)}
    return build_book(CANDIDATE, newest.values())


def import_answer(
    planned: PlannedImport,
    *,
    version: str | None,
    calls: RerateAnswer | None,
    calls_note: str | None,
) -> ImportAnswer:
    """Say what an import changes, or changed."""
    return ImportAnswer(
        source=planned.source,
        state="applied" if version else "previewed",
        review=planned.review,
        version_before=version_name(planned.base_version),
        version=version,
        effective=planned.effective,
        added=_count(planned.changes, "added"),
        changed=_count(planned.changes, "changed"),
        removed=_count(planned.changes, "removed"),
        left_out=planned.left_out,
        changes=[msgspec.structs.replace(one, sheet=None) for one in planned.changes],
        calls=calls,
        calls_note=calls_note,
    )


def preview_calls(batches: Iterable[pa.Table], order: RerateOrder, book: PriceBook) -> RerateReport:
    """Price stored calls at their own starts with a book that is not in force; nothing changes.

    Needs no more than a reader: each call is priced from its own usage. Calls that pools pay for
    are left out.
    """
    sums: dict[tuple[str, str | None], list[int]] = {}
    for batch in batches:
        for (tenant, model), counted in _moved(batch, book):
            known = sums.setdefault((tenant, model), [0, 0, 0, 0])
            sums[tenant, model] = [a + b for a, b in zip(known, counted, strict=True)]
    groups = [
        RerateGroup(
            tenant=tenant, model=model, calls=calls, old_nusd=old, new_nusd=new, newly_priced=newly
        )
        for (tenant, model), (calls, old, new, newly) in sums.items()
    ]
    groups.sort(key=lambda one: (-abs(one.moved_nusd), one.tenant, one.model or ""))
    return report_of(order, groups, is_applied=False, corrections=0)


def _moved(
    batch: pa.Table, book: PriceBook
) -> Iterable[tuple[tuple[str, str | None], tuple[int, ...]]]:
    """Yield calls, old and new nano-USD and the newly priced, of each tenant and model."""
    kinds = pa.repeat(pa.scalar("call"), batch.num_rows)
    rows = batch.append_column("report_kind", kinds).select(COLUMNS)
    new = pl.Series(reprice(rows, book)["cost_nusd"].to_pylist(), dtype=pl.Int64)
    old = pl.col("cost_nusd")
    frame = pl.DataFrame(
        pl.from_arrow(batch.select(["tenant", "billing_model", "cost_nusd", "price_id"]))
    )
    differs = frame.with_columns(new=new).filter(
        old.ne_missing(pl.col("new")) & ~pl.col("price_id").fill_null("").str.starts_with(_BY_POOLS)
    )
    sums = differs.group_by("tenant", "billing_model").agg(
        pl.len().alias("calls"),
        old.cast(pl.Int128).sum().alias("old"),
        pl.col("new").cast(pl.Int128).sum().alias("moved_to"),
        (old.is_null() & pl.col("new").is_not_null()).sum().alias("newly"),
    )
    for tenant, model, *counted in sums.iter_rows():
        yield (tenant, model), tuple(int(value) for value in counted)


def _entries(changes: Iterable[SheetChange]) -> list[PriceEntry]:
    return [
        PriceEntry(EntryKind.MODEL, one.key, None) if one.sheet is None else sheet_entry(one.sheet)
        for one in changes
    ]


def _providers(listed: PriceList, known: Sequence[PriceEntry]) -> list[PriceEntry]:
    told = {e.key: e.body or "" for e in list_entries(listed.providers, [])}
    return changed_entries(EntryKind.PROVIDER, told, known)


def _count(changes: list[SheetChange], kind: str) -> int:
    return sum(one.change.value == kind for one in changes)
