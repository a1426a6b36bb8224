"""How many blocks of memory one step takes: glibc counts them, in a process of its own.

Python has no counter of allocations, and `kept_blocks_per_op` is what is left of them. A child runs
with Python's own allocator off, so that every block comes from glibc, and with `libmemusage.so`,
which tells the calls at the end; the difference of a long run and a short one is what the steps took.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

COUNTER: Final = "libmemusage.so"
STEPS: Final = 500
_CALLS: Final = re.compile(r"(?:malloc|calloc|realloc)\|\S*\s+(\d+)")


def allocations_per_op(stage: str) -> float | None:
    """Return malloc, calloc and realloc calls per step of a stage; None where glibc can not count."""
    short, long = _count(stage, STEPS), _count(stage, 2 * STEPS)
    return None if short is None or long is None else round((long - short) / STEPS, 1)


def repeat(step: Callable[[], None], times: int) -> None:
    """Run a step; what the loop itself takes does not grow with `times`."""
    for _ in range(times):
        step()


def read_counter(text: str) -> int | None:
    """Return all allocating calls in what the counter printed; None: it was not there."""
    found = _CALLS.findall(text)
    return sum(map(int, found)) if found else None


def _count(stage: str, times: int) -> int | None:
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-allocations-") as folder:
        printed = Path(folder) / "printed"
        with printed.open("wb") as file:
            subprocess.run(
                [sys.executable, "-m", "controlplane.bench.admission", stage, str(times)],
                stderr=file,
                stdout=subprocess.DEVNULL,
                check=True,
                env={
                    **os.environ,
                    "LD_PRELOAD": COUNTER,
                    "PYTHONMALLOC": "malloc",
                    "PYTHONHASHSEED": "0",
                },
            )
        return read_counter(printed.read_text(errors="replace"))
