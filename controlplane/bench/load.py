"""The reference load: 512 spans a request, 4 resource attributes, 15 span attributes, 566 B a span.

Building messages costs more than ingesting them, so a few requests are built once, and each copy
gets fresh ids written over the old ones: no two spans that are sent are the same.
"""

import random
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from controlplane.ingest.otlp_pb2 import AnyValue, ArrayValue, KeyValue, Resource, Scope, Span

SPANS_PER_REQUEST: Final = 512
USERS: Final = 5_000
TEAMS: Final = 20
_MODELS: Final = (
    ("openai", "gpt-4o", "gpt-4o-2024-08-06"),
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("anthropic", "claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
    ("openai", "gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
)
_FEATURES: Final = ("assistant", "summaries", "review", "search")
_RESOURCE: Final = {
    "service.name": "inference-gateway",
    "deployment.environment.name": "production",
    "cloud.region": "eu-central-1",
    "k8s.pod.name": "inference-gateway-6b8c9d7f4-x2lqp",
}
_SECOND: Final = 1_000_000_000
_TIME_TAGS: Final = {0x39: 1, 0x41: 2}
"""Tags of start and end (fields 7 and 8, fixed64), and the values that mark them in a template."""
_TIME_BYTES: Final = 8
_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8
_RESPONSE_CHARACTERS: Final = 16
_ID_BYTES: Final = _TRACE_BYTES + _SPAN_BYTES + _RESPONSE_CHARACTERS // 2


class RequestTemplate:
    """One encoded request, and where in it the ids and times stand."""

    def __init__(self, seed: int, *, spans: int = SPANS_PER_REQUEST) -> None:
        draw = random.Random(seed)  # noqa: S311 - a load, not a secret
        marks = [draw.randbytes(_ID_BYTES) for _ in range(spans)]
        encoded = _request([_span(draw, mark) for mark in marks])
        self.spans = spans
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(encoded, np.uint8)
        parts = [_parts(mark) for mark in marks]
        self._places = [
            _places([encoded.index(part[i]) for part in parts], len(parts[0][i])) for i in range(3)
        ]
        tags = [encoded.index(trace) - 2 for trace, _, _ in parts]
        self._times = [
            _places([_time_place(encoded, tag, field) for tag in tags], _TIME_BYTES)
            for field in _TIME_TAGS
        ]

    def fresh(self, draw: np.random.Generator, *, now_unix_nano: int) -> bytes:
        """Return a copy with new ids; every span starts within the second before `now`."""
        copy = self._bytes.copy()
        trace, span, response = self._places
        copy[trace] = draw.integers(0, 256, trace.shape, np.uint8)
        copy[span] = draw.integers(0, 256, span.shape, np.uint8)
        alphabet = np.frombuffer(b"0123456789abcdef", np.uint8)
        copy[response] = alphabet[draw.integers(0, 16, response.shape)]
        starts = now_unix_nano - draw.integers(0, _SECOND, self.spans)
        for place, times in zip(self._times, (starts, starts + _SECOND), strict=True):
            copy[place] = times.astype("<u8").view(np.uint8).reshape(place.shape)
        return copy.tobytes()


def _request(spans: list[Span]) -> bytes:
    resource = Resource(attributes=[_text(key, value) for key, value in _RESOURCE.items()])
    scope = Scope(name="opentelemetry.instrumentation.openai_v2")
    scope_spans = _field(1, scope.SerializeToString()) + b"".join(
        _field(2, span.SerializeToString()) for span in spans
    )
    resource_spans = _field(1, resource.SerializeToString()) + _field(2, scope_spans)
    return _field(1, resource_spans)


def _field(number: int, body: bytes) -> bytes:
    """Encode a length-delimited field; none of the messages above Span is compiled for us."""
    length, varint = len(body), bytearray()
    while length > 0x7F:  # noqa: PLR2004 - seven bits a byte
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return bytes([number << 3 | 2]) + bytes(varint) + body


def _span(draw: random.Random, mark: bytes) -> Span:
    trace, span_id, response = _parts(mark)
    provider, asked, answered = draw.choice(_MODELS)
    tokens_in = draw.randint(200, 9_000)
    span = Span(trace_id=trace, span_id=span_id, name="chat", kind=3)
    span.start_time_unix_nano, span.end_time_unix_nano = _TIME_TAGS.values()
    finish = ArrayValue(values=[AnyValue(string_value="stop")]).SerializeToString()
    span.attributes.extend(
        [
            _text("gen_ai.system", provider),
            _text("gen_ai.operation.name", "chat"),
            _text("gen_ai.request.model", asked),
            _text("gen_ai.response.model", answered),
            _number("gen_ai.usage.input_tokens", tokens_in),
            _number("gen_ai.usage.output_tokens", draw.randint(20, 1_500)),
            _number("gen_ai.usage.cached_tokens", draw.choice((0, 0, tokens_in // 2))),
            KeyValue(key="gen_ai.request.temperature", value=AnyValue(double_value=0.7)),
            KeyValue(key="gen_ai.response.finish_reasons", value=AnyValue(array_value=finish)),
            _text("gen_ai.response.id", f"chatcmpl-{response.decode()}"),
            _text("user.id", f"user-{draw.randrange(USERS):05d}"),
            _text("team.id", f"team-{draw.randrange(TEAMS):02d}"),
            _text("feature", draw.choice(_FEATURES)),
            KeyValue(key="llm.is_streaming", value=AnyValue(bool_value=draw.choice((False, True)))),
            _text("server.address", f"{provider}.test"),
        ]
    )
    return span


def _parts(mark: bytes) -> tuple[bytes, bytes, bytes]:
    trace, rest = mark[:_TRACE_BYTES], mark[_TRACE_BYTES:]
    return trace, rest[:_SPAN_BYTES], rest[_SPAN_BYTES:].hex().encode()


def _places(starts: list[int], length: int) -> npt.NDArray[np.int64]:
    return np.array(starts)[:, None] + np.arange(length)[None, :]


def _time_place(encoded: bytes, start: int, tag: int) -> int:
    """Return where the fixed64 after `tag` stands, searched from the span's beginning."""
    return encoded.index(bytes([tag]) + struct.pack("<Q", _TIME_TAGS[tag]), start) + 1


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))
