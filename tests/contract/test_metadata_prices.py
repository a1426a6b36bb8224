"""The price history on both databases: appended to, and every version can be read again."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from controlplane.core.errors import ConflictError
from controlplane.pricing.history import EntryKind, PriceEntry, PriceVersion
from controlplane.store.metadata.prices import PriceRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
OWN, MODEL = EntryKind.OWN, EntryKind.MODEL


@pytest.fixture
def history(metadata_engine: Engine) -> PriceRepository:
    return PriceRepository(metadata_engine)


def version(number: int) -> PriceVersion:
    return PriceVersion(
        version=number,
        recorded_at=NOW + timedelta(hours=number),
        source=f"s{number}",
        note="because",
        recorded_by="ann",
    )


def test_an_empty_history_has_no_version(history: PriceRepository) -> None:
    assert (0, [], [], None) == (
        history.latest(),
        history.versions(limit=5),
        history.entries(9),
        history.list_recorded_at(),
    )


def test_the_book_of_a_version_is_the_newest_of_each_kind_and_key(history: PriceRepository) -> None:
    """A later version replaces, removes and adds; the earlier one reads as it did."""
    first = [
        PriceEntry(OWN, "p/a", "1"),
        PriceEntry(OWN, "p/b", "1"),
        PriceEntry(MODEL, "p/a", "m"),
    ]
    second = [
        PriceEntry(OWN, "p/a", "2"),
        PriceEntry(OWN, "p/b", None),
        PriceEntry(OWN, "p/c", "1"),
    ]
    history.append(first, version(1))
    history.append(second, version(2))
    assert sorted(first) == sorted(history.entries(1))
    assert sorted([first[2], *second], key=str) == sorted(history.entries(2), key=str)
    assert [version(2), version(1)] == history.versions(limit=9)
    assert [version(2)] == history.versions(limit=1)
    assert 2 == history.latest()


def test_an_own_price_does_not_make_the_list_fresh(history: PriceRepository) -> None:
    history.append([PriceEntry(MODEL, "p/a", "m")], version(1))
    history.append([PriceEntry(OWN, "p/a", "2")], version(2))
    assert NOW + timedelta(hours=1) == history.list_recorded_at()


def test_a_version_is_appended_once_and_whole(history: PriceRepository) -> None:
    history.append([], version(1))
    with pytest.raises(ConflictError):
        history.append([PriceEntry(OWN, "p/x", "1")], version(1))
    assert [] == history.entries(1)
