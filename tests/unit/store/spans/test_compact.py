"""Spans at rest: what they share is stored once, and comes back as it went in."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.spans import contexts
from controlplane.store.spans.compact import (
    CONTEXT,
    CONTEXT_NAMES,
    compact,
    context_index,
    is_compact,
)
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.rows import to_rows

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
Rows = Callable[..., pa.Table]

_texts = st.none() | st.sampled_from(["", "a", "b", "é", '"', "a" * 40])
_shared = st.fixed_dictionaries(
    {
        "team": _texts,
        "request_model": _texts,
        "tenant": st.sampled_from(["a", "b"]),
        "is_stream": st.none() | st.booleans(),
        "http_status": st.none() | st.sampled_from([200, 429]),
        "user_id": _texts,
        "customer": _texts,
        "ttft_us": st.none() | st.integers(0, 5),
    }
)


def _stored(store: DuckDbSpanStore) -> list[dict[str, Any]]:
    return [row for _, batch in store.batches() for row in batch.to_pylist()]


@settings(deadline=None, max_examples=25)
@given(batches=st.lists(st.lists(_shared, max_size=8), max_size=4))
def test_every_span_comes_back_as_it_was_written(
    batches: list[list[dict[str, object]]], span_rows: Rows
) -> None:
    store = DuckDbSpanStore(None)
    tables = [
        span_rows(*({"span_id": 100 * number + n + 1, **row} for n, row in enumerate(batch)))
        for number, batch in enumerate(batches)
    ]
    for number, table in enumerate(tables):
        store.write(table, batch_id=str(number))
    assert [row for table in tables for row in table.to_pylist()] == _stored(store)
    store.close()


def test_a_context_is_stored_once_for_good(
    tmp_path: Path, span_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across batches, restarts, and after it was forgotten in memory."""
    monkeypatch.setattr(contexts, "MAX_REMEMBERED", 1)
    path = tmp_path / "spans.duckdb"
    for round_number in range(3):
        store = DuckDbSpanStore(path)
        for number in range(3):
            rows = [
                {"span_id": 100 * round_number + 10 * number + n, "team": team}
                for n, team in enumerate(("x", "y", None), start=1)
            ]
            store.write(span_rows(*rows), batch_id=f"{round_number}-{number}")
        store.close()
    with duckdb.connect(str(path)) as connection:
        teams = connection.execute("SELECT team FROM span_context ORDER BY team").fetchall()
        numbers = connection.execute("SELECT DISTINCT context_id FROM span_fact").fetchall()
    assert [("x",), ("y",), (None,)] == teams
    assert 3 == len(numbers)


def test_columns_without_a_value_do_not_travel(span_rows: Rows) -> None:
    table = compact(span_rows({"ttft_us": None}, {"ttft_us": None, "user_id": "u"}))
    assert "ttft_us" not in table.column_names
    assert "user_id" in table.column_names
    assert not set(CONTEXT_NAMES) & set(table.column_names)


def test_contexts_of_several_parts_are_told_apart(span_rows: Rows) -> None:
    """A stream may bring a table in pieces, each with a dictionary of its own."""
    parts = [compact(span_rows({"team": team, "user_id": "u"})) for team in ("x", "y", "x")]
    index, said = context_index(pa.concat_tables(parts))
    assert ["x", "y", "x"] == said.column("team").take(index).to_pylist()


def test_tables_of_another_release_are_told_from_ours(span_rows: Rows) -> None:
    good = compact(span_rows({}))
    assert is_compact(good)
    assert not is_compact(good.drop_columns([CONTEXT]))
    assert not is_compact(good.drop_columns(["start_time"]))
    assert not is_compact(good.append_column("more", pa.array([1])))
    assert not is_compact(
        good.set_column(
            good.schema.get_field_index("span_id"), "span_id", pa.array([1], pa.int32())
        )
    )


def test_very_many_values_in_very_many_columns_are_still_counted_right(span_rows: Rows) -> None:
    """The product of the columns' sizes passes 64 bits."""
    rows = [
        {"span_id": n + 1, **{name: f"{name}{n % 97}" for name in CONTEXT_NAMES if name in _FREE}}
        for n in range(400)
    ]
    index, said = context_index(compact(span_rows(*rows)))
    assert 97 == said.num_rows
    assert [f"team{n % 97}" for n in range(400)] == said.column("team").take(index).to_pylist()


_FREE = (
    *("team", "project", "feature", "environment", "region", "provider", "api_key", "price_id"),
    *("operation", "request_model", "response_model", "billing_model"),
)


def test_a_failed_write_gives_no_number_away(span_rows: Rows) -> None:
    """Contexts of a transaction that was undone are stored again by the next."""
    store = DuckDbSpanStore(None)
    good = span_rows({"team": "x"})
    bad = compact(good).rename_columns(
        ["unheard_of" if n == "name" else n for n in compact(good).column_names]
    )
    with pytest.raises(StoreUnavailableError):
        store.write_compact(bad, batch_id="bad")
    store.write(good, batch_id="good")
    store.write(span_rows({"team": "y", "span_id": 2}), batch_id="more")
    assert ["x", "y"] == [row["team"] for row in _stored(store)]
    store.close()


def test_a_file_from_before_contexts_is_brought_over(tmp_path: Path, span_rows: Rows) -> None:
    path = tmp_path / "spans.duckdb"
    spans = span_rows(
        {"span_id": 1, "team": "x", "ttft_us": 5},
        {"span_id": 2, "team": None, "start_time": AT + timedelta(days=1)},
        {"span_id": 3, "team": "x", "attributes": [("k", "v")]},
    )
    _write_wide(path, spans)
    store = DuckDbSpanStore(path)
    assert spans.to_pylist() == _stored(store)
    assert 3 == store.write(spans, batch_id="again").duplicates
    store.close()


def _write_wide(path: Path, spans: pa.Table) -> None:
    """Make a file as the first three DDL scripts had it, with one batch."""
    ddl = resources.files("controlplane.store.spans") / "ddl"
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        for number, name in enumerate(("001_spans", "002_calls", "003_cube"), start=1):
            connection.execute((ddl / f"{name}.sql").read_text())
            connection.execute("INSERT INTO schema_version VALUES (?)", [number])
        names = {name for (name, *_) in connection.execute("DESCRIBE span").fetchall()}
        connection.register("batch", to_rows(spans).select(sorted(names & set(spans.column_names))))
        connection.execute(
            "INSERT INTO span BY NAME SELECT *, 1 AS batch_seq, 0 AS call_hi,"
            " span_id AS call_lo, false AS is_grouped FROM batch"
        )
        connection.execute("INSERT INTO ingest_batch VALUES ('b', 1, ?, 0)", [spans.num_rows])


def test_contexts_cover_the_schema_and_no_more() -> None:
    assert set(CONTEXT_NAMES) < set(SPAN_SCHEMA.names)
    assert not {"user_id", "customer", "name", "attributes"} & set(CONTEXT_NAMES)
