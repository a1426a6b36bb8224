"""From an HTTP request to a model API to what an agent is asked; data before code."""

import json
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.agent.bounds import bound_request, limit_choices, shrink
from controlplane.agent.strip import strip
from controlplane.agent.ticket import Request, Ticket
from controlplane.core.json_errors import UNREADABLE

OPERATIONS: Final = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/messages": "messages",
    "/responses": "responses",
    "/embeddings": "embeddings",
}
"""End of the path → operation; the longest that fits. Anything else has no bound."""

FREE_PATHS: Final = (
    "/files",
    "/uploads",
    "/moderations",
    "/count_tokens",
    "/input_tokens",
    "/tokenize",
    "/detokenize",
    "/cancel",
)
"""Ends of paths of requests that are not billed."""

BILLED_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})

HOSTS: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.mistral.ai": "mistral_ai",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "api.together.xyz": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.perplexity.ai": "perplexity",
    "api.cohere.com": "cohere",
    "api.moonshot.ai": "moonshot_ai",
    "openrouter.ai": "openrouter",
    "api.cerebras.ai": "cerebras",
    "api.voyageai.com": "voyage",
}
HOST_ENDS: Final = {
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
    "-aiplatform.googleapis.com": "gcp.vertex_ai",
}
PRICE_LISTS: Final = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot_ai": "moonshotai",
    "voyage": "voyageai",
}
"""`gen_ai.provider.name` → the provider id of the price list, where they differ."""
SELF_HOSTED: Final = "self-hosted"
UNREADABLE_BODY: Final = "a body that is not a JSON object"
MAX_UNPACKED_BYTES: Final = 32 * 2**20
ANY_ZLIB: Final = 32 + zlib.MAX_WBITS


class HttpCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be billed, read once."""

    operation: str
    provider: str
    model: str
    body: dict[str, object]
    is_stream: bool = False
    is_readable: bool = True
    """False: nobody reads a JSON object in it. It has no bound, and is sent on as it came."""


def read_call(
    method: str, host: str, path: str, *, content: bytes, provider: str | None = None
) -> HttpCall | None:
    """Read a request; None when it is one that nobody bills.

    Args:
        method: upper case.
        host: without the port.
        path: without the query.
        content: the body; one that is not a JSON object makes the request unbounded.
        provider: what the operator says it is, over what the host's name says.
    """
    if method not in BILLED_METHODS or is_free_path(path):
        return None
    body = _read_body(content)
    call = call_of(host, path, body=body or {}, provider=provider)
    return call if body is not None else msgspec.structs.replace(call, is_readable=False)


def _read_body(content: bytes) -> dict[str, object] | None:
    """Read a JSON object as the most lenient server does; None where there is none.

    Python's servers take UTF-16, a byte order mark, NaN and one half of a pair of surrogates. What
    they read and we did not would be past every rule on a model. The half is read as `?`.
    """
    try:
        return msgspec.json.decode(content, type=dict[str, object])
    except UNREADABLE:
        pass  # not as the standard has it
    try:
        text = json.dumps(json.loads(content), ensure_ascii=False).encode("utf-8", "replace")
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def unpacked(content: bytes, encoding: str) -> bytes:
    """Return a body without its `content-encoding`; one that can not be unpacked as it is."""
    if encoding not in {"gzip", "deflate"}:
        return content
    inflate = zlib.decompressobj(ANY_ZLIB)
    try:
        plain = inflate.decompress(content, MAX_UNPACKED_BYTES)
    except zlib.error:
        return content
    return plain if inflate.eof else content


def is_free_path(path: str) -> bool:
    """Whether requests to a path are billed by nobody."""
    return _place(path).endswith(FREE_PATHS)


def _place(path: str) -> str:
    return path.partition("?")[0].rstrip("/")


def call_of(
    host: str, path: str, *, body: dict[str, object], provider: str | None = None
) -> HttpCall:
    """Read a request that may be billed."""
    path = _place(path)
    return HttpCall(
        operation=operation_of(path),
        provider=provider or provider_of(host),
        model=_model(body, path),
        body=body,
        is_stream=body.get("stream") is True,
    )


def operation_of(path: str) -> str:
    """Return the operation that a path means; unknown ones are named by their last part."""
    found = [end for end in OPERATIONS if path.endswith(end)]
    if found:
        return OPERATIONS[max(found, key=len)]
    return path.rpartition("/")[2] or "unknown"


def provider_of(host: str) -> str:
    """Return `gen_ai.provider.name` of a host; one that nobody knows is our own."""
    host = host.lower()
    known = HOSTS.get(host)
    return known or next(
        (name for end, name in HOST_ENDS.items() if host.endswith(end)), SELF_HOSTED
    )


def _model(body: Mapping[str, object], path: str) -> str:
    said = body.get("model")
    if isinstance(said, str):
        return said
    _, marker, rest = path.partition("/deployments/")  # Azure names the model in the path
    return rest.partition("/")[0] if marker else ""


def rate_names(provider: str, model: str) -> tuple[str, ...]:
    """Return the names that a model may have in a rate card, most exact first."""
    names = (f"{provider}/{model}", f"{PRICE_LISTS.get(provider, provider)}/{model}", model)
    return tuple(dict.fromkeys(names))


def facts_of(
    call: HttpCall,
    headers: Mapping[str, str],
    dimension_map: Mapping[str, str],
    *,
    tenant: str = "",
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Read the dimensions from where the policy says they are; what is absent is left out.

    Args:
        call: the request.
        headers: by lower-case name.
        dimension_map: dimension → where it is.
        tenant: whose the request is when it names none.
        known: what the program itself says; it goes before anything in the request.
    """
    facts = {
        dimension: str(value)
        for dimension, source in dimension_map.items()
        if (value := _read(source, call.body, headers)) not in (None, "")
    }
    if tenant:
        facts.setdefault("tenant", tenant)
    facts.update(known or {})
    facts.update(operation=call.operation, provider=call.provider)
    if call.model:
        facts["model"] = call.model
    return facts


