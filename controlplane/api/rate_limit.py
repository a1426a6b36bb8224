"""A token bucket per principal and per failing address, in this process's memory."""

import math
import random
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


class ConnectLimiter:
    """At most so many new streams a second; the others are told to come back, spread out.

    After a restart ten thousand agents connect at once. Each is given a moment of its own within
    the time that all of them need, so that the next wave is no wave. Event loop only.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._tokens = float(per_second)
        self._at = float("-inf")
        self._refused = 0.0
        self._random = random.SystemRandom()

    def take(self, monotonic: float) -> None:
        """Count one connection.

        Raises:
            RateLimitedError: too many; says when to try again.
        """
        passed = max(0.0, monotonic - self._at) if self._at > float("-inf") else 0.0
        self._at = monotonic
        self._tokens = min(float(self._per_second), self._tokens + passed * self._per_second)
        self._refused = max(0.0, self._refused - passed * self._per_second)
        if self._tokens >= 1:
            self._tokens -= 1
            return
        self._refused += 1
        longest = max(1, math.ceil(self._refused / self._per_second))
        raise RateLimitedError(
            "policy.connects_per_second",
            self._per_second,
            retry_after_seconds=self._random.randint(1, longest),
        )
