"""LiteLLM's proxy; `model` is the deployment's, `requested_model` what the client asked for."""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

LITELLM: Final = Family(
    engine="litellm",
    evidence="BerriAI/litellm docs/my-website/docs/proxy/prometheus.md",
    model_labels=("model", "requested_model"),
    series=(
        Series(name="litellm_input_tokens_metric", meaning=Meaning.INPUT_TOKENS),
        Series(name="litellm_output_tokens_metric", meaning=Meaning.OUTPUT_TOKENS),
        Series(name="litellm_spend_metric", meaning=Meaning.SPEND_USD),
        Series(name="litellm_proxy_total_requests_metric", meaning=Meaning.REQUESTS),
        Series(name="litellm_proxy_failed_requests_metric", meaning=Meaning.FAILED_REQUESTS),
        Series(name="litellm_in_flight_requests", meaning=Meaning.RUNNING_REQUESTS),
        Series(name="litellm_request_total_latency_metric", meaning=Meaning.OPERATION_SECONDS),
    ),
)
