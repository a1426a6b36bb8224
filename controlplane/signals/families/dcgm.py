"""NVIDIA's DCGM exporter: GPU utilisation in percent, memory in MiB, energy in millijoules."""

from typing import Final

from controlplane.signals.meanings import Family, Meaning, Series

DCGM: Final = Family(
    engine="dcgm",
    evidence="NVIDIA/dcgm-exporter etc/default-counters.csv",
    series=(
        Series(name="DCGM_FI_DEV_GPU_UTIL", meaning=Meaning.GPU_UTILIZATION_RATIO, scale=0.01),
        Series(name="DCGM_FI_PROF_GR_ENGINE_ACTIVE", meaning=Meaning.GPU_ACTIVE_RATIO),
        Series(name="DCGM_FI_DEV_FB_USED", meaning=Meaning.GPU_MEMORY_USED_BYTES, scale=2.0**20),
        Series(name="DCGM_FI_DEV_POWER_USAGE", meaning=Meaning.GPU_POWER_WATTS),
        Series(
            name="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
            meaning=Meaning.GPU_ENERGY_JOULES,
            scale=1e-3,
        ),
    ),
)