def _read(source: str, body: Mapping[str, object], headers: Mapping[str, str]) -> object:
    kind, _, name = source.partition(".")
    if kind == "header":
        return headers.get(name.lower())
    if kind == "metadata":
        metadata = body.get("metadata")
        return metadata.get(name) if isinstance(metadata, Mapping) else None
    if kind == "key":
        return None  # the upstream's key says nothing of the sender
    return body.get(source)


def to_request(call: HttpCall, facts: Mapping[str, str], *, request_id: str) -> Request:
    """Cross to the agent: its bound, and where its prices are."""
    bound = bound_request(call.operation, call.body, sent_fields=call.body)
    if not call.is_readable:
        bound = msgspec.structs.replace(
            bound, unbounded=UNREADABLE_BODY, unbounded_otherwise=UNREADABLE_BODY
        )
    return Request(
        request_id=request_id,
        facts=facts,
        bound=bound,
        candidates=lambda model: (rate_names(call.provider, model),),
        provider=call.provider,
        call_id=request_id or None,
    )


def wants_usage(call: HttpCall) -> bool:
    """Whether the sender asked for the usage at the end of a stream."""
    options = call.body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def changed_body(call: HttpCall, ticket: Ticket) -> dict[str, object] | None:
    """Return the body as the policy wants it sent; None when it may go as it is."""
    if not call.is_readable:
        return None
    body = dict(call.body)
    if ticket.model:
        body["model"] = ticket.model
    if ticket.strip:
        strip(body, ticket.strip)
    if ticket.output_tokens is not None:
        shrink(body, call.operation, ticket.output_tokens, provider=call.provider)
    if ticket.choices is not None:
        limit_choices(body, ticket.choices)
    if ticket.hold_id and call.is_stream and call.operation in {"chat", "text_completion"}:
        options = body.get("stream_options")
        body["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }
    return body if body != call.body else None
