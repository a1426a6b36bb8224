"""What span events add: when the first token came, and which exception ended the call."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, Int64s, contiguous, raw_numbers
from controlplane.ingest.reading import Read

_EXCEPTION: Final = "exception"
_EXCEPTION_TYPE: Final = "exception.type"
_NANO_PER_MICRO: Final = 1000


def has_events(events: Column) -> bool:
    """Whether any span has an event."""
    return len(contiguous(events).flatten()) > 0


def first_tokens(events: Column, claims: Claims, *, start_micros: Int64s) -> Read:
    """Answer the microseconds from a span's start to its dialect's first-token event."""
    lists = contiguous(events)
    flat = lists.flatten()
    rows = _rows(lists)
    micros = (raw_numbers(flat.field("time_unix_nano")) // np.uint64(_NANO_PER_MICRO)).astype(
        np.int64
    )
    values = np.zeros(len(lists), dtype=np.int64)
    said = np.zeros(len(lists), dtype=np.bool_)
    names = np.array(flat.field("name").to_pylist(), dtype=object)
    for dialect, claimed in claims.present:
        marks = np.isin(names, list(dialect.first_token_events)) & claimed[rows]
        for at in np.flatnonzero(marks)[::-1].tolist():  # backwards: the first one is written last
            after = int(micros[at] - start_micros[rows[at]])
            if after >= 0:
                values[rows[at]], said[rows[at]] = after, True
    return values, said


def exception_types(events: Column, wanted: Bools) -> list[tuple[int, str]]:
    """Answer (row, exception.type) of wanted rows that have an exception event, the last one."""
    lists = contiguous(events)
    found: list[tuple[int, str]] = []
    for row in np.flatnonzero(wanted).tolist():
        for event in reversed(lists[row].as_py()):
            kind = _exception_type(event["attributes"]) if event["name"] == _EXCEPTION else None
            if kind:
                found.append((row, kind))
                break
    return found


def _exception_type(attributes: Sequence[bytes]) -> str | None:
    for encoded in attributes:
        try:
            pair = pb.KeyValue.FromString(encoded)
        except DecodeError:
            continue
        if pair.key == _EXCEPTION_TYPE and pair.value.string_value:
            return pair.value.string_value
    return None


def _rows(lists: Column) -> Int64s:
    lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
    return np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
