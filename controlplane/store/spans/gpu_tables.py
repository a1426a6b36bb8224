"""Where GPU cost is kept: replaced bucket by bucket, so that working it out again changes nothing."""

import threading
from datetime import datetime, timedelta
from typing import Final

import duckdb
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.errors import StoreUnavailableError
from controlplane.pricing.gpu_ports import BucketBill
from controlplane.signals.gpu import CALL_COST_SCHEMA, SHARE_SCHEMA
from controlplane.signals.schema import SPAN_SCHEMA, TIMESTAMP
from controlplane.store.spans.database import SpanDatabase, load, read_sql, transaction
from controlplane.store.spans.rows import from_rows

LOOK_BACK: Final = timedelta(hours=6)
"""A request that runs longer than this is not found by its end any more."""


class GpuTables:
    """Implements `GpuStore`; writing is safe from any thread."""

    def __init__(self, database: SpanDatabase) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._connection = database.connect()

    def served_calls(self, window: Window) -> pa.Table:
        """See `GpuStore.served_calls`."""
        parameters = {
            "from": window.start - LOOK_BACK,
            "start": window.start,
            "end": window.end,
        }
        with self._database.reading() as connection:
            found = connection.execute(read_sql("served_calls"), parameters).to_arrow_table()
        at = found.schema.get_field_index("start_time")
        return found.set_column(at, "start_time", found.column("start_time").cast(TIMESTAMP))

    def sample_tenants(self) -> tuple[str, ...]:
        """See `GpuStore.sample_tenants`."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT tenant FROM sample").fetchall()
        return tuple(sorted(row[0] for row in rows))

    def fingerprint(self, pool: str, bucket: datetime) -> int | None:
        """See `GpuStore.fingerprint`."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT fingerprint FROM gpu_bucket WHERE pool = ? AND bucket = ?", [pool, bucket]
            ).fetchone()
        return None if row is None else int(row[0])

    def replace(self, bill: BucketBill, shares: pa.Table, calls: pa.Table) -> None:
        """See `GpuStore.replace`."""
        key = {"pool": bill.pool, "bucket": bill.bucket}
        with self._lock:
            try:
                with transaction(self._connection):
                    for table in ("gpu_bucket", "gpu_share", "gpu_call"):
                        self._connection.execute(
                            f"DELETE FROM {table} WHERE pool = $pool AND bucket = $bucket",  # noqa: S608 - ours
                            key,
                        )
                    load(self._connection, gpu_new_share=shares, gpu_new_call=calls)
                    self._connection.execute("INSERT INTO gpu_share BY NAME FROM gpu_new_share")
                    self._connection.execute("INSERT INTO gpu_call BY NAME FROM gpu_new_call")
                    self._connection.execute(
                        "INSERT INTO gpu_bucket VALUES (?, ?, ?, ?, ?, ?, ?)",
                        [
                            bill.pool,
                            bill.bucket,
                            bill.bill_nusd,
                            bill.busy_ratio,
                            bill.confidence,
                            bill.fingerprint,
                            bill.computed_at,
                        ],
                    )
            except duckdb.Error as error:
                raise StoreUnavailableError(f"span store: {error}") from error

    def unbilled_reports(self, bucket: Window) -> pa.Table:
        """See `GpuStore.unbilled_reports`."""
        columns = ", ".join(f"span.{name}" for name in SPAN_SCHEMA.names)
        parameters = {"from": bucket.start - LOOK_BACK, "end": bucket.end}
        with self._database.reading() as connection:
            connection.execute(read_sql("gpu_cost"), {"bucket": bucket.start})
            sql = read_sql("gpu_reports").format(columns=columns)
            found = connection.execute(sql, parameters).to_arrow_table()
        reports = from_rows(found.select(SPAN_SCHEMA.names)).cast(SPAN_SCHEMA)
        return reports.append_column("gpu_nusd", found.column("gpu_nusd")).append_column(
            "pool", found.column("pool")
        )

    def shares(
        self, tenants: tuple[str, ...], window: Window, *, with_idle: bool, by_bucket: bool
    ) -> pa.Table:
        """See `GpuStore.shares`."""
        parameters = {
            "tenants": list(tenants),
            "start": window.start,
            "end": window.end,
            "idle": with_idle,
        }
        sql = read_sql("gpu_rows").format(period="bucket, " if by_bucket else "")
        with self._database.reading() as connection:
            found = connection.execute(sql, parameters).to_arrow_table()
        schema = SHARE_SCHEMA if by_bucket else SHARE_SCHEMA.remove(1)
        return found.select(schema.names).cast(schema)

    def bearers(self, window: Window) -> tuple[str, ...]:
        """See `GpuStore.bearers`."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT tenant FROM gpu_share WHERE bucket >= $start AND bucket < $end"
                " AND is_idle AND tenant <> '' ORDER BY tenant",
                {"start": window.start, "end": window.end},
            ).fetchall()
        return tuple(row[0] for row in rows)

    def bills(self, window: Window) -> pa.Table:
        """See `GpuStore.bills`."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT pool, sum(bill_nusd)::BIGINT AS bill_nusd, avg(busy_ratio) AS busy_ratio,"
                " min(confidence) AS confidence, count(*) AS buckets FROM gpu_bucket"
                " WHERE bucket >= $start AND bucket < $end GROUP BY pool ORDER BY pool",
                {"start": window.start, "end": window.end},
            )
            return found.to_arrow_table()

    def call_cost(self, tenants: tuple[str, ...], call_id: str) -> pa.Table:
        """See `GpuStore.call_cost`."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT pool, bucket, call_id, tenant, cost_nusd, idle_nusd FROM gpu_call"
                " WHERE call_id = $call_id AND tenant = ANY($tenants) ORDER BY bucket",
                {"call_id": call_id, "tenants": list(tenants)},
            ).to_arrow_table()
        return found.select(CALL_COST_SCHEMA.names).cast(CALL_COST_SCHEMA)
