"""Rules and budgets to a document, or the name of the field that is wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.core.errors import PolicyError
from controlplane.policy.compile import compile_policy
from controlplane.policy.document import (
    BudgetClause,
    Cap,
    Deny,
    Downgrade,
    Mode,
    PolicyDocument,
    RatePerMillion,
    Route,
    Rule,
    Throttle,
)
from controlplane.policy.rules import PolicyRules, read_rules

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
CARD = {"m": RatePerMillion(input_nusd=1, output_nusd=2)}


def budget(budget_id: str = "b", mode: Mode = Mode.HARD, **match: tuple[str, ...]) -> BudgetClause:
    return BudgetClause(
        id=budget_id,
        name=budget_id,
        owner="o",
        match={"tenant": ("acme",), **match},
        limit_nusd=1,
        window_start=NOW,
        window_end=NOW + timedelta(days=1),
        mode=mode,
    )


def build(
    *rules: Rule,
    budgets: tuple[BudgetClause, ...] = (),
    dimensions: dict[str, str] | None = None,
    tenant: str = "acme",
) -> PolicyDocument:
    authored = PolicyRules(rules=rules, dimension_map=dimensions or {}, tenant=tenant)
    return compile_policy(authored, budgets, rate_card=CARD, price_book_version="v", issued_at=NOW)


def test_document_holds_what_was_given() -> None:
    """Rules, budgets, prices, and the abilities an agent needs for them."""
    made = build(Cap(id="c", max_tokens=5), Deny(id="d"), budgets=(budget(),))
    assert ("cap", "deny", "lease") == made.capabilities_required
    assert (CARD, "v", NOW) == (made.rate_card, made.price_book_version, made.issued_at)
    assert ["c", "d"] == [rule.id for rule in made.rules]


def test_only_tenant_of_a_scope_is_no_selector() -> None:
    """Where no request names a tenant, all are the proxy key's own."""
    assert [{}] == [each.match for each in build(budgets=(budget(),)).budgets]


def test_mapped_tenant_is_a_selector() -> None:
    """Where requests name one, it is matched."""
    made = build(budgets=(budget(),), dimensions={"tenant": "user"})
    assert [{"tenant": ("acme",)}] == [each.match for each in made.budgets]


def test_hard_budget_that_can_not_be_told_apart_is_refused() -> None:
    """Of another tenant, or on a fact nobody reads: it would silently hold nothing (L7)."""
    with pytest.raises(PolicyError) as refused:
        build(budgets=(budget(),), tenant="globex")
    assert "budgets.b.match.tenant" == refused.value.field
    with pytest.raises(PolicyError) as refused:
        build(budgets=(budget(team=("a",)),))
    assert "budgets.b.match.team" == refused.value.field
    made = build(budgets=(budget(team=("a",)),), dimensions={"team": "metadata.team"})
    assert ["b"] == [each.id for each in made.budgets]


def test_soft_budget_that_can_not_be_told_apart_is_left_to_traces() -> None:
    """It never refuses, so the agent need not know it."""
    made = build(budgets=(budget(mode=Mode.SOFT, team=("a",)), budget("c")))
    assert ["c"] == [each.id for each in made.budgets]


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ((Deny(id="r"), Cap(id="r", max_tokens=1)), "rules.r"),
        ((Deny(id=""),), "rules"),
        ((Deny(id="r", match={"colour": ("red",)}),), "rules.r.match.colour"),
        ((Deny(id="r", match={"team": ("a",)}),), "rules.r.match.team"),
        ((Deny(id="r", match={"model": ("a*b",)}),), "rules.r.match.model"),
        ((Deny(id="r", status=200),), "rules.r.status"),
        ((Throttle(id="r", rpm=0),), "rules.r.rpm"),
        ((Cap(id="r", max_tokens=0),), "rules.r.max_tokens"),
        ((Route(id="r", weights={}),), "rules.r.weights"),
        ((Route(id="r", weights={"a": 0}),), "rules.r.weights"),
        ((Route(id="r", weights={"a": 2, "b": -1}),), "rules.r.weights"),
        ((Route(id="r", weights={"a": 1}, sticky="shoe"),), "rules.r.sticky"),
        ((Downgrade(id="r", to=""),), "rules.r.to"),
        ((Downgrade(id="r", to="m", budget="none"),), "rules.r.budget"),
        ((Downgrade(id="r", to="m", above_ratio=0.5),), "rules.r.above_ratio"),
        ((Downgrade(id="r", to="m", budget="b", above_ratio=1.0),), "rules.r.above_ratio"),
    ],
)
def test_wrong_rule_is_named(rules: tuple[Rule, ...], field: str) -> None:
    """The field of the first thing that can not be meant."""
    with pytest.raises(PolicyError) as refused:
        build(*rules, budgets=(budget(),))
    assert field == refused.value.field
    assert refused.value.fix


