"""The metadata schema, up and down, on both engines."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from controlplane.core.errors import ConflictError, UnavailableError
from controlplane.store.metadata.engine import open_engine, reading, writing
from controlplane.store.metadata.migrate import current, downgrade, migrate, migrations_dir
from controlplane.store.metadata.tables import metadata

SCRIPTS = ScriptDirectory(str(migrations_dir()))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    url = (
        f"sqlite:///{tmp_path / 'metadata.sqlite'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    made = open_engine(url)
    yield made
    made.dispose()


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def test_every_revision_goes_up_and_down(engine: Engine) -> None:
    """Each step can be taken and taken back, and leaves no table behind."""
    seen: list[set[str]] = []
    for revision in REVISIONS:
        assert revision == migrate(engine, revision=revision)
        seen.append(_tables(engine))
    for before, revision in reversed(list(zip(seen[:-1], REVISIONS[:-1], strict=True))):
        assert revision == downgrade(engine, revision=revision)
        assert before == _tables(engine)
    assert downgrade(engine) is None
    assert set() == _tables(engine)
    assert REVISIONS[-1] == migrate(engine)


def test_head_is_what_the_code_declares(engine: Engine) -> None:
    """tables.py and the migrations say the same."""
    migrate(engine)
    declared = set(metadata.tables)
    with reading(engine) as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _parents: kind != "table" or name in declared},
        )
        assert [] == compare_metadata(context, metadata)


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    """A role that starts on a migrated database only looks."""
    migrate(engine)
    assert REVISIONS[-1] == migrate(engine)


def test_roles_that_start_together_migrate_once(engine: Engine) -> None:
    """The first migrates, the others wait and find it done."""
    with ThreadPoolExecutor(4) as pool:
        reached = list(pool.map(lambda _: migrate(engine), range(4)))
    assert [REVISIONS[-1]] * 4 == reached


def test_database_of_a_newer_program_is_refused(engine: Engine) -> None:
    """An old program does not guess at a schema it does not know."""
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    with pytest.raises(UnavailableError, match="from_the_future"):
        current(engine)


@pytest.mark.parametrize(
    "statement", ["UPDATE ledger_entry SET enforced_nusd = 0", "DELETE FROM ledger_entry"]
)
def test_ledger_entries_can_not_be_touched(engine: Engine, statement: str) -> None:
    """The database itself refuses to rewrite the ledger."""
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(
            text("INSERT INTO budget (id, tenant, limit_nusd, body) VALUES ('b', 't', 1, '{}')")
        )
        connection.execute(
            text(
                "INSERT INTO ledger_entry (budget_id, window_start, key, kind, at, enforced_nusd,"
                " unproven_nusd, unenforced_nusd, leased_nusd)"
                " VALUES ('b', 0, 'k', 'calls', 0, 0, 0, 7, 0)"
            )
        )
    with (
        pytest.raises((DBAPIError, ConflictError), match="immutable"),
        writing(engine) as connection,
    ):
        connection.execute(text(statement))
    with reading(engine) as connection:
        assert 7 == connection.execute(text("SELECT unenforced_nusd FROM ledger_entry")).scalar()


def test_rolling_budgets_lose_the_forecasts_they_never_told_of(engine: Engine) -> None:
    """Or none of them could be changed any more; others keep theirs."""
    migrate(engine, revision="refused_calls")
    bodies = {
        "r": '{"window_kind":"rolling","forecast_thresholds":[100],"name":"é"}',
        "c": '{"window_kind":"calendar","forecast_thresholds":[100]}',
    }
    keep = text("INSERT INTO budget (id, tenant, limit_nusd, body) VALUES (:id, 't', 1, :body)")
    with writing(engine) as connection:
        for name, body in bodies.items():
            connection.execute(keep, {"id": name, "body": body})
    migrate(engine)
    with reading(engine) as connection:
        kept = {row.id: row.body for row in connection.execute(text("SELECT * FROM budget"))}
    assert {"window_kind": "rolling", "forecast_thresholds": [], "name": "é"} == json.loads(
        kept["r"]
    )
    assert bodies["c"] == kept["c"]
