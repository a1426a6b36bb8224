from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.normalize import normalize
from controlplane.ingest.redact import is_content
from controlplane.ingest.scalars import as_nusd, read_blob

MakeRequest = Callable[..., ExportTraceServiceRequest]
Normalized = Callable[[ExportTraceServiceRequest], dict[str, Any]]

CANARY = "canary-9f2e"
CONTENT_KEYS = [
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.content",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "input.value",
    "output.value",
    "llm.input_messages.0.message.content",
    "llm.output_messages.3.message.tool_calls.0.tool_call.function.arguments",
    "llm.prompts",
    "llm.openai.messages",
    "llm.None.choices",
    "embedding.embeddings.0.embedding.text",
    "embedding.embeddings.0.embedding.vector",
    "retrieval.documents.0.document.content",
    "traceloop.entity.input",
    "traceloop.entity.output",
    "ai.prompt",
    "ai.prompt.messages",
    "ai.response.text",
    "ai.response.toolCalls",
    "ai.values",
    "ai.toolCall.args",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "langfuse.trace.input",
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
    "gcp.vertex.agent.llm_request",
    "gcp.vertex.agent.llm_response",
    "all_messages_events",
    "pydantic_ai.all_messages",
    "final_result",
    "request_data",
    "response_data",
    "exception.message",
    "error.message",
    "error.stack_trace",
    "http.request.header.authorization",
    "url.full",
    "db.statement",
    "metadata.requester_custom_headers",
    "gen_ai.task.input",
    "gen_ai.task.output",
]
KEPT_KEYS = [
    "user.id",
    "session.id",
    "team.id",
    "feature",
    "gen_ai.agent.name",
    "metadata.user_api_key_hash",
    "metadata.user_api_key_team_alias",
    "metadata.user_api_key_end_user_id",
    "litellm.metadata.user_api_key_user_id",
    "traceloop.association.properties.user_id",
    "langfuse.trace.tags",
    "langfuse.trace.metadata.tenant",
    "langsmith.metadata.user_id",
    "langsmith.span.tags",
    "ai.telemetry.metadata.userId",
    "ai.telemetry.functionId",
    "tag.tags",
    "gen_ai.conversation.id",
    "gen_ai.request.max_tokens",
    "server.address",
]


@pytest.mark.parametrize("key", CONTENT_KEYS)
@pytest.mark.parametrize(
    "scope", ["unheard.of", "litellm", "openinference.x", "ai", "langfuse-sdk", "mlflow.x"]
)
def test_content_reaches_no_column(
    normalized: Normalized, make_request: MakeRequest, key: str, scope: str
) -> None:
    request = make_request({key: CANARY, "feature": "search"}, scope=scope)
    assert CANARY not in repr(normalized(request))


@pytest.mark.parametrize("key", KEPT_KEYS)
def test_what_attribution_needs_is_kept(
    normalized: Normalized, make_request: MakeRequest, key: str
) -> None:
    row = normalized(make_request({key: "kept"}))
    assert "kept" == row["attributes"][key]
    assert not is_content(key)


