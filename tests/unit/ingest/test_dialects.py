"""What producers without a recording send, from their source or documentation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from controlplane.ingest.dialects.dialect import USAGE_FIELDS, Field
from controlplane.ingest.dialects.operations import canonical_operation, split_name
from controlplane.ingest.dialects.providers import canonical_provider, provider_of_scope
from controlplane.ingest.dialects.registry import DIALECTS
from controlplane.ingest.outcome import status_of_message

MakeRequest = Callable[..., ExportTraceServiceRequest]
Normalized = Callable[[ExportTraceServiceRequest], dict[str, Any]]
TESTS = Path(__file__).parents[2]
TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens")


def tokens(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in TOKENS)


def test_every_dialect_says_where_to_check_it_and_its_recordings_exist() -> None:
    for dialect in DIALECTS:
        assert dialect.evidence
        for folder in dialect.scenarios:
            held_elsewhere = not (TESTS / "corpus" / folder).exists()
            assert not held_elsewhere or folder in NOT_IN_CORPUS, folder


NOT_IN_CORPUS = {
    *("google-adk", "instructor-openinference+openai", "langfuse-3.0", "langfuse-langchain"),
    *("litellm-proxy-v2", "logfire-3", "logfire-anthropic", "openinference-litellm"),
    *("mlflow-others", "openinference-google-genai", "openinference-llama-index"),
    *("openlit-anthropic", "otel-js-openai", "strands"),
    *("otel-openai-v2-latest", "pydantic-ai-old", "smolagents-openinference+openai"),
    *("traceloop-langchain+openai", "traceloop-openai-0.40", "vercel-ai5"),
}
"""Producers whose recordings are kept outside the corpus."""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # v1.26; v1.27; v1.40; the genai repository's rename of cache_creation.
        ({"prompt_tokens": 9, "completion_tokens": 2}, (9, None, 2)),
        ({"input_tokens": 9, "output_tokens": 2}, (9, None, 2)),
        ({"input_tokens": 9, "cache_read.input_tokens": 4, "output_tokens": 2}, (9, 4, 2)),
    ],
)
def test_official_names_of_each_generation(
    normalized: Normalized,
    make_request: MakeRequest,
    names: dict[str, int],
    expected: tuple[int | None, ...],
) -> None:
    usage = {f"gen_ai.usage.{name}": count for name, count in names.items()}
    row = normalized(make_request({"gen_ai.operation.name": "chat", **usage}))
    assert expected == tokens(row)
    assert "exact" == row["usage_state"]


def test_both_names_of_a_total_are_one_total(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    both = {
        "gen_ai.usage.prompt_tokens": 9,
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.completion_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "strands-agents",
    }
    row = normalized(make_request(both, scope="strands.telemetry.tracer"))
    assert ((9, None, 2), None) == (tokens(row), row["provider"])


def test_modalities_and_ttls_are_exclusive(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.cache_read.input_tokens": 200,
        "gen_ai.usage.cache_write.input_tokens": 100,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 30,
        "gen_ai.usage.audio.input_tokens": 50,
        "gen_ai.usage.image.input_tokens": 20,
        "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.reasoning.output_tokens": 40,
        "gen_ai.usage.audio.output_tokens": 10,
        "gen_ai.usage.web_search_requests": 3,
    }
    row = normalized(make_request(said))
    assert {
        "input_uncached": 630,
        "cache_read": 200,
        "cache_write_5m": 70,
        "cache_write_1h": 30,
        "input_audio": 50,
        "input_image": 20,
        "output_text": 40,
        "output_reasoning": 40,
        "output_audio": 10,
        "web_searches": 3,
    } == {name: row[name] for name in _BUCKETS if row[name]}


_BUCKETS = (
    *("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio"),
    *("input_image", "input_video", "cache_read_audio", "output_text", "output_reasoning"),
    *("output_audio", "output_image", "web_searches", "requests", "pages", "audio_seconds"),
)


def test_seconds_of_audio_need_no_tokens(normalized: Normalized, make_request: MakeRequest) -> None:
    said = {"gen_ai.operation.name": "transcription", "gen_ai.usage.audio_seconds": 61.7}
    row = normalized(make_request(said))
    assert ("call", "exact", 62) == (row["report_kind"], row["usage_state"], row["audio_seconds"])


def test_a_cache_larger_than_the_input_was_left_out_of_it(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 432,
        "gen_ai.usage.cache_read.input_tokens": 576,
        "gen_ai.usage.cache_creation.input_tokens": 129,
        "gen_ai.usage.output_tokens": 61,
    }
    for scope in ("opentelemetry.instrumentation.anthropic", "somebody.else"):
        assert (1137, 576, 61) == tokens(normalized(make_request(said, scope=scope)))


def test_a_stream_whose_tokens_openlit_counted_is_unknown(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    counted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 9,
    }
    scope = "openlit.instrumentation.openai"
    row = normalized(make_request(counted, scope=scope))
    assert ("unknown", "counted_by_producer") == (row["usage_state"], row["usage_reason"])
    told = {**counted, "gen_ai.usage.cache_read.input_tokens": 0}
    assert "exact" == normalized(make_request(told, scope=scope))["usage_state"]


def test_the_agents_sum_of_early_pydantic_ai_never_bills(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    usage = {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2}
    row = normalized(make_request(usage, scope="pydantic-ai", name="agent run"))
    assert "aggregate" == row["report_kind"]


def test_a_failure_without_attributes_is_read_from_its_name_and_message(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    request = make_request(scope="openlit.instrumentation.anthropic", name="chat claude-sonnet-4-5")
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.status.code = Status.STATUS_CODE_ERROR
    span.status.message = "RateLimitError: Error code: 429 - {'type': 'error'}"
    row = normalized(request)
    assert ("call", "anthropic", "chat", "claude-sonnet-4-5", "rate_limited", 429) == (
        *(row["report_kind"], row["provider"], row["operation"], row["request_model"]),
        *(row["error_type"], row["http_status"]),
    )


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Error code: 429 - {'error': {'message': 'no'}}", 429),
        ("status_code: 503, model_name: gpt-4o", 503),
        ("ClientError: 429 RESOURCE_EXHAUSTED. {'error': 1}", 429),
        ("Client error '401 Unauthorized' for url 'https://x'", 401),
        ("HTTP/1.1 502 Bad Gateway", 502),
        ("404 The model does not exist", 404),
        ("context of 4096 tokens exceeded by 500 tokens", None),
        ("took 429.5 seconds", None),
        ("", None),
    ],
)
def test_the_http_status_is_found_in_messages(message: str, status: int | None) -> None:
    assert status == status_of_message(message)


def test_an_error_level_is_a_failure(normalized: Normalized, make_request: MakeRequest) -> None:
    said = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.level": "ERROR",
        "langfuse.observation.status_message": "Error code: 429 - stub",
        "langfuse.observation.model.name": "gpt-4o-mini",
    }
    row = normalized(make_request(said, scope="langfuse-sdk", name="OpenAI-generation"))
    assert ("error", "rate_limited", 429, "openai", "gpt-4o-mini", None) == (
        *(row["status"], row["error_type"], row["http_status"], row["provider"]),
        *(row["request_model"], row["response_model"]),
    )


@pytest.mark.parametrize(
    ("scope", "dialect", "layer"),
    [
        ("kong-internal", "kong", "proxy"),
        ("envoyproxy/ai-gateway", "envoy-ai-gateway", "proxy"),
        ("sglang server", "sglang", "engine"),
        ("dynamo-frontend", "dynamo", "engine"),
        ("ray.serve", "ray-serve", "engine"),
        ("vllm.tracing.otel", "vllm", "engine"),
        ("@arizeai/openinference-instrumentation-openai", "openinference", "client"),
        ("opentelemetry.instrumentation.httpx", "http-client", "client"),
        ("nobody.knows", "generic", "client"),
    ],
)
def test_scopes_name_their_dialect(
    normalized: Normalized, make_request: MakeRequest, scope: str, dialect: str, layer: str
) -> None:
    row = normalized(make_request(scope=scope))
    assert (dialect, layer) == (row["dialect"], row["layer"])


def test_kong_reports_official_keys(normalized: Normalized, make_request: MakeRequest) -> None:
    said = {
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 2,
    }
    row = normalized(make_request(said, scope="kong-internal", name="kong"))
    assert ("call", "proxy", "gpt-4o-2024-08-06") == (
        *(row["report_kind"], row["layer"], row["billing_model"]),
    )


def test_the_role_of_sglang_that_only_prefills_never_bills(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    usage = {"gen_ai.usage.prompt_tokens": 9, "gen_ai.usage.completion_tokens": 1, "rid": "a" * 32}
    kinds = [
        normalized(make_request(usage, scope="sglang server", name=name))["report_kind"]
        for name in (" Req aaaaaaaa", "prefill Req aaaaaaaa", "decode Req aaaaaaaa")
    ]
    assert ["call", "aggregate", "call"] == kinds


def test_a_request_on_the_wire_is_a_call_by_its_path(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    scope = "opentelemetry.instrumentation.httpx"

    def read(url: str, kind: Span.SpanKind.ValueType = Span.SPAN_KIND_CLIENT) -> dict[str, Any]:
        said = {"http.method": "POST", "http.url": url, "http.status_code": 200}
        return normalized(make_request(said, scope=scope, name="POST", kind=kind))

    row = read("https://api.openai.com/v1/completions")
    assert ("call", "openai", "text_completion", "no_usage") == (
        *(row["report_kind"], row["provider"], row["operation"], row["usage_reason"]),
    )
    assert "none" == read("https://example.com/v1/orders")["report_kind"]
    served = read("https://api.openai.com/v1/completions", Span.SPAN_KIND_SERVER)
    assert "none" == served["report_kind"]


def test_every_unit_of_a_duration_is_microseconds(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    seconds = normalized(
        make_request({"gen_ai.latency.time_to_first_token": 0.25}, scope="vllm.tracing.otel")
    )
    millis = normalized(
        make_request({"gen_ai.server.time_to_first_token": 250}, scope="strands.telemetry.tracer")
    )
    assert (250_000, 250_000) == (seconds["ttft_us"], millis["ttft_us"])
    rust = {"queue_time": "74.201µs", "inference_time": "1.041632s"}
    tgi = normalized(make_request(rust, scope="text-generation-inference.router", name="generate"))
    assert ("call", 74, 1_041_632) == (tgi["report_kind"], tgi["queue_us"], tgi["decode_us"])


def test_a_mean_time_between_tokens_is_a_time_of_decoding(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.server.time_per_output_token": 0.01,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 101,
    }
    row = normalized(make_request(said, scope="openlit.instrumentation.openai"))
    assert (1_000_000, 10_000) == (row["decode_us"], row["inter_token_us"])


@pytest.mark.parametrize(
    ("scope", "name", "said", "expected"),
    [
        # Seconds as the conventions have them, under any producer that keeps to them.
        ("any", "chat m", {"gen_ai.server.time_per_output_token": 0.0125}, 12_500),
        ("any", "chat m", {"gen_ai.response.time_per_output_chunk": 0.02}, 20_000),
        ("any", "chat m", {"gen_ai.client.operation.time_per_output_chunk": "0.02"}, 20_000),
        # vLLM's own metric of it is decoding over generated tokens less one: 3 s over 2 gaps.
        ("vllm.x", "llm_request", {"gen_ai.latency.time_in_model_decode": 3.0}, 1_500_000),
        # 1 us over 2 gaps is half a microsecond: half-even.
        ("vllm.x", "llm_request", {"gen_ai.latency.time_in_model_decode": 1e-6}, 0),
        ("vllm.x", "llm_request", {"gen_ai.latency.time_in_model_decode": 3e-6}, 2),
        ("text-generation-inference.router", "generate", {"time_per_token": "8.351ms"}, 8_351),
        ("any", "chat m", {}, None),
    ],
)
def test_every_spelling_of_the_time_between_tokens(
    normalized: Normalized,
    make_request: MakeRequest,
    scope: str,
    name: str,
    said: dict[str, object],
    expected: int | None,
) -> None:
    tokens = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 3}
    row = normalized(make_request({**said, **tokens}, scope=scope, name=name))
    assert expected == row["inter_token_us"]


def test_one_token_has_no_time_between_tokens(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {"gen_ai.latency.time_in_model_decode": 3.0, "gen_ai.usage.completion_tokens": 1}
    row = normalized(make_request(said, scope="vllm.x", name="llm_request"))
    assert row["inter_token_us"] is None


def test_spellings() -> None:
    assert "chat" == canonical_operation("https://host/openai/deployments/x/chat/completions?v=1")
    assert canonical_operation("https://host/health") is None
    assert "generate_content" == canonical_operation("/v1beta/models/gemini:streamGenerateContent")
    assert ("chat", "gpt-4o mini") == split_name("chat gpt-4o mini")
    assert split_name("execute_tool weather") is None
    assert "azure.ai.openai" == canonical_provider("https://me.openai.azure.com/x")
    assert canonical_provider("http://127.0.0.1:8000/v1") is None
    assert "aws.bedrock" == canonical_provider("https://bedrock-runtime.eu.amazonaws.com/model")
    assert "openai" == provider_of_scope("opentelemetry.instrumentation.openai.v1")
    assert provider_of_scope("opentelemetry.instrumentation.langchain") is None


def test_usage_fields_are_the_totals_of_the_core() -> None:
    assert len(USAGE_FIELDS) == len(set(USAGE_FIELDS))
    assert Field.CACHE_READ_AUDIO_TOKENS in USAGE_FIELDS
