"""The text of an API key, `cp_<kind>_<id>_<secret>`, and what of it may be stored.

The secret has 256 random bits, so a keyed hash protects it: guessing is hopeless whatever the
speed of the hash, and a slow one would only cost every request. The pepper lives apart from the
database: a stolen database alone can not even tell whether a guess is right.
"""

import hmac
import re
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.auth.principal import PrincipalKind
from controlplane.core.errors import AuthenticationError

SECRET_BYTES: Final = 32
MIN_PEPPER_BYTES: Final = 16
_FIX: Final = "Use a key as `controlplane keys create` printed it"
_SHAPE: Final = re.compile(r"cp_(ingest|proxy|user|service)_([a-z0-9]{1,64})_([0-9a-f]{64})")


class KeyText(msgspec.Struct, frozen=True):
    """A new key as its owner must keep it; it can not be shown again."""

    text: str
    key_id: str
    secret: str


class ParsedKey(msgspec.Struct, frozen=True):
    """What a presented key claims; nothing is believed until its secret is verified."""

    kind: PrincipalKind
    key_id: str
    secret: str


def new_key(kind: PrincipalKind, key_id: str, secret_bytes: bytes) -> KeyText:
    """Write a key of `kind`.

    Args:
        kind: any but a session, which is no key.
        key_id: lowercase letters and digits; public, it is stored and logged.
        secret_bytes: SECRET_BYTES from the operating system's random source.

    Raises:
        ValueError: the parts do not make a key that `parse_key` accepts.
    """
    secret = secret_bytes.hex()
    text = f"cp_{kind.value}_{key_id}_{secret}"
    if not _SHAPE.fullmatch(text):
        msg = f"a {kind.value} key can not be made of id {key_id!r} and {len(secret_bytes)} bytes"
        raise ValueError(msg)
    return KeyText(text, key_id, secret)


def parse_key(text: str) -> ParsedKey:
    """Read a presented key.

    Raises:
        AuthenticationError: not of that shape; the text is not repeated in the message.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise AuthenticationError("malformed_key", _FIX)
    kind, key_id, secret = found.groups()
    return ParsedKey(PrincipalKind(kind), key_id, secret)


def hash_secret(secret: str, pepper: bytes) -> bytes:
    """Return the keyed hash that is stored instead of the secret.

    Raises:
        ValueError: the pepper is too short to be one.
    """
    if len(pepper) < MIN_PEPPER_BYTES:
        msg = f"a pepper has at least {MIN_PEPPER_BYTES} bytes"
        raise ValueError(msg)
    return hmac.digest(pepper, secret.encode(), sha256)


def verify_secret(secret: str, stored: bytes, pepper: bytes) -> bool:
    """Whether `secret` is the one that was hashed; takes the same time whichever is the answer."""
    return hmac.compare_digest(hash_secret(secret, pepper), stored)
