"""What an export says of itself, and the bytes that are signed."""

from datetime import datetime
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controlplane.audit.tree import leaf_hash, root_hash

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sig"
PUBLIC_KEY_NAME = "public_key.pem"
FORMAT = "controlplane-export/1"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One data file; `total_nusd` sums its cost column, `unpriced_rows` counts the NULLs in it."""

    name: str
    bytes: int
    sha256: str
    rows: int
    total_nusd: int
    unpriced_rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole export; `root` is the RFC 6962 root over the files in their order, in hex.

    The question is kind, tenant and `[start, end)`; `rows`, `total_nusd` and `unpriced_rows` are
    sums over the files. `csv_escaped`: texts that start like formulas have a quote in front. `spec` is
    the standard that the data files follow, if one.
    """

    format: str = FORMAT
    export_id: str
    kind: str
    tenant: str
    start: datetime
    end: datetime
    created_at: datetime
    data_through: datetime | None
    software: str
    kid: str
    csv_escaped: bool
    rows: int
    total_nusd: int
    unpriced_rows: int
    files: tuple[FileEntry, ...]
    root: str
    spec: str = ""


def file_root(files: tuple[FileEntry, ...]) -> str:
    """Return the tree hash over the files' entries, in hex."""
    return root_hash([leaf_hash(msgspec.json.encode(file)) for file in files]).hex()


def file_sums(files: tuple[FileEntry, ...]) -> tuple[int, int, int]:
    """Return the files' rows, nano-USD and rows without a cost, summed."""
    return (
        sum(file.rows for file in files),
        sum(file.total_nusd for file in files),
        sum(file.unpriced_rows for file in files),
    )


def key_id(public: Ed25519PublicKey) -> str:
    """Return the short name of a key: the first 16 hex digits of its SHA-256."""
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return sha256(raw).hexdigest()[:16]


def public_pem(public: Ed25519PublicKey) -> bytes:
    """Write a public key as PEM."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> tuple[bytes, bytes]:
    """Return the manifest's exact bytes and the signature over them."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    return body, key.sign(body)


def is_signed(body: bytes, signature: bytes, public: Ed25519PublicKey) -> bool:
    """Whether `signature` is this key's over these bytes."""
    try:
        public.verify(signature, body)
    except InvalidSignature:
        return False
    return True
