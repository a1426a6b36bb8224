"""Requests under way that count against more than money: quotas, and canaries on trial."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.lease import Instant
from controlplane.agent.log import say
from controlplane.agent.settle import Ending
from controlplane.policy.decide import Decision, RuleIndex
from controlplane.policy.document import AbortIf, Canary, PolicyDocument, RatePerMillion, Throttle
from controlplane.policy.match import matches
from controlplane.policy.quota import ThrottleState

MILLION: Final = 1_000_000


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One request under way."""

    started: Instant
    throttle: Throttle | None = None
    tokens: int = 0
    trial: Canary | None = None
    """The canary whose share it is of, or is compared with."""
    is_canary: bool = False
    rate: RatePerMillion | None = None


class _Side(msgspec.Struct):
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    nusd: int = 0

    def add(self, ending: Ending, slot: Slot) -> None:
        self.calls += 1
        self.errors += ending.status == "error"
        self.seconds += max(0.0, (ending.ended_at - slot.started.wall).total_seconds())
        if slot.rate and ending.usage:
            self.nusd += _cost_nusd(ending.usage, slot.rate)


class Trial:
    """A canary and what it is compared with, as far as this process saw."""

    def __init__(self) -> None:
        self.canary = _Side()
        self.other = _Side()

    def add(self, ending: Ending, slot: Slot) -> None:
        """Count one call."""
        (self.canary if slot.is_canary else self.other).add(ending, slot)

    def verdict(self, rule: Canary) -> str | None:
        """Say why the canary must end; None when it may go on."""
        new, old, limits = self.canary, self.other, rule.abort_if
        if new.calls < rule.min_calls:
            return None
        ratio = new.errors / new.calls
        if limits.error_ratio is not None and ratio > limits.error_ratio:
            return f"error ratio {ratio:.3f} is above {limits.error_ratio:g}"
        return _dearer_or_slower(new, old, limits) if old.calls >= rule.min_calls else None


def _dearer_or_slower(new: _Side, old: _Side, limits: AbortIf) -> str | None:
    pairs = (
        ("cost", limits.cost_ratio, new.nusd / new.calls, old.nusd / old.calls),
        ("latency", limits.latency_ratio, new.seconds / new.calls, old.seconds / old.calls),
    )
    for name, limit, mine, theirs in pairs:
        if limit is not None and theirs > 0 and mine / theirs > limit:
            return f"{name} ratio {mine / theirs:.2f} is above {limit:g}"
    return None


class Slots:
    """Every request under way in this process, and the canaries that were ended here."""

    def __init__(self, throttle: ThrottleState) -> None:
        self._throttle = throttle
        self._open: dict[str, Slot] = {}
        self._trials: dict[str, Trial] = {}
        self._generation = (0, 0)
        self._kept: tuple[PolicyDocument, RuleIndex] | None = None
        self.ended_canaries: dict[str, str] = {}
        """Rule id → why; until the next generation."""

    def governed(self, document: PolicyDocument) -> tuple[PolicyDocument, RuleIndex]:
        """Return the document without the canaries that were ended here, and its rules' index."""
        if self._generation != (document.epoch, document.gen):
            self._generation = (document.epoch, document.gen)
            self._trials.clear()
            self.ended_canaries.clear()
            self._kept = None
        if self._kept is None:
            rules = tuple(rule for rule in document.rules if rule.id not in self.ended_canaries)
            kept = msgspec.structs.replace(document, rules=rules)
            self._kept = kept, RuleIndex(rules)
        return self._kept

    def open(self, name: str, slot: Slot) -> None:
        """Count a request that was admitted."""
        self._open[name] = slot

    def close(self, name: str, ending: Ending, *, now: datetime) -> bool:
        """Count a request out; False when it is not under way.

        A canary that has done too badly by now gets nothing more in this process.
        """
        slot = self._open.pop(name, None)
        if slot is None:
            return False
        if slot.throttle and not ending.was_sent:
            self._throttle.untake(
                slot.throttle, now, tokens=slot.tokens, taken_at=slot.started.wall
            )
        elif slot.throttle:
            self._throttle.release(slot.throttle)
            if ending.usage is not None:
                used = sum(ending.usage.values())
                self._throttle.correct(
                    slot.throttle, now, tokens=used - slot.tokens, taken_at=slot.started.wall
                )
        if slot.trial is not None and ending.error_type != "cancelled":
            self._judge(slot.trial, slot, ending)
        return True

    def _judge(self, rule: Canary, slot: Slot, ending: Ending) -> None:
        trial = self._trials.setdefault(rule.id, Trial())
        trial.add(ending, slot)
        why = trial.verdict(rule)
        if why and rule.id not in self.ended_canaries:
            self.ended_canaries[rule.id] = why
            self._kept = None
            say("canary_ended_here", rule=rule.id, reason=why)

    def expire(self, now: Instant, max_call_seconds: float) -> None:
        """Count out the requests that nothing will end any more; the oldest stand first."""
        while self._open:
            name, slot = next(iter(self._open.items()))
            if slot.started.seconds_until(now) <= max_call_seconds:
                return
            ending = Ending(ended_at=now.wall, status="error", error_type="timeout")
            self.close(name, ending, now=now.wall)


def trial_of(
    decision: Decision, document: PolicyDocument, facts: Mapping[str, str]
) -> Canary | None:
    """Return the canary that a request tells something about: of its share, or what it replaces."""
    if decision.canary or decision.model is not None:
        return decision.canary  # a model that another rule chose is no measure of the old one
    return next(
        (
            rule
            for rule in document.rules
            if isinstance(rule, Canary) and matches(rule.match, facts)
        ),
        None,
    )


def _cost_nusd(usage: dict[str, int], rate: RatePerMillion) -> int:
    written = sum(n for bucket, n in usage.items() if bucket.startswith("output"))
    read = sum(usage.values()) - written
    return (read * rate.input_nusd + written * rate.output_nusd) // MILLION
