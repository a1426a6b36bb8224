"""The versions of an organisation's rules: appended, never changed; the newest is in force."""

from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.attribution.rules import RulesDocument


class RulesVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the organisation's rules, and who recorded it."""

    version: int
    recorded_at: datetime
    source: str
    """`file` for the one that the settings name, `api` for one that was put."""
    recorded_by: str
    note: str = ""
    document: RulesDocument = RulesDocument()


class RulesHistory(Protocol):
    """Where versions are kept."""

    def latest(self) -> RulesVersion | None:
        """Return the version in force; None when the built-in rules stand alone.

        Raises:
            UnavailableError: it can not be read now.
        """
        ...

    def versions(self, *, limit: int) -> list[RulesVersion]:
        """Return versions, newest first."""
        ...

    def append(self, version: RulesVersion) -> None:
        """Keep a version; durable on return.

        Raises:
            ConflictError: there is one of that number already.
        """
        ...
