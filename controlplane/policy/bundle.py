"""Signatures over the exact bytes of a policy document: Ed25519, detached, named by key id."""

import base64
import binascii
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controlplane.core.errors import AuthenticationError

_FIX = "Pin the server's current key or publish with a pinned one"


def sign(body: bytes, key: Ed25519PrivateKey, *, kid: str) -> str:
    """Return the `Policy-Signature` header of these bytes: `ed25519;kid=…;sig=<base64>`."""
    return f"ed25519;kid={kid};sig={base64.b64encode(key.sign(body)).decode()}"


def verify(body: bytes, header: str, keys: Mapping[str, bytes]) -> str:
    """Check the header against the pinned raw public keys, before anything is parsed.

    Returns:
        The key id that signed.

    Raises:
        AuthenticationError: no signature, an unknown key, or other bytes than were signed.
    """
    algorithm, _, rest = header.partition(";")
    fields = dict(part.split("=", 1) for part in rest.split(";") if "=" in part)
    kid = fields.get("kid", "")
    if algorithm != "ed25519" or not kid:
        raise AuthenticationError("policy_unsigned", _FIX)
    if kid not in keys:
        raise AuthenticationError("policy_key_unknown", _FIX)
    try:
        signature = base64.b64decode(fields.get("sig", ""), validate=True)
        Ed25519PublicKey.from_public_bytes(keys[kid]).verify(signature, body)
    except (binascii.Error, InvalidSignature):
        raise AuthenticationError("policy_signature_invalid", _FIX) from None
    return kid
