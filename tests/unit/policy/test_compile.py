"""Rules and budgets to a document, or the name of the field that is wrong."""

import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from controlplane.agent.puller import CAPABILITIES as AGENT_CAPABILITIES
from controlplane.core.errors import PolicyError
from controlplane.policy.compile import CAPABILITIES, compile_policy, refuse_above_parent
from controlplane.policy.document import (
    AbortIf,
    Annotate,
    Arm,
    Breaker,
    BudgetClause,
    Canary,
    Cap,
    Deny,
    Downgrade,
    Experiment,
    Failover,
    Mode,
    PolicyDocument,
    RatePerMillion,
    Route,
    Rule,
    Slo,
    Strip,
    Throttle,
    When,
)
from controlplane.policy.reach import reachable_rates
from controlplane.policy.rules import Deployment, PolicyRules, read_rules
from controlplane.policy.units import BudgetUnit

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
M: dict[str, tuple[str, ...]] = {"model": ("m",)}
ASKED, OTHER = Arm(weight=1), Arm(weight=3, model="m")
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
    trusted: tuple[str, ...] = (),
    deployments: dict[str, Deployment] | None = None,
) -> PolicyDocument:
    authored = PolicyRules(
        rules=rules,
        dimension_map=dimensions or {},
        tenant=tenant,
        trusted_sources=trusted,
        deployments=deployments or {},
    )
    return compile_policy(authored, budgets, rate_card=CARD, price_book_version="v", issued_at=NOW)


def test_document_holds_what_was_given() -> None:
    """Rules, budgets, prices, and the abilities an agent needs for them."""
    made = build(Cap(id="c", max_tokens=5), Deny(id="d", match=M), budgets=(budget(),))
    assert ("cap", "deny", "lease") == made.capabilities_required
    assert (CARD, "v", NOW) == (made.rate_card, made.price_book_version, made.issued_at)
    assert ["c", "d"] == [rule.id for rule in made.rules]


def test_only_tenant_of_a_scope_is_no_selector() -> None:
    """Where no request names a tenant, all are the proxy key's own."""
    assert [{}] == [each.match for each in build(budgets=(budget(),)).budgets]


def test_mapped_tenant_is_a_selector() -> None:
    """Where requests name one, it is matched."""
    made = build(budgets=(budget(),), dimensions={"tenant": "user"}, trusted=("user",))
    assert [{"tenant": ("acme",)}] == [each.match for each in made.budgets]


def test_hard_budget_that_can_not_be_told_apart_is_refused() -> None:
    """Of another tenant, or on a fact nobody reads: it would silently hold nothing (L7)."""
    with pytest.raises(PolicyError) as refused:
        build(budgets=(budget(),), tenant="globex")
    assert "budgets.b.match.tenant" == refused.value.field
    with pytest.raises(PolicyError) as refused:
        build(budgets=(budget(team=("a",)),))
    assert "budgets.b.match.team" == refused.value.field
    made = build(budgets=(budget(team=("a",)),), dimensions={"team": "key.team"})
    assert ["b"] == [each.id for each in made.budgets]


def test_hard_budget_on_what_a_sender_writes_is_refused_until_it_is_trusted() -> None:
    """Whoever can name another team could spend its money, or nobody's (L7)."""
    by_team, said = (budget(team=("a",)),), {"team": "metadata.team"}
    with pytest.raises(PolicyError, match=r"metadata\.team") as refused:
        build(budgets=by_team, dimensions=said)
    assert "budgets.b.match.team" == refused.value.field
    soft = build(budgets=(budget(mode=Mode.SOFT, team=("a",)),), dimensions=said)
    assert ["b"] == [each.id for each in soft.budgets]
    made = build(budgets=by_team, dimensions=said, trusted=("metadata.team",))
    assert ["b"] == [each.id for each in made.budgets]


