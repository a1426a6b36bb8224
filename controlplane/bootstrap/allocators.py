"""Let a server keep the memory it frees: batches of a megabyte come and go a hundred times a second.

By default glibc maps and unmaps each large block, and Arrow's mimalloc gives pages back after
10 ms: a tenth of an ingesting collector's processor time was the kernel zeroing pages anew (ADR 034).
"""

import ctypes
import os
from typing import Final

PURGE_DELAY_MS: Final = "10000"
"""How long Arrow's allocator keeps a freed page."""
LARGEST_KEPT_BYTES: Final = 32 << 20
"""Blocks up to this come from the heap; glibc takes no larger threshold."""
TRIM_BYTES: Final = 256 << 20
"""Free memory at the end of the heap beyond this is given back."""
ARENAS: Final = 2

# mallopt(3) parameters.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> None:
    """Tune the allocators of this process; call it before Arrow is imported.

    What the environment says about mimalloc stays. Without glibc only mimalloc is told.
    """
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", PURGE_DELAY_MS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)
