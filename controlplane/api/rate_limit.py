"""A token bucket per principal and per failing address, in this process's memory."""

import math
from collections import OrderedDict
from typing import Final

from controlplane.core.errors import RateLimitedError

MAX_TRACKED: Final = 10_000
"""Callers remembered at once; the least recently seen is forgotten, which only ever favours it."""
SECONDS_PER_MINUTE: Final = 60.0


class RateLimiter:
    """At most `per_minute` requests a minute for each key, in bursts of at most as many.

    Not thread-safe: called from the event loop only.
    """

    def __init__(self, limit: str, per_minute: int) -> None:
        self._limit = limit
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, *, monotonic: float) -> None:
        """Count one request of `key` at `monotonic` seconds.

        Raises:
            RateLimitedError: the minute's allowance is used up.
        """
        tokens, since = self._buckets.get(key, (float(self._per_minute), monotonic))
        rate = self._per_minute / SECONDS_PER_MINUTE
        tokens = min(float(self._per_minute), tokens + (monotonic - since) * rate)
        if tokens < 1:
            wait = max(1, math.ceil((1 - tokens) / rate))
            raise RateLimitedError(self._limit, self._per_minute, retry_after_seconds=wait)
        self._buckets[key] = (tokens - 1, monotonic)
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_TRACKED:
            self._buckets.popitem(last=False)
