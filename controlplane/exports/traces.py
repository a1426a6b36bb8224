"""Calls and spans as files that other programs read: Parquet, and CSV for people."""

from io import BytesIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from controlplane.core.money import NUSD_PER_USD, format_usd
from controlplane.signals.hex_ids import span_hex, trace_hex

ID_COLUMNS = ("trace_hi", "trace_lo", "span_id", "parent_span_id")
USD_SCALE = 9


def readable(table: pa.Table) -> pa.Table:
    """Return the table with ids as the hex that people search for, and maps as JSON text."""
    frame = table.select([c for c in table.column_names if c not in ID_COLUMNS])
    halves = zip(table["trace_hi"].to_numpy(), table["trace_lo"].to_numpy(), strict=True)
    trace_ids = [trace_hex(int(hi), int(lo)) for hi, lo in halves]
    spans = [span_hex(int(span)) for span in table["span_id"].to_numpy()]
    frame = frame.add_column(0, "span_id", pa.array(spans, pa.string()))
    return frame.add_column(0, "trace_id", pa.array(trace_ids, pa.string()))


def to_parquet(table: pa.Table) -> bytes:
    """Write Parquet with zstd; money stays integer nano-USD."""
    buffer = BytesIO()
    pq.write_table(readable(table), buffer, compression="zstd")
    return buffer.getvalue()


def to_csv(table: pa.Table) -> bytes:
    """Write CSV; `*_nusd` columns become `*_usd`, exact decimals without exponent."""
    frame = readable(table)
    for name in [c for c in frame.column_names if c.endswith("_nusd")]:
        usd = [None if nusd is None else format_usd(nusd) for nusd in frame[name].to_pylist()]
        index = frame.column_names.index(name)
        title = name.removesuffix("_nusd") + "_usd"
        frame = frame.set_column(index, title, pa.array(usd, pa.string()))
    if "attributes" in frame.column_names:
        frame = frame.drop_columns(["attributes"])  # Parquet has them; CSV has no map
    written: str = pl.DataFrame(pl.from_arrow(frame)).write_csv(
        datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ"
    )
    return written.encode()


def totals(table: pa.Table) -> tuple[int, int]:
    """Return the sum of `cost_nusd` in nano-USD and the number of rows without one."""
    costs = table["cost_nusd"].to_pylist()
    known = [cost for cost in costs if cost is not None]
    return sum(known), len(costs) - len(known)


def parse_csv_totals(body: bytes) -> tuple[int, int, int]:
    """Return (rows, sum of `cost_usd` in nano-USD, rows without a cost) of our own CSV."""
    frame = pl.read_csv(BytesIO(body), infer_schema=False)
    costs = frame["cost_usd"].to_list()
    known = [_nusd(cost) for cost in costs if cost is not None]
    return len(costs), sum(known), len(costs) - len(known)


def parquet_totals(body: bytes) -> tuple[int, int, int]:
    """Return (rows, sum of `cost_nusd`, rows without a cost) of our own Parquet."""
    table = pq.read_table(BytesIO(body), columns=["cost_nusd"])
    total, missing = totals(table)
    return table.num_rows, total, missing


def _nusd(usd: str) -> int:
    whole, _, rest = usd.partition(".")
    sign = -1 if whole.startswith("-") else 1
    return sign * (abs(int(whole)) * NUSD_PER_USD + int(rest.ljust(USD_SCALE, "0") or 0))
