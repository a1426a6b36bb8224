"""Publishing: compiled, numbered, signed, kept; never lower, never twice the same."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.budgets.budget import Budget, Increase
from controlplane.core.calendar import Period
from controlplane.core.errors import ConflictError, PolicyError
from controlplane.pipelines.publish import (
    PublishTools,
    RateCard,
    bump_epoch,
    publish,
    republish_due,
)
from controlplane.policy.bundle import Signer, Verifier, open_bundle
from controlplane.policy.document import Deny, PolicyDocument, RatePerMillion
from controlplane.policy.history import NodeReport, SignedGeneration
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.policies import PolicyRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
SIGNER = Signer(bytes(range(32)))
RULES = PolicyRules(tenant="acme", rules=(Deny(id="d", match={"model": ("bad",)}),))
BUDGET = Budget(
    id="b",
    name="Acme",
    owner="ada",
    tenant="acme",
    limit_nusd=1_000,
    period=Period.DAY,
    counts_from=NOW,
)


def card(_now: datetime) -> RateCard:
    return RateCard({"m": RatePerMillion(input_nusd=1, output_nusd=2)}, "book-1")


@pytest.fixture
def tools(metadata_engine: Engine) -> PublishTools:
    return PublishTools(
        policies=PolicyRepository(metadata_engine),
        budgets=BudgetRepository(metadata_engine),
        rate_card=card,
        signer=SIGNER,
    )


@pytest.fixture
def see(metadata_engine: Engine) -> Callable[[Generation], None]:
    def seen(applied: Generation) -> None:
        with LedgerRepository(metadata_engine).transaction() as ledger:
            report = NodeReport(scope="default", node="n", boot_id="x", applied=applied)
            ledger.see_node(report, now=NOW)

    return seen


def read(signed: SignedGeneration) -> PolicyDocument:
    return open_bundle(signed.body, signed.signature, Verifier(SIGNER.pinned))


def test_published_generation_can_be_opened(tools: PublishTools) -> None:
    """Numbered 1.1, signed over its exact bytes, with budget, rule and prices inside."""
    tools.budgets.create(BUDGET)
    signed = publish("default", NOW, tools=tools, rules=RULES)
    document = read(signed)
    assert Generation(1, 1) == signed.generation == Generation(document.epoch, document.gen)
    assert RULES.rules == document.rules
    assert [1_000] == [clause.limit_nusd for clause in document.budgets]
    assert "book-1" == document.price_book_version
    assert signed == tools.policies.newest("default")


def test_nothing_new_makes_no_generation(tools: PublishTools) -> None:
    """A change does, and going back to old content is a new generation too (D2)."""
    first = publish("default", NOW, tools=tools, rules=RULES)
    assert first == publish("default", LATER, tools=tools)
    second = publish("default", LATER, tools=tools, rules=PolicyRules(tenant="acme"))
    assert Generation(1, 2) == second.generation
    third = publish("default", LATER, tools=tools, rules=RULES)
    assert Generation(1, 3) == third.generation
    assert read(first).rules == read(third).rules


def test_what_does_not_compile_changes_nothing(tools: PublishTools) -> None:
    """Neither the rules nor the generation."""
    first = publish("default", NOW, tools=tools, rules=RULES)
    wrong = PolicyRules(rules=(Deny(id="d", status=200),))
    with pytest.raises(PolicyError):
        publish("default", LATER, tools=tools, rules=wrong)
    assert first == tools.policies.newest("default")
    assert RULES == tools.policies.rules("default")
    with pytest.raises(PolicyError):
        publish("other", LATER, tools=tools, rules=RULES)


def test_windows_that_roll_over_are_published_again(tools: PublishTools) -> None:
    """Once a day for a daily budget; scopes without one stay as they are."""
    tools.budgets.create(BUDGET)
    publish("default", NOW, tools=tools, rules=RULES)
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    assert [] == republish_due(midnight - timedelta(microseconds=1), tools=tools)
    (again,) = republish_due(midnight, tools=tools)
    assert Generation(1, 2) == again.generation
    assert [midnight] == [clause.window_start for clause in read(again).budgets]
    assert [] == republish_due(midnight, tools=tools)


def test_an_increase_that_ends_is_published(tools: PublishTools) -> None:
    more = Increase(amount_nusd=500, until=LATER)
    tools.budgets.create(msgspec.structs.replace(BUDGET, increases=(more,)))
    first = publish("default", NOW, tools=tools, rules=RULES)
    assert [1_500] == [clause.limit_nusd for clause in read(first).budgets]
    assert [] == republish_due(LATER - timedelta(microseconds=1), tools=tools)
    (again,) = republish_due(LATER, tools=tools)
    assert [1_000] == [clause.limit_nusd for clause in read(again).budgets]


def test_a_dearer_price_is_published_before_it_applies(tools: PublishTools) -> None:
    """As soon as ceilings have to cover it, and not when the next window happens to begin."""

    def dearer_later(now: datetime) -> RateCard:
        rate = 2 if now < LATER else 3
        return RateCard({"m": RatePerMillion(input_nusd=1, output_nusd=rate)}, "book-1")

    tools.budgets.create(BUDGET)
    priced = msgspec.structs.replace(tools, rate_card=dearer_later)
    publish("default", NOW, tools=priced, rules=RULES)
    assert [] == republish_due(NOW, tools=priced)
    (again,) = republish_due(LATER, tools=priced)
    assert 3 == read(again).rate_card["m"].output_nusd
    assert [] == republish_due(LATER, tools=priced)


def test_a_restored_database_stops_until_its_epoch_is_bumped(
    tools: PublishTools, see: Callable[[Generation], None]
) -> None:
    """A node that is ahead would refuse everything lower: say so instead (D2)."""
    publish("default", NOW, tools=tools, rules=RULES)
    see(Generation(1, 7))
    with pytest.raises(ConflictError, match="epoch"):
        publish("default", LATER, tools=tools, rules=PolicyRules(tenant="acme"))
    bumped = bump_epoch("default", LATER, tools=tools)
    assert Generation(2, 1) == bumped.generation
    assert RULES.rules == read(bumped).rules
    after = publish("default", LATER, tools=tools, rules=PolicyRules(tenant="acme"))
    assert Generation(2, 2) == after.generation


def test_scope_with_rules_only_is_left_until_it_is_published(tools: PublishTools) -> None:
    """Nothing rolls over, and there is no epoch to bump."""
    tools.policies.save_rules(RULES, now=NOW)
    assert [] == republish_due(NOW, tools=tools)
    with pytest.raises(PolicyError, match="no generation"):
        bump_epoch("default", NOW, tools=tools)


def test_new_words_for_the_same_policy_are_kept(tools: PublishTools) -> None:
    """The stored rules are the ones last given, generation or not."""
    first = publish("default", NOW, tools=tools, rules=RULES)
    assert first == publish("default", LATER, tools=tools, rules=RULES)
    assert RULES == tools.policies.rules("default")


def test_two_publishers_do_not_share_a_number(tools: PublishTools) -> None:
    """The slower one is told, and nothing of it is kept."""
    first = publish("default", NOW, tools=tools, rules=RULES)

    def overtaken(now: datetime) -> RateCard:
        """Somebody else publishes 1.2 after we have looked and before we write."""
        tools.policies.add(msgspec.structs.replace(first, generation=Generation(1, 2)))
        return card(now)

    class LooksFirst:
        """A rate card is asked for early; this store reads what was newest before it."""

        def __init__(self) -> None:
            self.newest = lambda _scope: first

        def __getattr__(self, name: str) -> object:
            return getattr(tools.policies, name)

    slow = msgspec.structs.replace(tools, rate_card=overtaken, policies=LooksFirst())
    with pytest.raises(ConflictError):
        publish("default", LATER, tools=slow, rules=PolicyRules(tenant="acme"))
    assert Generation(1, 2) == tools.policies.history("default", limit=9)[0].generation
    assert RULES == tools.policies.rules("default")
