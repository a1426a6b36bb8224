"""Calls as files that other programs read: Parquet, and CSV for people."""

from decimal import Context, Decimal
from io import BytesIO
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from controlplane.core.money import format_usd, parse_usd
from controlplane.signals.hex_ids import span_hex, trace_hex

ID_COLUMNS: Final = ("trace_hi", "trace_lo", "span_id", "parent_span_id")
_WIDE: Final = Context(prec=60)
FORMULA_STARTS: Final = r"^[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n\x00']"
"""Texts that a spreadsheet could run (CWE-1236; OWASP's CSV Injection page, which lists line feeds
and the full-width signs, too), and those that look escaped already."""


def readable(table: pa.Table) -> pa.Table:
    """Return the table with ids as the hex that people search for, and maps as JSON text."""
    if "trace_hi" not in table.column_names:
        return table
    frame = table.select([c for c in table.column_names if c not in ID_COLUMNS])
    halves = zip(table["trace_hi"].to_numpy(), table["trace_lo"].to_numpy(), strict=True)
    trace_ids = [trace_hex(int(hi), int(lo)) for hi, lo in halves]
    spans = [span_hex(int(span)) for span in table["span_id"].to_numpy()]
    frame = frame.add_column(0, "span_id", pa.array(spans, pa.string()))
    return frame.add_column(0, "trace_id", pa.array(trace_ids, pa.string()))


def to_parquet(table: pa.Table) -> bytes:
    """Write Parquet with zstd; money stays integer nano-USD."""
    buffer = BytesIO()
    # One chunk: page boundaries, and so the bytes, must not depend on how the rows were fetched.
    pq.write_table(readable(table).combine_chunks(), buffer, compression="zstd")
    return buffer.getvalue()


def to_csv(table: pa.Table) -> bytes:
    """Write CSV; `*_nusd` columns become `*_usd`, `amount_nano` `amount`: exact decimals.

    A text that starts like a formula gets a single quote in front; taking one off where a text
    starts with one gives it back. Numbers are left alone.
    """
    flat = readable(table)
    if "attributes" in flat.column_names:
        flat = flat.drop_columns(["attributes"])  # Parquet has them; CSV has no map
    text = pl.col(pl.String)
    frame = pl.DataFrame(pl.from_arrow(flat)).with_columns(
        pl.when(text.str.contains(FORMULA_STARTS)).then("'" + text).otherwise(text).name.keep()
    )
    for name in [name for name in frame.columns if name.endswith(("_nusd", "_nano"))]:
        usd = [None if nusd is None else format_usd(nusd) for nusd in frame[name].to_list()]
        title = name.removesuffix("_nano").replace("_nusd", "_usd")
        frame.replace_column(frame.columns.index(name), pl.Series(title, usd, pl.String))
    return frame.write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ").encode()


def totals(table: pa.Table) -> tuple[int, int]:
    """Return the sum of `cost_nusd` in nano-USD and the number of rows without one."""
    costs = table["cost_nusd"].to_pylist()
    known = [cost for cost in costs if cost is not None]
    return sum(known), len(costs) - len(known)


FOCUS_COSTS: Final = ("x_UsdEffectiveCost", "BilledCost")
"""What a FOCUS row costs in USD; the second in files from before there were other currencies."""
COST_COLUMNS: Final = ("cost_usd", *FOCUS_COSTS)
"""What a row costs, in our files and in FOCUS."""


def parse_csv_totals(body: bytes) -> tuple[int, int, int]:
    """Return (rows, sum of the costs in nano-USD, rows without a cost) of our own CSV.

    Raises:
        InvalidInputError, KeyError, polars' errors: it is not one.
    """
    frame = pl.read_csv(BytesIO(body), infer_schema=False)
    name = next((name for name in COST_COLUMNS if name in frame.columns), None)
    if name is None:
        raise KeyError(COST_COLUMNS)
    costs = frame[name].to_list()
    known = [parse_usd(cost, field="cost_usd") for cost in costs if cost is not None]
    return len(costs), sum(known), len(costs) - len(known)


def parquet_totals(body: bytes) -> tuple[int, int, int]:
    """Return (rows, sum of the costs in nano-USD, rows without a cost) of our own Parquet.

    Raises:
        pa.ArrowException, KeyError, OSError: it is not one.
    """
    names = pq.read_schema(BytesIO(body)).names
    focus = next((name for name in FOCUS_COSTS if name in names), None)
    if focus is not None:
        costs: list[Any] = pq.read_table(BytesIO(body), columns=[focus])[0].to_pylist()
        return len(costs), sum(int(Decimal(cost).scaleb(9, _WIDE)) for cost in costs), 0
    table = pq.read_table(BytesIO(body), columns=["cost_nusd"])
    total, missing = totals(table)
    return table.num_rows, total, missing
