"""Model servers beside vLLM: SGLang with tokens; the others' spans have times or nothing."""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.providers import SELF_HOSTED
from controlplane.signals.vocabulary import Layer, ReportKind

SGLANG: Final = Dialect(
    # The root span of a request has the usage. A disaggregated request has a root in each role,
    # named `{role} Req {id}`, with the prompt in both: the one that decodes reports it whole.
    name="sglang",
    layer=Layer.ENGINE,
    evidence="sgl-project/sglang 0.5.23: srt/observability/trace.py, managers/tokenizer_manager.py",
    scopes=("sglang*",),
    keys={
        Field.REQUEST_MODEL: ("gen_ai.request.model",),
        Field.RESPONSE_MODEL: ("gen_ai.response.model",),
        Field.RESPONSE_ID: ("gen_ai.response.id", "gen_ai.request.id", "rid"),
        Field.FINISH_REASON: ("gen_ai.response.finish_reasons",),
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
    kinds_by_name={"prefill Req*": ReportKind.AGGREGATE, "encode Req*": ReportKind.AGGREGATE},
    provider=SELF_HOSTED,
)
TGI: Final = Dialect(
    # Durations are Rust's Debug text; there are no tokens.
    name="tgi",
    layer=Layer.ENGINE,
    evidence="huggingface/text-generation-inference: router/src/server.rs",
    scenarios=("synth/tgi",),
    scopes=("text-generation-inference*", "text_generation_router*"),
    keys={
        Field.QUEUE: ("queue_time",),
        Field.DECODE: ("inference_time",),  # the prefill is in it
        Field.INTER_TOKEN: ("time_per_token",),
    },
    provider=SELF_HOSTED,
    kinds_by_name={
        **dict.fromkeys(
            (
                *("chat_completions", "completions", "generate", "generate_stream"),
                *("compat_generate", "vertex_compatibility", "sagemaker_compatibility"),
            ),
            ReportKind.CALL,
        ),
    },
    stream_names=("generate_stream",),
)
TRITON: Final = Dialect(
    # Of the three spans of a request, the model's has its name. No tokens; the wait is between
    # events of two spans, which are not read together.
    name="triton",
    layer=Layer.ENGINE,
    evidence="triton-inference-server/server: src/tracer.cc",
    scenarios=("synth/triton",),
    scopes=("triton-server", "triton*"),
    markers=("triton.",),
    keys={
        Field.REQUEST_MODEL: ("triton.model_name",),
        Field.RESPONSE_ID: ("triton.request_id",),
    },
    provider=SELF_HOSTED,
    kinds_by_key={"triton.model_name": ReportKind.CALL},
)
DYNAMO: Final = Dialect(
    # NVIDIA Dynamo, and NIM built on it: spans of Rust's tracing, without usage. The frontend's
    # root is the request; `handle_payload` is a worker's part of it.
    name="dynamo",
    layer=Layer.ENGINE,
    evidence="ai-dynamo/dynamo: docs/observability/logging.md, tracing.md",
    scopes=("dynamo*",),
    keys={
        Field.OPERATION: ("uri",),
        Field.REQUEST_MODEL: ("model",),
        Field.RESPONSE_ID: ("x_request_id", "request_id"),
        Field.HTTP_STATUS: ("http.response.status_code", "status"),
        Field.INPUT_TOKENS: ("input_tokens", "isl"),
        Field.OUTPUT_TOKENS: ("output_tokens", "osl"),
    },
    provider=SELF_HOSTED,
    kinds_by_name={"handle_payload": ReportKind.NONE},
)
RAY_SERVE: Final = Dialect(
    # Ray's own spans say how a request was routed; the engine under it reports as vLLM does.
    name="ray-serve",
    layer=Layer.ENGINE,
    evidence="docs.ray.io: serve/llm observability, ray-tracing",
    scopes=("ray.*", "ray"),
    keys={},
    provider=SELF_HOSTED,
    kind_of_usage=ReportKind.NONE,
)
