"""Typed identifiers and where new ones come from."""

from typing import Final, NewType, Protocol

TenantId = NewType("TenantId", str)
DomainId = NewType("DomainId", str)

DEFAULT_TENANT = TenantId("default")
DEFAULT_DOMAIN = DomainId("default")

ULID_RANDOM_BITS: Final = 80
_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_CHARACTERS: Final = 26


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


def ulid(prefix: str, unix_ms: int, randomness: int) -> str:
    """Write 48 bits of milliseconds and 80 random ones in lowercase Crockford base32.

    See https://github.com/ulid/spec; ids sort by the time they were made at.
    """
    number = unix_ms << ULID_RANDOM_BITS | randomness
    digits = (_CROCKFORD[number >> 5 * place & 31] for place in reversed(range(_CHARACTERS)))
    return f"{prefix}_{''.join(digits)}"
