"""The SGLang server; `token_usage` is the share of the KV cache in use."""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

SGLANG: Final = Family(
    engine="sglang",
    evidence="sgl-project/sglang python/sglang/srt/observability/metrics_collector.py",
    model_labels=("model_name",),
    series=(
        Series(name="sglang:prompt_tokens", meaning=Meaning.INPUT_TOKENS),
        Series(name="sglang:generation_tokens", meaning=Meaning.OUTPUT_TOKENS),
        Series(name="sglang:cached_tokens", meaning=Meaning.CACHED_INPUT_TOKENS),
        Series(name="sglang:num_requests", meaning=Meaning.REQUESTS),
        Series(name="sglang:num_aborted_requests", meaning=Meaning.FAILED_REQUESTS),
        Series(name="sglang:num_running_reqs", meaning=Meaning.RUNNING_REQUESTS),
        Series(name="sglang:num_queue_reqs", meaning=Meaning.WAITING_REQUESTS),
        Series(name="sglang:token_usage", meaning=Meaning.KV_USAGE_RATIO),
        Series(name="sglang:queue_time_seconds", meaning=Meaning.QUEUE_SECONDS),
        Series(name="sglang:e2e_request_latency_seconds", meaning=Meaning.OPERATION_SECONDS),
        Series(name="sglang:forward_execution_seconds", meaning=Meaning.BUSY_SECONDS),
    ),
)
