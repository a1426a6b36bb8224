"""Text Generation Inference; its series name no model: the target's `model` label does."""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

TGI: Final = Family(
    engine="tgi",
    evidence="huggingface/text-generation-inference router/src/server.rs",
    model_labels=("model",),
    series=(
        Series(name="tgi_request_input_length", meaning=Meaning.INPUT_TOKENS),
        Series(name="tgi_request_generated_tokens", meaning=Meaning.OUTPUT_TOKENS),
        Series(name="tgi_request_success", meaning=Meaning.REQUESTS),
        Series(name="tgi_request_failure", meaning=Meaning.FAILED_REQUESTS),
        Series(name="tgi_batch_current_size", meaning=Meaning.RUNNING_REQUESTS),
        Series(name="tgi_queue_size", meaning=Meaning.WAITING_REQUESTS),
        Series(name="tgi_request_queue_duration", meaning=Meaning.QUEUE_SECONDS),
        Series(name="tgi_request_inference_duration", meaning=Meaning.BUSY_SECONDS),
        Series(name="tgi_request_duration", meaning=Meaning.OPERATION_SECONDS),
    ),
)
