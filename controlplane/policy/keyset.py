"""Which keys sign policies: a versioned set, signed by a root key that lives offline (D2).

Signing keys come and go without touching a proxy: agents pin the root, and take the keys from the
newest set it has signed. A set lists two keys while they are exchanged, names those that are revoked
for good, and says whose it is, so that a cloned installation's set is refused.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from controlplane.core.errors import PolicyError
from controlplane.core.json_errors import UNREADABLE
from controlplane.policy.bundle import Signer, Verifier
from controlplane.policy.document import Closed


class KeySet(Closed, frozen=True, kw_only=True):
    """One version of the keys in use."""

    version: int
    instance: str
    """Which installation's; an agent that has seen one refuses every other."""
    issued_at: datetime
    keys: dict[str, str]
    """kid → public key as base64."""
    revoked: tuple[str, ...] = ()
    """Kids that must never be trusted again, wherever they are pinned."""


class SignedKeySet(msgspec.Struct, frozen=True):
    """The exact bytes and the root's signature over them."""

    version: int
    body: bytes
    signature: str


def sign_key_set(keys: KeySet, root: Signer) -> SignedKeySet:
    """Write a set and sign it with the offline key.

    Raises:
        PolicyError: it lists no key, or one that it revokes.
    """
    both = sorted(set(keys.keys) & set(keys.revoked))
    if both or not keys.keys:
        wrong = f"{both[0]} is in use and revoked" if both else "no key is in use"
        raise PolicyError("keys", wrong, "List the live keys apart from the revoked ones")
    body = msgspec.json.encode(keys, order="deterministic")
    return SignedKeySet(keys.version, body, root.sign(body))


def open_key_set(signed: SignedKeySet, root: Verifier) -> KeySet:
    """Verify, then parse.

    Raises:
        PolicyError: the root has not signed these bytes, or they are no key set.
    """
    root.verify(signed.body, signed.signature)
    try:
        return msgspec.json.decode(signed.body, type=KeySet)
    except UNREADABLE as wrong:
        raise PolicyError("keys", str(wrong), "Upgrade the reader") from wrong


class KeyRing:
    """The keys an agent trusts now: those it pins until the root has said something newer."""

    def __init__(self, pinned: Mapping[str, str], root: Mapping[str, str]) -> None:
        """Take pinned signing keys and the root's key.

        Raises:
            ValueError: one is no Ed25519 public key.
        """
        self._root = Verifier(root)
        self._keys = Verifier(pinned)
        self.current: KeySet | None = None
        self._body = b""

    def verify(self, body: bytes, header: str) -> None:
        """Pass bytes that a key in use has signed.

        Raises:
            PolicyError: none has.
        """
        self._keys.verify(body, header)

    def accept(self, signed: SignedKeySet) -> bool:
        """Take a newer set; True when it is one.

        Raises:
            PolicyError: not the root's, older, of another installation, or the same version with
                other content.
        """
        found = open_key_set(signed, self._root)
        known = self.current
        if known is not None:
            if found.instance != known.instance:
                raise PolicyError(
                    "instance", f"{found.instance!r} is not ours", "Ask the right server"
                )
            if found.version < known.version:
                raise PolicyError(
                    "version", f"{found.version} is older than {known.version}", "Ask again"
                )
            if found.version == known.version:
                if signed.body != self._body:
                    raise PolicyError("version", f"{found.version} was seen with other content")
                return False
        self._keys = Verifier(
            {kid: key for kid, key in found.keys.items() if kid not in found.revoked}
        )
        self.current, self._body = found, signed.body
        return True