def test_what_a_chain_wrote_is_no_responses_id(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    attributes = {
        "openinference.span.kind": "CHAIN",
        "output.value": '{"id": "customer-7", "model": "Model T"}',
    }
    row = normalized(make_request(attributes, scope="openinference.instrumentation.langchain"))
    assert ("aggregate", None, None) == (
        row["report_kind"],
        row["response_id"],
        row["response_model"],
    )


def test_long_values_are_truncated_and_the_tail_is_bounded(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    row = normalized(make_request({f"k{i:03}": "é" * 2000 for i in range(100)}))
    tail = {key: value for key, value in row["attributes"].items() if key.startswith("k")}
    assert 64 == len(tail)
    assert {1024} == {len(value) for value in tail.values()}


def test_the_spans_own_attribute_stands_over_its_resources(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    resource = {"service.name": "app", "team": "platform", "cloud.region": "eu", "os.type": "linux"}
    row = normalized(make_request({"team": "search"}, resource=resource))
    assert {"team": "search", "cloud.region": "eu"} == row["attributes"]
    assert "app" == row["service_name"]


def test_both_halves_of_a_stream_are_reports(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    """Logfire's request span knows nothing of the answer; the answer's has the usage."""
    half = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    request = normalized(make_request(half, scope="logfire.openai"))
    assert ("call", "absent", None) == (
        request["report_kind"],
        request["usage_state"],
        request["is_stream"],
    )
    answer = {**half, "gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 2}
    name = "streaming response from {request_data[model]!r} took {duration:.2f}s"
    row = normalized(make_request(answer, scope="logfire.openai", name=name))
    assert ("call", "exact", True) == (row["report_kind"], row["usage_state"], row["is_stream"])


@pytest.mark.parametrize(
    ("attributes", "error_type", "http_status"),
    [
        ({"http.response.status_code": 429}, "rate_limited", 429),
        ({"error.type": "RateLimitError"}, "rate_limited", None),
        ({"error.type": "openai.RateLimitError"}, "rate_limited", None),
        ({"error.type": "rate_limit_error"}, "rate_limited", None),
        ({"error.type": "429"}, "rate_limited", None),
        ({"error.type": "APITimeoutError"}, "timeout", None),
        ({"http.response.status_code": 503}, "server_error", 503),
        ({"error.type": "InternalServerError"}, "server_error", None),
        ({"error.type": "asyncio.CancelledError"}, "cancelled", None),
        ({"error.type": "BadRequestError"}, "client_error", None),
        ({"http.response.status_code": 401}, "client_error", 401),
        ({"error.type": "Exception"}, "other", None),
    ],
)
def test_four_spellings_of_one_failure_are_one(
    normalized: Normalized,
    make_request: MakeRequest,
    attributes: dict[str, Any],
    error_type: str,
    http_status: int | None,
) -> None:
    request = make_request({"gen_ai.operation.name": "chat", **attributes})
    request.resource_spans[0].scope_spans[0].spans[0].status.code = Status.STATUS_CODE_ERROR
    row = normalized(request)
    assert ("error", error_type, http_status) == (
        row["status"],
        row["error_type"],
        row["http_status"],
    )


def test_the_deployed_model_bills_where_the_gateway_shows_its_alias(
    normalized: Normalized, make_request: MakeRequest
) -> None:
    row = normalized(
        make_request(
            {
                "metadata.user_api_key_hash": "h",
                "gen_ai.operation.name": "acompletion",
                "gen_ai.response.model": "smart",
                "litellm.model_group": "smart",
                "litellm.provider.model": "hosted_vllm/meta-llama/Llama-3.1-8B-Instruct",
            },
            scope="litellm",
            name="litellm_request",
        )
    )
    model = "meta-llama/Llama-3.1-8B-Instruct"
    assert ("litellm-proxy", "proxy", "self-hosted", model, model) == (
        row["dialect"],
        row["layer"],
        row["provider"],
        row["response_model"],
        row["billing_model"],
    )


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-9e9, max_value=9e9)
    | st.integers(-(10**12), 10**12).map(lambda n: n / 2e9)
)
def test_reported_cost_is_the_shortest_decimal_rounded_once(usd: float) -> None:
    exact = Decimal(repr(usd)).scaleb(9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    assert int(exact) == as_nusd(usd)


@pytest.mark.parametrize(
    ("usd", "nusd"),
    [
        (0.00020715, 207_150),
        (0.0034525, 3_452_500),
        (3.6599999999999995e-05, 36_600),
        (2.5e-9, 2),
        (3.5e-9, 4),
        (123456.7890123455, 123_456_789_012_346),
        (9007199.254740993, 9_007_199_254_740_993),
    ],
)
def test_reported_cost_columns_equal_decimal_arithmetic(
    normalized: Normalized, make_request: MakeRequest, usd: float, nusd: int
) -> None:
    request = make_request({"operation.cost": usd}, scope="pydantic-ai")
    assert nusd == normalized(request)["reported_cost_nusd"]


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1, 'b': None, 'c': [True, False], 'd': {'e': 'None True'}}",
        "{'a': 'it''s'}",
        "{'quoted': \"it's\", 'n': -1.5}",
        "{'escaped': 'a\\nb'}",
    ],
)
def test_python_reprs_are_read_as_python_reads_them(text: str) -> None:
    assert eval(text) == read_blob(text, "pyrepr", max_bytes=1000, max_nesting=32)  # noqa: S307 - the truth about these constants


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        "{'a': " * 500,
        "[" * 5000 + "]" * 5000,
        "x" * 2000,
        "__import__('os')",
        "{1:2}",
    ],
)
def test_hostile_blobs_hold_nothing(text: str) -> None:
    assert {} == read_blob(text, "pyrepr", max_bytes=1000, max_nesting=32)


def test_what_a_rule_reads_is_kept_however_many_attributes_a_span_has(
    make_request: MakeRequest, decode: Callable[..., Any]
) -> None:
    many = {f"a{n:03}": "x" for n in range(DEFAULT_LIMITS.max_attributes_per_span + 20)}
    decoded = decode(make_request({**many, "squad.name": "s1"}).SerializeToString())
    needing = msgspec.structs.replace(DEFAULT_LIMITS, needed_attributes=frozenset({"squad.name"}))
    plain = dict(normalize(decoded).to_pylist()[0]["attributes"])
    kept = dict(normalize(decoded, limits=needing).to_pylist()[0]["attributes"])
    assert "squad.name" not in plain
    assert "s1" == kept["squad.name"]
    assert DEFAULT_LIMITS.max_tail_attributes + 1 == len(kept)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        *(
            (name, "aggregate")
            for name in ("run_workflow", "crew.kickoff", "tool_call", "agent-turn")
        ),
        *((name, "aggregate") for name in ("retrieval", "fetch_response", "search_memory")),
        *((name, "call") for name in ("generate", "response", "realtime", "Chat", "toolkit_chat")),
    ],
)
def test_an_operation_that_nobody_wrote_down_is_taken_by_its_words(
    normalized: Normalized, make_request: MakeRequest, operation: str, kind: str
) -> None:
    """Agents, chains, workflows, tools and steps never bill, whoever names them."""
    said = {"gen_ai.operation.name": operation, "gen_ai.usage.input_tokens": 3}
    row = normalized(make_request(said))
    assert kind == row["report_kind"]
