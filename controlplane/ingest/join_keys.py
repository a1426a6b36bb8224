"""Which ids may join reports, decided over the whole set (algorithms C2).

A span store keeps this decision in SQL; here it is for tables that never were stored, and it is
the statement that the store's is tested against.
"""

import re
from collections import Counter
from typing import Final

import pyarrow as pa

from controlplane.ingest.settlement import JOIN_FLAGS, JOINABLE_SCHEMA
from controlplane.ingest.span_hash import start_micros

MAX_SHARERS: Final = 16
"""Reports that may share an id within one UTC hour of their start: a handful of layers and
libraries report one call; what more share is a constant, a cache's or a caller's id."""

MAX_IN_TRACE: Final = 2_000
"""Reports of one trace that ancestry is worked out for."""

MIN_OWN_CHARACTERS: Final = 8
_VENDOR_PREFIX: Final = re.compile("^[A-Za-z]{1,12}[-_]")
_HOUR_US: Final = 3_600_000_000


def is_join_key(value: str | None) -> bool:
    """Whether an id has enough of its own to name one response.

    The vendor's prefix (`chatcmpl-`, `msg_`) says nothing; fewer than eight characters after it
    are a counter or a small random number (Ollama sends 0-999), which repeat within minutes.
    """
    return bool(value) and len(_VENDOR_PREFIX.sub("", value or "")) >= MIN_OWN_CHARACTERS


def with_join_flags(reports: pa.Table) -> pa.Table:
    """Append JOIN_FLAGS to a closed set of REPORT_SCHEMA rows."""
    domains = reports.column("domain").to_pylist()
    hours = (start_micros(reports) // _HOUR_US).tolist()
    flags = []
    for name in ("response_id", "gateway_call_id"):
        ids = reports.column(name).to_pylist()
        cells = list(zip(domains, ids, hours, strict=True))
        sharers = Counter(cells)
        flags.append([is_join_key(cell[1]) and sharers[cell] <= MAX_SHARERS for cell in cells])
    halves = (reports.column(name).to_pylist() for name in ("trace_hi", "trace_lo"))
    traces = list(zip(domains, *halves, strict=True))
    in_trace = Counter(traces)
    flags.append([in_trace[trace] <= MAX_IN_TRACE for trace in traces])
    for field, values in zip(JOIN_FLAGS, flags, strict=True):
        reports = reports.append_column(field, pa.array(values, pa.bool_()))
    return reports.cast(JOINABLE_SCHEMA)
