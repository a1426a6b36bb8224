"""Recorded text as the API writes it: what was taken out of it, and until when it is kept."""

import re
from datetime import datetime
from typing import Any

import pyarrow as pa

from controlplane.api.tables import rfc3339
from controlplane.signals.content import Recording
from controlplane.signals.schema import TIMESTAMP


def content_rows(table: pa.Table, recording: Recording, *, now: datetime) -> pa.Table:
    """Add to CONTENT_SCHEMA rows `redactions` and `kept_until`; leave out what is past its time.

    `redactions` are the marks in the text, comma-joined, once each. A text that itself held such a
    word in brackets looks the same.
    """
    until = [_instant(start) + recording.kept for start in table.column("start_time").to_pylist()]
    table = table.append_column("kept_until", pa.array(until, TIMESTAMP))
    table = table.filter(pa.array([at > now for at in until], pa.bool_()))
    names = "|".join(map(re.escape, recording.marks))
    mark = re.compile(rf"\[({names})\]") if names else None
    found = [
        ",".join(dict.fromkeys(mark.findall(str(text)))) if mark is not None else ""
        for text in table.column("text").to_pylist()
    ]
    return table.append_column("redactions", pa.array(found, pa.string()))


def _instant(value: datetime | None) -> datetime:
    if value is None:
        raise ValueError("a text without a time")  # the schema has none
    return value


def content_meta(trace_id: str, table: pa.Table, recording: Recording) -> dict[str, Any]:
    """Describe an answer of `content_rows`."""
    until = [at for at in table.column("kept_until").to_pylist() if at is not None]
    return {
        "trace_id": trace_id,
        "texts": table.num_rows,
        "capture": recording.capture,
        "retention_days": recording.retention_days,
        "kept_until": rfc3339(min(until)) if until else None,
        "marks": list(recording.marks),
    }
