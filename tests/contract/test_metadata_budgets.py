"""Budgets and policy history as people manage them, on both databases."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.alerts.burn import Spent
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts, Entry, EntryKind, WindowKey
from controlplane.core.calendar import Period, Window
from controlplane.core.errors import ConflictError, InvalidInputError, NotFoundError
from controlplane.policy.document import Deny, Mode
from controlplane.policy.history import SignedGeneration
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.policies import PolicyRepository

NOW = datetime(2026, 11, 20, 10, 0, 0, 123_456, tzinfo=UTC)
START = datetime(2026, 11, 1, tzinfo=UTC)
BUDGET = Budget(
    id="b",
    name="Acme",
    owner="ada",
    tenant="acme",
    limit_nusd=2**62,
    period=Period.MONTH,
    counts_from=NOW,
    match={"team": ("a", "b*")},
)


def test_budget_comes_back_as_it_went_in(metadata_engine: Engine) -> None:
    """Every field, microseconds and 64-bit money included."""
    repository = BudgetRepository(metadata_engine)
    repository.create(BUDGET)
    assert BUDGET == repository.get("b")
    assert [BUDGET] == repository.active()
    assert [BUDGET] == repository.active(tenants=["acme"])
    assert [] == repository.active(tenants=["globex"])
    assert [] == repository.active(tenants=[])
    with pytest.raises(ConflictError):
        repository.create(BUDGET)
    with pytest.raises(NotFoundError):
        repository.get("nobody")


def test_what_a_budget_counts_can_not_change(metadata_engine: Engine) -> None:
    """Its limit and its names may."""
    repository = BudgetRepository(metadata_engine)
    repository.create(BUDGET)
    lower = msgspec.structs.replace(BUDGET, limit_nusd=5, mode=Mode.SOFT, name="New")
    repository.update(lower)
    assert lower == repository.get("b")
    changes: tuple[dict[str, object], ...] = (
        {"tenant": "globex"},
        {"match": {}},
        {"period": Period.DAY},
        {"zone": "Asia/Kolkata"},
        {"counts_from": START},
    )
    for change in changes:
        with pytest.raises(InvalidInputError):
            repository.update(msgspec.structs.replace(BUDGET, **change))
    with pytest.raises(NotFoundError):
        repository.update(msgspec.structs.replace(BUDGET, id="nobody"))


def test_archived_budget_keeps_its_ledger(metadata_engine: Engine) -> None:
    """It is no longer active; twice is once."""
    repository = BudgetRepository(metadata_engine)
    repository.create(BUDGET)
    repository.archive("b", now=NOW)
    repository.archive("b", now=START)
    assert [] == repository.active()
    assert NOW == repository.get("b").archived_at


ONLY = Window(START, START + timedelta(microseconds=1))


def _entry(key: str, nusd: int) -> Entry:
    return Entry(
        window=WindowKey("b", START),
        key=key,
        kind=EntryKind.CALLS,
        at=NOW,
        change=Amounts(unenforced_nusd=nusd),
    )


def test_entry_is_posted_once_or_not_at_all(metadata_engine: Engine) -> None:
    """A repeated key undoes its whole transaction, the balance included."""
    repository, ledger = BudgetRepository(metadata_engine), LedgerRepository(metadata_engine)
    repository.create(BUDGET)
    with ledger.transaction() as transaction:
        transaction.append([_entry("one", 2**61), _entry("two", -7)])
    with pytest.raises(ConflictError), ledger.transaction() as transaction:
        transaction.append([_entry("three", 1), _entry("one", 1)])
    assert [_entry("two", -7), _entry("one", 2**61)] == repository.entries("b", ONLY, limit=9)
    assert [_entry("two", -7)] == repository.entries("b", ONLY, limit=1)
    assert {"b": Amounts(unenforced_nusd=2**61 - 7)} == repository.balances([BUDGET], at=NOW)


def test_failed_transaction_leaves_nothing(metadata_engine: Engine) -> None:
    """Half a sync is no sync."""
    repository, ledger = BudgetRepository(metadata_engine), LedgerRepository(metadata_engine)
    repository.create(BUDGET)

    def post_and_fail() -> None:
        with ledger.transaction() as transaction:
            transaction.append([_entry("one", 1)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        post_and_fail()
    assert {"b": Amounts()} == repository.balances([BUDGET], at=NOW)


def test_policy_history(metadata_engine: Engine) -> None:
    """Exact bytes, newest first by (epoch, gen), one content per pair."""
    repository = PolicyRepository(metadata_engine)
    assert repository.newest("default") is None
    made = [
        SignedGeneration(
            scope="default",
            generation=Generation(epoch, gen),
            body=bytes([0, 255, epoch, gen]),
            signature=f"s{epoch}.{gen}",
            sha256="x",
            issued_at=NOW,
        )
        for epoch, gen in ((1, 9), (1, 10), (2, 1))
    ]
    for signed in made:
        repository.add(signed)
    assert made[::-1] == repository.history("default", limit=9)
    assert made[2] == repository.newest("default")
    with pytest.raises(ConflictError):
        repository.add(made[0])
    assert repository.newest("other") is None


def test_rules_are_replaced(metadata_engine: Engine) -> None:
    """The last ones written, none before."""
    repository = PolicyRepository(metadata_engine)
    assert PolicyRules(scope="s") == repository.rules("s")
    for rule_id in ("r1", "r2"):
        rules = PolicyRules(scope="s", rules=(Deny(id=rule_id, match={"team": ("a",)}),))
        repository.save_rules(rules, now=NOW)
        assert rules == repository.rules("s")
    assert ["s"] == repository.scopes()


def test_what_was_spent_within_spans_of_time(metadata_engine: Engine) -> None:
    """By when it was posted; promises are no spending, re-rates neither; the end is left out."""
    repository = BudgetRepository(metadata_engine)
    repository.create(BUDGET)
    hour, key = timedelta(hours=1), WindowKey("b", START)
    posted = [
        (EntryKind.GRANT, NOW - hour, Amounts(leased_nusd=900)),
        (EntryKind.SETTLE, NOW - hour, Amounts(enforced_nusd=70, leased_nusd=-100)),
        (EntryKind.CALLS, NOW - hour / 2, Amounts(unenforced_nusd=20)),
        (EntryKind.EXPIRE, NOW - hour / 2, Amounts(unproven_nusd=5, leased_nusd=-5)),
        (EntryKind.RESTATE, NOW - hour / 2, Amounts(restated_nusd=1_000)),
        (EntryKind.SETTLE, NOW, Amounts(enforced_nusd=1)),
    ]
    entries = [
        Entry(window=key, key=str(number), kind=kind, at=at, change=change)
        for number, (kind, at, change) in enumerate(posted)
    ]
    with LedgerRepository(metadata_engine).transaction() as ledger:
        ledger.append(entries)
    spans = [Window(NOW - hour, NOW), Window(NOW - hour / 2, NOW), Window(NOW, NOW + hour)]
    assert [Spent(95, 2), Spent(25, 1), Spent(1, 1)] == repository.spent("b", spans)
    assert [Spent()] == repository.spent("nobody", spans[:1])
