"""Files → a new directory with a signed manifest: whole, or not at all."""

import tempfile
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.durable import sync_directory, write_file
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


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says of the making: a fresh id, the instant, the program."""

    export_id: str
    created_at: datetime
    software: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file; `total_nusd` sums the costs in it, `unpriced_rows` counts rows without one."""

    name: str
    body: bytes
    rows: int = 0
    total_nusd: int = 0
    unpriced_rows: int = 0


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What an export says of itself beside its files."""

    kind: str
    tenant: str
    window: Window
    data_through: datetime | None
    csv_escaped: bool
    spec: str = ""


def write_signed(
    out: Path, parts: Iterable[Part], about: About, *, key: Ed25519PrivateKey, stamp: Stamp
) -> Manifest:
    """Write the parts as they come, then the manifest, and rename everything into place.

    Raises:
        InvalidInputError: `out` exists.
        Whatever making a part raises; nothing was written then.
    """
    if out.exists():
        raise InvalidInputError("out", f"{out} exists", "Name a directory that does not")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        made = Path(folder) / "export"
        made.mkdir()
        entries = tuple(_write(made, part) for part in parts)
        rows, total, unpriced = file_sums(entries)
        manifest = Manifest(
            export_id=stamp.export_id,
            kind=about.kind,
            tenant=about.tenant,
            start=about.window.start,
            end=about.window.end,
            created_at=stamp.created_at,
            data_through=about.data_through,
            software=stamp.software,
            kid=key_id(key.public_key()),
            csv_escaped=about.csv_escaped,
            rows=rows,
            total_nusd=total,
            unpriced_rows=unpriced,
            files=entries,
            root=file_root(entries),
            spec=about.spec,
        )
        body, signature = sign(manifest, key)
        write_file(made / PUBLIC_KEY_NAME, public_pem(key.public_key()))
        write_file(made / MANIFEST_NAME, body)
        write_file(made / SIGNATURE_NAME, signature)
        sync_directory(made)
        made.rename(out)
        sync_directory(out.parent)
    return manifest


def _write(directory: Path, part: Part) -> FileEntry:
    write_file(directory / part.name, part.body)
    return FileEntry(
        name=part.name,
        bytes=len(part.body),
        sha256=sha256(part.body).hexdigest(),
        rows=part.rows,
        total_nusd=part.total_nusd,
        unpriced_rows=part.unpriced_rows,
    )
