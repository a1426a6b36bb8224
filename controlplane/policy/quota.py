"""What throttles let through: counters of one process, told the time."""

import math
from datetime import datetime
from typing import Final

from controlplane.policy.document import Throttle

MINUTE_SECONDS: Final = 60


class _Bucket:
    """Tokens of a rate with a burst; full at first."""

    def __init__(self, level: float, at: datetime) -> None:
        self.level = level
        self.at = at


class ThrottleState:
    """Requests and tokens per rule in the current minute of the clock, rates and calls under way."""

    def __init__(self) -> None:
        self._minute = 0
        self._admitted: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._under_way: dict[str, int] = {}

    def admitted(self, rule_id: str, now: datetime) -> int:
        """Return how many requests the rule has let through in this minute."""
        self._turn(now)
        return self._admitted.get(rule_id, 0)

    def take(self, rule: Throttle, now: datetime, *, tokens: int) -> int | None:
        """Count one request of at most `tokens` if every limit allows it.

        Returns:
            None when it is counted; else how many seconds until it is worth asking again.
        """
        self._turn(now)
        filled = self._filled(rule, now)
        wait = self._wait(rule, now, tokens=tokens, filled=filled)
        if wait is not None:
            return wait
        self._admitted[rule.id] = self._admitted.get(rule.id, 0) + 1
        if rule.tpm is not None:
            self._tokens[rule.id] = self._tokens.get(rule.id, 0) + tokens
        if filled is not None:
            self._buckets[rule.id] = _Bucket(filled - 1, now)
        if rule.concurrency is not None:
            self._under_way[rule.id] = self._under_way.get(rule.id, 0) + 1
        return None

    def release(self, rule: Throttle) -> None:
        """Note that a request which `take` counted has ended."""
        if rule.concurrency is not None:
            self._under_way[rule.id] = max(0, self._under_way.get(rule.id, 0) - 1)

    def untake(
        self, rule: Throttle, now: datetime, *, tokens: int, taken_at: datetime | None = None
    ) -> None:
        """Undo `take`: the request was refused after all, or never sent."""
        self.release(rule)
        self.correct(rule, now, tokens=-tokens, taken_at=taken_at)
        if _minute(taken_at or now) == self._minute:
            self._admitted[rule.id] = max(0, self._admitted.get(rule.id, 0) - 1)
        kept = self._buckets.get(rule.id)
        if kept is not None:
            kept.level += 1  # `_filled` keeps it within the burst

    def correct(
        self, rule: Throttle, now: datetime, *, tokens: int, taken_at: datetime | None = None
    ) -> None:
        """Add to what the minute has used: what a call took beyond its estimate, or less.

        What a call of an earlier minute did not use was counted there: it is no room in this one.
        """
        self._turn(now)
        if tokens < 0 and _minute(taken_at or now) != self._minute:
            return
        if rule.tpm is not None:
            self._tokens[rule.id] = max(0, self._tokens.get(rule.id, 0) + tokens)

    def _wait(
        self, rule: Throttle, now: datetime, *, tokens: int, filled: float | None
    ) -> int | None:
        if rule.concurrency is not None and self._under_way.get(rule.id, 0) >= rule.concurrency:
            return 1
        if rule.rpm is not None and self._admitted.get(rule.id, 0) >= rule.rpm:
            return _to_next_minute(now)
        if rule.tpm is not None and self._tokens.get(rule.id, 0) + tokens > rule.tpm:
            return _to_next_minute(now)
        if filled is not None and rule.rps is not None and filled < 1:
            return max(1, math.ceil((1 - filled) / rule.rps))
        return None

    def _filled(self, rule: Throttle, now: datetime) -> float | None:
        if rule.rps is None:
            return None
        most = float(rule.burst or max(1, math.ceil(rule.rps)))
        kept = self._buckets.get(rule.id)
        if kept is None:
            return most
        passed = max(0.0, (now - kept.at).total_seconds())
        return min(most, kept.level + passed * rule.rps)

    def _turn(self, now: datetime) -> None:
        minute = _minute(now)
        if self._minute != minute:
            self._minute = minute
            self._admitted.clear()
            self._tokens.clear()


def limits_of(rule: Throttle) -> str:
    """Say what a throttle allows, for the one it refused."""
    limits = (
        (rule.rps, "requests per second"),
        (rule.rpm, "requests per minute"),
        (rule.tpm, "tokens per minute"),
        (rule.concurrency, "calls at once"),
    )
    return " and ".join(f"{limit:g} {what}" for limit, what in limits if limit is not None)


def _minute(at: datetime) -> int:
    return int(at.timestamp()) // MINUTE_SECONDS


def _to_next_minute(now: datetime) -> int:
    return MINUTE_SECONDS - int(now.timestamp()) % MINUTE_SECONDS