def test_good_rules_of_every_action_compile() -> None:
    """Each kind once, with everything it may say."""
    rules = (
        Deny(id="deny", match={"model": ("bad*",)}, status=403),
        Throttle(id="throttle", rpm=1),
        Cap(id="cap", max_tokens=1),
        Route(id="route", weights={"a": 0, "b": 1}, sticky="user_id"),
        Downgrade(id="down", to="small", budget="b", above_ratio=0.0),
    )
    assert rules == build(*rules, budgets=(budget(),)).rules


@pytest.mark.parametrize(
    ("left", "right", "ties"),
    [
        (Cap(id="l", max_tokens=1), Cap(id="r", max_tokens=2), True),
        (Cap(id="l", max_tokens=1), Cap(id="r", max_tokens=2, priority=1), False),
        (Cap(id="l", max_tokens=1), Deny(id="r"), False),
        (
            Deny(id="l", match={"model": ("gpt-*",)}),
            Deny(id="r", match={"model": ("gpt-4*",)}),
            True,
        ),
        (
            Deny(id="l", match={"model": ("gpt-*",)}),
            Deny(id="r", match={"model": ("claude",)}),
            False,
        ),
    ],
)
def test_ties_are_refused(left: Rule, right: Rule, *, ties: bool) -> None:
    """Same action, same priority, and a request that both match."""
    if not ties:
        build(left, right)
        return
    with pytest.raises(PolicyError) as refused:
        build(left, right)
    assert "rules.r.priority" == refused.value.field


@pytest.mark.parametrize(
    ("dimensions", "field"),
    [
        ({"colour": "user"}, "dimension_map.colour"),
        ({"team": "body.team"}, "dimension_map.team"),
        ({"team": "metadata."}, "dimension_map.team"),
    ],
)
def test_wrong_map_is_named(dimensions: dict[str, str], field: str) -> None:
    """An unknown dimension, or a place that no request has."""
    with pytest.raises(PolicyError) as refused:
        build(dimensions=dimensions)
    assert field == refused.value.field


def test_budgets_of_one_id_are_refused() -> None:
    """A lease could not say which it is from."""
    with pytest.raises(PolicyError) as refused:
        build(budgets=(budget(), budget()))
    assert "budgets.b" == refused.value.field


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({"colour": "red"}, "rules"),
        ({"rules": [{"action": "deny", "id": "r", "prio": 1}]}, "rules[0]"),
        ({"rules": [{"action": "explode", "id": "r"}]}, "rules[0].action"),
        ({"rules": [{"action": "cap", "id": "r", "max_tokens": "5"}]}, "rules[0].max_tokens"),
        ([], "rules"),
    ],
)
def test_rules_that_are_no_rules_are_named(tree: object, field: str) -> None:
    """A field nobody knows refuses the whole, with its place."""
    with pytest.raises(PolicyError) as refused:
        read_rules(tree)
    assert field == refused.value.field
