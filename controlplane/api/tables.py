"""Tables on the wire: Arrow IPC for programs that ask, JSON for everybody else.

Both forms have the same columns: ids are hex, `*_nusd` stands beside `*_usd` as a decimal string.
In JSON `*_nusd` is a string too, because a 64-bit integer is not safe in every reader.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
from litestar import Response

from controlplane.api.guards import ApiRequest
from controlplane.core.money import format_usd
from controlplane.signals.hex_ids import span_hex, trace_hex

ARROW: Final = "application/vnd.apache.arrow.stream"
META_KEY: Final = b"controlplane.meta"
"""Where an Arrow stream's schema metadata carries what JSON has under `meta`."""


def respond(request: ApiRequest, table: pa.Table, *, meta: dict[str, Any]) -> Response[bytes]:
    """Answer a table in the form that the Accept header asks for."""
    shown = for_people(table)
    if ARROW in request.headers.get("accept", ""):
        return Response(to_arrow(shown, meta), media_type=ARROW)
    return Response(to_json(shown, meta), media_type="application/json")


def for_people(table: pa.Table) -> pa.Table:
    """Replace raw ids by hex and put a `*_usd` column before each `*_nusd` column."""
    for name, column in (("span_id", span_hex), ("parent_span_id", _parent_hex)):
        table = _mapped(table, name, column)
    if "trace_hi" in table.column_names:
        halves: list[list[Any]] = [table[half].to_pylist() for half in ("trace_hi", "trace_lo")]
        at = table.schema.get_field_index("trace_hi")
        hexes = pa.array([trace_hex(hi, lo) for hi, lo in zip(*halves, strict=True)], pa.string())
        table = table.drop_columns(["trace_hi", "trace_lo"]).add_column(at, "trace_id", hexes)
    for name in [n for n in table.column_names if n.endswith("_nusd")]:
        values = [None if v is None else format_usd(v) for v in table[name].to_pylist()]
        at = table.schema.get_field_index(name)
        usd = name.removesuffix("_nusd") + "_usd"
        table = table.add_column(at, usd, pa.array(values, pa.string()))
    return table


def _parent_hex(span_id: int) -> str | None:
    return span_hex(span_id) if span_id else None


def _mapped(table: pa.Table, name: str, change: Callable[[int], str | None]) -> pa.Table:
    if name not in table.column_names:
        return table
    at = table.schema.get_field_index(name)
    values = [None if v is None else change(v) for v in table[name].to_pylist()]
    return table.set_column(at, name, pa.array(values, pa.string()))


def to_arrow(table: pa.Table, meta: dict[str, Any]) -> bytes:
    """Write an IPC stream whose schema metadata holds `meta` as JSON."""
    table = table.replace_schema_metadata({META_KEY: msgspec.json.encode(meta)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def to_json(table: pa.Table, meta: dict[str, Any]) -> bytes:
    """Write `{"columns": […], "rows": [{…}], "meta": {…}}`."""
    columns = [[_plain(name, v) for v in table[name].to_pylist()] for name in table.column_names]
    rows = [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    return msgspec.json.encode({"columns": table.column_names, "rows": rows, "meta": meta})


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("_nusd"):
        return str(value)
    if name == "attributes":
        return dict(value)
    return rfc3339(value) if isinstance(value, datetime) else value


def rfc3339(at: datetime) -> str:
    """Write an instant in UTC with a Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
