"""Answer a planned cost question: the cube where it is current, calls where it is not."""

from datetime import datetime
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.calendar import Window
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.signals.schema import TIMESTAMP
from controlplane.store.spans.cube import BOOKED_SQL, call_sums, cube_sums, value_of
from controlplane.store.spans.database import load, read_sql
from controlplane.store.spans.filters import filter_sql
from controlplane.usage.cost_plan import BUCKET, CostPlan

MAX_SCANS: Final = 32
"""Separate ranges of calls read for buckets that still move; more are read as one."""
MAX_SINGLE: Final = 4
"""Moving buckets that are each read on their own."""


def cost_answer(
    connection: duckdb.DuckDBPyConnection, query: CostQuery, plan: CostPlan
) -> pa.Table:
    """Sum what the plan names; one row per period and group that has calls or cost."""
    schema = answer_schema(query, plan)
    if not query.tenants or query.window.start >= query.window.end:
        return schema.empty_table()
    bounds = {
        "cube_start": plan.from_cube.start,
        "cube_end": plan.from_cube.end,
        "tenants": list(query.tenants),
    }
    connection.execute(read_sql("open_buckets"), bounds)
    parts = [_from_cube(connection, plan, bounds)]
    parts += [
        _from_calls(connection, plan, bounds, scan=w) for w in _scans(connection, query, plan)
    ]
    starts = pa.array([window.start for window in plan.periods], TIMESTAMP)
    period = pa.table([starts], names=["period_start"])
    load(connection, part=pa.concat_tables(parts), period=period)
    found = connection.execute(_fold_sql(query, plan)).to_arrow_table()
    return found.select(schema.names).cast(schema)


def repeated_answer(
    connection: duckdb.DuckDBPyConnection, query: CostQuery, plan: CostPlan
) -> pa.Table:
    """Sum the calls that repeat another, by group."""
    total = msgspec.structs.replace(query, granularity=Granularity.TOTAL)
    schema = answer_schema(total, plan)
    parameters: dict[str, Any] = {
        "start": query.window.start,
        "end": query.window.end,
        "tenants": list(query.tenants),
    }
    sql = read_sql("repeated_calls").format(
        groups=_named(plan),
        sums=call_sums(plan.measures),
        filters=filter_sql(plan.filters, parameters, of_booked=True),
        booked=BOOKED_SQL,
    )
    found = connection.execute(sql, parameters).to_arrow_table()
    rows = found.filter(
        pc.greater(found["calls"], pa.scalar(0))
    )  # without groups there is always one
    return rows.select(schema.names).cast(schema)


def answer_schema(query: CostQuery, plan: CostPlan) -> pa.Schema:
    """Name and type the columns of an answer."""
    columns: list[tuple[str, pa.DataType]] = []
    if query.granularity is not Granularity.TOTAL:
        columns.append(("bucket_start", TIMESTAMP))
    columns += [(group.name, pa.string()) for group in plan.groups]
    columns += [(measure, pa.int64()) for measure in plan.measures]
    return pa.schema(columns)


def _named(plan: CostPlan) -> str:
    return "".join(f"{value_of(group, of_booked=True)} AS {group.name}, " for group in plan.groups)


def _from_cube(
    connection: duckdb.DuckDBPyConnection, plan: CostPlan, bounds: dict[str, Any]
) -> pa.Table:
    parameters = dict(bounds)
    sql = read_sql("cube_answer").format(
        # Outside the cube's dimensions its window is empty; the columns must still be there.
        groups="".join(
            f"{group.name}, " if group.in_cube else f"NULL::VARCHAR AS {group.name}, "
            for group in plan.groups
        ),
        sums=cube_sums(plan.measures),
        filters=filter_sql((f for f in plan.filters if f[0].in_cube), parameters, of_cube=True),
    )
    return connection.execute(sql, parameters).to_arrow_table()


def _from_calls(
    connection: duckdb.DuckDBPyConnection,
    plan: CostPlan,
    bounds: dict[str, Any],
    *,
    scan: Window,
) -> pa.Table:
    parameters = {**bounds, "scan_start": scan.start, "scan_end": scan.end}
    # A bucket on its own names itself: half of the work would go into working out each call's.
    is_one = scan.end - scan.start == BUCKET and plan.from_cube.contains(scan.start)
    if is_one:
        parameters["bucket"] = scan.start
        del parameters["cube_start"], parameters["cube_end"]
    sql = read_sql("call_answer").format(
        bucket="$bucket" if is_one else "bucket_of(start_time)",
        is_outside="false" if is_one else "start_time < $cube_start OR start_time >= $cube_end",
        groups=_named(plan),
        sums=call_sums(plan.measures),
        filters=filter_sql(plan.filters, parameters, of_booked=True),
        booked=BOOKED_SQL,
    )
    return connection.execute(sql, parameters).to_arrow_table()


def _scans(connection: duckdb.DuckDBPyConnection, query: CostQuery, plan: CostPlan) -> list[Window]:
    """Which ranges of calls to read: the window's ends inside a bucket, and moving buckets."""
    ends = [
        Window(query.window.start, plan.from_cube.start),
        Window(max(plan.from_cube.end, query.window.start), query.window.end),
    ]
    found = connection.execute("SELECT DISTINCT bucket FROM open_bucket ORDER BY bucket")
    buckets = [at for at in found.to_arrow_table().column(0).to_pylist() if at is not None]
    return [window for window in ends if window.start < window.end] + _runs(buckets)


def _runs(buckets: list[datetime]) -> list[Window]:
    """Merge adjacent buckets into ranges, unless they are few."""
    if len(buckets) <= MAX_SINGLE:
        return [Window(at, at + BUCKET) for at in buckets]
    runs: list[Window] = []
    for at in buckets:
        if runs and runs[-1].end == at:
            runs[-1] = Window(runs[-1].start, at + BUCKET)
        else:
            runs.append(Window(at, at + BUCKET))
    return runs if len(runs) <= MAX_SCANS else [Window(runs[0].start, runs[-1].end)]


def _fold_sql(query: CostQuery, plan: CostPlan) -> str:
    """Sum the parts per period and group."""
    names = [group.name for group in plan.groups]
    bucket, source = "", "part"
    if query.granularity is Granularity.QUARTER_HOUR:
        bucket = "bucket AS bucket_start, "
    elif query.granularity is not Granularity.TOTAL:
        bucket = "period_start AS bucket_start, "
        source = "part ASOF JOIN period ON part.bucket >= period.period_start"
    order = [*(["bucket_start"] if bucket else []), "cost_nusd DESC", *names]
    groups = "".join(f"{name}, " for name in names)
    # A correction is no call and may cost nothing: it can move usage alone.
    said = " OR ".join(f"sum({measure}) <> 0" for measure in plan.measures)
    return " ".join(
        [
            f"SELECT {bucket}{groups}{cube_sums(plan.measures)}",
            f"FROM {source}",
            f"GROUP BY ALL HAVING {said}",
            f"ORDER BY {', '.join(order)}",
        ]
    )
