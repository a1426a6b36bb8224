"""LiteLLM's shapes in an agent's words; no import of LiteLLM, so that it is tested without it."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.bounds import Bound, limit_choices, shrink
from controlplane.agent.outcome import CLIENT_ERRORS, error_type, is_free
from controlplane.agent.settle import Ending
from controlplane.agent.strip import strip
from controlplane.agent.ticket import Ticket
from controlplane.agent.usage import usage_buckets

CALL_KEY: Final = "controlplane_call"
"""Where a request's metadata names its call; LiteLLM carries metadata to every later hook."""

OPERATIONS: Final = {
    "completion": "chat",
    "acompletion": "chat",
    "text_completion": "text_completion",
    "atext_completion": "text_completion",
    "embeddings": "embeddings",
    "aembedding": "embeddings",
    "anthropic_messages": "messages",
    "responses": "responses",
    "aresponses": "responses",
}
"""LiteLLM's call types → operations with a known bound; anything else is unbounded."""

FREE_CALLS: Final = frozenset({"moderation", "amoderation"})
"""Call types that nobody bills."""

PROXY_ERROR_ROUTES: Final = ("batch", "file", "fine_tuning")
"""In the names of call types whose routes pass LiteLLM's own exception on as it is."""

PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "vertex_ai": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "watsonx": "ibm.watsonx.ai",
    "hosted_vllm": "self-hosted",
    "ollama": "self-hosted",
    "ollama_chat": "self-hosted",
}
"""LiteLLM's provider prefix → `gen_ai.provider.name`, where they differ."""

PRICE_LISTS: Final = {
    "azure_ai": "azure",
    "bedrock": "aws",
    "vertex_ai": "google",
    "gemini": "google",
    "xai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshotai",
    "voyage": "voyageai",
}
"""LiteLLM's provider prefix → the provider id of the price list, where they differ."""


def operation_of(call_type: str) -> str:
    """Return the operation of a call type; unknown ones keep their name."""
    return OPERATIONS.get(call_type, call_type)


def is_free_of_charge(call_type: str) -> bool:
    """Whether calls of this type are billed by nobody."""
    return call_type in FREE_CALLS


def keeps_proxy_errors(call_type: str) -> bool:
    """Whether a route answers with a `ProxyException` as raised, and flattens any other."""
    return any(name in call_type for name in PROXY_ERROR_ROUTES)


def metadata_of(data: Mapping[str, object]) -> dict[str, object] | None:
    """Return the metadata that the proxy itself keeps, not the sender's, if there is any."""
    for holder in (data, data.get("litellm_params")):
        if isinstance(holder, Mapping):
            for name in ("litellm_metadata", "metadata"):
                found = holder.get(name)
                if isinstance(found, dict) and CALL_KEY in found:
                    return found
    return None


def mark(data: dict[str, object], call: str) -> None:
    """Name the call in the proxy's metadata, over anything the sender put there."""
    name = "litellm_metadata" if isinstance(data.get("litellm_metadata"), dict) else "metadata"
    found = data.get(name)
    if not isinstance(found, dict):
        found = data[name] = {}
    found[CALL_KEY] = call


def call_of(data: Mapping[str, object]) -> str | None:
    """Return the call that a hook's arguments belong to."""
    found = metadata_of(data)
    call = found.get(CALL_KEY) if found else None
    return call if isinstance(call, str) else None


def group_of(kwargs: Mapping[str, object]) -> str | None:
    """Return the model group of an attempt: after a fallback not the one that was asked for."""
    found = metadata_of(kwargs)
    return _text(found.get("model_group")) if found else None


def facts_of(
    data: Mapping[str, object], key: object, dimension_map: Mapping[str, str], *, tenant: str = ""
) -> dict[str, str]:
    """Read the dimensions from where the policy says they are; what is absent is left out.

    Args:
        data: the request as LiteLLM hands it to hooks.
        key: LiteLLM's authenticated key (`UserAPIKeyAuth`).
        dimension_map: dimension → where it is.
        tenant: whose the request is when it names none; to leave that out would let it past
            every budget.
    """
    facts = {
        dimension: str(value)
        for dimension, source in dimension_map.items()
        if (value := _read(source, data, key)) not in (None, "")
    }
    if tenant:
        facts.setdefault("tenant", tenant)
    return facts


