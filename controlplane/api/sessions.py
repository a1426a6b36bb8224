"""Sign-in for people in the embedded mode: a one-time token becomes a short session.

Sessions live in this process only: a restart signs everybody out and prints a new link. Only
hashes are kept, so a memory dump holds no usable credential for longer than its request.
"""

import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

import msgspec

from controlplane.auth.principal import Principal
from controlplane.core.errors import AuthenticationError

SIGN_IN_TTL: Final = timedelta(hours=1)
SESSION_TTL: Final = timedelta(hours=12)
IDLE_TTL: Final = timedelta(hours=1)
MAX_SESSIONS: Final = 1_000
SESSION_PREFIX: Final = "cps_"
_FRESH_LINK: Final = "Ask for a new sign-in link: restart `controlplane up`"


class SignedIn(msgspec.Struct, frozen=True):
    """A new session; the bearer is shown once."""

    bearer: str
    expires_at: datetime


class _Session(msgspec.Struct):
    principal: Principal
    expires_at: datetime
    seen_at: datetime


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


class Sessions:
    """The sign-in tokens and sessions of this process; safe for threads."""

    def __init__(self, *, new_secret: Callable[[], str] = secrets.token_urlsafe) -> None:
        self._new_secret = new_secret
        self._lock = threading.Lock()
        self._sign_ins: dict[bytes, tuple[Principal, datetime]] = {}
        self._sessions: dict[bytes, _Session] = {}

    def issue_sign_in(self, principal: Principal, *, now: datetime) -> str:
        """Return a token that can be exchanged once, within SIGN_IN_TTL, for a session."""
        token = self._new_secret()
        with self._lock:
            self._sign_ins[_digest(token)] = (principal, now + SIGN_IN_TTL)
        return token

    def exchange(self, token: str, *, now: datetime) -> SignedIn:
        """Spend a sign-in token.

        Raises:
            AuthenticationError: unknown, spent or expired.
        """
        with self._lock:
            principal, valid_until = self._sign_ins.pop(_digest(token), (None, now))
            if principal is None or now >= valid_until:
                raise AuthenticationError("unknown_sign_in_token", _FRESH_LINK)
            self._make_room(now)
            bearer = SESSION_PREFIX + self._new_secret()
            expires_at = now + SESSION_TTL
            self._sessions[_digest(bearer)] = _Session(principal, expires_at, now)
        return SignedIn(bearer, expires_at)

    def resolve(self, bearer: str, *, now: datetime) -> Principal:
        """Return whose session this is and note that it is in use.

        Raises:
            AuthenticationError: unknown, signed out, idle for IDLE_TTL or older than SESSION_TTL.
        """
        with self._lock:
            session = self._sessions.get(_digest(bearer))
            if session is None:
                raise AuthenticationError("unknown_session", _FRESH_LINK)
            if now >= session.expires_at or now - session.seen_at >= IDLE_TTL:
                del self._sessions[_digest(bearer)]
                raise AuthenticationError("expired_session", _FRESH_LINK)
            session.seen_at = now
            return session.principal

    def sign_out(self, bearer: str) -> None:
        """End a session; ending one that is not there is done already."""
        with self._lock:
            self._sessions.pop(_digest(bearer), None)

    def _make_room(self, now: datetime) -> None:
        for key, session in list(self._sessions.items()):
            if now >= session.expires_at or now - session.seen_at >= IDLE_TTL:
                del self._sessions[key]
        if len(self._sessions) >= MAX_SESSIONS:
            oldest = min(self._sessions, key=lambda key: self._sessions[key].seen_at)
            del self._sessions[oldest]
