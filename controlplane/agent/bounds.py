"""How much a request can cost at most, in tokens, from its own bytes (algorithms L3).

Each operation and feature has a bound class as data. `bounded` input is at most one token per byte
of what is sent, because no tokenizer makes a token out of less than a byte. What refers to content
held elsewhere (a stored conversation, an image, a file) is `context_bounded`: the model reads no more
than its context window, where the policy knows it. Everything else has no bound that can be known
here, and a hard budget refuses it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from controlplane.agent.strip import FIELDS, is_server_tool
from controlplane.policy.decide import Shape

MESSAGE_OVERHEAD_TOKENS: Final = 16  # role markers and separators; OpenAI's chat format adds 3 to 4
BYTES_PER_TOKEN: Final = 4  # of English in JSON, about
REQUEST_OVERHEAD_TOKENS: Final = 64  # a reply primer, the system line of a chat template
TOOLS_OVERHEAD_TOKENS: Final = 1_024
"""The provider's own words about tools: Anthropic documents 159 to 530 tokens, by model and choice."""
MOST_OUTPUT_TOKENS: Final = 2**30
"""More than any model writes; larger numbers would not fit in what is said of money."""
MOST_CHOICES: Final = 10_000
"""More outputs than any API writes for one request, all its prompts together."""

INPUT_FIELDS: Final = (
    "messages",
    "input",
    "prompt",
    "suffix",
    "system",
    "instructions",
    "tools",
    "functions",
    "tool_choice",
    "response_format",
    "text",
)
"""Request fields whose bytes become input tokens."""

OUTPUT_LIMIT_FIELDS: Final = {
    "chat": ("max_tokens", "max_completion_tokens"),
    "text_completion": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "embeddings": (),
}
"""Operation → the fields that limit one choice's output; the first is the one to set."""

BOUNDED_PARTS: Final = frozenset(
    {
        *("text", "input_text", "output_text", "refusal", "message", "reasoning"),
        *("tool_use", "tool_result", "function_call", "function_call_output", "thinking"),
    }
)
"""Types of content parts that carry their whole content."""

CONTEXT_PARTS: Final = frozenset(
    {
        *("image_url", "input_image", "image", "input_audio"),
        *("file", "input_file", "document"),
    }
)
"""Types of content parts whose size is not known here, and that the context window has to hold."""

CONTEXT_FIELDS: Final = {
    "previous_response_id": "stored conversation",
    "conversation": "stored conversation",
}
"""Request fields that add content which is not in the request, and nothing else."""

