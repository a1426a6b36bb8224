"""Roll-outs over the real store: two lines, never lower, back by itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.budgets.budget import Budget
from controlplane.core.calendar import Period
from controlplane.core.errors import ConflictError, ForbiddenError, NotFoundError, PolicyError
from controlplane.core.ids import SequentialIds
from controlplane.pipelines import propose as propose_module
from controlplane.pipelines.propose import approve, plan, propose, reject
from controlplane.pipelines.publish import PublishTools, RateCard, bump_epoch, publish
from controlplane.pipelines.rollout import halt, promote, roll_back, rollout_tick
from controlplane.policy.bundle import Signer, decode_document
from controlplane.policy.document import Canary, Cap, Deny, Rule
from controlplane.policy.history import Cause, Change, NodeReport, SignedGeneration
from controlplane.policy.rollout import RolloutState, RolloutTerms
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import CallCounts, Generation, Nack
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.policies import PolicyRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
ADA = Change(author="ada", author_id="k1", message="why", cause=Cause.RULES)
BOB = Change(author="bob", author_id="k2")
TERMS = RolloutTerms(stage_seconds=30, stage_max_seconds=300, min_calls=20)


def capped(tokens: int, *more: Rule) -> PolicyRules:
    return PolicyRules(tenant="acme", rules=(Cap(id="c", max_tokens=tokens), *more))


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def tools(metadata_engine: Engine) -> PublishTools:
    return PublishTools(
        policies=PolicyRepository(metadata_engine),
        budgets=BudgetRepository(metadata_engine),
        rate_card=lambda _now: RateCard({}, "book-1"),
        signer=Signer(bytes(range(32))),
        terms=TERMS,
    )


Say = Callable[..., None]


@pytest.fixture
def say(metadata_engine: Engine) -> Say:
    def said(node: str, applied: Generation, at: float = 0, **more: object) -> None:
        report = NodeReport(scope="default", node=node, boot_id="x", applied=applied)
        with LedgerRepository(metadata_engine).transaction() as ledger:
            ledger.see_node(msgspec.structs.replace(report, **more), now=after(at))

    return said


@pytest.fixture
def rolling(tools: PublishTools, say: Say) -> tuple[SignedGeneration, str, str]:
    """1.1 in force on two nodes, 1.2 on its way; the chosen node and the other."""
    first = publish("default", NOW, tools=tools, rules=capped(100), change=ADA)
    for node in ("a", "b"):
        say(node, first.generation)
    publish("default", after(1), tools=tools, rules=capped(50), change=ADA)
    rollout = tools.policies.rollout("default")
    assert rollout is not None
    (chosen,) = rollout.nodes
    return first, chosen, "b" if chosen == "a" else "a"


def served(tools: PublishTools, node: str) -> SignedGeneration:
    serving = tools.policies.serving("default")
    assert serving is not None
    return serving.of(node)


def tokens(signed: SignedGeneration) -> int | None:
    return next(
        rule.max_tokens for rule in decode_document(signed.body).rules if isinstance(rule, Cap)
    )


def test_only_the_chosen_node_is_given_new_rules(
    tools: PublishTools, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """The other, and whoever does not say who it is, keep what is in force."""
    first, chosen, other = rolling
    assert Generation(1, 2) == served(tools, chosen).generation
    assert first.generation == served(tools, other).generation
    assert first.generation == served(tools, "").generation


def test_proven_rules_reach_everybody(
    tools: PublishTools, say: Say, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """Once the chosen node has had its time and its calls."""
    _, chosen, other = rolling
    assert [] == rollout_tick(after(20), tools=tools)
    say(chosen, Generation(1, 2), 30, counts=CallCounts(admitted=20))
    assert [RolloutState.COMPLETE] == [each.state for each in rollout_tick(after(31), tools=tools)]
    assert Generation(1, 2) == served(tools, other).generation
    assert [] == rollout_tick(after(32), tools=tools)


def test_refused_rules_are_reverted_under_a_higher_generation(
    tools: PublishTools, say: Say, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """Old content, new number, the reason as its message; everybody gets it (D2)."""
    _, chosen, other = rolling
    say(chosen, Generation(1, 1), 2, nack=Nack(Generation(1, 2), "poison"))
    rollout_tick(after(3), tools=tools)
    for node in (chosen, other):
        assert (Generation(1, 3), 100) == (
            served(tools, node).generation,
            tokens(served(tools, node)),
        )
    newest = tools.policies.history("default", limit=1)[0]
    assert Cause.REVERT is newest.change.cause
    assert "poison" in newest.change.message
    assert capped(100) == tools.policies.rules("default")


def test_budgets_change_on_both_lines_at_once(
    tools: PublishTools, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """Each line keeps its rules, and both move up: nobody is ever given a lower pair."""
    _, chosen, other = rolling
    tools.budgets.create(
        Budget(
            id="b",
            name="b",
            owner="o",
            tenant="acme",
            limit_nusd=1,
            period=Period.DAY,
            counts_from=NOW,
        )
    )
    publish("default", after(2), tools=tools)
    mine, theirs = served(tools, chosen), served(tools, other)
    assert (Generation(1, 4), 50) == (mine.generation, tokens(mine))
    assert (Generation(1, 3), 100) == (theirs.generation, tokens(theirs))
    assert [["b"], ["b"]] == [
        [each.id for each in decode_document(line.body).budgets] for line in (mine, theirs)
    ]
    again = publish("default", after(3), tools=tools)
    assert again.generation == mine.generation


def test_one_roll_out_at_a_time_but_for_an_emergency(
    tools: PublishTools, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """A brake reaches everybody at once (L13)."""
    _, chosen, other = rolling
    with pytest.raises(ConflictError, match="under way"):
        publish("default", after(2), tools=tools, rules=capped(40), change=ADA)
    stop = Deny(id="stop", emergency=True)
    publish("default", after(2), tools=tools, rules=capped(50, stop), change=ADA)
    for node in (chosen, other):
        assert Generation(1, 3) == served(tools, node).generation
    rollout = tools.policies.rollout("default")
    assert rollout is not None
    assert RolloutState.SUPERSEDED is rollout.state
    # With the brake still on, the next change is an ordinary one.
    publish("default", after(3), tools=tools, rules=capped(30, stop), change=ADA)
    assert {Generation(1, 3), Generation(1, 4)} == {
        served(tools, node).generation for node in (chosen, other)
    }


def test_people_halt_and_promote(
    tools: PublishTools, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """Both say who."""
    _, _, other = rolling
    back = halt("default", after(2), tools=tools, change=BOB)
    assert (Generation(1, 3), 100) == (back.generation, tokens(back))
    with pytest.raises(NotFoundError):
        halt("default", after(3), tools=tools, change=BOB)
    publish("default", after(4), tools=tools, rules=capped(60), change=ADA)
    ended = promote("default", tools=tools, change=BOB)
    assert (RolloutState.PROMOTED_WITHOUT_PROOF, "promoted by bob") == (ended.state, ended.reason)
    assert 60 == tokens(served(tools, other))


def test_two_workers_do_not_move_it_twice(
    tools: PublishTools, say: Say, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """The slower is told."""
    _, chosen, _ = rolling
    stale = tools.policies.rollout("default")
    assert stale is not None
    say(chosen, Generation(1, 2), 30, counts=CallCounts(admitted=20))
    rollout_tick(after(31), tools=tools)
    with pytest.raises(ConflictError):
        tools.policies.save_rollout(msgspec.structs.replace(stale, version=stale.version + 1))


def test_one_node_needs_no_stage(tools: PublishTools, say: Say) -> None:
    """Neither does a first policy, nor nodes that are gone."""
    first = publish("default", NOW, tools=tools, rules=capped(100))
    say("a", first.generation, -301)
    say("b", first.generation)
    second = publish("default", after(1), tools=tools, rules=capped(50))
    assert second.generation == served(tools, "anybody").generation


def test_going_back_is_a_new_generation_for_all_at_once(tools: PublishTools, say: Say) -> None:
    """Its rules are the old ones, its author is who went back."""
    first = publish("default", NOW, tools=tools, rules=capped(100), change=ADA)
    publish("default", after(1), tools=tools, rules=capped(50), change=ADA)
    for node in ("a", "b"):
        say(node, Generation(1, 2), 2)
    back = roll_back("default", first.generation, after(3), tools=tools, change=BOB)
    assert (Generation(1, 3), 100) == (back.generation, tokens(back))
    assert ("bob", "back to 1.1") == (back.change.author, back.change.message)
    assert back.generation == served(tools, "a").generation == served(tools, "b").generation
    with pytest.raises(NotFoundError):
        roll_back("default", Generation(1, 9), after(4), tools=tools, change=BOB)


def test_new_epoch_ends_a_roll_out(
    tools: PublishTools, rolling: tuple[SignedGeneration, str, str]
) -> None:
    """It must reach all."""
    _, chosen, other = rolling
    bump_epoch("default", after(2), tools=tools, change=BOB)
    for node in (chosen, other):
        assert Generation(2, 1) == served(tools, node).generation


def test_canary_keeps_its_share_when_its_file_is_applied_again(tools: PublishTools) -> None:
    """The author leaves the share out; another target is another canary."""
    canary = Canary(id="k", to="next", steps=(5, 50))

    def share(rules: PolicyRules) -> int | None:
        signed = publish("default", NOW, tools=tools, rules=rules)
        return next(
            rule.share_percent
            for rule in decode_document(signed.body).rules
            if isinstance(rule, Canary)
        )

    assert 5 == share(capped(9, canary))
    assert 50 == share(capped(9, msgspec.structs.replace(canary, share_percent=50)))
    assert 50 == share(capped(8, canary))
    assert 5 == share(capped(8, msgspec.structs.replace(canary, to="other")))


def test_plan_says_what_would_change_and_keeps_nothing(tools: PublishTools, say: Say) -> None:
    """Diff of the rules, size of the document, nodes that would refuse it."""
    fresh = plan(capped(100), NOW, tools=tools)
    assert (None, True) == (fresh.in_force, fresh.has_changes)
    publish("default", NOW, tools=tools, rules=capped(100), change=ADA)
    same = plan(capped(100), NOW, tools=tools)
    assert ("1.1", False, "") == (same.in_force, same.has_changes, same.diff)
    say("old", Generation(1, 1), capabilities=("deny",))
    say("new", Generation(1, 1), capabilities=("deny", "cap"))
    other = plan(capped(50), NOW, tools=tools)
    assert other.has_changes
    assert "-  max_tokens: 100" in other.diff
    assert "+  max_tokens: 50" in other.diff
    assert (2, ("old",)) == (other.nodes, other.unable)
    assert capped(100) == tools.policies.rules("default")
    with pytest.raises(PolicyError):
        plan(capped(0), NOW, tools=tools)


def test_nobody_approves_their_own_proposal(tools: PublishTools) -> None:
    """The other does, once, and the generation names both."""
    made = propose(capped(100), NOW, tools=tools, ids=SequentialIds(), change=ADA)
    with pytest.raises(ForbiddenError):
        approve(made.id, NOW, tools=tools, by=ADA)
    signed = approve(made.id, after(1), tools=tools, by=BOB)
    assert ("ada", "why (approved by bob)") == (signed.change.author, signed.change.message)
    assert 100 == tokens(signed)
    with pytest.raises(ConflictError, match="before"):
        approve(made.id, after(2), tools=tools, by=BOB)


def test_proposal_that_was_overtaken_must_be_made_again(tools: PublishTools) -> None:
    """Approving it would undo rules that its author never saw."""
    made = propose(capped(100), NOW, tools=tools, ids=SequentialIds(), change=ADA)
    publish("default", after(1), tools=tools, rules=capped(70), change=BOB)
    with pytest.raises(ConflictError, match="Propose it again"):
        approve(made.id, after(2), tools=tools, by=BOB)
    assert capped(70) == tools.policies.rules("default")


def test_proposal_is_old_when_more_was_published_since_than_is_looked_at(
    tools: PublishTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that its author never saw may be further back."""
    monkeypatch.setattr(propose_module, "MAX_LOOKED_AT", 2)
    made = propose(capped(100), NOW, tools=tools, ids=SequentialIds(), change=ADA)
    publish("default", after(1), tools=tools, rules=capped(70), change=BOB)
    for second in (2, 3):
        bump_epoch("default", after(second), tools=tools)
    with pytest.raises(ConflictError, match="2 generations were published"):
        approve(made.id, after(4), tools=tools, by=BOB)


def test_proposal_is_turned_down_once(tools: PublishTools) -> None:
    """And one that does not compile is never made."""
    made = propose(capped(100), NOW, tools=tools, ids=SequentialIds(), change=ADA)
    rejected = reject(made.id, after(1), policies=tools.policies, by=BOB)
    assert [rejected] == tools.policies.proposals("default", limit=9)
    with pytest.raises(ConflictError):
        approve(made.id, after(2), tools=tools, by=BOB)
    with pytest.raises(PolicyError):
        propose(capped(0), NOW, tools=tools, ids=SequentialIds(), change=ADA)
    with pytest.raises(NotFoundError):
        reject("nobody", NOW, policies=tools.policies, by=BOB)
