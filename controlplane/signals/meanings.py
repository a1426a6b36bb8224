"""What a series of a known program measures, whatever that program calls it."""

from enum import StrEnum

import msgspec


class Meaning(StrEnum):
    """Closed set; the unit is in the name, ratios are 0 to 1.

    `cached_input_tokens`, `cache_creation_input_tokens` and `reasoning_tokens` are parts of
    `input_tokens` and `output_tokens`: they are never added to them.
    """

    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHED_INPUT_TOKENS = "cached_input_tokens"
    CACHE_CREATION_INPUT_TOKENS = "cache_creation_input_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    REQUESTS = "requests"
    FAILED_REQUESTS = "failed_requests"
    SPEND_USD = "spend_usd"
    OPERATION_SECONDS = "operation_seconds"
    RUNNING_REQUESTS = "running_requests"
    WAITING_REQUESTS = "waiting_requests"
    KV_USAGE_RATIO = "kv_usage_ratio"
    QUEUE_SECONDS = "queue_seconds"
    PREFILL_SECONDS = "prefill_seconds"
    DECODE_SECONDS = "decode_seconds"
    BUSY_SECONDS = "busy_seconds"
    GPU_UTILIZATION_RATIO = "gpu_utilization_ratio"
    GPU_ACTIVE_RATIO = "gpu_active_ratio"
    GPU_MEMORY_USED_BYTES = "gpu_memory_used_bytes"
    GPU_POWER_WATTS = "gpu_power_watts"
    GPU_ENERGY_JOULES = "gpu_energy_joules"


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a program, named as it is exposed without `_total`.

    With `label`, the label's value chooses the meaning, and other values have none.
    """

    name: str
    meaning: Meaning | None = None
    label: str = ""
    by_value: dict[str, Meaning] = {}
    scale: float = 1.0
    """Times this is the meaning's unit."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The series of one program that mean something to us."""

    engine: str
    evidence: str
    """Where the program's authors say what its series are."""
    series: tuple[Series, ...]
    model_labels: tuple[str, ...] = ()
    """Labels that name the model, the best first."""
