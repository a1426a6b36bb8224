"""Producers that copy a provider's numbers as its API has them, and SDKs that report by themselves."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

MakeRequest = Callable[..., ExportTraceServiceRequest]
Normalized = Callable[[ExportTraceServiceRequest], dict[str, Any]]
SONNET = "anthropic.claude-3-5-sonnet-20240620-v1:0"


@pytest.mark.parametrize(
    ("scope", "provider"),
    [
        ("opentelemetry.instrumentation.botocore.bedrock-runtime", "aws.bedrock"),
        ("@opentelemetry/instrumentation-aws-sdk", "aws.bedrock"),
        ("opentelemetry.instrumentation.bedrock", "aws.bedrock"),
        ("openlit.otel.tracing", "aws.bedrock"),
        ("openlit.otel.tracing", "anthropic"),
    ],
)
def test_input_without_the_cache_gets_it(
    normalized: Normalized, make_request: MakeRequest, scope: str, provider: str
) -> None:
    """Bedrock and Anthropic say 900 beside 300 read and 100 written: 1,300 were sent."""
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": provider,
        "gen_ai.request.model": SONNET,
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.cache_creation.input_tokens": 100,
        "gen_ai.usage.output_tokens": 70,
    }
    row = normalized(make_request(said, scope=scope))
    assert (1300, 900, 300, 100) == (
        row["input_tokens"],
        row["input_uncached"],
        row["cache_read"],
        row["cache_write_5m"],
    )
    assert "exact" == row["usage_state"]


def test_openlit_leaves_geminis_thoughts_out_of_the_output(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.reasoning_tokens": 34,
    }
    gemini = normalized(
        make_request(said | {"gen_ai.system": "gemini"}, scope="openlit.otel.tracing")
    )
    openai = normalized(
        make_request(said | {"gen_ai.system": "openai"}, scope="openlit.otel.tracing")
    )
    assert (74, 40, 34) == tuple(
        gemini[name] for name in ("output_tokens", "output_text", "output_reasoning")
    )
    assert (40, 6, 34) == tuple(
        openai[name] for name in ("output_tokens", "output_text", "output_reasoning")
    )


@pytest.mark.parametrize(
    ("scope", "name", "said"),
    [
        ("openinference.instrumentation.bedrock", "bedrock.converse_stream", {}),
        (
            "opentelemetry.instrumentation.botocore.bedrock-runtime",
            "chat m",
            {"rpc.method": "InvokeModelWithResponseStream", "gen_ai.system": "aws.bedrock"},
        ),
        ("openlit.otel.tracing", "chat m", {"gen_ai.request.is_stream": True}),
        ("mistralai_sdk_tracer", "stream_chat", {}),
    ],
)
def test_what_only_a_stream_has(
    normalized: Normalized, make_request: MakeRequest, scope: str, name: str, said: dict[str, Any]
) -> None:
    assert normalized(make_request(said, scope=scope, name=name))["is_stream"] is True


def test_openinference_of_bedrock_names_the_model_that_was_asked_for(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {"openinference.span.kind": "LLM", "llm.provider": "aws", "llm.model_name": SONNET}
    row = normalized(make_request(said, scope="openinference.instrumentation.bedrock"))
    assert ("aws.bedrock", SONNET, None) == tuple(
        row[name] for name in ("provider", "request_model", "response_model")
    )


def test_a_recorded_response_says_what_openinference_left_out(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    """Anthropic's own usage beside a total without, and OpenAI's beside a total with the cache."""
    said = {"openinference.span.kind": "LLM", "llm.token_count.completion": 94}
    anthropic = said | {
        "llm.token_count.prompt": 648,
        "output.value": '{"id": "msg_1", "usage": {"input_tokens": 648, "output_tokens": 94,'
        ' "cache_read_input_tokens": 300, "cache_creation_input_tokens": 132}}',
    }
    openai = said | {
        "llm.token_count.prompt": 1137,
        "output.value": '{"id": "c-1", "usage": {"prompt_tokens": 1137, "completion_tokens": 94,'
        ' "prompt_tokens_details": {"cached_tokens": 576},'
        ' "completion_tokens_details": {"reasoning_tokens": 33}}}',
    }
    names = ("input_tokens", "cached_input_tokens", "cache_creation_input_tokens")
    copied = normalized(make_request(anthropic, scope="openinference.instrumentation.bedrock"))
    assert (1080, 300, 132) == tuple(copied[name] for name in names)
    summed = normalized(make_request(openai, scope="openinference.instrumentation.mistralai"))
    assert (1137, 576, None) == tuple(summed[name] for name in names)
    assert 33 == summed["reasoning_tokens"]


@pytest.mark.parametrize(
    ("url", "operation"),
    [
        ("https://api.mistral.ai/v1/chat/completions", "chat"),
        ("https://api.mistral.ai/v1/chat/completions#stream", "chat"),
        ("https://api.mistral.ai/v1/embeddings", "embeddings"),
        ("https://api.mistral.ai/v1/models", None),
    ],
)
def test_mistrals_sdk_reports_calls_by_itself(
    normalized: Normalized, make_request: MakeRequest, url: str, operation: str | None
) -> None:
    row = normalized(make_request({"http.url": url}, scope="mistralai_sdk_tracer", name="x"))
    assert ("mistral_ai", operation) == (row["provider"], row["operation"])


def test_logfires_agents_chat_is_a_call_also_if_it_fails(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    """Its failure has no usage, and no operation but in the name."""
    row = normalized(
        make_request(
            {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o-mini"},
            scope="logfire.openai_agents",
            name="Chat completion with {gen_ai.request.model!r}",
            status=Status(code=Status.STATUS_CODE_ERROR, message="Error code: 429 - no"),
        )
    )
    assert ("call", "chat", "rate_limited", 429) == tuple(
        row[name] for name in ("report_kind", "operation", "error_type", "http_status")
    )


@pytest.mark.parametrize(
    ("message", "error", "status"),
    [
        ("An error occurred (ThrottlingException) when calling the Converse", "rate_limited", None),
        ("An error occurred (ServiceUnavailableException) when calling", "server_error", None),
        ("An error occurred (ModelTimeoutException) when calling", "timeout", None),
        ("An error occurred (ValidationException) when calling", "client_error", None),
        ("An error occurred (AccessDeniedException) when calling", "client_error", None),
        ("An error occurred (429) when calling the Converse operation", "rate_limited", 429),
        ("An error occurred (503) when calling the Converse operation", "server_error", 503),
        ("it broke", "other", None),
    ],
)
def test_botocores_one_exception_is_told_by_its_message(
    normalized: Normalized, make_request: MakeRequest, message: str, error: str, status: int | None
) -> None:
    row = normalized(
        make_request(
            {"gen_ai.operation.name": "chat", "gen_ai.system": "aws", "error.type": "ClientError"},
            scope="opentelemetry.instrumentation.botocore.bedrock-runtime",
            status=Status(code=Status.STATUS_CODE_ERROR, message=message),
        )
    )
    assert (error, status) == (row["error_type"], row["http_status"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"gen_ai.response.finish_reason": "FinishReason.STOP"}, "stop"),
        ({"gen_ai.response.finish_reasons": '["FinishReason.MAX_TOKENS"]'}, "length"),
    ],
)
def test_a_finish_reason_may_be_the_name_of_an_enums_member(
    normalized: Normalized, make_request: MakeRequest, said: dict[str, Any], reason: str
) -> None:
    kept = {"gen_ai.operation.name": "chat", **said}
    scope = "semantic_kernel.utils.telemetry.model_diagnostics.decorators"
    row = normalized(make_request(kept, scope=scope))
    assert (reason, "otel-genai") == (row["finish_reason"], row["dialect"])


def test_a_stream_of_mistrals_sdk_is_a_call_with_unknown_usage(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    said = {"http.url": "https://api.mistral.ai/v1/chat/completions"}
    bare = normalized(make_request(said, scope="mistralai_sdk_tracer"))
    used = {"gen_ai.usage.prompt_tokens": 1137, "gen_ai.usage.output_tokens": 61}
    whole = normalized(make_request(said | used, scope="mistralai_sdk_tracer"))
    assert ("call", "absent", None) == (
        bare["report_kind"],
        bare["usage_state"],
        bare["input_tokens"],
    )
    assert ("call", "exact") == (whole["report_kind"], whole["usage_state"])
    assert (1137, 61) == (whole["input_tokens"], whole["output_tokens"])


@pytest.mark.parametrize(
    ("scope", "system", "state"),
    [
        ("openlit.otel.tracing", "openai", "unknown"),  # 1.34: one scope for all
        ("openlit.otel.tracing", "langchain", "unknown"),
        ("openlit.otel.tracing", "groq", "exact"),
        ("openlit.otel.tracing", "gemini", "exact"),
        ("openlit.otel.tracing", "az.ai.inference", "exact"),
        ("openlit.instrumentation.openai", "openai", "unknown"),
        ("openlit.instrumentation.groq", "groq", "exact"),
        ("openlit.instrumentation.langchain", "groq", "unknown"),
    ],
)
def test_openlit_counts_by_itself_what_it_does_not_copy(
    normalized: Normalized, make_request: MakeRequest, scope: str, system: str, state: str
) -> None:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": system,
        "gen_ai.request.is_stream": True,
        "gen_ai.usage.input_tokens": 1137,
        "gen_ai.usage.output_tokens": 61,
    }
    row = normalized(make_request(said, scope=scope))
    assert state == row["usage_state"]
    cached = normalized(
        make_request({**said, "gen_ai.usage.cache_read.input_tokens": 0}, scope=scope)
    )
    assert "exact" == cached["usage_state"]
