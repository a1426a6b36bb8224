"""Every dialect, in the order in which they may claim a span. A new one is a file and a line."""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect
from controlplane.ingest.dialects.generic import GENERIC
from controlplane.ingest.dialects.litellm import LITELLM_PROXY, LITELLM_PROXY_V2, LITELLM_SDK
from controlplane.ingest.dialects.openinference import ENVOY_AI_GATEWAY, OPENINFERENCE
from controlplane.ingest.dialects.openllmetry import OPENLLMETRY
from controlplane.ingest.dialects.otel_genai import ANTHROPIC_SDK, OTEL_GENAI
from controlplane.ingest.dialects.vllm import VLLM

DIALECTS: Final[tuple[Dialect, ...]] = (
    LITELLM_PROXY,
    LITELLM_PROXY_V2,
    LITELLM_SDK,
    ANTHROPIC_SDK,
    OTEL_GENAI,
    OPENINFERENCE,
    ENVOY_AI_GATEWAY,
    VLLM,
    OPENLLMETRY,
    GENERIC,
)
"""The last one claims what is left."""
