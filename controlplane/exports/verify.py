"""Check an export from its bytes alone; every difference is a finding with a name."""

from collections.abc import Mapping
from hashlib import sha256

import msgspec
import polars as pl
import pyarrow as pa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from controlplane.core.errors import InvalidInputError
from controlplane.core.json_errors import UNREADABLE
from controlplane.exports.manifest import (
    FORMAT,
    MANIFEST_NAME,
    PUBLIC_KEY_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    file_root,
    file_sums,
    is_signed,
    key_id,
)
from controlplane.exports.traces import parquet_totals, parse_csv_totals

DOCUMENTS = (".json", ".pdf")
"""Files that accompany the data."""
_UNREADABLE = (
    InvalidInputError,
    KeyError,
    OSError,
    UnicodeError,
    pa.ArrowException,
    pl.exceptions.PolarsError,
)


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as the manifest says; `severity` is error or warning."""

    code: str
    severity: str
    message: str
    file: str | None = None


class Verification(msgspec.Struct, frozen=True):
    """The outcome: `ok` when no finding is an error."""

    ok: bool
    export_id: str | None
    files: int
    rows: int
    total_nusd: int
    findings: tuple[Finding, ...]


def verify_export(files: Mapping[str, bytes], *, trusted_key: bytes | None = None) -> Verification:
    """Verify the signature, then parse, then compare every file with what is said of it.

    Args:
        files: every file of the directory by name.
        trusted_key: PEM of the signer's key learnt another way; without it the key in the
            directory is used and a warning says what that does not prove.
    """
    missing = {MANIFEST_NAME, SIGNATURE_NAME} - files.keys()
    if missing:
        return _failed(Finding("missing_file", "error", "the export is not whole", missing.pop()))
    pem = trusted_key or files.get(PUBLIC_KEY_NAME)
    try:
        public = load_pem_public_key(pem or b"")
    except (ValueError, UnsupportedAlgorithm):
        return _failed(Finding("bad_public_key", "error", "no usable public key", PUBLIC_KEY_NAME))
    body = files[MANIFEST_NAME]
    if not isinstance(public, Ed25519PublicKey) or not is_signed(
        body, files[SIGNATURE_NAME], public
    ):
        return _failed(
            Finding("bad_signature", "error", "not signed by this key, or changed", MANIFEST_NAME)
        )
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except UNREADABLE as wrong:
        return _failed(Finding("bad_manifest", "error", str(wrong), MANIFEST_NAME))
    return _compare(manifest, files, key_id(public), pinned=trusted_key is not None)


def _failed(finding: Finding) -> Verification:
    return Verification(
        ok=False, export_id=None, files=0, rows=0, total_nusd=0, findings=(finding,)
    )


def _compare(
    manifest: Manifest, files: Mapping[str, bytes], kid: str, *, pinned: bool
) -> Verification:
    findings = [*_about_manifest(manifest, kid, pinned=pinned)]
    for entry in manifest.files:
        findings += _about_file(entry, files.get(entry.name))
    known = {entry.name for entry in manifest.files}
    known |= {MANIFEST_NAME, SIGNATURE_NAME, PUBLIC_KEY_NAME}
    findings += [
        Finding("extra_file", "error", "not named by the manifest", name)
        for name in sorted(files.keys() - known)
    ]
    return Verification(
        ok=all(finding.severity != "error" for finding in findings),
        export_id=manifest.export_id,
        files=len(manifest.files),
        rows=manifest.rows,
        total_nusd=manifest.total_nusd,
        findings=tuple(findings),
    )


def _about_manifest(manifest: Manifest, kid: str, *, pinned: bool) -> list[Finding]:
    findings = []
    if manifest.format != FORMAT:
        findings.append(Finding("unknown_format", "error", manifest.format, MANIFEST_NAME))
    if manifest.kid != kid:
        findings.append(Finding("wrong_key_id", "error", f"{manifest.kid}, the key is {kid}"))
    if manifest.root != file_root(manifest.files):
        findings.append(Finding("wrong_root", "error", "the files' tree hash differs"))
    if len({entry.name for entry in manifest.files}) < len(manifest.files):
        findings.append(Finding("file_named_twice", "error", "the sums count it twice"))
    said = (manifest.rows, manifest.total_nusd, manifest.unpriced_rows)
    summed = file_sums(manifest.files)
    if said != summed:
        told = f"{said} rows, nano-USD, unpriced; its files sum to {summed}"
        findings.append(Finding("wrong_sum", "error", told, MANIFEST_NAME))
    if not pinned:
        told = "checked with the key found beside the data; compare it with the signer's own"
        findings.append(Finding("key_not_pinned", "warning", told, PUBLIC_KEY_NAME))
    return findings


def _about_document(entry: FileEntry) -> list[Finding]:
    """A document's bytes are all there is to check; it must not be said to hold rows or money."""
    if (entry.rows, entry.total_nusd, entry.unpriced_rows) != (0, 0, 0):
        return [Finding("wrong_rows", "error", "a document holds no rows", entry.name)]
    return []


def _about_file(entry: FileEntry, body: bytes | None) -> list[Finding]:
    if body is None:
        return [Finding("missing_file", "error", "named by the manifest, not there", entry.name)]
    if sha256(body).hexdigest() != entry.sha256:
        told = f"{len(body)} bytes, {entry.bytes} expected, or other bytes"
        return [Finding("changed_file", "error", told, entry.name)]
    if entry.name.endswith(DOCUMENTS):
        return _about_document(entry)
    read = parquet_totals if entry.name.endswith(".parquet") else parse_csv_totals
    try:
        rows, total, unpriced = read(body)
    except _UNREADABLE as wrong:
        return [Finding("unreadable_file", "error", str(wrong).partition("\n")[0], entry.name)]
    findings = []
    if rows != entry.rows:
        findings.append(Finding("wrong_rows", "error", f"{rows}, said {entry.rows}", entry.name))
    if (total, unpriced) != (entry.total_nusd, entry.unpriced_rows):
        told = f"{total} nano-USD and {unpriced} unpriced, "
        told += f"said {entry.total_nusd} and {entry.unpriced_rows}"
        findings.append(Finding("wrong_total", "error", told, entry.name))
    return findings
