"""What a policy says of one request."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from controlplane.policy.decide import UNSHAPED, Decision, Health, Shape, decide
from controlplane.policy.document import (
    Annotate,
    Arm,
    BudgetClause,
    Canary,
    Cap,
    Deny,
    Downgrade,
    Experiment,
    Failover,
    PolicyDocument,
    Route,
    Rule,
    Slo,
    Throttle,
    When,
)
from controlplane.policy.quota import ThrottleState

NOW = datetime(2026, 11, 20, 10, 0, 20, tzinfo=UTC)
FACTS = {"model": "big", "team": "a"}


def say(
    *rules: Rule,
    facts: dict[str, str] | None = None,
    budgets: tuple[BudgetClause, ...] = (),
    used: dict[str, float] | None = None,
    throttle: ThrottleState | None = None,
    now: datetime = NOW,
    shape: Shape = UNSHAPED,
    health: dict[str, Health] | None = None,
) -> Decision:
    document = PolicyDocument(issued_at=NOW, rules=rules, budgets=budgets)
    return decide(
        document,
        facts or FACTS,
        now,
        throttle=throttle or ThrottleState(),
        used_ratio=used or {},
        shape=shape,
        health=health,
    )


def budget(budget_id: str, **match: tuple[str, ...]) -> BudgetClause:
    return BudgetClause(
        id=budget_id,
        name=budget_id,
        owner="o",
        match=match,
        limit_nusd=1,
        window_start=NOW,
        window_end=NOW + timedelta(days=1),
    )


def test_no_rules_say_nothing() -> None:
    """An empty policy lets every call through unchanged."""
    assert Decision() == say()


@pytest.mark.parametrize("turned", [False, True])
def test_highest_priority_wins(*, turned: bool) -> None:
    """Whatever the order of the document."""
    rules = [Cap(id="low", max_tokens=1), Cap(id="high", max_tokens=2, priority=5)]
    assert "high" == getattr(say(*(rules[::-1] if turned else rules)).cap, "id", None)


def test_each_action_has_its_say() -> None:
    """One quota, one downgrade, one cap, one route at once, and who they were."""
    said = say(
        Route(id="r", weights={"x": 1}),
        Cap(id="c", max_tokens=9),
        Throttle(id="t", rpm=1),
        Downgrade(id="d", to="small"),
    )
    assert ("t", "d", "c", "r") == said.rules
    assert said.refused_by is None


def test_deny_beats_everything() -> None:
    """Nothing else is decided, and no quota is used up."""
    throttle = ThrottleState()
    deny = Deny(id="no", match={"team": ("a",)}, priority=-1)
    said = say(Throttle(id="t", rpm=1, priority=9), deny, throttle=throttle)
    assert Decision(refused_by=deny, rules=("no",)) == said
    assert 0 == throttle.admitted("t", NOW)


def test_downgrade_is_no_way_around_a_rule() -> None:
    """Deny, cap, route and budgets see the model that will be called."""
    deny = Deny(id="no", match={"model": ("small",)})
    assert deny == say(Downgrade(id="d", to="small"), deny).refused_by
    said = say(
        Downgrade(id="d", to="small"),
        Cap(id="c", max_tokens=1, match={"model": ("big",)}),
        budgets=(budget("of-big", model=("big",)), budget("of-small", model=("sm*",))),
    )
    assert said.cap is None
    assert ["of-small"] == [each.id for each in said.budgets]


def test_downgrade_above_a_ratio_of_its_budget() -> None:
    """Only once more than that part is spent; of two, the tighter has the higher priority."""
    rules = (
        Downgrade(id="half", to="mid", budget="b", above_ratio=0.5),
        Downgrade(id="most", to="small", budget="b", above_ratio=0.9, priority=1),
    )

    def to(used: float | None) -> str | None:
        chosen = say(*rules, used={} if used is None else {"b": used}).downgrade
        return chosen.to if chosen else None

    assert [None, None, "mid", "mid", "small"] == [to(used) for used in (None, 0.5, 0.51, 0.9, 1.0)]


def test_a_downgrade_to_what_was_asked_is_none() -> None:
    """The model is as it was asked for; the next rule may have something to say."""
    said = say(Downgrade(id="d", to="big", priority=1), Downgrade(id="e", to="small"))
    assert "small" == getattr(said.downgrade, "to", None)


def test_quota_per_minute_of_the_clock() -> None:
    """Two of three get through; the third is told how long the minute lasts."""
    throttle, rule = ThrottleState(), Throttle(id="t", rpm=2)
    assert [None, None, rule] == [say(rule, throttle=throttle).refused_by for _ in range(3)]
    assert 40 == say(rule, throttle=throttle).retry_after_seconds
    after = NOW + timedelta(seconds=40)
    assert say(rule, throttle=throttle, now=after).refused_by is None


def test_every_budget_that_matches_counts() -> None:
    """They are not alternatives: a call is held against all of them."""
    said = say(budgets=(budget("all"), budget("a", team=("a",)), budget("b", team=("b",))))
    assert ["all", "a"] == [each.id for each in said.budgets]


def test_annotations_of_all_rules_add_up() -> None:
    """Of two values for one name the higher priority has its way."""
    said = say(
        Annotate(id="low", headers={"a": "1", "b": "1"}, attributes={"k": "v"}),
        Annotate(id="high", headers={"b": "2"}, priority=1),
        Annotate(id="else", headers={"c": "3"}, match={"team": ("b",)}),
    )
    assert ({"a": "1", "b": "2"}, {"k": "v"}) == (said.headers, said.attributes)
    assert ("high", "low") == said.rules


def test_failover_is_handed_on() -> None:
    """Which deployments in which order is the front's to do."""
    rule = Failover(id="f", order=("a", "b"))
    assert rule == say(rule).failover


