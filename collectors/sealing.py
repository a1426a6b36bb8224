"""Spool entries at rest: AES-256-GCM under a key that no two openings of a spool share.

A nonce must never repeat under one key. Row ids are no nonces: a crash rolls a row back and its id
is given again, while the first ciphertext may still be in the write-ahead log. So each opening
draws a random salt, derives a key of its own from the master key (HKDF-SHA-256), and counts.
"""

import itertools
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"controlplane spool entry v1"


class UnreadableError(Exception):
    """These bytes were not sealed under this key, or were changed since."""


class Sealer:
    """Seals under its own fresh salt; opens what was sealed under any salt it is told."""

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) < KEY_BYTES:
            raise ValueError(f"the spool key has {len(master_key)} bytes, needs {KEY_BYTES}")
        self._master_key = master_key
        self.salt = os.urandom(SALT_BYTES)
        self._own = self._derive(self.salt)
        self._known = {self.salt: self._own}
        self._counter = itertools.count()  # next() on it is atomic, so threads may share it

    def seal(self, plain: bytes) -> bytes:
        """Return nonce, ciphertext and tag."""
        nonce = next(self._counter).to_bytes(_NONCE_BYTES, "big")
        return nonce + self._own.encrypt(nonce, plain, _PURPOSE)

    def open(self, sealed: bytes, *, salt: bytes) -> bytes:
        """Return what was sealed under `salt`.

        Raises:
            UnreadableError: damaged, or another master key.
        """
        cipher = self._known.get(salt)
        if cipher is None:
            cipher = self._known[salt] = self._derive(salt)
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _PURPOSE)
        except (InvalidTag, ValueError) as error:
            raise UnreadableError from error

    def _derive(self, salt: bytes) -> AESGCM:
        kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_PURPOSE)
        return AESGCM(kdf.derive(self._master_key))
