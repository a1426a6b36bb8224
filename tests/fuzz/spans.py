"""Well-formed spans out of arbitrary bytes: every dialect's scopes, keys and nested values."""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest.dialects.dialect import Dialect
from controlplane.ingest.dialects.registry import DIALECTS

_MAX_SPANS: Final = 8
_MAX_ATTRIBUTES: Final = 24
_START: Final = 1_790_000_000_000_000_000
_EVENTS: Final = (
    *("exception", "First Token Stream Event", "ai.stream.firstChunk"),
    *("gen_ai.content.completion.chunk", "gen_ai.choice", "gen_ai.evaluation.result"),
)
_SHARED_KEYS: Final = (
    *("gen_ai.operation.name", "error.type", "http.response.status_code", "user.id"),
    *("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.evaluation.score.value"),
    *("gen_ai.guardrail.name", "gen_ai.guardrail.action", "metadata", "tag.tags"),
)


def _keys(dialect: Dialect) -> tuple[str, ...]:
    said = {key for keys in dialect.keys.values() for key in keys}
    said |= {blob.key for blob in dialect.blobs} | {*dialect.kinds_by_key, *dialect.call_needs}
    said |= {*dialect.stream_keys, *dialect.stream_usage_needs, *_SHARED_KEYS}
    return tuple(sorted(said | ({dialect.requires} if dialect.requires else set())))


def _names(dialect: Dialect) -> tuple[str, ...]:
    said = {*dialect.kinds_by_name, *dialect.operations_by_name, *dialect.providers_by_name}
    return tuple(sorted({name.rstrip("*") for name in said} | {"chat gpt-4o", ""}))


_KEYS: Final = tuple(_keys(dialect) for dialect in DIALECTS)
_NAMES: Final = tuple(_names(dialect) for dialect in DIALECTS)


class Choices:
    """Bytes as a source of choices; after the last one every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Take one byte."""
        taken = self.take(1)
        return taken[0] if taken else 0

    def take(self, count: int) -> bytes:
        """Take up to `count` bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def of(self, choices: tuple[str, ...]) -> str:
        """Take one of them."""
        return choices[self.byte() % len(choices)]

    @property
    def are_left(self) -> bool:
        """Whether there is a byte that was not taken."""
        return self._at < len(self._data)


def request_of(data: bytes) -> bytes:
    """Make a trace request, each span of it under a dialect that the data chooses."""
    choices = Choices(data)
    groups: list[bytes] = []
    while choices.are_left and len(groups) < _MAX_SPANS:
        number = choices.byte() % len(DIALECTS)
        scope = choices.of((*DIALECTS[number].scopes, "nobody")).rstrip("*")
        span = _span(choices, keys=_KEYS[number], names=_NAMES[number], count=len(groups))
        scoped = _field(1, pb.Scope(name=scope).SerializeToString()) + _field(2, span)
        groups.append(_field(1, _field(2, scoped)))
    return b"".join(groups)


def _field(number: int, body: bytes) -> bytes:
    """Write a length-delimited field."""
    size, length = len(body), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((number << 3 | 2, *length, size)) + body


def _span(choices: Choices, *, keys: tuple[str, ...], names: tuple[str, ...], count: int) -> bytes:
    shape = choices.byte()
    span = pb.LooseSpan(
        trace_id=bytes(15) + bytes((1 + shape % 2,)),
        span_id=bytes(7) + bytes((count + 1,)),
        name=choices.of(names).encode(),
        kind=shape % 6,
        start_time_unix_nano=_START,
        end_time_unix_nano=_START + (shape << 28),
        status=pb.LooseStatus(code=shape % 3, message=choices.take(shape % 64)),
    )
    for _ in range(choices.byte() % _MAX_ATTRIBUTES):
        span.attributes.add(key=choices.of(keys).encode(), value=_value(choices))
    if shape & 0x80:
        event = span.events.add(time_unix_nano=_START + shape, name=choices.of(_EVENTS).encode())
        pair = pb.LooseKeyValue(key=choices.of(keys).encode(), value=_value(choices))
        event.attributes.append(pair.SerializeToString())
    return span.SerializeToString()


def _value(choices: Choices) -> "pb.LooseAnyValue":
    kinds = tuple(_VALUES)
    return _VALUES[choices.of(kinds)](choices)


def _texts(choices: Choices) -> "pb.LooseAnyValue":
    text = choices.take(choices.byte()).decode(errors="replace")
    item = pb.AnyValue(string_value=text).SerializeToString()
    return pb.LooseAnyValue(array_value=_field(1, item))


_VALUES: Final[Mapping[str, Callable[[Choices], "pb.LooseAnyValue"]]] = {
    "small": lambda choices: pb.LooseAnyValue(int_value=choices.byte()),
    "whole": lambda choices: pb.LooseAnyValue(int_value=_whole(choices.take(8))),
    "double": lambda choices: pb.LooseAnyValue(double_value=_double(choices)),
    "bool": lambda choices: pb.LooseAnyValue(bool_value=bool(choices.byte() & 1)),
    "array": lambda choices: pb.LooseAnyValue(array_value=choices.take(choices.byte())),
    "pairs": lambda choices: pb.LooseAnyValue(kvlist_value=choices.take(choices.byte())),
    "digits": lambda choices: pb.LooseAnyValue(string_value=str(_whole(choices.take(8))).encode()),
    "texts": _texts,
    "text": lambda choices: pb.LooseAnyValue(string_value=choices.take(choices.byte())),
}


def _whole(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _double(choices: Choices) -> float:
    said: float = struct.unpack("<d", choices.take(8).ljust(8, b"\0"))[0]
    return said