@pytest.mark.parametrize(
    ("when", "shape", "holds"),
    [
        (When(), UNSHAPED, True),
        (When(min_input_tokens=10), UNSHAPED, False),
        (When(min_input_tokens=10), Shape(input_tokens=10), True),
        (When(min_input_tokens=10), Shape(input_tokens=9), False),
        (When(max_input_tokens=10), Shape(input_tokens=10), True),
        (When(max_input_tokens=10), Shape(input_tokens=11), False),
        (When(tools=True), UNSHAPED, False),
        (When(tools=True), Shape(tools=True), True),
        (When(tools=False), Shape(tools=True), False),
        (When(stream=False, tools=True), Shape(stream=True, tools=True), False),
    ],
)
def test_rule_is_for_requests_of_its_shape(when: When, shape: Shape, *, holds: bool) -> None:
    """All that is said must hold; what is not known holds for nothing."""
    assert holds is (say(Cap(id="c", max_tokens=1, when=when), shape=shape).cap is not None)


def test_rules_may_ask_for_task_class_and_tier() -> None:
    """Facts of a request that no call is counted by."""
    rule = Route(id="r", weights={"cheap": 1}, match={"task_class": ("summary",)})
    assert {"cheap": 1} == say(rule, facts={"task_class": "summary"}).weights
    assert say(rule, facts={"task_class": "code"}).weights is None


def test_deployment_outside_its_objectives_gets_nothing_while_another_is_within() -> None:
    """Slow or failing of late; a deployment little is known of keeps its share."""
    route = Route(
        id="r", weights={"a": 1, "b": 1}, slo=Slo(latency_p95_ms=100, error_ratio=0.1, min_calls=5)
    )

    def health(calls: int = 5, errors: float = 0.0, latency: float = 1.0) -> Health:
        return Health(calls=calls, error_ratio=errors, latency_p95_ms=latency)

    assert {"a": 1, "b": 1} == say(route).weights
    assert {"a": 1, "b": 1} == say(route, health={"a": health(), "b": health()}).weights
    assert {"b": 1} == say(route, health={"a": health(latency=101)}).weights
    assert {"a": 1} == say(route, health={"b": health(errors=0.2)}).weights
    assert {"a": 1, "b": 1} == say(route, health={"b": health(calls=4, errors=1)}).weights
    bad = health(errors=1)
    assert {"a": 1, "b": 1} == say(route, health={"a": bad, "b": bad}).weights


