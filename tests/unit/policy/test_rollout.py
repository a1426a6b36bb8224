"""Staged roll-out, step by step."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from controlplane.policy.rollout import NodeNow, Rollout, RolloutState, RolloutTerms, begin, step
from controlplane.policy.wire import CallCounts, Generation, Nack

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
OLD, NEW = Generation(1, 4), Generation(1, 5)
TERMS = RolloutTerms(stage_seconds=30, stage_max_seconds=300, min_calls=20, gone_seconds=60)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


class Fleet:
    """Nodes that run the old generation and have never had a call."""

    def __init__(self, size: int) -> None:
        self.nodes = {f"n{i}": NodeNow(node=f"n{i}", seen_at=NOW, applied=OLD) for i in range(size)}
        self.rollout = begin("s", OLD, NEW, nodes=list(self.nodes.values()), now=NOW)

    def say(self, *names: str, **what: object) -> None:
        for name in names:
            self.nodes[name] = msgspec.structs.replace(self.nodes[name], **what)

    def step(self, seconds: float) -> Rollout:
        """Everybody who is not said to be silent has just been heard."""
        for name, node in self.nodes.items():
            if node.seen_at >= NOW:
                self.say(name, seen_at=after(seconds))
        self.rollout = step(
            self.rollout, list(self.nodes.values()), terms=TERMS, now=after(seconds)
        )
        return self.rollout

    @property
    def chosen(self) -> tuple[str, ...]:
        return self.rollout.nodes


def counts(admitted: int, refused: int = 0, errors: int = 0) -> CallCounts:
    return CallCounts(admitted=admitted, refused=refused, errors=errors)


@pytest.mark.parametrize(("size", "sizes"), [(2, [1]), (9, [1]), (10, [1, 1]), (25, [1, 3])])
def test_stages_are_one_then_a_tenth_rounded_up_then_all(size: int, sizes: list[int]) -> None:
    """Below ten nodes a tenth is no stage; nobody who has it gives it back (D4)."""
    fleet = Fleet(size)
    seen, before = [], set[str]()
    seconds = 0.0
    while fleet.rollout.state is RolloutState.ROLLING:
        assert before <= set(fleet.chosen)
        before = set(fleet.chosen)
        seen.append(len(before))
        for name in before:
            had = fleet.nodes[name].counts.admitted
            fleet.say(name, applied=NEW, counts=counts(had + 20))
        seconds += 30
        fleet.step(seconds)
    assert sizes == seen
    assert RolloutState.COMPLETE is fleet.rollout.state


def test_stage_lasts_its_time_and_its_calls() -> None:
    """Neither is enough by itself; refused calls count as calls."""
    fleet = Fleet(3)
    (name,) = fleet.chosen
    fleet.say(name, applied=NEW, counts=counts(15, refused=3))
    assert RolloutState.ROLLING is fleet.step(30).state
    fleet.say(name, counts=counts(17, refused=3))
    assert RolloutState.COMPLETE is fleet.step(31).state

    quick = Fleet(3)
    quick.say(*quick.chosen, applied=NEW, counts=counts(1_000))
    assert RolloutState.ROLLING is quick.step(29).state
    assert RolloutState.COMPLETE is quick.step(30).state


def test_calls_of_an_earlier_stage_prove_nothing() -> None:
    """Counters go on; what they had at the start of the stage is taken off."""
    fleet = Fleet(10)
    fleet.say(*fleet.chosen, applied=NEW, counts=counts(20))
    assert 1 == fleet.step(30).stage
    assert RolloutState.ROLLING is fleet.step(90).state
    fleet.say(*fleet.chosen, counts=counts(40))
    assert RolloutState.COMPLETE is fleet.step(91).state


def test_without_calls_it_goes_on_at_last_and_says_so() -> None:
    """A quiet scope must not hold a policy for ever (D4)."""
    fleet = Fleet(3)
    fleet.say(*fleet.chosen, applied=NEW)
    assert RolloutState.ROLLING is fleet.step(299).state
    ended = fleet.step(300)
    assert RolloutState.PROMOTED_WITHOUT_PROOF is ended.state
    assert ended.reason


def test_a_stage_without_proof_is_not_proven_by_the_next() -> None:
    """One node saw no call; a tenth of thirty then saw enough."""
    fleet = Fleet(30)
    fleet.say(*fleet.chosen, applied=NEW)
    assert (1, 3) == (fleet.step(300).stage, len(fleet.chosen))
    fleet.say(*fleet.chosen, applied=NEW, counts=counts(20))
    assert RolloutState.PROMOTED_WITHOUT_PROOF is fleet.step(330).state


def test_a_node_that_is_ahead_has_the_candidate() -> None:
    """A price that was published meanwhile is a higher generation on both lines."""
    fleet = Fleet(3)
    fleet.say(*fleet.chosen, applied=Generation(1, 6), counts=counts(20))
    assert RolloutState.COMPLETE is fleet.step(30).state


def test_one_refusal_among_few_reverts_with_its_reason() -> None:
    """One of one is more than one in a hundred; what refuses another generation does not count."""
    fleet = Fleet(3)
    (name,) = fleet.chosen
    fleet.say(name, nack=Nack(OLD, "long ago"))
    assert RolloutState.ROLLING is fleet.step(1).state
    fleet.say(name, nack=Nack(NEW, "no such field"))
    ended = fleet.step(2)
    assert RolloutState.REVERTED is ended.state
    assert "no such field" in ended.reason
    assert name in ended.reason


def test_share_of_refusals_is_of_the_chosen() -> None:
    """Two of two hundred are one in a hundred, which is allowed; three are not."""
    fleet = Fleet(2_000)
    fleet.say(*fleet.chosen, applied=NEW, counts=counts(20))
    fleet.step(30)
    assert 200 == len(fleet.chosen)
    fleet.say(*fleet.chosen[:2], nack=Nack(NEW, "why"))
    assert RolloutState.ROLLING is fleet.step(31).state
    fleet.say(fleet.chosen[2], nack=Nack(NEW, "why"))
    assert RolloutState.REVERTED is fleet.step(32).state


@pytest.mark.parametrize(
    ("ours", "theirs", "reverts"),
    [
        (counts(100, errors=5), counts(100), False),
        (counts(100, errors=6), counts(100), True),
        (counts(100, errors=20), counts(100, errors=16), False),
        (counts(19, errors=19), counts(100), False),  # too few to tell
        (counts(80, refused=20), counts(100), False),
        (counts(79, refused=21), counts(100), True),
        (counts(60, refused=40), counts(75, refused=25), False),
    ],
)
def test_guards_compare_with_the_nodes_on_the_old_rules(
    ours: CallCounts, theirs: CallCounts, *, reverts: bool
) -> None:
    """An outage of a provider hits both, and is not the new policy's fault."""
    fleet = Fleet(2)
    other = next(name for name in fleet.nodes if name not in fleet.chosen)
    fleet.say(*fleet.chosen, applied=NEW, counts=ours)
    fleet.say(other, counts=theirs)
    assert reverts is (fleet.step(1).state is RolloutState.REVERTED)


