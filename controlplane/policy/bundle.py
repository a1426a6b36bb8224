"""Signed bytes: Ed25519 over exactly what is sent, verified before anything is parsed.

The signature travels beside the body, `Policy-Signature: ed25519;kid=…;sig=<base64>`, so the body
needs no canonical form: what was signed is what was sent. A document is read only after its
signature holds, so an attacker's bytes never reach the decoder.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controlplane.core.errors import PolicyError
from controlplane.core.json_errors import UNREADABLE
from controlplane.policy.document import PolicyDocument

SIGNATURE_HEADER: Final = "Policy-Signature"
SEED_BYTES: Final = 32
KID_DIGITS: Final = 16
_HEADER: Final = re.compile(r"ed25519;kid=([0-9a-zA-Z._-]{1,64});sig=([A-Za-z0-9+/]{86}==)")


class Signer:
    """A private key and the name it is known by; never printed."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32 bytes of a private key.

        Raises:
            ValueError: another number of bytes.
        """
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = raw_public_key(self._key.public_key())
        self.kid = kid_of(self.public_key)

    @property
    def pinned(self) -> dict[str, str]:
        """What an agent pins: kid → public key as base64."""
        return {self.kid: base64.b64encode(self.public_key).decode()}

    def sign(self, body: bytes) -> str:
        """Return the header value that signs exactly these bytes."""
        signature = base64.b64encode(self._key.sign(body)).decode()
        return f"ed25519;kid={self.kid};sig={signature}"


class Verifier:
    """The pinned public keys; two may live at once while keys are rotated."""

    def __init__(self, pinned: Mapping[str, str]) -> None:
        """Take kid → 32 raw bytes as base64.

        Raises:
            ValueError: not base64, or not an Ed25519 public key.
        """
        self._keys = {
            kid: Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
            for kid, text in pinned.items()
        }

    def verify(self, body: bytes, header: str) -> None:
        """Pass bytes that a pinned key has signed.

        Raises:
            PolicyError: malformed header, a key that is not pinned, or other bytes.
        """
        found = _HEADER.fullmatch(header)
        if found is None:
            raise PolicyError(SIGNATURE_HEADER, "is missing or malformed", "Ask the server again")
        kid, signature = found.groups()
        key = self._keys.get(kid)
        if key is None:
            raise PolicyError(SIGNATURE_HEADER, f"key {kid} is not pinned", "Pin the server's key")
        try:
            key.verify(base64.b64decode(signature, validate=True), body)
        except (InvalidSignature, binascii.Error):
            raise PolicyError(
                SIGNATURE_HEADER, "does not sign these bytes", "Something changed them on the way"
            ) from None


def raw_public_key(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def kid_of(public_key: bytes) -> str:
    """Return the name of a public key: the head of its SHA-256, so a name can not be reused."""
    return sha256(public_key).hexdigest()[:KID_DIGITS]


def encode_document(document: PolicyDocument) -> bytes:
    """Write a document as the JSON that is signed and sent; equal documents give equal bytes."""
    return msgspec.json.encode(document, order="deterministic")


def decode_document(body: bytes) -> PolicyDocument:
    """Read a verified body; a field or action that is not known refuses the whole (D1).

    Raises:
        PolicyError: names the field.
    """
    try:
        return msgspec.json.decode(body, type=PolicyDocument)
    except UNREADABLE as wrong:
        raise PolicyError(
            "document", str(wrong), "Upgrade the reader or publish without it"
        ) from wrong


def open_bundle(body: bytes, header: str, verifier: Verifier) -> PolicyDocument:
    """Verify, then parse.

    Raises:
        PolicyError: the signature does not hold, or the document is not understood.
    """
    verifier.verify(body, header)
    return decode_document(body)