@pytest.mark.parametrize(
    ("hidden", "above", "reached"),
    [
        (Cap(id="l", max_tokens=1), Cap(id="r", max_tokens=2, priority=1), False),
        (Cap(id="l", match=M, max_tokens=1), Deny(id="r"), False),
        (Cap(id="l", match=M, max_tokens=1), Deny(id="r", emergency=True), True),
        (Cap(id="l", match=M, max_tokens=1), Deny(id="r", when=When(tools=True)), True),
        (
            Cap(id="l", max_tokens=1, match={"model": ("gpt-4*", "gpt-5")}),
            Cap(id="r", max_tokens=2, match={"model": ("gpt-*",)}, priority=1),
            False,
        ),
        (
            Cap(id="l", max_tokens=1, match={"model": ("gpt-*",)}),
            Cap(id="r", max_tokens=2, match={"model": ("gpt-4*",)}, priority=1),
            True,
        ),
        (
            Cap(id="l", max_tokens=1, when=When(min_input_tokens=5, max_input_tokens=9)),
            Cap(id="r", max_tokens=2, when=When(max_input_tokens=9), priority=1),
            False,
        ),
        (
            Cap(id="l", max_tokens=1),
            Cap(id="r", max_tokens=2, when=When(max_input_tokens=9), priority=1),
            True,
        ),
        (Downgrade(id="l", to="a"), Downgrade(id="r", to="b", budget="b", priority=1), True),
    ],
)
def test_rules_that_are_never_reached_are_refused(
    hidden: Rule, above: Rule, *, reached: bool
) -> None:
    """Somebody wrote it to have an effect."""
    if reached:
        build(hidden, above, budgets=(budget(),))
        return
    with pytest.raises(PolicyError, match="'r' decides every request") as refused:
        build(hidden, above, budgets=(budget(),))
    assert "rules.l" == refused.value.field


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Route(id="r", weights={"east": 1, "west": 1}), "rules.r.weights.west"),
        (Failover(id="r", order=("east", "west")), "rules.r.order"),
        (Downgrade(id="r", to="west"), "rules.r.to"),
        (Canary(id="r", to="west"), "rules.r.to"),
    ],
)
def test_unknown_deployments_are_refused_where_they_are_declared(rule: Rule, field: str) -> None:
    """A typing error would send requests nowhere."""
    assert (rule,) == build(rule).rules
    with pytest.raises(PolicyError) as refused:
        build(rule, deployments={"east": Deployment(provider="p", model="m")})
    assert (field, "Known: east") == (refused.value.field, refused.value.fix)


def test_document_carries_only_rates_that_the_scope_can_reach() -> None:
    """None without holds; the declared; those the budgets count; all when they count any model."""
    rate = RatePerMillion(input_nusd=1, output_nusd=2)
    card = {"p/m": rate, "m": rate, "q/n": rate, "n": rate, "p/o": rate}

    def names(*budgets: BudgetClause, rules: PolicyRules) -> set[str]:
        return set(reachable_rates(rules, budgets, card))

    plain = PolicyRules()
    assert set() == names(budget(mode=Mode.SOFT), rules=plain)
    assert set(card) == names(budget(), rules=plain)
    assert {"p/m", "m"} == names(budget(model=("m",)), rules=plain)
    assert {"p/m", "p/o", "m", "n"} == names(budget(provider=("p",)), rules=plain)
    assert set(card) == names(budget(), budget("c", model=("m",)), rules=plain)
    down = PolicyRules(rules=(Downgrade(id="d", to="n"),))
    assert {"p/m", "m", "q/n", "n"} == names(budget(model=("m",)), rules=down)
    east = {"east": Deployment(provider="q", model="n")}
    assert {"q/n", "n"} == names(budget(), rules=PolicyRules(deployments=east))


