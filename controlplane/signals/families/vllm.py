"""The vLLM server, V1 engine; counters are exposed with `_total`."""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

VLLM: Final = Family(
    engine="vllm",
    evidence="vllm-project/vllm vllm/v1/metrics/loggers.py",
    model_labels=("model_name",),
    series=(
        Series(name="vllm:prompt_tokens", meaning=Meaning.INPUT_TOKENS),
        Series(name="vllm:generation_tokens", meaning=Meaning.OUTPUT_TOKENS),
        Series(name="vllm:prompt_tokens_cached", meaning=Meaning.CACHED_INPUT_TOKENS),
        Series(name="vllm:request_success", meaning=Meaning.REQUESTS),
        Series(name="vllm:num_requests_running", meaning=Meaning.RUNNING_REQUESTS),
        Series(name="vllm:num_requests_waiting", meaning=Meaning.WAITING_REQUESTS),
        Series(name="vllm:kv_cache_usage_perc", meaning=Meaning.KV_USAGE_RATIO),
        Series(name="vllm:gpu_cache_usage_perc", meaning=Meaning.KV_USAGE_RATIO),
        Series(name="vllm:request_queue_time_seconds", meaning=Meaning.QUEUE_SECONDS),
        Series(name="vllm:request_prefill_time_seconds", meaning=Meaning.PREFILL_SECONDS),
        Series(name="vllm:request_decode_time_seconds", meaning=Meaning.DECODE_SECONDS),
        Series(name="vllm:e2e_request_latency_seconds", meaning=Meaning.OPERATION_SECONDS),
    ),
)
