"""Who telemetry is from: the ingest port's resolver over the key table, with a short memory."""

import threading
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from controlplane.core.errors import AuthenticationError
from controlplane.signals.sender import KEYLESS_SENDER, Sender
from controlplane.store.metadata.keys import KeyRepository

REMEMBERED_FOR: Final = timedelta(seconds=2)
"""A revocation takes effect within this; the receivers ask for every request."""
MAX_REMEMBERED: Final = 4_096
_FIX: Final = "Send `Authorization: Bearer cp_ingest_…`"


class SenderResolver:
    """Implements `ingest.ports.KeyResolver`; safe for threads."""

    def __init__(self, keys: KeyRepository, *, keyless: bool) -> None:
        """Take whether a sender without a key is the default tenant (loopback only)."""
        self._keys = keys
        self._keyless = keyless
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Sender, datetime]] = {}

    def resolve(self, authorization: str | None, *, now: datetime) -> Sender:
        """Answer the sender of an Authorization header.

        Raises:
            AuthenticationError: absent where needed, malformed, unknown, expired or revoked.
            ForbiddenError: a valid key of a kind that may not ingest.
            UnavailableError: the key table can not be read now.
        """
        if not authorization:
            if self._keyless:
                return KEYLESS_SENDER
            raise AuthenticationError("no_credential", _FIX)
        scheme, _, bearer = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationError("not_a_bearer_credential", _FIX)
        digest = sha256(bearer.strip().encode()).digest()
        with self._lock:
            found = self._known.get(digest)
        if found is not None and found[1] <= now < found[1] + REMEMBERED_FOR:
            return found[0]
        sender = self._keys.sender(bearer.strip(), now=now)
        with self._lock:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[digest] = (sender, now)
        return sender