def test_budget_above_its_parent_is_refused() -> None:
    """Nobody could ever spend it; in another window the two can not be compared."""
    parent = msgspec.structs.replace(budget("p"), limit_nusd=5)
    small = msgspec.structs.replace(budget("c"), limit_nusd=5, parent="p")
    large = msgspec.structs.replace(small, limit_nusd=6)
    longer = msgspec.structs.replace(large, window_end=NOW + timedelta(days=30))
    tokens = msgspec.structs.replace(large, unit=BudgetUnit.TOKENS)
    below = msgspec.structs.replace(large, id="g", parent="c")
    for fits in (small, longer, tokens):
        for changed in ("p", "c"):
            refuse_above_parent((parent, fits), changed)
    for changed in ("p", "c"):
        with pytest.raises(PolicyError, match=r"\$0\.000000006 of 'c' is more") as refused:
            refuse_above_parent((parent, large), changed)
        assert "budgets.c.limit" == refused.value.field
    with pytest.raises(PolicyError) as refused:  # also above one that is not its next
        refuse_above_parent((parent, longer, below), "g")
    assert "budgets.g.limit" == refused.value.field
    refuse_above_parent((parent, large), "another")  # what was so before stops nobody else
    assert 2 == len(build(budgets=(parent, large)).budgets)
    with pytest.raises(PolicyError) as refused:
        build(budgets=(small,))
    assert "budgets.c.parent" == refused.value.field
    with pytest.raises(PolicyError) as refused:
        build(budgets=(msgspec.structs.replace(parent, parent="c"), small))
    assert "budgets.p.parent" == refused.value.field


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
        ((Route(id="r", weights={"a": 1}, sticky="user_id"),), "rules.r.sticky"),
        ((Route(id="r", weights={"a": 1}, slo=Slo()),), "rules.r.slo"),
        ((Route(id="r", weights={"a": 1}, slo=Slo(error_ratio=2)),), "rules.r.slo.error_ratio"),
        ((Route(id="r", weights={"a": 1}, slo=Slo(latency_p95_ms=0)),), "rules.r.slo"),
        ((Throttle(id="r"),), "rules.r.rpm"),
        ((Throttle(id="r", rps=0.0),), "rules.r.rps"),
        ((Throttle(id="r", rpm=1, burst=2),), "rules.r.burst"),
        ((Throttle(id="r", rps=math.inf),), "rules.r.rps"),
        ((Throttle(id="r", rps=math.nan),), "rules.r.rps"),
        ((Cap(id="r"),), "rules.r.max_tokens"),
        ((Cap(id="r", n=0),), "rules.r.n"),
        ((Deny(id="r", when=When(min_input_tokens=-1)),), "rules.r.when"),
        ((Deny(id="r", when=When(min_input_tokens=2, max_input_tokens=1)),), "rules.r.when"),
        ((Failover(id="r", order=()),), "rules.r.order"),
        ((Failover(id="r", order=("a", "a")),), "rules.r.order"),
        ((Failover(id="r", order=("a",), on=()),), "rules.r.on"),
        ((Failover(id="r", order=("a",), on=("200",)),), "rules.r.on"),
        ((Failover(id="r", order=("a",), timeout_ms=0),), "rules.r.timeout_ms"),
        ((Failover(id="r", order=("a",), breaker=Breaker(failures=0)),), "rules.r.breaker"),
        ((Canary(id="r", to=""),), "rules.r.to"),
        ((Canary(id="r", to="m", steps=(5, 1)),), "rules.r.steps"),
        ((Canary(id="r", to="m", steps=(50, 101)),), "rules.r.steps"),
        ((Canary(id="r", to="m", share_percent=101),), "rules.r.share_percent"),
        ((Canary(id="r", to="m", step_seconds=0),), "rules.r.step_seconds"),
        ((Canary(id="r", to="m", sticky="shoe"),), "rules.r.sticky"),
        (
            (Canary(id="r", to="m", abort_if=AbortIf(error_ratio=2)),),
            "rules.r.abort_if.error_ratio",
        ),
        ((Canary(id="r", to="m", abort_if=AbortIf(cost_ratio=0)),), "rules.r.abort_if.cost_ratio"),
        ((Strip(id="r", features=()),), "rules.r.features"),
        ((Strip(id="r", features=("seed",)),), "rules.r.features"),
        ((Annotate(id="r"),), "rules.r.headers"),
        ((Annotate(id="r", headers={"a b": "c"}),), "rules.r.headers"),
        ((Annotate(id="r", headers={"a": "c\n"}),), "rules.r.headers.a"),
        ((Experiment(id="r", arms={"a": Arm(weight=1)}),), "rules.r.arms"),
        ((Experiment(id="r", arms={"a": Arm(weight=1), "b": Arm(weight=0)}),), "rules.r.arms"),
        ((Experiment(id="r", arms={"a": Arm(weight=1), "b": Arm(weight=1)}),), "rules.r.arms"),
        (
            (Experiment(id="r", arms={"a": ASKED, "b": OTHER}, sticky="model"),),
            "rules.r.sticky",
        ),
        ((Experiment(id="r", arms={"a": ASKED, "b": OTHER}),), "rules.r.sticky"),
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
        Throttle(id="throttle", rpm=1, rps=0.5, burst=3, tpm=9, concurrency=2),
        Cap(id="cap", max_tokens=1, n=1),
        Route(id="route", weights={"a": 0, "b": 1}, sticky="user_id", slo=Slo(error_ratio=0.1)),
        Downgrade(id="down", to="small", budget="b", above_ratio=0.0),
        Failover(id="failover", order=("a", "c"), on=("429", "5xx", "timeout"), timeout_ms=500),
        Canary(id="canary", to="next", steps=(5, 50), abort_if=AbortIf(cost_ratio=1.3)),
        Annotate(id="note", headers={"x-team": "a"}, attributes={"k": "v"}),
        Experiment(id="trial", arms={"a": ASKED, "b": OTHER}),
    )
    made = build(*rules, budgets=(budget(),), dimensions={"user_id": "user"})
    assert rules == made.rules
    needed = {"annotate", "canary", "cap", "deny", "downgrade", "experiment", "failover", "lease"}
    assert needed | {"route", "throttle"} == set(made.capabilities_required)


@pytest.mark.parametrize(
    ("left", "right", "ties"),
    [
        (Cap(id="l", max_tokens=1), Cap(id="r", max_tokens=2), True),
        (Cap(id="l", max_tokens=1), Cap(id="r", match=M, max_tokens=2, priority=1), False),
        (Cap(id="l", max_tokens=1), Deny(id="r", match=M), False),
        (Annotate(id="l", headers={"a": "b"}), Annotate(id="r", headers={"c": "d"}), False),
        (
            Cap(id="l", max_tokens=1, when=When(max_input_tokens=99)),
            Cap(id="r", max_tokens=2, when=When(min_input_tokens=100)),
            False,
        ),
        (
            Cap(id="l", max_tokens=1, when=When(tools=True)),
            Cap(id="r", max_tokens=2, when=When(tools=False)),
            False,
        ),
        (
            Cap(id="l", max_tokens=1, when=When(max_input_tokens=100)),
            Cap(id="r", max_tokens=2, when=When(min_input_tokens=100, stream=True)),
            True,
        ),
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


def test_an_agent_can_do_what_any_rule_requires() -> None:
    """A rule of every kind: the agent of the same version must not refuse the document."""
    assert set(CAPABILITIES.values()) < set(AGENT_CAPABILITIES)