def test_node_that_does_not_apply_reverts_unless_it_is_gone() -> None:
    """A silent one is waited for; a gone one leaves the denominator (D4)."""
    fleet = Fleet(3)
    assert RolloutState.ROLLING is fleet.step(299).state
    assert RolloutState.REVERTED is fleet.step(300).state

    lost = Fleet(3)
    lost.say(*lost.chosen, seen_at=after(-1))
    assert RolloutState.ROLLING is lost.step(58).state
    assert RolloutState.PROMOTED_WITHOUT_PROOF is lost.step(300).state


def test_restarted_node_counts_from_zero() -> None:
    """Its counters are lower than before: all of them are new."""
    fleet = Fleet(3)
    (name,) = fleet.chosen
    fleet.rollout = msgspec.structs.replace(fleet.rollout, counted={name: counts(1_000)})
    fleet.say(name, applied=NEW, counts=counts(20))
    assert RolloutState.COMPLETE is fleet.step(30).state


def test_every_move_is_a_version() -> None:
    """So that of two workers one is told that it was too late."""
    fleet = Fleet(10)
    assert 0 == fleet.rollout.version
    assert 0 == fleet.step(5).version
    fleet.say(*fleet.chosen, applied=NEW, counts=counts(20))
    assert 1 == fleet.step(30).version
