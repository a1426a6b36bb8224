"""`controlplane export --server`: a running system makes the export, and its files are brought here whole."""

import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from controlplane.bootstrap.evidence import ExportOrder, window_of
from controlplane.bootstrap.remote import RefusedRemotelyError, RemoteApi
from controlplane.core.errors import InvalidInputError, UnavailableError
from controlplane.exports.manifest import MANIFEST_NAME, PUBLIC_KEY_NAME, SIGNATURE_NAME, Manifest
from controlplane.exports.sharing import read_shares

POLL_SECONDS: Final = 0.2
MOST_SECONDS: Final = 3_600.0
_BESIDE: Final = (MANIFEST_NAME, SIGNATURE_NAME, PUBLIC_KEY_NAME)


def export_remotely(api: RemoteApi, out: Path, order: ExportOrder) -> Manifest:
    """Ask for an export, wait, and bring its files; `out` is there whole or not at all.

    Raises:
        InvalidInputError: a wrong option, or `out` exists.
        UnavailableError: it failed there, or what came is not what its manifest names.
    """
    out = out.absolute()
    if out.exists():
        raise InvalidInputError("out", f"{out} exists", "Name a directory that does not")
    if not out.parent.is_dir():
        raise InvalidInputError("out", f"{out.parent} is no directory", "Make it first")
    done = _finished(api, api.post_as("/exports", _asked(order), _View))
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        made = Path(folder) / "export"
        made.mkdir()
        for name in done.files:
            if Path(name).name != name or name == "..":
                raise UnavailableError(f"the server names a file {name!r}")
            api.fetch(f"/exports/{done.id}/files/{quote(name)}", made / name)
        manifest = _checked(made)
        made.rename(out)
    return manifest


def _asked(order: ExportOrder) -> dict[str, object]:
    """Write an order as the API reads it; days are those of the server's own zone."""
    window = window_of(order)
    return {
        "tenant": order.tenant,
        "kind": order.kind,
        "format": order.file_format,
        "charge_period": order.charge_period,
        "currency": order.currency,
        "by": order.by,
        "owner": order.owner,
        "shared": order.shared_rule,
        "shares": read_shares(order.shares),
        "idle": order.idle_rule,
        "idle_shares": read_shares(order.idle_shares),
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
    }


class _View(msgspec.Struct, frozen=True):
    """An export as the API tells it; it has more fields."""

    id: str
    state: str
    error: str | None
    files: tuple[str, ...]


def _finished(api: RemoteApi, view: _View) -> _View:
    for _ in range(int(MOST_SECONDS / POLL_SECONDS)):
        if view.state == "done":
            return view
        if view.state == "failed":
            raise RefusedRemotelyError(f"the export failed: {view.error}")
        time.sleep(POLL_SECONDS)
        view = api.get_as(f"/exports/{view.id}", _View)
    raise UnavailableError(f"the export is not done; ask GET /api/v1/exports/{view.id}")


def _checked(made: Path) -> Manifest:
    """Return the manifest of what came, if every byte of it did; `verify` checks the rest."""
    manifest = msgspec.json.decode((made / MANIFEST_NAME).read_bytes(), type=Manifest)
    there = {path.name for path in made.iterdir()}
    if there != {entry.name for entry in manifest.files} | set(_BESIDE):
        raise UnavailableError("not every file of the export came; ask again")
    for entry in manifest.files:
        with (made / entry.name).open("rb") as file:
            digest = sha256()
            while part := file.read(2**20):
                digest.update(part)
        if digest.hexdigest() != entry.sha256:
            raise UnavailableError(f"{entry.name} came damaged; ask again")
    return manifest
