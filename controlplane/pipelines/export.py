"""Question → rows → files → signed manifest: an export, whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.exports.manifest import (
    MANIFEST_NAME,
    PUBLIC_KEY_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    file_root,
    file_sums,
    key_id,
    public_pem,
    sign,
)
from controlplane.exports.traces import to_csv, to_parquet, totals
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import MAX_PAGE_ROWS, CallQuery

WRITERS: Final[dict[str, Callable[[pa.Table], bytes]]] = {"parquet": to_parquet, "csv": to_csv}
MAX_ROWS_PER_FILE: Final = 250_000


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: one tenant's calls with a start in the window.

    A file ends where one page more could exceed `rows_per_file`, so it holds at least a page.
    """

    tenant: str
    window: Window
    file_format: str = "parquet"
    rows_per_file: int = MAX_ROWS_PER_FILE


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says of the making: a fresh id, the instant, the program."""

    export_id: str
    created_at: datetime
    software: str


def export_traces(
    reader: SpanReader,
    request: ExportRequest,
    out: Path,
    *,
    key: Ed25519PrivateKey,
    stamp: Stamp,
) -> Manifest:
    """Write the calls of a window to the new directory `out` and return the signed manifest.

    Raises:
        InvalidInputError: an unknown format, or `out` exists.
        StoreUnavailableError: nothing was written.
    """
    write = WRITERS.get(request.file_format)
    if write is None:
        raise InvalidInputError("format", f"{request.file_format!r}", "Write parquet or csv")
    if out.exists():
        raise InvalidInputError("out", f"{out} exists", "Name a directory that does not")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        made = Path(folder) / "export"
        made.mkdir()
        entries = tuple(
            _write_file(made / f"calls-{number:05d}.{request.file_format}", table, write)
            for number, table in enumerate(_files_of(reader, request))
        )
        rows, total, unpriced = file_sums(entries)
        manifest = Manifest(
            export_id=stamp.export_id,
            kind="traces",
            tenant=request.tenant,
            start=request.window.start,
            end=request.window.end,
            created_at=stamp.created_at,
            data_through=reader.data_through((request.tenant,)),
            software=stamp.software,
            kid=key_id(key.public_key()),
            csv_escaped=request.file_format == "csv",
            rows=rows,
            total_nusd=total,
            unpriced_rows=unpriced,
            files=entries,
            root=file_root(entries),
        )
        body, signature = sign(manifest, key)
        _put(made / PUBLIC_KEY_NAME, public_pem(key.public_key()))
        _put(made / MANIFEST_NAME, body)
        _put(made / SIGNATURE_NAME, signature)
        _sync_directory(made)
        made.rename(out)
        _sync_directory(out.parent)
    return manifest


def _write_file(path: Path, table: pa.Table, write: Callable[[pa.Table], bytes]) -> FileEntry:
    body = write(table)
    _put(path, body)
    total, unpriced = totals(table)
    return FileEntry(
        name=path.name,
        bytes=len(body),
        sha256=sha256(body).hexdigest(),
        rows=table.num_rows,
        total_nusd=total,
        unpriced_rows=unpriced,
    )


def _files_of(reader: SpanReader, request: ExportRequest) -> Iterator[pa.Table]:
    """Yield the calls, newest first, in the tables that become files; at least one."""
    pages: list[pa.Table] = []
    made = 0
    for page in _pages_of(reader, request):
        pages.append(page)
        if sum(each.num_rows for each in pages) + MAX_PAGE_ROWS > request.rows_per_file:
            yield pa.concat_tables(pages)
            pages, made = [], made + 1
    rest = pa.concat_tables(pages) if pages else None
    if rest is not None and (rest.num_rows or not made):
        yield rest


def _pages_of(reader: SpanReader, request: ExportRequest) -> Iterator[pa.Table]:
    before: tuple[datetime, str] | None = None
    while True:
        query = CallQuery(
            tenants=(request.tenant,), window=request.window, before=before, limit=MAX_PAGE_ROWS
        )
        page = reader.calls(query)
        yield page
        if page.num_rows < MAX_PAGE_ROWS:
            return
        last = page.slice(page.num_rows - 1).to_pylist()[0]
        before = (last["start_time"], last["call_id"])


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
