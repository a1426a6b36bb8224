"""Instants as whole numbers: exact both ways."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.instants import align_down, from_micros, from_nanos, to_micros, to_nanos

INSTANTS = st.datetimes(timezones=st.just(UTC))


@given(at=INSTANTS)
def test_every_microsecond_comes_back(at: datetime) -> None:
    """No double is in between, in which one microsecond in eight of this decade is another."""
    assert at == from_micros(to_micros(at))


@given(at=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - the zone is beside it
def test_nanoseconds_come_back_as_their_microsecond(at: datetime) -> None:
    """OTLP's unit, both ways."""
    assert at == from_nanos(to_nanos(at) + 999)


def test_known_numbers() -> None:
    """Written out: `date -u -d @1764143251` is 2025-11-26 07:47:31."""
    at = datetime(2025, 11, 26, 7, 47, 31, 123_457, tzinfo=UTC)
    assert 1_764_143_251_123_457 == to_micros(at)
    assert 1_764_143_251_123_457_000 == to_nanos(at)
    assert -1 == to_micros(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))


def test_what_no_calendar_holds() -> None:
    """All that a sender can write is a time; a number of ours may be none."""
    assert datetime(2554, 7, 21, 23, 34, 33, 709_551, tzinfo=UTC) == from_nanos(2**64 - 1)
    with pytest.raises(OverflowError):
        from_micros(2**63 - 1)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=45))])
def test_alignment_is_to_1970_whatever_the_zone(zone: timezone) -> None:
    """A boundary is its own; just before it belongs to the step before."""
    step = timedelta(minutes=15)
    boundary = datetime(2026, 11, 26, 7, 45, tzinfo=UTC).astimezone(zone)
    assert boundary == align_down(boundary, step)
    assert boundary - step == align_down(boundary - timedelta(microseconds=1), step)
    assert boundary == align_down(boundary + step - timedelta(microseconds=1), step)
