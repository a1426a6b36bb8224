"""Triton Inference Server; durations are cumulative microseconds, it counts no tokens."""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

_MICROSECONDS: Final = 1e-6

TRITON: Final = Family(
    engine="triton",
    evidence="triton-inference-server/server docs/user_guide/metrics.md",
    model_labels=("model",),
    series=(
        Series(name="nv_inference_request_success", meaning=Meaning.REQUESTS),
        Series(name="nv_inference_request_failure", meaning=Meaning.FAILED_REQUESTS),
        Series(name="nv_inference_pending_request_count", meaning=Meaning.WAITING_REQUESTS),
        Series(
            name="nv_inference_request_duration_us",
            meaning=Meaning.OPERATION_SECONDS,
            scale=_MICROSECONDS,
        ),
        Series(
            name="nv_inference_queue_duration_us",
            meaning=Meaning.QUEUE_SECONDS,
            scale=_MICROSECONDS,
        ),
        Series(
            name="nv_inference_compute_infer_duration_us",
            meaning=Meaning.BUSY_SECONDS,
            scale=_MICROSECONDS,
        ),
        Series(name="nv_gpu_utilization", meaning=Meaning.GPU_UTILIZATION_RATIO),
        Series(name="nv_gpu_power_usage", meaning=Meaning.GPU_POWER_WATTS),
        Series(name="nv_gpu_memory_used_bytes", meaning=Meaning.GPU_MEMORY_USED_BYTES),
        Series(name="nv_energy_consumption", meaning=Meaning.GPU_ENERGY_JOULES),
    ),
)
