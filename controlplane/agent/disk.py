"""The policy on disk: last-known-good bytes and the highest generation ever applied."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from controlplane.core.json_errors import UNREADABLE
from controlplane.durable import replace_file
from controlplane.policy.wire import Generation

_T = TypeVar("_T")


class StoredPolicy(msgspec.Struct, frozen=True):
    """Signed bytes exactly as received, and when the server last confirmed them."""

    body: bytes
    signature: str
    confirmed_at: datetime


class Highest(msgspec.Struct, frozen=True):
    """The newest generation applied; the same pair with another hash is an alarm (D2)."""

    epoch: int
    gen: int
    sha256: str

    @property
    def generation(self) -> Generation:
        """Return the pair."""
        return Generation(self.epoch, self.gen)


class PolicyDisk:
    """Two small files per scope, replaced atomically; unreadable is as absent."""

    def __init__(self, state_dir: Path, scope: str) -> None:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = hashlib.sha256(scope.encode()).hexdigest()[:16]  # a scope may hold slashes
        self._policy = state_dir / f"policy-{name}.json"
        self._highest = state_dir / f"highest-{name}.json"

    def load(self) -> StoredPolicy | None:
        """Return the last-known-good policy; its signature is not checked here."""
        return _read(self._policy, StoredPolicy)

    def highest(self) -> Highest | None:
        """Return the newest generation that was ever applied."""
        return _read(self._highest, Highest)

    def reached(self, highest: Highest) -> None:
        """Keep the newest generation: before it is acted on, so that a crash allows no rollback."""
        replace_file(self._highest, msgspec.json.encode(highest))

    def save(self, policy: StoredPolicy) -> None:
        """Keep what a restart begins with; it may be a moment behind what is in force."""
        replace_file(self._policy, msgspec.json.encode(policy))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *UNREADABLE):
        return None
