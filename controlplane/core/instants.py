"""Instants as whole numbers since 1970, exactly: a double of today's seconds is 0.2 µs coarse."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
_NANOS: Final = 1_000


def to_micros(at: datetime) -> int:
    """Return the whole microseconds from 1970 to `at`; negative before."""
    return (at - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the instant so many microseconds after 1970.

    Raises:
        OverflowError: outside the years 1 to 9999.
    """
    return EPOCH + micros * MICROSECOND


def to_nanos(at: datetime) -> int:
    """Return the nanoseconds from 1970 to `at`, as OTLP has them."""
    return to_micros(at) * _NANOS


def from_nanos(nanos: int) -> datetime:
    """Return the microsecond that holds an instant of OTLP's, whose 64 bits end in the year 2554."""
    return from_micros(nanos // _NANOS)


def align_down(at: datetime, step: timedelta) -> datetime:
    """Return the last multiple of `step` since 1970 that is not after `at`."""
    return at - (at - EPOCH) % step
