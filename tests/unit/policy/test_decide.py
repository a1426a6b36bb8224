"""What a policy says of one request."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.policy.decide import Decision, ThrottleState, decide
from controlplane.policy.document import (
    BudgetClause,
    Cap,
    Deny,
    Downgrade,
    PolicyDocument,
    Route,
    Rule,
    Throttle,
)

NOW = datetime(2026, 11, 20, 10, 0, 20, tzinfo=UTC)
FACTS = {"model": "big", "team": "a"}


def say(
    *rules: Rule,
    facts: dict[str, str] | None = None,
    budgets: tuple[BudgetClause, ...] = (),
    used: dict[str, float] | None = None,
    throttle: ThrottleState | None = None,
    now: datetime = NOW,
) -> Decision:
    document = PolicyDocument(issued_at=NOW, rules=rules, budgets=budgets)
    return decide(
        document, facts or FACTS, now, throttle=throttle or ThrottleState(), used_ratio=used or {}
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
