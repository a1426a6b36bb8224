"""Erasure of a person: identity and attributes go, usage facts stay, tombstones hold (C7).

The identity and content hash of a span are kept: a resend is a duplicate as before, so that what
was erased does not come back. What was never stored and is of before the erasure, a late span or a
revision from a backup, is stored without the person.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.errors import StoreUnavailableError
from controlplane.core.instants import to_micros
from controlplane.ingest.subjects import Erased, Subject, subject_hash
from controlplane.store.spans.database import SpanDatabase, checkpoint, load, read_sql, transaction

NEVER_US: Final = -(2**63)
"""Before every start: of people who were not erased."""


class Tombstones:
    """Who was erased and when; read once, told of more. Safe from any thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, key: bytes) -> None:
        self._key = key
        found = connection.execute("SELECT subject_hash, epoch_us(erased_at) FROM tombstone")
        self._erased_us: dict[str, int] = {str(name): int(at) for name, at in found.fetchall()}

    def add(self, name: str, erased_us: int) -> None:
        """Hold from now on."""
        self._erased_us = {**self._erased_us, name: erased_us}

    def name(self, subject: Subject) -> str:
        """Return the hash that stands for a subject."""
        return subject_hash(self._key, subject)

    def bury(
        self,
        connection: duckdb.DuckDBPyConnection,
        batch: pa.Table,
        *,
        tenants: Callable[[], list[Any]],
    ) -> pa.Table:
        """Take erased people out of rows (columns user_id, start_time, attributes) before storing.

        Args:
            connection: in the transaction that will insert the rows.
            batch: rows as they are inserted.
            tenants: lists the tenant of each row; not asked while nobody is erased.
        """
        if not self._erased_us or "user_id" not in batch.column_names:
            return batch
        users, of = batch.column("user_id").to_pylist(), tenants()
        starts = batch.column("start_time").cast(pa.int64()).to_pylist()
        named = set(zip(of, users, strict=True))
        until = {
            (tenant, user): self._erased_us.get(self.name(Subject(tenant, user)))
            for tenant, user in named
            if user is not None
        }
        hit = [
            start is not None and start <= (until.get((tenant, user)) or NEVER_US)
            for tenant, user, start in zip(of, users, starts, strict=True)
        ]
        if not any(hit):
            return batch
        mask = pa.array(hit, pa.bool_())
        load(connection, subject_span=batch.filter(mask).select(["trace_hi", "trace_lo"]))
        connection.execute(read_sql("bury_traces"))
        batch = _replaced(batch, "user_id", mask=mask, values=pa.scalar(None, pa.string()))
        if "attributes" in batch.column_names:
            kept = _usage_attributes(connection, batch.column("attributes"), mask)
            batch = _replaced(batch, "attributes", mask=mask, values=kept)
        return batch


def _usage_attributes(
    connection: duckdb.DuckDBPyConnection, texts: "pa.ChunkedArray[Any]", mask: pa.BooleanArray
) -> "pa.Array[Any]":
    """Answer what is kept of the attributes of the masked rows, in their order."""
    said = pa.table({"said": texts}).filter(mask)
    places = pa.array(range(said.num_rows), pa.int64())
    load(connection, buried=said.append_column("place", places))
    found = connection.execute("SELECT usage_attributes(said) AS kept FROM buried ORDER BY place")
    return found.to_arrow_table().column("kept").combine_chunks().cast(texts.type)


def _replaced(batch: pa.Table, name: str, *, mask: pa.BooleanArray, values: Any) -> pa.Table:
    at = batch.schema.get_field_index(name)
    field = batch.schema.field(at)
    column = pc.replace_with_mask(batch.column(name).combine_chunks(), mask, values)
    return batch.set_column(at, field, column)


class Erasure:
    """Erases subjects in one database; safe from any thread, one at a time."""

    def __init__(
        self, database: SpanDatabase, tombstones: Tombstones, *, writing: threading.Lock
    ) -> None:
        """Use the writer's lock: a batch on its way is stored before or checked after."""
        self._database = database
        self._tombstones = tombstones
        self._writing = writing

    def erase(self, subject: Subject, *, now: datetime, apply: bool) -> Erased:
        """See `pipelines.ports.SubjectStore.erase`."""
        parameters = {"tenant": subject.tenant, "user_id": subject.user_id}
        name = self._tombstones.name(subject)
        connection = self._database.connect()
        try:
            with self._writing, transaction(connection):
                connection.execute(read_sql("subject_spans"), parameters)
                counted = connection.execute(
                    "SELECT count(*), count(DISTINCT (trace_hi, trace_lo)) FROM subject_span"
                ).fetchone()
                spans, traces = counted or (0, 0)
                if apply:
                    self._apply(connection, parameters, name=name, now=now)
                    self._tombstones.add(name, to_micros(now))
            if apply:
                # Old versions leave the log and their blocks; if others write, the next one does.
                checkpoint(connection)
        except duckdb.Error as error:
            raise StoreUnavailableError(f"span store: {error}") from error
        finally:
            connection.close()
        return Erased(spans=int(spans), traces=int(traces), applied=apply)

    def _apply(
        self,
        connection: duckdb.DuckDBPyConnection,
        parameters: dict[str, str],
        *,
        name: str,
        now: datetime,
    ) -> None:
        for statement in ("bury_traces", "erase_content", "erase_spans", "erase_attributes"):
            connection.execute(read_sql(statement))
        for table in ("grouped_call", "replaced_call", "adjustment"):
            connection.execute(
                f"UPDATE {table} SET user_id = NULL WHERE tenant = $tenant AND user_id = $user_id",  # noqa: S608 - one of three names
                parameters,
            )
        connection.execute(
            "INSERT INTO tombstone VALUES ($name, $now)"
            " ON CONFLICT (subject_hash) DO UPDATE SET erased_at = excluded.erased_at",
            {"name": name, "now": now},
        )
