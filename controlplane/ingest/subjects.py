"""People whose data can be erased: named by tenant and user, remembered by a keyed hash."""

import hmac
from hashlib import sha256

import msgspec


class Subject(msgspec.Struct, frozen=True):
    """One person, as calls name them."""

    tenant: str
    user_id: str


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure touched, or would touch; usage and cost of all of it stay."""

    spans: int
    """Spans that named the subject."""
    traces: int
    """Traces of those, whose other attributes are dropped too."""
    applied: bool


def subject_hash(key: bytes, subject: Subject) -> str:
    """Name a subject so that only who holds the key can tell whom it names.

    Each part has its length before it: no two subjects share a text.
    """
    parts = (subject.tenant.encode(), subject.user_id.encode())
    text = b"".join(len(part).to_bytes(8) + part for part in parts)
    return hmac.new(key, text, sha256).hexdigest()
