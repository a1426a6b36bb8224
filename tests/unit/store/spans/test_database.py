"""The DuckDB file: hardened, migrated once, owned by one process, its columns those of the schema."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from controlplane.core.errors import StoreUnavailableError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.ingest.join_keys import is_join_key
from controlplane.ingest.settlement import MEMBER_SCHEMA
from controlplane.signals.schema import CALL_SCHEMA, SPAN_SCHEMA
from controlplane.store.spans.database import SpanDatabase, transaction
from controlplane.usage.dimensions import CUBE_DIMENSIONS, MEASURES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.duckdb"


@pytest.fixture
def database(path: Path) -> Iterator[SpanDatabase]:
    opened = SpanDatabase(path)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("span", [*SPAN_SCHEMA.names, "batch_seq", "call_hi", "call_lo", "is_grouped"]),
        ("grouped_call", CALL_SCHEMA.names),
        ("call", CALL_SCHEMA.names),
        ("replaced_call", [*CALL_SCHEMA.names, "replaced_at"]),
        ("call_member", MEMBER_SCHEMA.names),
        ("cube_15m", ["bucket", *(d.name for d in CUBE_DIMENSIONS), *MEASURES, *BUCKET_NAMES]),
    ],
)
def test_columns_are_the_schemas(database: SpanDatabase, table: str, columns: list[str]) -> None:
    """A new column must be added to the DDL too; inserts are by name, so the order is free."""
    found = database.connect().execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
        [table],
    )
    assert sorted(columns) == sorted(name for (name,) in found.fetchall())


@pytest.mark.parametrize(
    "statement",
    [
        "COPY span TO '{folder}/out.csv'",
        "FROM read_csv('{folder}/in.csv')",
        "ATTACH '{folder}/other.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 8",
    ],
)
def test_sql_can_reach_nothing_outside_the_file(
    database: SpanDatabase, statement: str, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    with pytest.raises(duckdb.Error):
        database.connect().execute(statement.format(folder=tmp_path))
    assert not (tmp_path / "out.csv").exists()


def test_opening_again_keeps_everything_and_migrates_nothing(path: Path) -> None:
    first = SpanDatabase(path)
    connection = first.connect()
    with transaction(connection):
        connection.execute("INSERT INTO tenant_progress VALUES ('a', NULL)")
    connection.close()
    first.close()
    again = SpanDatabase(path)
    rows = again.connect().execute("SELECT tenant FROM tenant_progress").fetchall()
    versions = again.connect().execute("SELECT version FROM schema_version").fetchall()
    assert [("a",)] == rows
    assert versions == sorted(set(versions))
    again.close()


def test_a_second_process_is_told_that_the_file_is_taken(
    database: SpanDatabase, path: Path
) -> None:
    del database
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from controlplane.core.errors import StoreUnavailableError\n"
        "from controlplane.store.spans.database import SpanDatabase\n"
        "try:\n"
        "    SpanDatabase(Path(sys.argv[1]))\n"
        "except StoreUnavailableError as error:\n"
        "    sys.exit(f'refused: {error}')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert 1 == ran.returncode
    assert "refused: can not open" in ran.stderr
    assert (
        "another process has it open. Ask the running one (`export` and `reconcile` take --server URL"
        in ran.stderr
    )


def test_a_failed_transaction_leaves_nothing(database: SpanDatabase) -> None:
    connection = database.connect()

    def insert_then(statement: str) -> None:
        with transaction(connection):
            connection.execute("INSERT INTO tenant_progress VALUES ('a', NULL)")
            connection.execute(statement)
            raise KeyError

    with pytest.raises(StoreUnavailableError):
        insert_then("FROM no_such_table")
    with pytest.raises(KeyError):
        insert_then("SELECT 1")
    assert [] == connection.execute("FROM tenant_progress").fetchall()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "chatcmpl-",
        "chatcmpl-1234567",
        "chatcmpl-12345678",
        "msg_r3cc58059_1",
        "12345678",
        "1234567",
        "abcdefgh",
        "abcdefghijklm-1",
        "aaaa-bbbb",
        "chatcmpl-äöüäöüä",
        "chatcmpl-äöüäöüäö",
        "resp_" + "x" * 40,
        "a-b_c-d_e",
        "0b8e6f3c-7a3e-4a6f-9a52-0c1d2e3f4a5b",
    ],
)
def test_sql_and_python_agree_on_what_a_join_key_is(
    database: SpanDatabase, value: str | None
) -> None:
    row = database.connect().execute("SELECT is_join_key(?::VARCHAR)", [value]).fetchone()
    assert (is_join_key(value),) == row
