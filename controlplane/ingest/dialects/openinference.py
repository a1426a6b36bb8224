"""OpenInference (Arize): `llm.token_count.*`, `openinference.span.kind`.

An instrumentor of a vendor's SDK writes the response's model as `llm.model_name`; one of a
framework writes the model that was asked for.
"""

from typing import Final

import msgspec

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field, Keys
from controlplane.ingest.dialects.wire_usage import usage_paths
from controlplane.signals.vocabulary import Layer, ReportKind

_MODEL_NAMES: Final = ("llm.model_name", "embedding.model_name", "reranker.model_name")

OPENINFERENCE_KEYS: Final[Keys] = {
    Field.PROVIDER: ("llm.provider", "llm.system"),
    Field.OPERATION: ("openinference.span.kind",),
    Field.REQUEST_MODEL: ("llm.request.model_name",),
    Field.RESPONSE_MODEL: ("llm.response.model_name", *_MODEL_NAMES),
    Field.RESPONSE_ID: (),
    Field.FINISH_REASON: ("llm.finish_reason",),
    Field.ERROR_TYPE: ("error.type", "exception.type"),
    Field.ERROR_MESSAGE: ("exception.message",),
    Field.HTTP_STATUS: ("http.response.status_code", "http.status_code"),
    Field.INPUT_TOKENS: ("llm.token_count.prompt",),
    Field.CACHED_INPUT_TOKENS: (
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
    ),
    Field.CACHE_CREATION_INPUT_TOKENS: (
        "llm.token_count.prompt_details.cache_write",
        "llm.token_count.prompt_details.cache_creation",
    ),
    Field.OUTPUT_TOKENS: ("llm.token_count.completion",),
    Field.REASONING_TOKENS: ("llm.token_count.completion_details.reasoning",),
    Field.INPUT_AUDIO_TOKENS: ("llm.token_count.prompt_details.audio",),
    Field.OUTPUT_AUDIO_TOKENS: ("llm.token_count.completion_details.audio",),
    Field.REPORTED_COST: ("llm.cost.total",),
}
REQUESTED_MODEL_KEYS: Final[Keys] = {
    **OPENINFERENCE_KEYS,
    Field.REQUEST_MODEL: ("llm.request.model_name", *_MODEL_NAMES),
    Field.RESPONSE_MODEL: ("llm.response.model_name",),
}
"""For those whose model name is the one that was asked for."""
_LANGCHAIN: Final = ("generations", "0", "0", "message", "kwargs", "response_metadata")
_PARAMETERS: Final = Blob(
    key="llm.invocation_parameters",
    paths=(
        (Field.REQUEST_MODEL, ("model",)),
        (Field.REQUEST_MODEL, ("model_name",)),
        (Field.IS_STREAM, ("stream",)),
        (Field.SERVICE_TIER, ("service_tier",)),
    ),
    tail=("user",),
)
_PARTS_OF_USAGE: Final = frozenset(
    {
        Field.CACHED_INPUT_TOKENS,
        Field.CACHE_CREATION_INPUT_TOKENS,
        Field.CACHE_CREATION_1H_TOKENS,
        Field.REASONING_TOKENS,
        Field.WEB_SEARCHES,
        Field.SERVICE_TIER,
    }
)
_OUTPUT: Final = Blob(
    # The response itself, where content is recorded: the one place with its id.
    key="output.value",
    paths=(
        (Field.RESPONSE_ID, ("id",)),
        (Field.RESPONSE_ID, (*_LANGCHAIN, "id")),
        (Field.RESPONSE_MODEL, ("model",)),
        (Field.RESPONSE_MODEL, (*_LANGCHAIN, "model_name")),
        (Field.STREAM_MARK, ("generations", "0", "0", "type")),
        *((field, path) for field, path in usage_paths("usage") if field in _PARTS_OF_USAGE),
        (Field.SERVICE_TIER, ("service_tier",)),
    ),
    searches=(
        # smolagents keeps the response as the repr of an object.
        (Field.RESPONSE_ID, "raw", r"^[A-Za-z]+\(id='([^']{1,200})'"),
        (Field.RESPONSE_MODEL, "raw", r"\bmodel='([^']{1,200})'"),
    ),
)
_WHOLE_INPUT: Final = Blob(
    # Anthropic's input as its API has it leaves the cache out, also where an instrumentor copied it.
    key="output.value",
    overrides=True,
    totals=(
        (
            Field.INPUT_TOKENS,
            (
                ("usage", "input_tokens"),
                ("usage", "cache_read_input_tokens"),
                ("usage", "cache_creation_input_tokens"),
            ),
        ),
    ),
)
_METADATA: Final = Blob(
    key="metadata",
    paths=((Field.PROVIDER, ("ls_provider",)),),
    tail=("*",),
)
OPENINFERENCE_BLOBS: Final = (
    _PARAMETERS,
    Blob(key="embedding.invocation_parameters", paths=((Field.REQUEST_MODEL, ("model",)),)),
    _METADATA,
    _WHOLE_INPUT,
    _OUTPUT,
)
FIRST_TOKEN: Final = ("First Token Stream Event",)
_EVIDENCE: Final = "Arize-ai/openinference: spec/semantic_conventions.md; wire"

