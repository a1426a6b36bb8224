"""Question → rows → files → signed manifest: an export, whole or not at all."""

import os
import tempfile
from collections.abc import Callable
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
    """What is asked for: one tenant's calls with a start in the window."""

    tenant: str
    window: Window
    file_format: str = "parquet"


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
            files=entries,
            root=file_root(entries),
        )
        body, signature = sign(manifest, key)
        _put(made / PUBLIC_KEY_NAME, public_pem(key.public_key()))
        _put(made / MANIFEST_NAME, body)
        _put(made / SIGNATURE_NAME, signature)
        made.rename(out)
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


def _files_of(reader: SpanReader, request: ExportRequest) -> list[pa.Table]:
    """Page through the calls, newest first, into tables of at most MAX_ROWS_PER_FILE rows."""
    files: list[pa.Table] = []
    pages: list[pa.Table] = []
    before: tuple[datetime, str] | None = None
    while True:
        page = reader.calls(
            CallQuery(
                tenants=(request.tenant,),
                window=request.window,
                before=before,
                limit=MAX_PAGE_ROWS,
            )
        )
        pages.append(page)
        if page.num_rows < MAX_PAGE_ROWS or sum(p.num_rows for p in pages) >= MAX_ROWS_PER_FILE:
            files.append(pa.concat_tables(pages))
            pages = []
        if page.num_rows < MAX_PAGE_ROWS:
            return files
        last = page.slice(page.num_rows - 1).to_pylist()[0]
        before = (last["start_time"], last["call_id"])


def _put(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
