"""How each producer of the demonstration reports a call: names, scopes and attribute spellings.

Copied in shape from what the producers send (tests/corpus), without any content. A call that went
through several layers is reported by each of them; the pipeline has to count it once.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from controlplane.signals import semconv
from controlplane.simulate.demo_calls import Call, customer_of

AttributeValue = str | int | float | bool

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
NO_PARENT: Final = -1
_OK: Final = 200
_LITELLM_PROVIDER: Final = {"self-hosted": "hosted_vllm"}
_PROXY: Final = "proxy"
_ENGINE: Final = "engine"
_CLIENT_ROLE: Final = "client"
_APP: Final = "app"  # scope of the application's own web framework


class Report(NamedTuple):
    """One span; `parent` is the index of another in the same list or NO_PARENT.

    `sender` is the role of the ingest key that it is sent with; offsets are seconds after the
    call's start.
    """

    sender: str
    service: str
    scope: str
    name: str
    kind: int
    parent: int
    offset_seconds: float
    duration_seconds: float
    failed: bool
    attributes: dict[str, AttributeValue]


def reports_of(call: Call) -> list[Report]:
    """Write the call as its producers would, parents before children."""
    return SHAPES[call.shape](call)


def _response_id(call: Call, step: int = 0) -> str:
    prefix = "msg_" if call.model.provider == "anthropic" else "chatcmpl-"
    return f"{prefix}{call.nonce:016x}{step}"


def _litellm(call: Call, *, parent: int = NO_PARENT, step: int = 0, at: float = 0.0) -> Report:
    """LiteLLM proxy v1: deployed model in request.model, cached tokens only inside a repr."""
    provider = _LITELLM_PROVIDER.get(call.model.provider, call.model.provider)
    attributes: dict[str, AttributeValue] = {
        "metadata.user_api_key_alias": f"{call.team.name}-gateway",
        "metadata.user_api_key_team_alias": call.team.name,
        "metadata.user_api_key_end_user_id": call.user,
        "metadata.user_api_key_hash": f"demo-{call.team.name}",
        "metadata.requester_metadata": _told_by_the_caller(call),
        "litellm.call_id": f"{call.nonce:016x}-{step}",
        "litellm.model_group": call.model.name,
        "litellm.provider.model": f"{provider}/{call.model.snapshot}",
        semconv.SYSTEM: provider,
        semconv.OPERATION_NAME: "acompletion",
        "llm.request.type": "acompletion",
        "llm.is_streaming": str(call.is_stream),
        semconv.REQUEST_MODEL: call.model.snapshot,
    }
    if call.http_status == _OK:
        tokens_in, tokens_out = step_tokens(call, step)
        attributes |= {
            semconv.RESPONSE_ID: _response_id(call, step),
            semconv.RESPONSE_MODEL: call.model.name,
            semconv.FINISH_REASONS: '["stop"]',
            semconv.INPUT_TOKENS: tokens_in,
            semconv.OUTPUT_TOKENS: tokens_out,
            "metadata.usage_object": _usage_repr(call, tokens_in, tokens_out),
        }
    else:
        attributes |= {"error.code": str(call.http_status), semconv.ERROR_TYPE: _error(call)}
    return Report(
        _PROXY, "llm-gateway", "litellm", "litellm_request", INTERNAL, parent,
        at, call.duration_seconds, call.http_status != _OK, attributes,
    )  # fmt: skip


def _told_by_the_caller(call: Call) -> str:
    customer = customer_of(call)
    told = {"feature": call.feature} | ({"customer": customer} if customer else {})
    return repr(told)


def _usage_repr(call: Call, tokens_in: int, tokens_out: int) -> str:
    return (
        f"{{'completion_tokens': {tokens_out}, 'prompt_tokens': {tokens_in},"
        f" 'total_tokens': {tokens_in + tokens_out}, 'completion_tokens_details':"
        f" {{'reasoning_tokens': {call.reasoning_tokens}}}, 'prompt_tokens_details':"
        f" {{'cached_tokens': {call.cached_tokens}}}}}"
    )


def _genai_client(
    call: Call, *, parent: int = NO_PARENT, step: int = 0, at: float = 0.0, behind_proxy: bool
) -> Report:
    """Official OpenTelemetry GenAI client instrumentation, current names."""
    library = "anthropic" if call.model.provider == "anthropic" else "openai"
    attributes: dict[str, AttributeValue] = {
        semconv.OPERATION_NAME: "chat",
        semconv.PROVIDER_NAME: library,
        semconv.REQUEST_MODEL: call.model.name,
        semconv.REQUEST_STREAM: call.is_stream,
        **_who(call),
    }
    if call.http_status == _OK:
        tokens_in, tokens_out = step_tokens(call, step)
        attributes |= {
            semconv.RESPONSE_ID: _response_id(call, step),
            semconv.RESPONSE_MODEL: call.model.name if behind_proxy else call.model.snapshot,
            semconv.INPUT_TOKENS: tokens_in,
            semconv.OUTPUT_TOKENS: tokens_out,
            semconv.CACHE_READ_TOKENS: call.cached_tokens,
            semconv.REASONING_TOKENS: call.reasoning_tokens,
        }
    else:
        attributes |= {
            semconv.ERROR_TYPE: _error(call),
            semconv.HTTP_STATUS: call.http_status,
        }
    return Report(
        _CLIENT_ROLE, f"{call.team.name}-app", f"opentelemetry.instrumentation.genai.{library}",
        f"chat {call.model.name}", CLIENT, parent,
        at, call.duration_seconds + 0.012, call.http_status != _OK, attributes,
    )  # fmt: skip


def _openinference(call: Call, *, parent: int) -> Report:
    attributes: dict[str, AttributeValue] = {
        "openinference.span.kind": "LLM",
        "llm.system": call.model.provider,
        "llm.model_name": call.model.snapshot,
        **_who(call),
    }
    if call.http_status == _OK:
        attributes |= {
            "llm.token_count.prompt": call.input_tokens,
            "llm.token_count.completion": call.output_tokens,
            "llm.token_count.total": call.input_tokens + call.output_tokens,
            "llm.token_count.prompt_details.cache_read": call.cached_tokens,
            "llm.token_count.completion_details.reasoning": call.reasoning_tokens,
            "llm.finish_reason": "stop",
        }
    return Report(
        _CLIENT_ROLE, f"{call.team.name}-app", "openinference.instrumentation.openai",
        "ChatCompletion", INTERNAL, parent,
        0.02, call.duration_seconds, call.http_status != _OK, attributes,
    )  # fmt: skip


def _vllm(call: Call, *, parent: int) -> Report:
    """The engine names no model; its request id is the response id that proxy and client saw."""
    busy = max(call.duration_seconds - 0.05, 0.01)
    attributes: dict[str, AttributeValue] = {
        "gen_ai.request.id": _response_id(call),
        semconv.PROMPT_TOKENS: call.input_tokens,
        semconv.COMPLETION_TOKENS: call.output_tokens,
        "gen_ai.latency.time_in_queue": 0.01,
        "gen_ai.latency.time_to_first_token": 0.1 * busy,
        "gen_ai.latency.time_in_model_prefill": 0.1 * busy,
        "gen_ai.latency.time_in_model_decode": 0.9 * busy,
        "gen_ai.latency.e2e": busy + 0.01,
    }
    return Report(
        _ENGINE, "vllm-server", "vllm.tracing.otel", "llm_request", SERVER, parent,
        0.02, busy, failed=False, attributes=attributes,
    )  # fmt: skip


def _wrapper(
    call: Call, scope: str, name: str, *, parent: int = NO_PARENT, at: float = 0.0, last: float,
    **attributes: AttributeValue,
) -> Report:  # fmt: skip
    """Write a span around calls; it carries no usage. `__` in a keyword stands for a dot."""
    kind = SERVER if scope == _APP else INTERNAL
    said = {key.replace("__", "."): value for key, value in attributes.items()}
    return Report(
        _CLIENT_ROLE, f"{call.team.name}-app", scope, name, kind, parent, at, last,
        failed=False, attributes=said | _who(call),
    )  # fmt: skip


def _who(call: Call) -> dict[str, AttributeValue]:
    said: dict[str, AttributeValue] = {
        semconv.USER_ID: call.user,
        "team.id": call.team.name,
        "feature": call.feature,
    }
    customer = customer_of(call)
    return said if customer is None else said | {"customer.id": customer}


def step_tokens(call: Call, step: int) -> tuple[int, int]:
    """A later step of an agent sends what was said before along."""
    return call.input_tokens + step * (call.output_tokens + 150), call.output_tokens


def _error(call: Call) -> str:
    return "RateLimitError" if call.http_status == 429 else "InternalServerError"  # noqa: PLR2004 - HTTP


def _proxied(call: Call) -> list[Report]:
    return [_litellm(call)]


def _direct(call: Call) -> list[Report]:
    return [_genai_client(call, behind_proxy=False)]


def _chain(call: Call) -> list[Report]:
    root = _wrapper(
        call, "openinference.instrumentation.langchain", "RunnableSequence",
        last=call.duration_seconds + 0.04, openinference__span__kind="CHAIN",
    )  # fmt: skip
    return [root, _openinference(call, parent=0)]


def _agent(call: Call) -> list[Report]:
    """Two model calls around one tool call, each model call seen by application and proxy."""
    step = call.duration_seconds + 0.05
    tool = 0.35
    return [
        _wrapper(call, _APP, "POST /ask", last=2 * step + tool + 0.05),
        _wrapper(
            call, "app.agent", f"invoke_agent {call.feature}", parent=0, at=0.01,
            last=2 * step + tool, gen_ai__operation__name="invoke_agent",
        ),
        _genai_client(call, parent=1, at=0.02, behind_proxy=True),
        _litellm(call, parent=2, at=0.025),
        _wrapper(
            call, "app.agent", "execute_tool lookup", parent=1, at=step, last=tool,
            gen_ai__operation__name="execute_tool",
        ),
        _genai_client(call, parent=1, step=1, at=step + tool, behind_proxy=True),
        _litellm(call, parent=5, step=1, at=step + tool + 0.005),
    ]  # fmt: skip


def _self_hosted(call: Call) -> list[Report]:
    proxy = _litellm(call)
    return [proxy, _vllm(call, parent=0)] if call.http_status == _OK else [proxy]


SHAPES: Final[dict[str, Callable[[Call], list[Report]]]] = {
    "proxied": _proxied,
    "direct": _direct,
    "chain": _chain,
    "agent": _agent,
    "self-hosted": _self_hosted,
}
