"""What each deployment did of late, as this process saw it: its objectives, and its breaker.

A breaker is closed (calls go), open (left alone for a while) or half open (one call probes): the
states and every transition are in `_Circuit`.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from controlplane.policy.decide import Health
from controlplane.policy.document import Breaker, Failover, PolicyDocument, Route

KEPT_CALLS: Final = 500
"""Calls remembered of each deployment: more would not change what is decided."""
WINDOW_SECONDS: Final = 300.0


class Outcome(msgspec.Struct, frozen=True):
    """One attempt at a deployment: when it ended (seconds since boot), how, and how long it took."""

    at: float
    is_failure: bool
    latency_seconds: float


class _Circuit:
    """One deployment's breaker."""

    def __init__(self) -> None:
        self.failed_at: deque[float] = deque(maxlen=100)
        self.open_until: float | None = None
        self.pause = 0.0
        self.is_probing = False

    def allows(self, now: float) -> bool:
        """Closed: yes. Open: no. Past its pause: once, until that call has ended."""
        return self.open_until is None or now >= self.open_until

    def sent(self, now: float) -> None:
        if self.open_until is not None and now >= self.open_until:
            self.is_probing = True
            self.open_until = now + self.pause  # if nobody says how it ended, then another

    def left(self) -> None:
        if self.is_probing:
            self.is_probing, self.open_until = False, 0.0

    def ended(self, now: float, breaker: Breaker, *, is_failure: bool) -> None:
        if not is_failure:
            if self.is_probing or self.open_until is None:
                self.failed_at.clear()
                self.open_until = None
        else:
            self.failed_at.append(now)
            recent = sum(1 for at in self.failed_at if now - at <= breaker.window_seconds)
            if self.is_probing or recent >= breaker.failures:
                self.pause = breaker.open_seconds
                self.open_until = now + self.pause
        self.is_probing = False


class Deployments:
    """The deployments that this process has called; told the time in seconds since boot."""

    def __init__(self) -> None:
        self._outcomes: dict[str, deque[Outcome]] = {}
        self._circuits: dict[str, _Circuit] = {}

    def in_order(self, failover: Failover, now: float) -> tuple[str, ...]:
        """Return the deployments in the order to try them: those left alone last, but not never."""
        left_alone = [name for name in failover.order if not self._circuit(name).allows(now)]
        return (*(name for name in failover.order if name not in left_alone), *left_alone)

    def is_open(self, name: str, now: float) -> bool:
        """Whether the deployment is left alone now."""
        return not self._circuit(name).allows(now)

    def sent(self, name: str, now: float) -> None:
        """Note that a call goes to a deployment: past its pause it is the probe."""
        self._circuit(name).sent(now)

    def left(self, name: str) -> None:
        """Note that nobody waited for how an attempt ended: the next one may probe."""
        self._circuit(name).left()

    def ended(self, name: str, breaker: Breaker, outcome: Outcome) -> None:
        """Note how an attempt ended."""
        self._circuit(name).ended(outcome.at, breaker, is_failure=outcome.is_failure)
        self._outcomes.setdefault(name, deque(maxlen=KEPT_CALLS)).append(outcome)

    def health(self, document: PolicyDocument, now: float) -> Mapping[str, Health]:
        """Return what is known of every deployment that a route with objectives names."""
        return _View(self._outcomes, document, now)

    def _circuit(self, name: str) -> _Circuit:
        return self._circuits.setdefault(name, _Circuit())


def _windows(document: PolicyDocument) -> dict[str, float]:
    return {
        name: float(rule.slo.window_seconds)
        for rule in document.rules
        if isinstance(rule, Route) and rule.slo
        for name in rule.weights
    }


class _View(Mapping[str, Health]):
    """Computed when it is looked at: most requests meet no route with objectives."""

    def __init__(
        self, outcomes: Mapping[str, deque[Outcome]], document: PolicyDocument, now: float
    ) -> None:
        self._outcomes = outcomes
        self._document = document
        self._now = now

    def __getitem__(self, name: str) -> Health:
        window = _windows(self._document).get(name, WINDOW_SECONDS)
        recent = [one for one in self._outcomes[name] if self._now - one.at <= window]
        latencies = sorted(one.latency_seconds for one in recent if not one.is_failure)
        p95 = latencies[-(-len(latencies) * 95 // 100) - 1] if latencies else 0.0
        failures = sum(one.is_failure for one in recent)
        return Health(
            calls=len(recent),
            error_ratio=failures / len(recent) if recent else 0.0,
            latency_p95_ms=p95 * 1_000,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)


def is_failure(on: tuple[str, ...], *, status: int | None, kind: str | None) -> bool:
    """Whether an attempt ended in a way that the rule goes on from.

    Args:
        on: `timeout`, `connect`, `5xx`, or a status.
        status: of the answer; None when there was none.
        kind: `timeout` or `connect` when there was no answer.
    """
    if status is None:
        return kind in on
    named = f"{status // 100}xx"
    return str(status) in on or named in on
