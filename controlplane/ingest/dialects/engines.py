"""Model servers beside vLLM: SGLang with tokens; TGI and Triton, whose spans have none."""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.providers import SELF_HOSTED
from controlplane.signals.vocabulary import Layer, ReportKind

SGLANG: Final = Dialect(
    # 0.5.23, srt/observability/trace.py: the root span of a request has the usage.
    name="sglang",
    layer=Layer.ENGINE,
    scopes=("sglang*",),
    keys={
        Field.RESPONSE_MODEL: ("gen_ai.response.model",),
        Field.RESPONSE_ID: ("gen_ai.response.id", "rid"),
        Field.FINISH_REASON: ("gen_ai.response.finish_reasons",),
        Field.TTFT: ("gen_ai.latency.time_to_first_token",),
        Field.PREFILL: ("gen_ai.latency.time_in_model_prefill",),
        Field.DECODE: ("gen_ai.latency.time_in_model_decode",),
        Field.INPUT_TOKENS: ("gen_ai.usage.prompt_tokens",),
        Field.CACHED_INPUT_TOKENS: ("gen_ai.usage.cached_tokens",),
        Field.OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens",),
    },
    provider=SELF_HOSTED,
)
TGI: Final = Dialect(
    # router/src/server.rs: durations are Rust's Debug text.
    name="tgi",
    layer=Layer.ENGINE,
    scopes=("text-generation-inference*",),
    keys={Field.QUEUE: ("queue_time",)},
    provider=SELF_HOSTED,
    kinds_by_name=dict.fromkeys(
        ("chat_completions", "completions", "generate", "generate_stream", "compat_generate"),
        ReportKind.CALL,
    ),
)
TRITON: Final = Dialect(
    # src/tracer.cc: of the three spans of a request, the model's has its name.
    name="triton",
    layer=Layer.ENGINE,
    scopes=("triton-server", "triton*"),
    markers=("triton.",),
    keys={
        Field.REQUEST_MODEL: ("triton.model_name",),
        Field.RESPONSE_ID: ("triton.request_id",),
    },
    provider=SELF_HOSTED,
    kinds_by_key={"triton.model_name": ReportKind.CALL},
)
