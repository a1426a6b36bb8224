"""What a settlement must look at: new reports, and all that they can join."""

from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.ingest.settlement import (
    EDGE_SCHEMA,
    JOINABLE_SCHEMA,
    REPORT_SCHEMA,
    Unsettled,
)
from controlplane.store.spans.database import read_sql
from controlplane.store.spans.day_ranges import reach_of
from controlplane.store.spans.key_sql import KEY_SQL

MAX_ROUNDS: Final = 32
"""Each round follows keys one report further; a call has a handful of reports, so two or three
rounds close the set. Reached, the rest joins when it is touched again."""

_NO_REPORTS: Final = " (trace_lo UBIGINT, span_id UBIGINT, start_time TIMESTAMPTZ)"
_HAS_WEAK_IDS: Final = (
    "(domain, service_name, scope_name) IN (SELECT (domain, service_name, scope_name)"
    " FROM weak_emitter WHERE report.start_time >= weak_emitter.since)"
)
_NEW_KEYS: Final = {
    False: read_sql("new_keys").format(has_weak_ids="false", **KEY_SQL),
    True: read_sql("new_keys").format(has_weak_ids=_HAS_WEAK_IDS, **KEY_SQL),
}
"""By whether there are weak emitters: looking each report up in an empty table costs a quarter."""

_WINDOW_DAYS: Final = "SELECT DISTINCT day_of(start_time) FROM window_report"
_GROUPED: Final = read_sql("grouped").format(columns=", ".join(REPORT_SCHEMA.names), **KEY_SQL)


def find_new_keys(connection: duckdb.DuckDBPyConnection, *, after: int, through: int) -> None:
    """Leave in `new_key` what the reports of the batches in `(after, through]` can be joined by."""
    has_weak = bool(_count(connection, "SELECT count(*) FROM weak_emitter"))
    connection.execute(_NEW_KEYS[has_weak], {"after": after, "through": through})


def neighborhood(connection: duckdb.DuckDBPyConnection, *, after: int, through: int) -> Unsettled:
    """Read the reports of the batches in `(after, through]` with every report they can join."""
    batches = {"after": after, "through": through}
    find_new_keys(connection, **batches)
    connection.execute(read_sql("followed"), batches)
    days = connection.execute(read_sql("new_days"), batches).fetchall()
    reach = _close(connection, {day for (day,) in days})
    lone = connection.execute(read_sql("count_lone"), batches).fetchone()
    return Unsettled(
        through=through,
        lone_reports=int(lone[0]) if lone else 0,
        grouped=_grouped(connection, reach, through),
        edges=_edges(connection, reach, through),
    )


def grouped_again(
    connection: duckdb.DuckDBPyConnection, window: Window, *, through: int
) -> Unsettled:
    """Read the grouped reports that start in a window, with every report they can join."""
    bounds = {"start": window.start, "end": window.end}
    for statement in read_sql("window_followed").split(";"):
        if statement.strip():
            connection.execute(statement, bounds if "$start" in statement else None)
    days = {int(day) for (day,) in connection.execute(_WINDOW_DAYS).fetchall()}
    reach = _close(connection, days)
    connection.execute(read_sql("window_members"))
    return Unsettled(
        through=through,
        lone_reports=0,
        grouped=_grouped(connection, reach, through),
        edges=_edges(connection, reach, through),
    )


def _close(connection: duckdb.DuckDBPyConnection, days: set[int]) -> Sequence[Window]:
    """Find what the new reports can join, and what that depends on; return where it may lie.

    Reports of a gateway and its clients are matched minute by minute (`ingest.gateway_pairs`): a
    new one can change matches in its own minute and beside it, and these depend on one minute more.
    What is found only there is context: it is read, and stays as it is. Were minutes followed on
    and on like other keys, a health check every few seconds would be one chain for ever.
    """
    connection.execute("CREATE OR REPLACE TEMP TABLE context" + _NO_REPORTS)
    reach = _closed(connection, days)
    if _follow_cells(connection, reach):
        reach = _closed(connection, days)
        if _follow_cells(connection, reach):
            connection.execute("CREATE OR REPLACE TEMP TABLE known AS FROM member")
            reach = _closed(connection, days)
            connection.execute(
                "INSERT INTO context SELECT trace_lo, span_id, start_time FROM member"
                " ANTI JOIN known USING (trace_lo, span_id, start_time)"
            )
    return reach


def _follow_cells(connection: duckdb.DuckDBPyConnection, reach: Sequence[Window]) -> int:
    """Follow the minutes of gateways that are known so far, and those beside them."""
    connection.execute("CREATE OR REPLACE TEMP TABLE cell_of_member (key_hash UBIGINT)")
    if _count(connection, "SELECT count(*) FROM member WHERE NOT is_new"):
        for window in reach:
            connection.execute(read_sql("member_cells"), {"start": window.start, "end": window.end})
    connection.execute(read_sql("more_cells"))
    connection.execute("INSERT INTO followed FROM more")
    return _count(connection, "SELECT count(*) FROM more")


def _closed(connection: duckdb.DuckDBPyConnection, days: set[int]) -> Sequence[Window]:
    """Follow keys until no further report is found; return where the reports may lie."""
    for _ in range(MAX_ROUNDS):
        reach = reach_of(days)
        connection.execute(read_sql("found_start"))
        for window in reach:
            connection.execute(read_sql("found_more"), {"start": window.start, "end": window.end})
        connection.execute(read_sql("members"))
        more_days = _days_of_settled_members(connection) - days
        days |= more_days
        if not _follow(connection, reach) and not more_days:
            break
    return reach_of(days)


def _days_of_settled_members(connection: duckdb.DuckDBPyConnection) -> set[int]:
    days = connection.execute("SELECT DISTINCT day_of(start_time) FROM member WHERE NOT is_new")
    return {int(day) for (day,) in days.fetchall()}


def _follow(connection: duckdb.DuckDBPyConnection, reach: Sequence[Window]) -> int:
    """Follow the other keys of settled members too; return how many that adds."""
    connection.execute("CREATE OR REPLACE TEMP TABLE key_of_member (key_hash UBIGINT)")
    if _count(connection, "SELECT count(*) FROM member WHERE NOT is_new"):
        for window in reach:
            connection.execute(read_sql("member_keys"), {"start": window.start, "end": window.end})
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE more AS"
        " SELECT DISTINCT key_hash FROM key_of_member ANTI JOIN followed USING (key_hash)"
    )
    connection.execute("INSERT INTO followed FROM more")
    return _count(connection, "SELECT count(*) FROM more")


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _grouped(
    connection: duckdb.DuckDBPyConnection, reach: Sequence[Window], through: int
) -> pa.Table:
    parts = [JOINABLE_SCHEMA.empty_table()]
    if _count(connection, "SELECT count(*) FROM member"):
        for window in reach:
            found = connection.execute(
                _GROUPED,
                {"start": window.start, "end": window.end, "through": through},
            )
            parts.append(found.to_arrow_table().cast(JOINABLE_SCHEMA))
    return pa.concat_tables(parts)


def _edges(
    connection: duckdb.DuckDBPyConnection, reach: Sequence[Window], through: int
) -> pa.Table:
    parts = [EDGE_SCHEMA.empty_table()]
    if _count(connection, "SELECT count(*) FROM member"):
        for window in reach:
            found = connection.execute(
                read_sql("edges"),
                {"start": window.start, "end": window.end, "through": through},
            )
            parts.append(found.to_arrow_table().cast(EDGE_SCHEMA))
    return pa.concat_tables(parts)
