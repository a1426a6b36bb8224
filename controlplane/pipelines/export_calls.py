"""Calls of a window → files of them, and of what was booked about closed periods."""

from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa

from controlplane.exports.traces import to_csv, to_parquet, totals
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.signed_directory import Part, Stamp
from controlplane.signals.queries import CallQuery
from controlplane.signals.schema import CALL_SCHEMA

WRITERS: Final[dict[str, Callable[[pa.Table], bytes]]] = {"parquet": to_parquet, "csv": to_csv}


def call_parts(sources: ExportSources, request: ExportRequest, _stamp: Stamp) -> Iterator[Part]:
    """Yield the calls, oldest first, in files of at most `rows_per_file`, at least one.

    What was booked in the window about closed periods is a file of its own, where there is any.
    """
    asked = CallQuery(tenants=(request.tenant,), window=request.window)
    batches = sources.reader.call_batches(asked)
    write = WRITERS[request.file_format]
    for number, table in enumerate(_in_files(batches, request)):
        total, unpriced = totals(table)
        yield Part(
            name=f"calls-{number:05d}.{request.file_format}",
            body=write(table),
            rows=table.num_rows,
            total_nusd=total,
            unpriced_rows=unpriced,
        )
    booked = sources.reader.corrections((request.tenant,), request.window)
    if booked.num_rows:
        costs = booked.rename_columns({"delta_nusd": "cost_nusd"})
        yield Part(
            name=f"corrections.{request.file_format}",
            body=write(costs),
            rows=costs.num_rows,
            total_nusd=totals(costs)[0],
        )


def _in_files(batches: Iterator[pa.Table], request: ExportRequest) -> Iterator[pa.Table]:
    most = request.rows_per_file
    held = CALL_SCHEMA.empty_table()
    made = 0
    for batch in batches:
        held = pa.concat_tables([held, batch])
        while held.num_rows >= most:
            yield held.slice(0, most)
            held, made = held.slice(most), made + 1
    if held.num_rows or not made:
        yield held
