"""What span events add: when the first token came, and which exception ended the call."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, Int64s, contiguous, raw_numbers
from controlplane.ingest.reading import Read

_EXCEPTION: Final = "exception"
_EXCEPTION_TYPE: Final = "exception.type"
_EXCEPTION_MESSAGE: Final = "exception.message"
_READ: Final = frozenset({_EXCEPTION_TYPE, _EXCEPTION_MESSAGE})
_NANO_PER_MICRO: Final = 1000


def has_events(events: Column) -> bool:
    """Whether any span has an event."""
    return len(contiguous(events).flatten()) > 0


def first_tokens(events: Column, claims: Claims, *, start_micros: Int64s) -> Read:
    """Answer the microseconds from a span's start to its dialect's first-token event."""
    lists = contiguous(events)
    flat = lists.flatten()
    rows = _rows(lists)
    micros = _micros(flat)
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


class RaisedException(NamedTuple):
    """What an exception event says."""

    kind: str | None
    message: str | None


def exceptions(events: Column, wanted: Bools) -> dict[int, RaisedException]:
    """Answer, for wanted rows that have an exception event, the last one that says anything."""
    lists = contiguous(events)
    found: dict[int, RaisedException] = {}
    for row in np.flatnonzero(wanted).tolist():
        for event in reversed(lists[row].as_py()):
            raised = _raised(event["attributes"]) if event["name"] == _EXCEPTION else None
            if raised and (raised.kind or raised.message):
                found[row] = raised
                break
    return found


def _raised(attributes: Sequence[bytes]) -> RaisedException:
    said: dict[str, str] = {}
    for encoded in attributes:
        try:
            pair = pb.KeyValue.FromString(encoded)
        except DecodeError:
            continue
        if pair.key in _READ and pair.value.string_value:
            said.setdefault(pair.key, pair.value.string_value)
    return RaisedException(said.get(_EXCEPTION_TYPE), said.get(_EXCEPTION_MESSAGE))


def _micros(flat: Column) -> Int64s:
    nanos = raw_numbers(flat.field("time_unix_nano"))
    return (nanos // np.uint64(_NANO_PER_MICRO)).astype(np.int64)


def _rows(lists: Column) -> Int64s:
    lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
    return np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