def test_canary_takes_its_share_and_keeps_it() -> None:
    """Who is in at 5 % is in at 25 %; nobody at 0, everybody at 100."""

    def inside(percent: int) -> set[int]:
        rule = Canary(id="c", to="next", share_percent=percent)
        return {
            unit for unit in range(2_000) if say(rule, shape=Shape(unit=f"request-{unit}")).model
        }

    assert set() == inside(0)
    assert 2_000 == len(inside(100))
    assert inside(5) < inside(25)
    assert 0.2 < len(inside(25)) / 2_000 < 0.3
    assert say(Canary(id="c", to="next", share_percent=99)).model is None  # nothing to go by


def test_canary_is_sticky_by_its_fact() -> None:
    """All of a team's requests, or none."""
    rule = Canary(id="c", to="next", share_percent=50, sticky="team")
    said = {say(rule, shape=Shape(unit=str(each))).model for each in range(50)}
    assert 1 == len(said)


def test_experiment_gives_each_value_one_arm() -> None:
    """By weight over many, always the same for one; without the fact there is no experiment."""
    rule = Experiment(
        id="e", arms={"as-asked": Arm(weight=1), "small": Arm(weight=3, model="small")}
    )
    said = [say(rule, facts={"model": "big", "user_id": f"u{n}"}) for n in range(2_000)]
    small = [one for one in said if one.arm == "small"]
    assert {"small"} == {one.model for one in small}
    assert {None} == {one.model for one in said if one.arm == "as-asked"}
    assert 0.7 < len(small) / 2_000 < 0.8
    assert said[7].arm == say(rule, facts={"model": "other", "user_id": "u7"}).arm
    assert say(rule, facts={"model": "big"}).experiment is None


def test_replaced_models_are_denied_and_counted_as_what_they_are() -> None:
    """An experiment or a canary is no way around a rule either."""
    deny = Deny(id="no", match={"model": ("next",)})
    everybody = Canary(id="c", to="next", share_percent=100)
    unit = Shape(unit="r")
    assert deny == say(everybody, deny, shape=unit).refused_by
    said = say(
        everybody, budgets=(budget("n", model=("next",)), budget("b", model=("big",))), shape=unit
    )
    assert ["n"] == [each.id for each in said.budgets]


def test_a_short_budget_leaves_no_room_for_trials() -> None:
    """What was downgraded is not sent to a canary on top."""
    said = say(
        Downgrade(id="d", to="small"),
        Canary(id="c", to="next", share_percent=100),
        shape=Shape(unit="r"),
    )
    assert ("small", None) == (said.model, said.canary)


def test_a_later_attempt_at_another_model_is_downgraded_and_capped_and_nothing_else() -> None:
    """No quota is used, no trial begun: the request was counted when it was admitted."""
    rules = (
        Throttle(id="none", rpm=1),
        Experiment(id="e", sticky="team", arms={"on": Arm(weight=1, model="trial")}),
        Canary(id="c", to="trial", share_percent=100, sticky="team"),
        Cap(id="short", max_tokens=7, match={"model": ("big",)}),
        Deny(id="closed", match={"model": ("closed",)}),
    )
    document = PolicyDocument(issued_at=NOW, rules=rules)
    for _ in range(2):
        said = decide(document, FACTS, NOW, throttle=None, used_ratio={})
        assert (None, ("short",)) == (said.model, said.rules)
    closing = Downgrade(id="d", to="closed", match={"model": ("big",)})
    replaced = msgspec.structs.replace(document, rules=(*rules, closing))
    refused = decide(replaced, FACTS, NOW, throttle=None, used_ratio={})
    assert refused.refused_by == rules[-1]
    smaller = msgspec.structs.replace(closing, to="small")
    replaced = msgspec.structs.replace(document, rules=(*rules, smaller))
    said = decide(replaced, FACTS, NOW, throttle=None, used_ratio={})
    assert ("small", ("d",)) == (said.model, said.rules)
