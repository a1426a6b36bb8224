"""Every dialect, in the order in which they may claim a span. A new one is a file and a line."""

from typing import Final

from controlplane.ingest.dialects.agents import GOOGLE_ADK, GOOGLE_ADK_V1, STRANDS
from controlplane.ingest.dialects.bedrock import (
    BOTOCORE,
    OPENINFERENCE_BEDROCK,
    OPENLLMETRY_BEDROCK,
)
from controlplane.ingest.dialects.dialect import Dialect
from controlplane.ingest.dialects.engines import DYNAMO, RAY_SERVE, SGLANG, TGI, TRITON
from controlplane.ingest.dialects.gateways import ENVOY_AI_GATEWAY, KONG
from controlplane.ingest.dialects.generic import GENERIC
from controlplane.ingest.dialects.http import HTTP_CLIENT
from controlplane.ingest.dialects.langfuse import LANGFUSE
from controlplane.ingest.dialects.langsmith import LANGSMITH
from controlplane.ingest.dialects.litellm import LITELLM_PROXY, LITELLM_PROXY_V2, LITELLM_SDK
from controlplane.ingest.dialects.logfire import LOGFIRE, PYDANTIC_AI
from controlplane.ingest.dialects.mlflow import MLFLOW
from controlplane.ingest.dialects.openinference import (
    INSTRUCTOR,
    LANGCHAIN,
    OPENAI_AGENTS_RESPONSE,
    OPENINFERENCE,
    OPENINFERENCE_FRAMEWORKS,
)
from controlplane.ingest.dialects.openlit import OPENLIT, OPENLIT_ANTHROPIC, OPENLIT_LANGCHAIN
from controlplane.ingest.dialects.openllmetry import OPENLLMETRY
from controlplane.ingest.dialects.otel_genai import ANTHROPIC_SDK, MISTRAL_SDK, OTEL_GENAI
from controlplane.ingest.dialects.vercel_ai import VERCEL, VERCEL_LEGACY
from controlplane.ingest.dialects.vllm import VLLM

DIALECTS: Final[tuple[Dialect, ...]] = (
    LITELLM_PROXY,
    LITELLM_PROXY_V2,
    LITELLM_SDK,
    ENVOY_AI_GATEWAY,
    KONG,
    VLLM,
    SGLANG,
    TGI,
    TRITON,
    DYNAMO,
    RAY_SERVE,
    ANTHROPIC_SDK,
    MISTRAL_SDK,
    OTEL_GENAI,
    BOTOCORE,
    OPENLLMETRY_BEDROCK,
    OPENINFERENCE_BEDROCK,
    OPENAI_AGENTS_RESPONSE,
    INSTRUCTOR,
    LANGCHAIN,
    OPENINFERENCE_FRAMEWORKS,
    OPENINFERENCE,
    OPENLIT_ANTHROPIC,
    OPENLIT_LANGCHAIN,
    OPENLIT,
    LOGFIRE,
    PYDANTIC_AI,
    LANGFUSE,
    LANGSMITH,
    MLFLOW,
    VERCEL_LEGACY,
    VERCEL,
    GOOGLE_ADK_V1,
    GOOGLE_ADK,
    STRANDS,
    HTTP_CLIENT,
    OPENLLMETRY,  # its scopes are the broadest
    GENERIC,
)
"""The last one claims what is left."""

READ_KEYS: Final[frozenset[str]] = frozenset(
    key
    for dialect in DIALECTS
    for keys in (*dialect.keys.values(), tuple(blob.key for blob in dialect.blobs))
    for key in keys
) | frozenset(dialect.requires for dialect in DIALECTS if dialect.requires)
"""Every attribute that says what a call is and costs; these are read whatever else a span holds."""
