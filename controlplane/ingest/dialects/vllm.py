"""vLLM 0.33: one SERVER span per sequence, without a model (vllm/tracing, output_processor.py).

`gen_ai.request.id` is the id of the OpenAI response, so it joins client and proxy.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.providers import SELF_HOSTED
from controlplane.signals.vocabulary import Layer, ReportKind

VLLM: Final = Dialect(
    name="vllm",
    layer=Layer.ENGINE,
    evidence="vllm 0.33.0: v1/engine/output_processor.py (do_tracing), tracing/utils.py",
    scenarios=("synth/vllm",),
    scopes=("vllm.*",),
    keys={
        Field.REQUEST_MODEL: ("gen_ai.request.model",),
        Field.RESPONSE_MODEL: ("gen_ai.response.model",),
        Field.RESPONSE_ID: ("gen_ai.request.id",),
        Field.TTFT: ("gen_ai.latency.time_to_first_token",),
        Field.QUEUE: ("gen_ai.latency.time_in_queue",),
        Field.PREFILL: ("gen_ai.latency.time_in_model_prefill",),
        Field.DECODE: ("gen_ai.latency.time_in_model_decode",),
        Field.INTER_TOKEN: ("gen_ai.server.time_per_output_token",),
        Field.INPUT_TOKENS: ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens"),
        Field.CACHED_INPUT_TOKENS: (
            "gen_ai.usage.cached_tokens",
            "gen_ai.usage.cache_read.input_tokens",
        ),
        Field.OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens"),
    },
    provider=SELF_HOSTED,
    kinds_by_name={"llm_request": ReportKind.CALL},
)
