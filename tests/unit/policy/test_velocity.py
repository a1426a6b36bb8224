"""When quotas begin and end by themselves, and what agents are told of them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from controlplane.core.errors import PolicyError
from controlplane.policy.compile import compile_policy, with_quotas
from controlplane.policy.decide import Decision, decide
from controlplane.policy.document import Cap, Deny, PolicyDocument, Rule, Throttle
from controlplane.policy.quota import ThrottleState
from controlplane.policy.rules import PolicyRules, read_rules
from controlplane.policy.velocity import (
    MAX_QUOTAS,
    Excess,
    Quota,
    Subject,
    Turn,
    VelocityLimit,
    can_be_selected,
    forgiven,
    turn,
)

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
USD = 1_000_000_000
LIMIT = VelocityLimit(id="wallet", per="user_id", limit_usd="5", hold_seconds=900)
ALICE: Subject = ("acme", "alice")
NAMES = {ALICE: "a1", ("globex", "alice"): "a2", ("acme", "bob"): "b1"}
MAPPED = {"user_id": "user", "api_key": "key.alias"}


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def spends(usd: int, who: Subject = ALICE, limit: VelocityLimit = LIMIT) -> Excess:
    return Excess(limit, who, usd * USD)


def look(
    before: Sequence[Quota], *above: Excess, at: float = 0, names: Mapping[Subject, str] = NAMES
) -> Turn:
    return turn(before, above, scope="default", names=names, now=after(at))


def begun(who: Subject = ALICE, limit: VelocityLimit = LIMIT) -> Quota:
    (quota,) = look((), spends(6, who, limit)).begun
    return quota


def test_quota_begins_once_and_lasts_until_its_subject_was_calm() -> None:
    """A flood that goes on prolongs it; a pause shorter than the hold neither ends nor begins one."""
    first = look((), spends(6))
    assert ["velocity.wallet.a1"] == [quota.id for quota in first.begun]
    assert (NOW, after(900)) == (first.kept[0].since, first.kept[0].until)
    goes_on = look(first.kept, spends(8), at=100)
    assert ((), ()) == (goes_on.begun, goes_on.ended)
    assert (NOW, after(1_000), 8 * USD) == (
        goes_on.kept[0].since,
        goes_on.kept[0].until,
        goes_on.kept[0].spent_nusd,
    )
    calm = look(goes_on.kept, at=999)
    assert (goes_on.kept, ()) == (calm.kept, calm.ended)
    over = look(calm.kept, at=1_000)  # half-open: it is not in force at its end
    assert ((), ["velocity.wallet.a1"]) == (over.kept, [quota.id for quota in over.ended])


def test_quotas_are_bounded_and_those_in_force_go_first() -> None:
    """The dearest of the new ones take what is left, and who is left out is counted."""
    many = {("acme", f"u{n:03}"): f"h{n:03}" for n in range(MAX_QUOTAS + 5)}
    cheap = [spends(6, who) for who in list(many)[: MAX_QUOTAS - 1]]
    full = look((), *cheap, names=many)
    assert (MAX_QUOTAS - 1, 0) == (len(full.kept), full.left_out)
    dear = [spends(100 + n, who) for n, who in enumerate(list(many)[MAX_QUOTAS - 1 :])]
    more = look(full.kept, *cheap, *dear, names=many)
    assert (MAX_QUOTAS, 5) == (len(more.kept), more.left_out)
    assert [f"velocity.wallet.h{MAX_QUOTAS + 4:03}"] == [quota.id for quota in more.begun]


def test_subject_that_no_selector_means_alone_gets_no_quota() -> None:
    """A user who calls himself `al*` would hold alice back."""
    assert not can_be_selected("al*")
    assert not can_be_selected("*")
    assert not can_be_selected("")
    assert can_be_selected("a*l")
    done = look((), spends(6, ("acme", "al*")))
    assert ((), 1) == (done.kept, done.left_out)


def test_quota_that_a_person_ended_does_not_begin_again_for_its_window() -> None:
    """What was spent before is forgiven; what is spent after that is not."""
    ended = forgiven(begun(), after(60))
    assert not ended.is_active(after(60))
    at_once = look((ended,), spends(6), at=61)
    assert ((ended,), (), 0) == (at_once.kept, at_once.begun, at_once.left_out)
    assert () == look((ended,), at=660).ended  # it was told when it was ended
    assert 1 == len(look((ended,), spends(6), at=660).begun)


def document(rules: PolicyRules, *quotas: Quota) -> PolicyDocument:
    compiled = compile_policy(rules, (), rate_card={}, price_book_version="v", issued_at=NOW)
    return with_quotas(compiled, rules, quotas)


def rules_of(*rules: Rule, limit: VelocityLimit = LIMIT, **more: Any) -> PolicyRules:
    return PolicyRules(
        tenant="acme", rules=rules, velocity=(limit,), dimension_map=MAPPED | more.pop("map", {})
    )


def asked(told: PolicyDocument, user: str, tenant: str = "acme") -> Decision:
    facts = {"tenant": tenant, "user_id": user, "model": "m"}
    return decide(told, facts, NOW, throttle=ThrottleState(), used_ratio={})


def test_quota_without_a_rate_refuses_its_user_alone() -> None:
    told = document(rules_of(), begun())
    refused = asked(told, "alice").refused_by
    assert isinstance(refused, Deny)
    assert ("velocity.wallet.a1", 429) == (refused.id, refused.status)
    assert "more than $5 within 600 s" in refused.reason
    assert asked(told, "bob").refused_by is None


def test_same_user_of_another_tenant_is_somebody_else() -> None:
    """Where agents tell tenants apart; where they do not, only the scope's own is theirs."""
    mapped = rules_of(map={"tenant": "key.team"})
    told = document(mapped, begun())
    assert asked(told, "alice").refused_by
    assert asked(told, "alice", "globex").refused_by is None
    alien = begun(("globex", "alice"))
    assert () == document(rules_of(), alien).rules
    assert asked(document(mapped, alien), "alice").refused_by is None


