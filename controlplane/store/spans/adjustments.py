"""What is booked beside calls: adjustments, of which some are corrections of closed periods.

Whoever finds that a closed period's cost was wrong, a re-rate or a report that came late, books it
here: the closed calls stay, and the difference is charged now, in the bucket it was booked in.
"""

from datetime import datetime
from typing import Any, Final

import duckdb
import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.pricing.rerate import CORRECTED_SCHEMA
from controlplane.store.spans.correction_sql import DUE_CORRECTIONS
from controlplane.store.spans.database import load, read_sql

_MARK: Final = (
    "INSERT INTO dirty (tenant, bucket, marked_at)"
    " SELECT DISTINCT tenant, bucket_of(applied_at), $now::TIMESTAMPTZ FROM adjustment"
    " WHERE is_correction AND posting > (SELECT posted FROM adjustment_state)"
)
"""The buckets that corrections are charged in have changed."""


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """Who books, and when."""

    run_id: str
    price_version: str
    zone: str
    """Of the calendar that closes periods: a correction names a day of it."""
    now: datetime


def due_corrections(
    connection: duckdb.DuckDBPyConnection,
    adjustments: pa.Table,
    day: Window,
    *,
    tenants: tuple[str, ...] = (),
) -> pa.Table:
    """Turn a closed day's ADJUSTMENT_SCHEMA rows into CORRECTED_SCHEMA rows against what was booked last.

    Args:
        connection: reads the adjustments there are.
        adjustments: every call of the day whose price differs from the stored one.
        day: the closed day, or the part of it that is closed.
        tenants: whose calls they are; empty is every tenant's.
    """
    load(connection, adjusted=adjustments)
    asked: dict[str, Any] = {"start": day.start, "end": day.end, "tenants": list(tenants)}
    found = connection.execute(DUE_CORRECTIONS, asked).to_arrow_table()
    return found.select(CORRECTED_SCHEMA.names).cast(CORRECTED_SCHEMA)


def book_adjustments(
    connection: duckdb.DuckDBPyConnection, adjustments: pa.Table, booking: Booking
) -> None:
    """Append ADJUSTMENT_SCHEMA rows as one posting; in the caller's transaction.

    The buckets that corrections are charged in are marked; those of changed calls are the caller's.
    """
    if not adjustments.num_rows:
        return
    load(connection, adjusted=_with_days(adjustments, booking.zone))
    connection.execute(
        "INSERT INTO adjustment BY NAME SELECT *, $run_id AS run_id,"
        " $price_version AS price_version, $now::TIMESTAMPTZ AS applied_at,"
        " (SELECT nextval('adjustment_posting')) AS posting FROM adjusted",
        {"run_id": booking.run_id, "price_version": booking.price_version, "now": booking.now},
    )
    connection.execute(_MARK, {"now": booking.now})


def take_adjustments(
    connection: duckdb.DuckDBPyConnection, adjustments: pa.Table, *, now: datetime
) -> None:
    """Keep another store's adjustments, whose ledger has them all; in the caller's transaction."""
    load(connection, taken=adjustments)
    connection.execute("INSERT INTO adjustment BY NAME FROM taken")
    connection.execute(_MARK, {"now": now})
    connection.execute(
        "UPDATE adjustment_state SET posted = (SELECT max(posting) FROM adjustment)"
        " WHERE (SELECT count(*) FROM adjustment) > 0"
    )
    last = connection.execute("SELECT coalesce(max(posting), 0) FROM adjustment").fetchone()
    connection.execute(
        f"CREATE OR REPLACE SEQUENCE adjustment_posting START {int(last[0]) + 1 if last else 1}"
    )


def repost_adjustments(connection: duckdb.DuckDBPyConnection, *, after: int) -> None:
    """Answer every posting as unposted again, to a ledger that has calls up to a version.

    It knows the postings that it has. A re-rate of an open call that comes whole again is left out:
    the call comes at its present price. In the caller's transaction.
    """
    connection.execute("DELETE FROM adjustment_left_out")
    connection.execute(read_sql("left_out"), {"after": after})
    connection.execute("UPDATE adjustment_state SET posted = 0")


def _with_days(adjustments: pa.Table, zone: str) -> pa.Table:
    """Add `corrects`: the local day of what a correction is about, NULL for other rows."""
    frame = pl.DataFrame(pl.from_arrow(adjustments.select(["start_time", "is_correction"])))
    day = pl.col("start_time").dt.convert_time_zone(zone).dt.strftime("%Y-%m-%d")
    days = frame.select(pl.when(pl.col("is_correction")).then(day).otherwise(None)).to_series()
    return adjustments.append_column("corrects", days.to_arrow().cast(pa.string()))
