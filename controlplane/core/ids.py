"""Typed identifiers and where new ones come from."""

from typing import NewType, Protocol

TenantId = NewType("TenantId", str)
DomainId = NewType("DomainId", str)

DEFAULT_TENANT = TenantId("default")
DEFAULT_DOMAIN = DomainId("default")


class IdFactory(Protocol):
    """A source of fresh ids."""

    def new(self, prefix: str) -> str:
        """Return `<prefix>_<26 lowercase base32 characters>`, sortable by creation time."""
        ...


class SequentialIds:
    """Predictable ids for tests and simulators: `<prefix>_000…1`, `…2`."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, prefix: str) -> str:
        """Return the next id."""
        self._last += 1
        return f"{prefix}_{self._last:026d}"
