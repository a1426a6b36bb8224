"""OpenTelemetry's GenAI metrics, of both generations of names.

Envoy AI Gateway adds token types that overlap `input` and `output`; the counters of the genai
repository count cache reads and reasoning apart that `input_tokens` and `output_tokens` include.
Both are parts here, so that adding meanings never counts a token twice.
"""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

_USAGE: Final = "gen_ai.client.inference.usage."

GEN_AI: Final = Family(
    engine="gen_ai",
    evidence="open-telemetry/semantic-conventions-genai docs/gen-ai/gen-ai-metrics.md",
    model_labels=("gen_ai.response.model", "gen_ai.request.model"),
    series=(
        Series(
            name="gen_ai.client.token.usage",
            label="gen_ai.token.type",
            by_value={
                "input": Meaning.INPUT_TOKENS,
                "output": Meaning.OUTPUT_TOKENS,
                "completion": Meaning.OUTPUT_TOKENS,  # v1.26
                "cached_input": Meaning.CACHED_INPUT_TOKENS,
                "cache_creation_input": Meaning.CACHE_CREATION_INPUT_TOKENS,
                "reasoning": Meaning.REASONING_TOKENS,
            },
        ),
        Series(name=f"{_USAGE}input_tokens", meaning=Meaning.INPUT_TOKENS),
        Series(name=f"{_USAGE}output_tokens", meaning=Meaning.OUTPUT_TOKENS),
        Series(name=f"{_USAGE}cache_read.input_tokens", meaning=Meaning.CACHED_INPUT_TOKENS),
        Series(
            name=f"{_USAGE}cache_write.input_tokens", meaning=Meaning.CACHE_CREATION_INPUT_TOKENS
        ),
        Series(name=f"{_USAGE}reasoning.output_tokens", meaning=Meaning.REASONING_TOKENS),
        Series(name="gen_ai.usage.cost", meaning=Meaning.SPEND_USD),  # LiteLLM
        Series(name="gen_ai.client.operation.duration", meaning=Meaning.OPERATION_SECONDS),
        Series(name="gen_ai.client.inference.duration", meaning=Meaning.OPERATION_SECONDS),
        Series(name="gen_ai.server.request.duration", meaning=Meaning.OPERATION_SECONDS),
    ),
)
