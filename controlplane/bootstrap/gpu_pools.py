"""GPU pools of the organisation: those of the settings' file, and those made through the API."""

from datetime import timedelta
from pathlib import Path

import msgspec
import yaml

from controlplane.core.clock import Clock
from controlplane.core.errors import ConfigError, InvalidInputError
from controlplane.pipelines.gpu_cost import GpuTools, gpu_round
from controlplane.pricing.gpu_pool import GpuPool, check_pools
from controlplane.pricing.gpu_ports import GpuPools
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.workers.rounds import Rounds

KEEP_SAMPLES = timedelta(days=40)
"""Longer than a month, so that a month's completeness can be read after it."""
FORGET_SECONDS = 3_600.0

GPU_SECONDS = 60.0
_KEY = "gpu_pools"


def gpu_tools(spans: DuckDbSpanStore, fixed: tuple[GpuPool, ...], made: GpuPools) -> GpuTools:
    """Put together what GPU cost is worked out from; a fixed pool stands before one of its name."""
    names = {pool.name for pool in fixed}

    def pools() -> tuple[GpuPool, ...]:
        return (*fixed, *(pool for pool in made.pools() if pool.name not in names))

    return GpuTools(store=spans.gpu, signals=spans.signals, pools=pools, writer=spans)


def gpu_rounds(tools: GpuTools, spans: DuckDbSpanStore, clock: Clock) -> list[Rounds]:
    """Return the workers: GPU cost of closed buckets, and samples that are old enough to go."""
    return [
        Rounds("gpu", lambda: gpu_round(tools, now=clock.now()), seconds=GPU_SECONDS),
        Rounds(
            "samples",
            lambda: spans.forget_samples(before=clock.now() - KEEP_SAMPLES),
            seconds=FORGET_SECONDS,
        ),
    ]


def load_pools(path: Path | None) -> tuple[GpuPool, ...]:
    """Read the file's pools; none where no file is named.

    Raises:
        ConfigError: names the entry that is wrong and what it takes.
    """
    if path is None:
        return ()
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        pools = tuple(msgspec.convert(listed, list[GpuPool]))
        check_pools(pools)
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(_KEY, f"{path} is not YAML", "Mend the syntax") from None
    except (msgspec.ValidationError, InvalidInputError) as wrong:
        raise ConfigError(_KEY, f"{path}: {wrong}", "See deploy/docs/gpu.md") from None
    return pools