@pytest.mark.parametrize(
    ("authored", "expected"),
    [
        ((), (6, None, None, None)),
        ((Throttle(id="t", rpm=2, tpm=100),), (2, None, None, 100)),
        ((Throttle(id="t", rpm=60, rps=3, match={"user_id": ("al*",)}),), (6, 3, 3, None)),
        ((Throttle(id="t", rpm=1, match={"user_id": ("bob",)}),), (6, None, None, None)),
        ((Throttle(id="t", rpm=1, shadow=True),), (6, None, None, None)),
    ],
)
def test_quota_lets_no_more_through_than_the_rules_it_stands_before(
    authored: tuple[Rule, ...], expected: tuple[object, ...]
) -> None:
    """The highest priority decides alone: a looser quota would be a way around a limit."""
    limit = msgspec.structs.replace(LIMIT, rpm=6)
    told = document(rules_of(*authored, limit=limit), begun(limit=limit))
    rule = asked(told, "alice").throttle
    assert rule is not None
    assert "velocity.wallet.a1" == rule.id
    assert expected == (rule.rpm, rule.rps, rule.burst, rule.tpm)


def test_burst_of_a_slower_rule_is_not_widened() -> None:
    """One a second by default lets one through at once, whatever the quota's own burst."""
    limit = msgspec.structs.replace(LIMIT, rps=10, burst=20)
    told = document(rules_of(Throttle(id="t", rps=1), limit=limit), begun(limit=limit))
    rule = asked(told, "alice").throttle
    assert rule is not None
    assert (1, 1) == (rule.rps, rule.burst)


def test_only_quotas_of_the_limits_there_are_reach_agents() -> None:
    """Rules without the limit, as after going back to older ones, have none of its quotas."""
    gone = PolicyRules(tenant="acme", dimension_map=MAPPED)
    other = msgspec.structs.replace(LIMIT, per="api_key")
    assert () == document(gone, begun()).rules
    assert () == document(rules_of(limit=other), begun()).rules
    ended = msgspec.structs.replace(begun(), until=NOW)
    assert () == document(rules_of(), ended).rules


def test_old_agents_understand_all_of_it() -> None:
    """The document has nothing new but rules, and says before any begins what they need."""
    rules = rules_of(Cap(id="c", max_tokens=5), limit=msgspec.structs.replace(LIMIT, rpm=6))
    before, now = document(rules), document(rules, begun())
    assert ("cap", "throttle") == before.capabilities_required == now.capabilities_required
    assert {"deny"} == set(document(rules_of()).capabilities_required)
    assert before == msgspec.structs.replace(now, rules=now.rules[:-1])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"velocity": [{"id": "w", "per": "user_id", "limit_usd": "0"}]}, "velocity.w.limit_usd"),
        (
            {"velocity": [{"id": "w", "per": "user_id", "limit_usd": "1", "burst": 2}]},
            "velocity.w.burst",
        ),
        (
            {"velocity": [{"id": "w", "per": "api_key", "limit_usd": "1"}], "dimension_map": {}},
            "velocity.w.per",
        ),
        (
            {
                "velocity": [
                    {"id": "w", "per": "user_id", "limit_usd": "1", "match": {"team": ["a"]}}
                ]
            },
            "velocity.w.match.team",
        ),
        (
            {
                "velocity": [
                    {"id": "w", "per": "user_id", "limit_usd": "1", "match": {"model": ["a"]}}
                ]
            },
            "velocity.w.match.model",
        ),
        ({"velocity": [{"id": "w", "per": "user_id", "limit_usd": "1"}] * 2}, "velocity.w"),
        (
            {"velocity": [{"id": f"w{n}", "per": "user_id", "limit_usd": "1"} for n in range(21)]},
            "velocity",
        ),
        (
            {"rules": [{"action": "deny", "id": "velocity.w.1"}], "velocity": []},
            "rules.velocity.w.1",
        ),
    ],
)
def test_limit_that_can_not_be_kept_is_refused(wrong: dict[str, Any], field: str) -> None:
    rules = read_rules({"dimension_map": MAPPED} | wrong)
    with pytest.raises(PolicyError) as refused:
        document(rules)
    assert field == refused.value.field


@pytest.mark.parametrize(
    "wrong",
    [
        {"per": "team"},
        {"limit_usd": 5},
        {"limit_usd": "-5"},
        {"limit_usd": "1.0000000001"},
        {"window_seconds": 59},
        {"window_seconds": 3_601},
        {"hold_seconds": 119},
        {"rpm": 0},
        {"rps": float("inf")},
        {"id": "a.b"},
        {"action": "deny"},
    ],
)
def test_limit_of_the_wrong_kind_names_its_place(wrong: dict[str, Any]) -> None:
    limit = {"id": "w", "per": "user_id", "limit_usd": "5"}
    read_rules({"velocity": [limit]})
    with pytest.raises(PolicyError) as refused:
        read_rules({"velocity": [limit | wrong]})
    assert refused.value.field.startswith("velocity[0]")
