"""The reference load is what it says, and the benchmark's parts measure something."""

import os

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.bench.load import RequestTemplate
from controlplane.bench.processes import cpu_seconds
from controlplane.bench.stages import measure_stages

NOW = 1_760_000_000_000_000_000
ATTRIBUTES = {
    "gen_ai.system": "string_value",
    "gen_ai.operation.name": "string_value",
    "gen_ai.request.model": "string_value",
    "gen_ai.response.model": "string_value",
    "gen_ai.usage.input_tokens": "int_value",
    "gen_ai.usage.output_tokens": "int_value",
    "gen_ai.usage.cached_tokens": "int_value",
    "gen_ai.request.temperature": "double_value",
    "gen_ai.response.finish_reasons": "array_value",
    "gen_ai.response.id": "string_value",
    "user.id": "string_value",
    "team.id": "string_value",
    "feature": "string_value",
    "llm.is_streaming": "bool_value",
    "server.address": "string_value",
}


@pytest.fixture(scope="module")
def copies() -> list[bytes]:
    template, draw = RequestTemplate(1), np.random.default_rng(1)
    return [template.fresh(draw, now_unix_nano=NOW) for _ in range(3)]


def test_request_has_the_reference_shape(copies: list[bytes]) -> None:
    (group,) = ExportTraceServiceRequest.FromString(copies[0]).resource_spans
    assert 4 == len(group.resource.attributes)
    (scope,) = group.scope_spans
    assert 512 == len(scope.spans)
    for span in scope.spans:
        assert ATTRIBUTES == {a.key: a.value.WhichOneof("value") for a in span.attributes}
        assert 0 <= NOW - span.start_time_unix_nano <= 1_000_000_000
        assert 1_000_000_000 == span.end_time_unix_nano - span.start_time_unix_nano
    assert 0.95 < len(copies[0]) / 512 / 566 < 1.05


def test_no_two_spans_are_the_same(copies: list[bytes]) -> None:
    spans = [
        span
        for copy in copies
        for span in ExportTraceServiceRequest.FromString(copy)
        .resource_spans[0]
        .scope_spans[0]
        .spans
    ]
    ids = {(span.trace_id, span.span_id) for span in spans}
    responses = {
        a.value.string_value for s in spans for a in s.attributes if "response.id" in a.key
    }
    assert (3 * 512, 3 * 512) == (len(ids), len(responses))


def test_every_stage_is_measured() -> None:
    stages = measure_stages(seconds=0.0)
    assert {
        "check",
        "spool_append",
        "spool_claim_and_drop",
        "decode",
        "normalize",
        "attribute",
        "price",
        "store",
    } == stages.keys()
    assert all(figures["spans_per_cpu_second"] > 0 for figures in stages.values())


def test_processor_time_of_this_process_grows() -> None:
    before = cpu_seconds([os.getpid()])
    while cpu_seconds([os.getpid()]) < before + 0.05:
        pass
    assert cpu_seconds([os.getpid()]) < before + 5
