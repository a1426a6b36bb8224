"""The columnar normaliser against the row-by-row reference: recorded and hostile payloads."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from controlplane.ingest.dialects.dialect import Dialect
from controlplane.ingest.dialects.registry import DIALECTS
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests
from controlplane.ingest.ports import Payload
from controlplane.signals.sender import KEYLESS_SENDER

Reference = Callable[[ExportTraceServiceRequest], list[dict[str, Any]]]

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CORPUS = Path(__file__).parents[1] / "corpus"
START = 1_790_000_000_000_000_000


def columnar(bodies: list[bytes]) -> list[dict[str, Any]]:
    decoded = decode_requests(
        [Payload(body) for body in bodies],
        senders=[KEYLESS_SENDER] * len(bodies),
        received_at=[NOW] * len(bodies),
        limits=DEFAULT_LIMITS,
    )
    assert decoded.rejected == {}
    table = normalize(decoded)
    micros = table.column("start_time").cast(pa.int64()).to_pylist()
    rows = table.to_pylist()
    for row, start in zip(rows, micros, strict=True):
        row["start_time"] = start
        assert len({key for key, _ in row["attributes"]}) == len(row["attributes"])
        row["attributes"] = dict(row["attributes"])
    return rows


def assert_agree(requests: list[ExportTraceServiceRequest], reference: Reference) -> None:
    expected = [row for request in requests for row in reference(request)]
    actual = columnar([request.SerializeToString() for request in requests])
    assert len(expected) == len(actual)
    for want, got in zip(expected, actual, strict=True):
        assert want == {name: got[name] for name in want}


def corpus_files() -> list[Path]:
    return sorted(p for p in CORPUS.rglob("*.pb") if ".metrics." not in p.name)


@pytest.mark.parametrize("path", corpus_files(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_agrees_on_every_recorded_payload(path: Path, ingest_reference: Reference) -> None:
    assert_agree([ExportTraceServiceRequest.FromString(path.read_bytes())], ingest_reference)


def test_agrees_on_the_whole_corpus_as_one_batch(ingest_reference: Reference) -> None:
    files = corpus_files()
    assert_agree(
        [ExportTraceServiceRequest.FromString(p.read_bytes()) for p in files], ingest_reference
    )


# --- hostile batches

RESOURCE_KEYS = ["service.name", "deployment.environment", "cloud.region", "os.type", "team"]
OTHER_KEYS = ["user.id", "team.id", "feature", "deployment.environment", "service.name", ""]
OTHER_KEYS += ["input.value", "gen_ai.prompt.0.content", "llm.openai.messages", "gen_ai.tool.name"]
TEXTS = ["", " 12 ", "-7", "9" * 19, "1e3", "True", "no", "1.5ms", "612.3µs", "0.00020715", "nan"]
TEXTS += ["chat", "LLM", "invoke_agent", "embeddings", "acompletion", "tool", "openai", "langchain"]
TEXTS += ["https://api.openai.com/v1/chat/completions", "ai.streamText.doStream", "ERROR"]
TEXTS += ["Error code: 429 - no", "ChatGenerationChunk", "batch", '{"model": "m", "stream": true}']
TEXTS += ["openai/gpt-4o", "meta-llama/Llama", "stop", '["tool_calls"]', "[]", "[1]", "[", '"q"']
TEXTS += ["RateLimitError", "429", "\u00e9" * 1500, "vllm.chat"]
TEXTS += [
    '{"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 3}, "id": "r1", "user": "u"}',
    '{"usage": {"input_tokens": 7, "cache_read_input_tokens": 9, "output_tokens": 3}, "raw": 1}',
    """{"raw": "ChatCompletion(id='c-1', model='gpt-4o-2024', x=1)", "usage": {"seconds": 2.5}}""",
    '{"usage_metadata": {"thoughts_token_count": 2}, "promptTokenCount": 5, "seconds": "1.5"}',
    "{'prompt_tokens_details': {'cached_tokens': 5, 'x': None}, 'tags': ['a', 'b'], 'ok': True}",
    '{"input": 5, "input_cached_tokens": 2, "output": 7, "total": 14, "model": "m", "n": 1.5}',
    '{"input_tokens": 1099511627777, "output_tokens": -1, "tags": [], "nested": {"a": 1}}',
]
NUMBERS = [0, 1, 7, 100, 404, 429, 500, 599, 600, 2**40, 2**40 + 1, 2**63 - 1, -1, -(2**63)]
FLOATS = [0.0, 0.5, -0.25, 3.0, 1e-9, 2.5e-9, 0.00020715, 0.0034525, 1e18, 9.3e9, 1e300]
FLOATS += [float("nan"), float("inf"), float("-inf"), 2.0**63, 0.1234567895]

scalars = st.one_of(
    st.sampled_from(TEXTS).map(lambda v: AnyValue(string_value=v)),
    st.text(max_size=8).map(lambda v: AnyValue(string_value=v)),
    st.sampled_from(NUMBERS).map(lambda v: AnyValue(int_value=v)),
    st.integers(0, 50).map(lambda v: AnyValue(int_value=v)),
    st.sampled_from(FLOATS).map(lambda v: AnyValue(double_value=v)),
    st.booleans().map(lambda v: AnyValue(bool_value=v)),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3).map(lambda v: AnyValue(array_value=ArrayValue(values=v))),
    st.just(AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a")]))),
    st.just(AnyValue(bytes_value=b"\xff")),
    st.just(AnyValue()),
)


def keys_of(dialect: Dialect) -> list[str]:
    read = {key for keys in dialect.keys.values() for key in keys}
    read |= {blob.key for blob in dialect.blobs} | set(dialect.kinds_by_key)
    read |= {*dialect.call_needs, *dialect.stream_keys, *dialect.stream_usage_needs}
    return sorted(read | ({dialect.requires} if dialect.requires else {"input_tokens"}))


def pairs_of(known: list[str]) -> st.SearchStrategy[list[KeyValue]]:
    keys = st.one_of(st.sampled_from(known), st.sampled_from(known), st.sampled_from(OTHER_KEYS))
    return st.lists(st.builds(KeyValue, key=keys, value=values), max_size=16)


events = st.builds(
    Span.Event,
    time_unix_nano=st.integers(START - 5_000, START + 10**10),
    name=st.sampled_from(["exception", "First Token Stream Event", "ai.stream.firstChunk", "x"]),
    attributes=st.lists(
        st.builds(
            KeyValue,
            key=st.sampled_from(["exception.type", "exception.message", "k"]),
            value=scalars,
        ),
        max_size=2,
    ),
)


def spans_of(dialect: Dialect) -> st.SearchStrategy[Span]:
    names = [*(name.replace("*", " x") for name in dialect.kinds_by_name), "chat gpt-4o", ""]
    names += [f"{prefix} x" for prefix in dialect.operations_by_name]
    names += [
        f"{prefix}generation" for prefix in (*dialect.providers_by_name, *dialect.stream_names)
    ]
    return st.builds(
        Span,
        trace_id=st.binary(min_size=16, max_size=16).filter(any),
        span_id=st.binary(min_size=8, max_size=8).filter(any),
        parent_span_id=st.one_of(st.just(b""), st.binary(min_size=8, max_size=8)),
        name=st.sampled_from(names),
        kind=st.integers(0, 5),
        start_time_unix_nano=st.integers(START, START + 10**9),
        end_time_unix_nano=st.one_of(st.just(0), st.integers(START, START + 10**10)),
        attributes=pairs_of(keys_of(dialect)),
        events=st.lists(events, max_size=2),
        status=st.builds(
            Status,
            code=st.integers(0, 2),
            message=st.sampled_from(
                ["", "", "429 RESOURCE_EXHAUSTED. {}", "rate limit", "status 503"]
            ),
        ),
    )


def scope_spans_of(dialect: Dialect) -> st.SearchStrategy[ScopeSpans]:
    scopes = [*(scope.replace("*", "x") for scope in dialect.scopes), "unheard.of"]
    return st.builds(
        ScopeSpans,
        scope=st.builds(InstrumentationScope, name=st.sampled_from(scopes)),
        spans=st.lists(spans_of(dialect), max_size=4),
    )


def numbered(index: int) -> st.SearchStrategy[ScopeSpans]:
    """By number, because a strategy that draws from the dialects themselves can not be printed."""
    return scope_spans_of(DIALECTS[index])


requests = st.builds(
    ExportTraceServiceRequest,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans,
            resource=st.builds(Resource, attributes=pairs_of(RESOURCE_KEYS)),
            scope_spans=st.lists(st.integers(0, len(DIALECTS) - 1).flatmap(numbered), max_size=3),
        ),
        max_size=2,
    ),
)


@settings(max_examples=150)
@given(batch=st.lists(requests, max_size=2))
def test_agrees_on_hostile_batches(
    batch: list[ExportTraceServiceRequest], ingest_reference: Reference
) -> None:
    assert_agree(batch, ingest_reference)


@pytest.mark.slow
def test_agrees_on_many_hostile_batches(full_size: bool, ingest_reference: Reference) -> None:  # noqa: FBT001 - a fixture
    @settings(max_examples=20_000 if full_size else 200)
    @given(batch=st.lists(requests, max_size=2))
    def agree(batch: list[ExportTraceServiceRequest]) -> None:
        assert_agree(batch, ingest_reference)

    agree()
