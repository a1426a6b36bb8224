"""The book of a role: seeded once, files recorded as versions, current within two seconds."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.bootstrap.price_books import LiveBook, load_book, open_book
from controlplane.core.errors import NotFoundError
from controlplane.pricing.history import EntryKind, PriceEntry, PriceVersion
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import Quote, quote
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.settings import Settings, load
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.prices import PriceRepository
from controlplane.telemetry import REGISTRY

NOV = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    own, contracts = tmp_path / "own.yaml", tmp_path / "contracts.yaml"
    own.write_text('[{provider: house, model: m, usd: {output_text: "1"}}]')
    contracts.write_text('[{id: c, provider: openai, discount_percent: "50"}]')
    return load(
        overrides={"data_dir": tmp_path, "price_overrides": own, "contracts": contracts}, environ={}
    )


@pytest.fixture
def engine(settings: Settings) -> Engine:
    engine = open_engine(settings.metadata_url)
    migrate(engine)
    return engine


def _ask(book: PriceBook, provider: str = "house", model: str = "m") -> Quote:
    return quote(book, provider=provider, model=model, at=NOV, usage={"output_text": 10**6})


def test_the_first_start_records_the_seed_and_the_files(settings: Settings, engine: Engine) -> None:
    book = open_book(settings, engine)
    history = PriceRepository(engine)
    versions = history.versions(limit=9)
    assert [(2, "files"), (1, seed_version())] == [(v.version, v.source) for v in versions]
    assert "prices@2" == book.version == book.current().version
    assert 10**9 == _ask(book).total_nusd
    assert 5 * 10**9 == _ask(book, "openai", "gpt-4o").total_nusd
    # What was stored and read back is the list that was installed.
    stored = {
        (p.provider, m.model): m.rows for p in book.current()._listed.values() for m in p.models
    }
    seeded = {(p.provider, m.model): m.rows for p in listed_providers() for m in p.models}
    assert seeded == stored
    # How stale the list is counts from when the list was recorded, not the organisation's files.
    shown = REGISTRY.get_sample_value("controlplane_price_list_recorded_timestamp_seconds")
    assert versions[1].recorded_at.timestamp() == shown
    # A second start finds nothing to record.
    assert "prices@2" == open_book(settings, engine).version
    engine.dispose()


def test_a_changed_file_is_another_version_and_the_old_one_stays(
    settings: Settings, engine: Engine
) -> None:
    open_book(settings, engine)
    assert settings.price_overrides
    settings.price_overrides.write_text('[{provider: house, model: m, usd: {output_text: "2"}}]')
    changed = open_book(settings, engine)
    assert ("prices@3", 2 * 10**9) == (changed.version, _ask(changed).total_nusd)
    assert 10**9 == _ask(load_book(settings, version=2)).total_nusd
    assert "unknown_provider" == _ask(load_book(settings, version=1)).cost_reason
    settings.price_overrides.write_text("[]")
    assert "unknown_provider" == _ask(open_book(settings, engine)).cost_reason
    with pytest.raises(NotFoundError, match="There are 1 to 4"):
        load_book(settings, version=5)
    engine.dispose()


def test_commands_see_files_that_no_start_has_recorded(settings: Settings, engine: Engine) -> None:
    """Named with a digest, because no version holds them; and nothing is written."""
    open_book(settings, engine)
    assert settings.price_overrides
    settings.price_overrides.write_text('[{provider: house, model: m, usd: {output_text: "3"}}]')
    book = load_book(settings)
    assert 3 * 10**9 == _ask(book).total_nusd
    assert book.version.startswith("prices@2+")
    assert 2 == PriceRepository(engine).latest()
    engine.dispose()


def test_commands_without_a_database_use_the_installed_list(settings: Settings) -> None:
    book = load_book(settings)
    assert (10**9, 5 * 10**9) == (_ask(book).total_nusd, _ask(book, "openai", "gpt-4o").total_nusd)
    assert book.version.startswith(f"{seed_version()}+")
    plain = msgspec.structs.replace(settings, price_overrides=None, contracts=None)
    assert seed_version() == load_book(plain).version
    assert not (settings.data_dir / "metadata.sqlite").exists()


def test_a_new_version_is_seen_within_two_seconds(settings: Settings, engine: Engine) -> None:
    """And not looked for more often than that."""
    open_book(settings, engine)
    history, clock = PriceRepository(engine), [100.0]
    book = LiveBook(history, elapsed=lambda: clock[0])
    assert 10**9 == _ask(book).total_nusd
    body = '[{"provider": "house", "model": "n", "usd": {"output_text": "7"}}]'
    history.append(
        [PriceEntry(EntryKind.OWN, "house/n", body)],
        PriceVersion(version=3, recorded_at=NOV, source="api"),
    )
    clock[0] += 1.9
    assert None is _ask(book, "house", "n").total_nusd
    clock[0] += 0.1
    assert ("prices@3", 7 * 10**9) == (book.version, _ask(book, "house", "n").total_nusd)
    assert ("house", "n") in book.names()
    assert book.is_makers("openai", "gpt-4o")
    engine.dispose()


def test_the_price_of_an_old_call_is_found_in_the_version_that_had_it(
    settings: Settings, engine: Engine
) -> None:
    """A changed file gives the model another price; what a call was priced at is still there."""
    first = open_book(settings, engine)
    old = _ask(first).price_id
    assert settings.price_overrides
    settings.price_overrides.write_text('[{provider: house, model: m, usd: {output_text: "2"}}]')
    book = open_book(settings, engine)
    new = _ask(book).price_id
    assert old is not None
    assert old != new
    rows = [book.row_of("house", "m", price_id) for price_id in (old, new, "gone", None)]
    prices = [row and row.tiers[0].rates["output_text"].cost_nusd(10**6) for row in rows]
    assert [10**9, 2 * 10**9, None, None] == prices
    engine.dispose()
