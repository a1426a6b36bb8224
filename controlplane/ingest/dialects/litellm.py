"""LiteLLM, SDK and proxy, its OpenTelemetry callback v1 and v2 (litellm 1.106, on the wire).

v1 keeps cached and reasoning tokens only in a Python repr. Behind the proxy the response's model
is the alias; `litellm.provider.model` is what was called. `total_cost` is the only cost that does
not overlap others. Without a proxy there is no `user_api_key_hash`: then it is a client.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field, Keys
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.ingest.dialects.wire_usage import usage_paths
from controlplane.signals.vocabulary import Layer, ReportKind

_EVIDENCE: Final = "litellm 1.106.2 on the wire: integrations/opentelemetry.py, integrations/otel"
_SCOPES: Final = ("litellm", "litellm/*")
_KEYS: Final[Keys] = {
    **OTEL_KEYS,
    Field.PROVIDER: (
        "gen_ai.provider.name",
        "gen_ai.system",
        "error.llm_provider",
        "llm.provider",
    ),
    Field.OPERATION: ("gen_ai.operation.name", "llm.request.type"),
    Field.DEPLOYED_MODEL: ("litellm.provider.model",),
    Field.MODEL_ALIAS: ("litellm.model_group",),
    Field.GATEWAY_CALL_ID: ("litellm.call_id",),
    # The callback itself does not say it (1.106); a proxy's own callback or header rule may.
    Field.CACHE_HIT: ("litellm.cache_hit", "metadata.cache_hit", "gen_ai.response.cache_hit"),
    Field.HTTP_STATUS: ("http.response.status_code", "error.code"),
    Field.REPORTED_COST: ("gen_ai.cost.total_cost", "litellm.cost.total"),
}
_BLOBS: Final = (
    Blob(
        key="metadata.usage_object",
        encoding="pyrepr",
        paths=(
            *usage_paths(),
            (
                Field.CACHE_CREATION_1H_TOKENS,
                (
                    "prompt_tokens_details",
                    "cache_creation_token_details",
                    "ephemeral_1h_input_tokens",
                ),
            ),
            (Field.INPUT_IMAGE_TOKENS, ("prompt_tokens_details", "image_tokens")),
            (Field.WEB_SEARCHES, ("prompt_tokens_details", "web_search_requests")),
        ),
    ),
    Blob(key="metadata.requester_metadata", encoding="pyrepr", tail=("*",)),
)
_KINDS: Final = {
    "litellm_request": ReportKind.CALL,
    # The child of every litellm_request, with the same numbers as the provider wrote them.
    "raw_gen_ai_request": ReportKind.NONE,
}

LITELLM_PROXY: Final = Dialect(
    name="litellm-proxy",
    layer=Layer.PROXY,
    evidence=_EVIDENCE,
    scenarios=("litellm-proxy",),
    scopes=_SCOPES,
    requires="metadata.user_api_key_hash",
    keys=_KEYS,
    blobs=_BLOBS,
    kinds_by_name=_KINDS,
    stream_keys=STREAM_KEYS,
)
LITELLM_PROXY_V2: Final = Dialect(
    name="litellm-proxy",
    layer=Layer.PROXY,
    evidence=_EVIDENCE,
    scenarios=("litellm-proxy-v2",),
    scopes=_SCOPES,
    requires="litellm.api_key.hash",
    keys=_KEYS,
    blobs=_BLOBS,
    kinds_by_name=_KINDS,
    stream_keys=STREAM_KEYS,
)
LITELLM_SDK: Final = Dialect(
    name="litellm-sdk",
    layer=Layer.CLIENT,
    evidence=_EVIDENCE,
    scenarios=("litellm-sdk",),
    scopes=_SCOPES,
    markers=("litellm.",),
    keys=_KEYS,
    blobs=_BLOBS,
    kinds_by_name=_KINDS,
    operation_in_name=True,
    stream_keys=STREAM_KEYS,
)
