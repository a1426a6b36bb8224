"""What a settlement must look at: new reports, and all that they can join."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.ingest.settlement import (
    EDGE_SCHEMA,
    JOINABLE_SCHEMA,
    REPORT_SCHEMA,
    Unsettled,
)
from controlplane.store.spans.database import load, read_sql
from controlplane.store.spans.hour_windows import windows_of
from controlplane.store.spans.key_hours import Hashes, Hours, KeyHours, repeated
from controlplane.store.spans.key_sql import KEY_SQL

MAX_ROUNDS: Final = 64
"""Each round follows keys one report further; a call has a handful of reports, so two or three
rounds find all that are connected. What a new report changes is at most as far away as a call has
reports (`count_once.MAX_COMPONENT`). Where a chain of keys goes on, as many rounds more are read as
context: enough to know the calls of all that was found before, which are settled, and not of what
is found then, which stays as it is until something arrives nearer to it."""

READ_ROWS: Final = 131_072
"""Stored keys that are in memory at once while hours are read."""

Pairs = tuple[Hashes, Hours]
"""Hashes of keys, and of each the hour or day."""

_NO_REPORTS: Final = " (trace_lo UBIGINT, span_id UBIGINT, start_time TIMESTAMPTZ)"
_NO_KEYS: Final = " (key_hash UBIGINT, day BIGINT)"
_HAS_WEAK_IDS: Final = (
    "(domain, service_name, scope_name) IN (SELECT (domain, service_name, scope_name)"
    " FROM weak_emitter WHERE report.start_time >= weak_emitter.since)"
)
_NEW_KEYS: Final = {
    False: read_sql("new_keys").format(has_weak_ids="false", **KEY_SQL),
    True: read_sql("new_keys").format(has_weak_ids=_HAS_WEAK_IDS, **KEY_SQL),
}
"""By whether there are weak emitters: looking each report up in an empty table costs a quarter."""

_MEMBER_HOURS: Final = "SELECT DISTINCT hour_of(start_time) FROM {table}"
_GROUPED: Final = read_sql("grouped").format(columns=", ".join(REPORT_SCHEMA.names), **KEY_SQL)


def find_new_keys(connection: duckdb.DuckDBPyConnection, *, after: int, through: int) -> None:
    """Leave in `new_key` what the reports of the batches in `(after, through]` can be joined by."""
    has_weak = bool(_count(connection, "SELECT count(*) FROM weak_emitter"))
    connection.execute(_NEW_KEYS[has_weak], {"after": after, "through": through})


class Neighborhood:
    """Finds reports by their keys; belongs to the settler's thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.hours = KeyHours(self._count_hours, self._read_hours, extent=self._extent())
        self._has_long_chains = False

    def find_new_keys(self, *, after: int, through: int) -> None:
        """Leave in `new_key` what the reports of the batches in `(after, through]` can be joined by.

        They are to be stored next.
        """
        self._find_new(after=after, through=through)
        self.hours.add(*_joined(*self._new_pairs()))

    def around(self, *, after: int, through: int) -> Unsettled:
        """Read the reports of the batches in `(after, through]` with all that they can join."""
        batches = {"after": after, "through": through}
        self._find_new(**batches)
        new = self._new_pairs()
        self._choose(*new)
        self._close()
        self.hours.add(*_joined(*new))  # not before: they would be looked up among the stored
        lone = self._connection.execute(read_sql("count_lone"), batches).fetchone()
        return self._read(through, lone_reports=int(lone[0]) if lone else 0)

    def again(self, window: Window, *, through: int) -> Unsettled:
        """Read the grouped reports that start in a window, with all that they can join."""
        bounds = {"start": window.start, "end": window.end}
        self._run("found_none")
        for statement in read_sql("window_followed").split(";"):
            if statement.strip():
                self._connection.execute(statement, bounds if "$start" in statement else None)
        self._execute("CREATE OR REPLACE TEMP TABLE more AS FROM followed")
        self._close()
        self._run("window_members")
        return self._read(through, lone_reports=0)

    def _find_new(self, *, after: int, through: int) -> None:
        find_new_keys(self._connection, after=after, through=through)
        self._run("new_traces", after=after, through=through)

    def _new_pairs(self) -> tuple[Pairs, Pairs]:
        """Read the keys of new reports, and the traces of other new spans, with their hours."""
        reports = self._pairs("SELECT key_hash, hour_of(start_time) AS hour FROM new_key", "hour")
        return reports, self._pairs("SELECT key_hash, hour FROM new_trace", "hour")

    def _choose(self, reports: Pairs, traces: Pairs) -> None:
        """Leave in `found` what new reports can join, and those that may join anything; few do.

        A key that is once among the new ones, and nowhere within a day of them, joins nothing; a
        report with no other keys is a call by itself.
        """
        self._run("found_none")
        for hours, keys in self.hours.claims(*_joined(reports, traces)):
            load(self._connection, asked=pa.table({"key_hash": keys}))
            for window in windows_of(hours):
                self._run("found_asked", start=window.start, end=window.end)
        load(self._connection, repeated=pa.table({"key_hash": repeated(reports[0])}))
        self._run("found_start")
        self._execute("CREATE OR REPLACE TEMP TABLE followed" + _NO_KEYS)
        self._run("followed")
        self._execute("CREATE OR REPLACE TEMP TABLE more" + _NO_KEYS)

    def _read(self, through: int, *, lone_reports: int) -> Unsettled:
        has_members = bool(self._count("SELECT count(*) FROM member"))
        return Unsettled(
            through=through,
            lone_reports=lone_reports,
            grouped=self._grouped(through) if has_members else JOINABLE_SCHEMA.empty_table(),
            edges=self._edges(through) if has_members else EDGE_SCHEMA.empty_table(),
            has_long_chains=self._has_long_chains,
        )

    def _close(self) -> None:
        """Find what the new reports can join, and what that depends on.

        Reports of a gateway and its clients are matched minute by minute (`ingest.gateway_pairs`):
        a new one can change matches in its own minute and beside it, and these depend on one minute
        more. What is found only there is context: it is read, and stays as it is. Were minutes
        followed on and on like other keys, a health check every few seconds would be one chain for
        ever.
        """
        self._has_long_chains = False
        self._execute("CREATE OR REPLACE TEMP TABLE context" + _NO_REPORTS)
        self._execute("CREATE OR REPLACE TEMP TABLE expanded" + _NO_REPORTS)
        self._follow_chains()
        if self._follow_cells():
            self._follow_chains()
            if self._follow_cells():
                self._execute("CREATE OR REPLACE TEMP TABLE known AS FROM member")
                self._follow_chains()
                self._run("add_context")

    def _follow_chains(self) -> None:
        """Follow keys until no further report is found, or what is found can not matter."""
        if self._follow_keys():
            self._has_long_chains = True
            self._execute("CREATE OR REPLACE TEMP TABLE near AS FROM member")
            self._follow_keys()
            self._run("add_far_context")

    def _follow_keys(self) -> bool:
        """Look up the keys in `more`, then those of what was found; answer whether there are more."""
        for _ in range(MAX_ROUNDS):
            asked = self._pairs("SELECT key_hash, day FROM more", "day")
            for day, hours in self.hours.hours_of(*asked).items():
                for window in windows_of(hours):
                    self._run("found_more", day=day, start=window.start, end=window.end)
            self._run("members")
            if not self._follow_members():
                return False
        return True

    def _follow_members(self) -> int:
        """Put the keys of settled members into `more`; return how many that adds."""
        self._run("fresh_members")
        self._execute("INSERT INTO expanded FROM fresh")
        self._execute("CREATE OR REPLACE TEMP TABLE key_of_member" + _NO_KEYS)
        for window in self._windows("fresh"):
            self._run("member_keys", start=window.start, end=window.end)
        self._run("more_keys")
        if self._count(read_sql("found_chained")):
            self._run("followed")
        return self._follow()

    def _follow_cells(self) -> int:
        """Follow the minutes of gateways that are known so far, and those beside them."""
        self._execute("CREATE OR REPLACE TEMP TABLE cell_of_member" + _NO_KEYS)
        for window in self._windows("member WHERE NOT is_new"):
            self._run("member_cells", start=window.start, end=window.end)
        self._run("more_cells")
        return self._follow()

    def _follow(self) -> int:
        self._execute("INSERT INTO followed FROM more")
        return self._count("SELECT count(*) FROM more")

    def _grouped(self, through: int) -> pa.Table:
        parts = [JOINABLE_SCHEMA.empty_table()]
        for window in self._windows("member"):
            bounds = {"start": window.start, "end": window.end, "through": through}
            found = self._connection.execute(_GROUPED, bounds)
            parts.append(found.to_arrow_table().cast(JOINABLE_SCHEMA))
        return pa.concat_tables(parts)

    def _edges(self, through: int) -> pa.Table:
        traces = self._pairs(read_sql("member_traces"), "day")
        hours = (h for those in self.hours.hours_of(*traces).values() for h in those)
        self._run("no_edges")
        for window in windows_of(hours):
            self._run("add_edges", start=window.start, end=window.end, through=through)
        return self._connection.execute(read_sql("edges")).to_arrow_table().cast(EDGE_SCHEMA)

    def _windows(self, table: str) -> list[Window]:
        """Answer where the reports of a temporary table start."""
        hours = self._connection.execute(_MEMBER_HOURS.format(table=table)).fetchall()
        return windows_of(int(hour) for (hour,) in hours)

    def _extent(self) -> tuple[int, int] | None:
        """Answer the first hour and the last that spans are stored of."""
        row = self._connection.execute(
            "SELECT hour_of(min(start_time)), hour_of(max(start_time)) FROM span_fact"
        ).fetchone()
        return None if row is None or row[0] is None else (int(row[0]), int(row[1]))

    def _count_hours(self, first: int, last: int) -> dict[int, int]:
        counts: dict[int, int] = {}
        for bounds in _bounds(range(first, last)):
            found = self._connection.execute(read_sql("hour_counts"), bounds).fetchall()
            counts.update((int(hour), int(keys)) for hour, keys in found)
        return counts

    def _read_hours(self, first: int, last: int) -> Iterator[tuple[Hashes, Hours]]:
        for bounds in _bounds(range(first, last)):
            found = self._connection.execute(read_sql("hour_keys"), bounds)
            for part in found.to_arrow_reader(READ_ROWS):
                yield part.column(0).to_numpy(), part.column(1).to_numpy()

    def _pairs(self, query: str, second: str) -> Pairs:
        found = self._connection.execute(query).fetchnumpy()
        return np.asarray(found["key_hash"], np.uint64), np.asarray(found[second], np.int64)

    def _count(self, query: str) -> int:
        return _count(self._connection, query)

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def _run(self, name: str, **parameters: Any) -> None:
        self._connection.execute(read_sql(name), parameters)


def _joined(some: Pairs, others: Pairs) -> Pairs:
    return np.concatenate([some[0], others[0]]), np.concatenate([some[1], others[1]])


def _bounds(hours: Iterable[int]) -> list[dict[str, Any]]:
    return [{"start": window.start, "end": window.end} for window in windows_of(hours)]


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