OPENAI_AGENTS_RESPONSE: Final = Dialect(
    # A span of the Responses API: everything on it, the parameters too, is the response's.
    name="openinference",
    layer=Layer.CLIENT,
    evidence="openinference-instrumentation-openai-agents 2.6.0 on the wire",
    scenarios=("openai-agents-openinference",),
    scopes=("openinference.instrumentation.openai_agents",),
    requires="llm.token_count.total",
    keys=OPENINFERENCE_KEYS,
    blobs=(_METADATA, _OUTPUT),
    first_token_events=FIRST_TOKEN,
)
INSTRUCTOR: Final = Dialect(
    # Its span has no usage; the SDK's instrumentor has it, where there is one.
    name="openinference",
    layer=Layer.CLIENT,
    evidence="openinference-instrumentation-instructor 0.1.29, with and without openai's, wire",
    scenarios=("instructor-openinference", "instructor-openinference+openai"),
    scopes=("openinference.instrumentation.instructor",),
    keys={**REQUESTED_MODEL_KEYS, Field.OPERATION: ()},
    blobs=(_PARAMETERS, _METADATA),
    kinds_by_name={
        "instructor.*": ReportKind.CALL,
        "handle_response_model": ReportKind.NONE,
    },
    operations_by_name={"instructor.": "chat"},
)
LANGCHAIN: Final = Dialect(
    # Its model name is the response's, but for streams; the output has the response's always.
    name="openinference",
    layer=Layer.CLIENT,
    evidence="openinference-instrumentation-langchain 0.1.80 on the wire",
    scenarios=("openinference-langchain", "openinference-langchain+openai"),
    scopes=("openinference.instrumentation.langchain",),
    keys=OPENINFERENCE_KEYS,
    blobs=(_PARAMETERS, _METADATA, msgspec.structs.replace(_OUTPUT, overrides=True)),
    first_token_events=FIRST_TOKEN,
)
OPENINFERENCE_FRAMEWORKS: Final = Dialect(
    name="openinference",
    layer=Layer.CLIENT,
    evidence=_EVIDENCE,
    scenarios=(
        "openinference-litellm",
        "openinference-llama-index",
        "smolagents-openinference",
        "smolagents-openinference+openai",
    ),
    scopes=tuple(
        f"openinference.instrumentation.{name}"
        for name in (
            *("agno", "autogen", "autogen_agentchat", "beeai", "crewai", "dspy", "haystack"),
            *("litellm", "llama_index", "openai_agents", "portkey", "pydantic_ai"),
            *("smolagents", "strands_agents", "google_adk", "agent_framework"),
        )
    ),
    keys=REQUESTED_MODEL_KEYS,
    blobs=OPENINFERENCE_BLOBS,
    first_token_events=FIRST_TOKEN,
)
OPENINFERENCE: Final = Dialect(
    name="openinference",
    layer=Layer.CLIENT,
    evidence=_EVIDENCE,
    scenarios=("openinference-openai", "openinference-anthropic", "openinference-google-genai"),
    scopes=("openinference.*", "@arizeai/openinference-*"),
    markers=("llm.token_count.", "openinference."),
    keys=OPENINFERENCE_KEYS,
    blobs=OPENINFERENCE_BLOBS,
    provider_in_scope=True,
    stream_names=("GenerateContentStream", "AsyncGenerateContentStream"),
    first_token_events=FIRST_TOKEN,
)