KNOWN_FIELDS: Final = frozenset(
    {
        *INPUT_FIELDS,
        *("model", "user", "metadata", "n", "best_of", "stream", "stream_options", "stop", "seed"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "stop_sequences"),
        *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
        *("repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "echo", "suffix"),
        *("parallel_tool_calls", "function_call", "reasoning_effort", "reasoning", "thinking"),
        *("service_tier", "store", "verbosity", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "modalities", "encoding_format", "dimensions", "input_type"),
        *("truncation", "include", "max_tool_calls", "num_retries", "timeout", "max_retries"),
        *("request_timeout", "litellm_metadata", "tags", "fallbacks", "litellm_session_id"),
        *("litellm_trace_id", "litellm_call_id", "cache", "caching"),
    }
)
"""Fields that can not raise the cost beyond the bound. A sender's field outside this list may (a
provider's own model list, a switch that drops the limits), so it makes the request unbounded."""

UNBOUNDED_FIELDS: Final = {
    "prompt_id": "stored prompt",
    "file_ids": "stored files",
    "container": "stored container",
    "web_search_options": "server tool",
    "mcp_servers": "server tool",
    "background": "background run",
    "extra_body": "fields this proxy does not read",
    "prediction": "rejected prediction tokens",
    "audio": "audio output",
    "context_management": "server-side editing",
    "guardrails": "rewritten prompt",
}
"""Request fields that make the cost unknowable before the call, and why."""

_FEATURE_OF: Final = {
    field: feature
    for feature, fields in FIELDS.items()
    for field in fields
    if field in UNBOUNDED_FIELDS
}
"""Fields without a bound that a feature's name stands for."""

BOUNDED_TIERS: Final = frozenset({"auto", "default", "standard", "standard_only", "flex"})
LEAST_THINKING_TOKENS: Final = 1_024
"""Anthropic refuses a smaller thinking budget."""
REASONING_FIELDS: Final = ("reasoning_effort", "reasoning", "thinking")
STRUCTURED_FIELDS: Final = ("response_format", "tools", "functions", "text")


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The most a request can use; `unbounded` says why there is no such number."""

    operation: str
    input_tokens: int
    output_tokens: int | None = None  # per choice; None: the request sets no limit
    least_output_tokens: int = 0
    """What goes out asks for so many at least, whatever limit the request has."""
    choices: int = 1  # outputs of the whole request, of all its prompts
    prompts: int = 1
    from_elsewhere: str | None = None  # content that is not in the request (context_bounded)
    unbounded: str | None = None
    strippable: dict[str, str] = {}
    """Feature that a rule may strip → why it has no bound."""
    unbounded_otherwise: str | None = None
    """Why there is no bound whatever is stripped."""
    can_shrink: bool = True  # reasoning and structured output do not survive a lower limit (L12)
    has_tools: bool = False
    is_stream: bool = False

    def without(self, features: Iterable[str]) -> "Bound":
        """Return the bound of the request without some features; the input stays what it was."""
        left = [why for feature, why in self.strippable.items() if feature not in features]
        why = self.unbounded_otherwise or next(iter(left), None)
        return msgspec.structs.replace(self, unbounded=why)

    def capped(self, choices: int | None) -> int | None:
        """Return how many outputs are left where each prompt may have so many; None: no fewer."""
        left = None if choices is None else choices * self.prompts
        return left if left is not None and left < self.choices else None

    @property
    def likely_input_tokens(self) -> int:
        """About how long the input is, for rules and quotas: never for money."""
        return -(-self.input_tokens // BYTES_PER_TOKEN)

    @property
    def shape(self) -> Shape:
        """Return what rules may ask of the request besides its facts."""
        output = None if self.output_tokens is None else self.output_tokens * self.choices
        return Shape(
            input_tokens=self.likely_input_tokens,
            output_tokens=output,
            tools=self.has_tools,
            stream=self.is_stream,
        )


def bound_request(
    operation: str, request: Mapping[str, object], *, sent_fields: Iterable[str] = ()
) -> Bound:
    """Bound one request; operations outside OUTPUT_LIMIT_FIELDS are unbounded.

    Args:
        sent_fields: the names that the sender wrote, where a proxy adds its own to the request.
    """
    fields = OUTPUT_LIMIT_FIELDS.get(operation)
    said = [request[field] for field in fields or () if request.get(field) is not None]
    limits = [limit for limit in said if type(limit) is int and limit >= 0]
    rigid = any(request.get(field) for field in (*REASONING_FIELDS, *STRUCTURED_FIELDS))
    output: int | None = max(limits, default=None)
    if fields == ():
        output = 0
    outside = _first_part(request, BOUNDED_PARTS)
    odd = _first_part(request, BOUNDED_PARTS | CONTEXT_PARTS) if outside else None
    strippable = dict(_strippable(operation, request))
    otherwise = (
        _why_unbounded(operation, request)
        or odd
        or _unknown_field(sent_fields)
        or _bad_limit(said, limits)
        or _bad_choices(request)
    )
    return Bound(
        operation=operation,
        input_tokens=_input_tokens(request),
        output_tokens=output,
        choices=_choices(request),
        prompts=_prompts(request),
        from_elsewhere=_stored(request) or outside,
        unbounded=otherwise or next(iter(strippable.values()), None),
        strippable=strippable,
        unbounded_otherwise=otherwise,
        can_shrink=not rigid and bool(fields),
        has_tools=bool(request.get("tools") or request.get("functions")),
        is_stream=request.get("stream") is True,
    )


def shrink(
    request: dict[str, object], operation: str, output_tokens: int, *, provider: str = ""
) -> None:
    """Lower the request's output limit in place, in each field it uses, and the thinking within it.

    A request that has no limit gets one: of OpenAI's, reasoning models take the newer field only.
    """
    fields = OUTPUT_LIMIT_FIELDS.get(operation) or ()
    added = fields[-1:] if provider == "openai" else fields[:1]
    present = [field for field in fields if request.get(field) is not None] or added
    for field in present:
        request[field] = output_tokens
    if present:
        _think_within(request, output_tokens)


def _think_within(request: dict[str, object], output_tokens: int) -> None:
    """Keep a thinking budget below the output limit, as the API wants it; too small: no thinking."""
    thinking = request.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    if not isinstance(thinking, Mapping) or type(budget) is not int or budget < output_tokens:
        return
    if output_tokens > LEAST_THINKING_TOKENS:
        request["thinking"] = {**thinking, "budget_tokens": output_tokens - 1}
    else:
        del request["thinking"]


def limit_choices(request: dict[str, object], choices: int) -> None:
    """Lower how many outputs the request asks for, in place."""
    for field in ("n", "best_of"):
        said = request.get(field)
        if isinstance(said, int) and said > choices:
            request[field] = choices


def _input_tokens(request: Mapping[str, object]) -> int:
    sent = {field: request[field] for field in INPUT_FIELDS if request.get(field)}
    messages = sent.get("messages") or sent.get("input")
    count = len(messages) if isinstance(messages, list) else 1
    size = len(msgspec.json.encode(sent, enc_hook=str))
    tools = TOOLS_OVERHEAD_TOKENS if sent.get("tools") or sent.get("functions") else 0
    return size + MESSAGE_OVERHEAD_TOKENS * count + REQUEST_OVERHEAD_TOKENS + tools


def _choices(request: Mapping[str, object]) -> int:
    """Return how many outputs the upstream may write: n or best_of, times the prompts."""
    wanted = [request.get("n"), request.get("best_of")]
    each = max((n for n in wanted if type(n) is int and n > 0), default=1)
    return each * _prompts(request)


def _prompts(request: Mapping[str, object]) -> int:
    """Return how many prompts a request has: a list of numbers is one, in tokens."""
    prompts = request.get("prompt")
    is_many = isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)
    return len(prompts) if is_many and isinstance(prompts, list) else 1


def _bad_choices(request: Mapping[str, object]) -> str | None:
    """A count that some server may read in another way than we do has no bound."""
    for field in ("n", "best_of"):
        if request.get(field) is not None and type(request[field]) is not int:
            return f"{field} is not a whole number"
    return "more choices than any API writes" if _choices(request) > MOST_CHOICES else None


def _unknown_field(sent_fields: Iterable[str]) -> str | None:
    unknown = sorted(set(sent_fields) - KNOWN_FIELDS)
    return f"field {unknown[0][:64]}" if unknown else None


def _bad_limit(said: list[object], limits: list[int]) -> str | None:
    if len(said) != len(limits):
        return "an output limit that is not a whole number"
    return (
        "an output limit beyond any model" if max(limits, default=0) > MOST_OUTPUT_TOKENS else None
    )


def _why_unbounded(operation: str, request: Mapping[str, object]) -> str | None:
    if operation not in OUTPUT_LIMIT_FIELDS:
        return f"operation {operation}"
    for field, reason in UNBOUNDED_FIELDS.items():
        if field not in _FEATURE_OF and request.get(field):
            return f"{reason} ({field})"
    if operation == "responses" and isinstance(request.get("prompt"), Mapping):
        return "stored prompt (prompt)"
    return None


def _stored(request: Mapping[str, object]) -> str | None:
    return next(
        (f"{why} ({field})" for field, why in CONTEXT_FIELDS.items() if request.get(field)), None
    )


def _strippable(operation: str, request: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the features without a bound that a rule may take out, and why they have none."""
    if operation not in OUTPUT_LIMIT_FIELDS:
        return
    for field, feature in _FEATURE_OF.items():
        if request.get(field):
            yield feature, f"{UNBOUNDED_FIELDS[field]} ({field})"
    tier = request.get("service_tier")
    if tier is not None and str(tier) not in BOUNDED_TIERS:
        yield "service_tier", f"service tier {tier}"
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        if is_server_tool(tool):
            kind = tool.get("type") if isinstance(tool, Mapping) else "unknown"
            yield "server_tools", f"server tool ({kind})"
    modalities = request.get("modalities")
    if isinstance(modalities, list) and set(map(str, modalities)) - {"text"}:
        yield "audio", "modalities beyond text"


def _first_part(request: Mapping[str, object], known: frozenset[str]) -> str | None:
    """Look at the content parts of messages and input items, as deep as the APIs nest."""
    stack: list[object] = [request.get("messages"), request.get("input"), request.get("system")]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, Mapping):
            kind = item.get("type")
            if kind is not None and str(kind) not in known:
                return f"content part ({kind})"
            stack.append(item.get("content"))
    return None
