"""A canary's next share: on to the next step when it did well for long enough, 0 when it did not."""

from datetime import datetime

import msgspec

from controlplane.policy.document import Canary

WHOLE = 100


class SideNow(msgspec.Struct, frozen=True, kw_only=True):
    """What one side of a canary did since its share last changed."""

    calls: int = 0
    errors: int = 0
    cost_nusd: int = 0
    priced_calls: int = 0
    duration_us: int = 0
    timed_calls: int = 0


class NextShare(msgspec.Struct, frozen=True):
    """The share to publish, and why."""

    percent: int
    reason: str


def next_share(
    rule: Canary, canary: SideNow, other: SideNow, *, since: datetime, now: datetime
) -> NextShare | None:
    """Say what a canary's share is to be now; None: as it is.

    Args:
        rule: as published, with its share.
        canary: calls of the model it tries, since the share is what it is.
        other: calls of the models it would replace, in the same time.
        since: when the share became what it is.
        now: aware UTC.
    """
    share = rule.share_percent or 0
    if share <= 0 or share >= WHOLE or canary.calls < rule.min_calls:
        return None
    trouble = _trouble(rule, canary, other)
    if trouble:
        return NextShare(0, f"aborted: {trouble}")
    later = [step for step in rule.steps if step > share]
    if not later or (now - since).total_seconds() < rule.step_seconds:
        return None
    return NextShare(later[0], f"{canary.calls} calls at {share} % did well")


def _trouble(rule: Canary, canary: SideNow, other: SideNow) -> str:
    limits = rule.abort_if
    errors = canary.errors / canary.calls
    if limits.error_ratio is not None and errors > limits.error_ratio:
        return f"error ratio {errors:.3f} is above {limits.error_ratio:g}"
    if other.calls < rule.min_calls:
        return ""  # nothing to compare with
    pairs = (
        (
            "cost",
            limits.cost_ratio,
            _mean(canary.cost_nusd, canary.priced_calls),
            _mean(other.cost_nusd, other.priced_calls),
        ),
        (
            "latency",
            limits.latency_ratio,
            _mean(canary.duration_us, canary.timed_calls),
            _mean(other.duration_us, other.timed_calls),
        ),
    )
    for name, limit, mine, theirs in pairs:
        if limit is not None and theirs > 0 and mine / theirs > limit:
            return f"{name} ratio {mine / theirs:.2f} is above {limit:g}"
    return ""


def _mean(whole: int, calls: int) -> float:
    return whole / calls if calls else 0.0
