"""Bring the metadata database to a revision, in one transaction and by one process at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from controlplane.core.errors import UnavailableError
from controlplane.store.metadata.engine import MIGRATION_LOCK, reading, writing

HEAD: Final = "head"
BASE: Final = "base"


def migrations_dir() -> Path:
    """Return the migrations: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def migrate(engine: Engine, *, revision: str = HEAD) -> str | None:
    """Upgrade to `revision`; returns what the schema is at then. At it already: only reads.

    Safe to call from several processes that start at once: one migrates, the others wait.

    Raises:
        UnavailableError: the database can not be reached or locked, or is newer than this program.
    """
    script = ScriptDirectory(str(migrations_dir()))
    target = script.get_current_head() if revision == HEAD else revision
    if current(engine) == target:
        return target
    _run(engine, command.upgrade, revision)
    return current(engine)


def downgrade(engine: Engine, *, revision: str = BASE) -> str | None:
    """Go back to `revision`, losing what later ones hold; returns what the schema is at then.

    Raises:
        UnavailableError: the database can not be reached or locked.
    """
    _run(engine, command.downgrade, revision)
    return current(engine)


def current(engine: Engine) -> str | None:
    """Return the schema's revision; None before the first.

    Raises:
        UnavailableError: the database can not be read, or holds a revision of a newer program.
    """
    with reading(engine) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory(str(migrations_dir())).walk_revisions()}
    if found is not None and found not in known:
        raise UnavailableError(
            f"the metadata database is at revision {found!r}, which this version does not know. "
            "Run the version that migrated it, or a newer one"
        )
    return found


def _run(engine: Engine, step: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with writing(engine, lock=MIGRATION_LOCK) as connection:
        config.attributes["connection"] = connection
        step(config, revision)
