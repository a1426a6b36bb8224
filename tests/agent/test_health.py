"""Breakers and objectives of deployments, told the time."""

from datetime import UTC, datetime

import pytest

from controlplane.agent.health import Deployments, Outcome, is_failure
from controlplane.policy.document import Breaker, Failover, PolicyDocument, Route, Slo

RULE = Failover(
    id="f",
    order=("a", "b"),
    breaker=Breaker(failures=2, window_seconds=10, open_seconds=30),
)


def _fail(deployments: Deployments, at: float, name: str = "a") -> None:
    deployments.sent(name, at)
    deployments.ended(name, RULE.breaker, Outcome(at, is_failure=True, latency_seconds=0.1))


def _serve(deployments: Deployments, at: float, name: str = "a", *, seconds: float = 0.1) -> None:
    deployments.sent(name, at)
    deployments.ended(name, RULE.breaker, Outcome(at, is_failure=False, latency_seconds=seconds))


def test_a_failing_deployment_is_left_alone_then_probed_once() -> None:
    deployments = Deployments()
    assert ("a", "b") == deployments.in_order(RULE, 0.0)
    _fail(deployments, 1.0)
    assert ("a", "b") == deployments.in_order(RULE, 1.0)  # one is no habit
    _fail(deployments, 2.0)
    assert ("b", "a") == deployments.in_order(RULE, 31.9)
    assert ("a", "b") == deployments.in_order(RULE, 32.0)
    deployments.sent("a", 32.0)  # the probe is under way
    assert ("b", "a") == deployments.in_order(RULE, 32.0)
    deployments.ended("a", RULE.breaker, Outcome(32.5, is_failure=True, latency_seconds=0.5))
    assert ("b", "a") == deployments.in_order(RULE, 62.4)
    _serve(deployments, 62.5)
    assert ("a", "b") == deployments.in_order(RULE, 62.5)


def test_old_failures_and_a_success_between_do_not_open_it() -> None:
    deployments = Deployments()
    _fail(deployments, 0.0)
    _fail(deployments, 10.1)  # the first is out of the window
    assert not deployments.is_open("a", 10.1)
    _serve(deployments, 10.2)
    _fail(deployments, 10.3)
    assert not deployments.is_open("a", 10.3)


def test_all_left_alone_are_still_tried() -> None:
    deployments = Deployments()
    for name in ("a", "b"):
        _fail(deployments, 1.0, name)
        _fail(deployments, 1.1, name)
    assert ("a", "b") == deployments.in_order(RULE, 2.0)


def test_health_is_of_the_window_that_the_route_asks_about() -> None:
    document = PolicyDocument(
        issued_at=datetime(2026, 1, 1, tzinfo=UTC),
        rules=(Route(id="r", weights={"a": 1}, slo=Slo(window_seconds=100)),),
    )
    deployments = Deployments()
    _fail(deployments, 0.0)
    for at in range(1, 21):
        _serve(deployments, 100.0 + at, seconds=at / 100)
    _fail(deployments, 125.0)
    seen = deployments.health(document, 130.0)["a"]
    assert (21, 1 / 21) == (seen.calls, seen.error_ratio)
    assert pytest.approx(190.0) == seen.latency_p95_ms  # the nineteenth of twenty
    assert "b" not in deployments.health(document, 130.0)


@pytest.mark.parametrize(
    ("on", "status", "kind", "expected"),
    [
        (("429",), 429, None, True),
        (("5xx",), 503, None, True),
        (("5xx",), 429, None, False),
        (("timeout",), None, "timeout", True),
        (("timeout",), None, "connect", False),
        (("429", "5xx", "timeout", "connect"), 200, None, False),
        (("429", "5xx", "timeout", "connect"), 400, None, False),
    ],
)
def test_what_a_rule_goes_on_from(
    on: tuple[str, ...], status: int | None, kind: str | None, *, expected: bool
) -> None:
    assert expected == is_failure(on, status=status, kind=kind)