def change_request(data: dict[str, object], ticket: Ticket, operation: str) -> None:
    """Make the request what was admitted, in place."""
    if ticket.strip:
        strip(data, ticket.strip)
    if ticket.output_tokens is not None:
        shrink(data, operation, ticket.output_tokens)
    if ticket.choices is not None:
        limit_choices(data, ticket.choices)
    if ticket.attributes:  # LiteLLM's exporter writes its metadata to the span
        name = "litellm_metadata" if isinstance(data.get("litellm_metadata"), dict) else "metadata"
        found = data.get(name)
        data[name] = {**(found if isinstance(found, dict) else {}), **ticket.attributes}
    if ticket.hold_id:
        govern(data, operation)


def changed_bound(bound: Bound, ticket: Ticket) -> Bound:
    """Return what a request is bounded by after what was admitted has been changed in it."""
    output = bound.output_tokens if ticket.output_tokens is None else ticket.output_tokens
    choices = bound.capped(ticket.choices) or bound.choices
    return msgspec.structs.replace(bound, output_tokens=output, choices=choices)


def wants_usage(data: Mapping[str, object]) -> bool:
    """Whether the usage is to be at the end of a stream."""
    return _mapping(data.get("stream_options")).get("include_usage") is True


def govern(data: dict[str, object], operation: str) -> None:
    """Close the ways in which a held request could cost more than its hold, or hide its cost."""
    data["max_retries"] = 0  # the upstream client would retry inside one attempt
    if data.get("stream") and operation in {"chat", "text_completion"}:
        options = data.get("stream_options")
        data["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }


def sent_fields(data: Mapping[str, object]) -> tuple[str, ...]:
    """Return the field names that the sender wrote, into fallbacks as well.

    LiteLLM keeps the body as it came; a fallback may replace any field of the request.
    """
    body = _mapping(_mapping(data.get("proxy_server_request")).get("body"))
    fallbacks = body.get("fallbacks")
    inner = [_mapping(one) for one in fallbacks] if isinstance(fallbacks, list) else []
    return tuple(str(name) for fields in (body, *inner) for name in fields)


def _read(source: str, data: Mapping[str, object], key: object) -> object:
    kind, _, name = source.partition(".")
    if kind == "key":
        return getattr(key, {"alias": "key_alias", "team": "team_id"}.get(name, name), None)
    if kind == "header":
        return _mapping(_mapping(data.get("proxy_server_request")).get("headers")).get(name.lower())
    if kind == "metadata":
        return _sent_metadata(data).get(name)
    return data.get(source)


def _sent_metadata(data: Mapping[str, object]) -> Mapping[object, object]:
    """Return what the sender wrote; LiteLLM keeps a copy under its own metadata."""
    for name in ("litellm_metadata", "metadata"):
        sent = _mapping(data.get(name)).get("requester_metadata")
        if isinstance(sent, Mapping):
            return sent
    return {}


def rate_names(upstream: str, group: str) -> tuple[str, ...]:
    """Return the names that a deployment's model may have in a rate card, most exact first.

    A provider's price stands for its own models only: without a row of its own, `azure/gpt-4o` is
    unpriced, whatever another provider asks for `gpt-4o`.
    """
    model = group if "*" in upstream or not upstream else upstream
    prefix, slash, name = model.partition("/")
    if not slash:
        return (model,)
    providers = (PROVIDERS.get(prefix, prefix), prefix, PRICE_LISTS.get(prefix, prefix))
    return tuple(dict.fromkeys(f"{provider}/{name}" for provider in providers))


def provider_of(candidates: tuple[tuple[str, ...], ...]) -> str | None:
    """Return the provider when every deployment that may serve the call has the same."""
    prefixes = {names[0].partition("/")[0] for names in candidates if "/" in names[0]}
    if len(prefixes) != 1 or not all("/" in names[0] for names in candidates):
        return None
    return prefixes.pop()


def deployment_names(
    deployments: Iterable[Mapping[str, object]], group: str
) -> tuple[tuple[str, ...], ...]:
    """Return the rate-card names of every deployment that may serve a model group."""
    names = {
        rate_names(str(_mapping(one.get("litellm_params")).get("model", "")), group)
        for one in deployments
    }
    return tuple(sorted(names)) or (rate_names("", group),)


def pick(
    deployments: Sequence[Mapping[str, object]],
    weights: Mapping[str, int],
    *,
    point: float,
) -> list[Mapping[str, object]]:
    """Choose one deployment by weight; deployments without a weight get none.

    Args:
        weights: by deployment id (`model_info.id`) or by upstream model.
        point: in [0, 1); the same point picks the same deployment while the weights stay.

    Returns:
        One deployment, or all of them when none that is healthy has a weight.
    """
    weighed = [(one, _weight(one, weights)) for one in deployments]
    mark_at = int(point * sum(weight for _, weight in weighed))
    for one, weight in weighed:
        if mark_at < weight:
            return [one]
        mark_at -= weight
    return list(deployments)


def names_of(deployment: Mapping[str, object]) -> tuple[str, str]:
    """Return what rules may call a deployment: its `model_info.id`, or its upstream model."""
    return (
        str(_mapping(deployment.get("model_info")).get("id", "")),
        str(_mapping(deployment.get("litellm_params")).get("model", "")),
    )


def first_of(
    deployments: Sequence[Mapping[str, object]], order: Sequence[str]
) -> tuple[str, Mapping[str, object]] | None:
    """Return the first name of an order that one of these deployments has, and the deployment."""
    for name in order:
        for one in deployments:
            if name in names_of(one):
                return name, one
    return None


def _weight(deployment: Mapping[str, object], weights: Mapping[str, int]) -> int:
    return next((weights[name] for name in names_of(deployment) if name in weights), 0)


def route_point(sticky: str | None) -> float:
    """Return where on the weights a request falls: fixed by its sticky value, else at random."""
    if sticky is None:
        return secrets.randbelow(1 << 53) / (1 << 53)
    return int.from_bytes(hashlib.sha256(sticky.encode()).digest()[:6]) / (1 << 48)


def failure_ending(exception: object, ended_at: datetime) -> Ending:
    """Say how a failed attempt ended, and whether it can have cost anything.

    What never had a connection is free, and so is an answer with an error status. A timeout, a broken connection or a stream that
    stopped may have been served and billed: its usage is unknown. LiteLLM gives broken
    connections the status 500 too; only a real answer leaves response headers on the exception.
    """
    if _never_connected(exception):
        return Ending(
            ended_at=ended_at, usage={}, status="error", error_type="other", was_sent=False
        )
    status = getattr(exception, "status_code", None)
    code = status if isinstance(status, int) else None
    answered = getattr(exception, "litellm_response_headers", None) is not None
    is_answer = code in CLIENT_ERRORS or answered
    return Ending(
        ended_at=ended_at,
        usage={} if code is not None and is_answer and is_free(code) else None,
        status="error",
        error_type=error_type(code),
        http_status=code,
    )


_NEVER_CONNECTED: Final = frozenset({"ConnectError", "ConnectTimeout", "ClientConnectorError"})
"""Of httpx and aiohttp: raised before a byte of the request is sent."""


def _never_connected(exception: object) -> bool:
    """Whether the first cause of LiteLLM's own exception is that there was nobody to talk to."""
    seen: list[object] = []
    while isinstance(exception, BaseException) and exception not in seen:
        if type(exception).__name__ in _NEVER_CONNECTED:
            return True
        seen.append(exception)
        exception = exception.__cause__ or exception.__context__
    return False


def success_ending(kwargs: Mapping[str, object], response: object, ended_at: datetime) -> Ending:
    """Say what a call used; a reply from the gateway's own cache is free.

    After a client's disconnect LiteLLM recomputes a partial count, a lower bound: unknown.
    """
    said = _dump(response)
    found = metadata_of(kwargs) or {}
    # LiteLLM puts its own usage object where a response's is declared: as a part it is not dumped.
    counted = _dump(getattr(response, "usage", None)) or _dump(said.get("usage"))
    usage = usage_buckets(_mapping_of_str(counted))
    if kwargs.get("cache_hit") is True:
        usage = dict.fromkeys(("input_uncached", "output_text"), 0)  # known, and nothing
    elif found.get("client_disconnected") is True:
        usage = None
    prefix = _text(kwargs.get("custom_llm_provider"))
    return Ending(
        ended_at=ended_at,
        usage=usage,
        response_id=_text(said.get("id")),
        provider=PROVIDERS.get(prefix, prefix) if prefix else None,
        model=_text(kwargs.get("model")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _dump(value: object) -> Mapping[object, object]:
    """Return a pydantic model's fields, a mapping as it is, and nothing of anything else."""
    dump = getattr(value, "model_dump", None)
    return _mapping(dump(exclude_none=True) if callable(dump) else value)


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {}


def _mapping_of_str(value: Mapping[object, object]) -> dict[str, object]:
    return {str(name): item for name, item in value.items()}
