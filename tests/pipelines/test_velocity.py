"""From recorded calls to published quotas: who spends too fast, and what becomes of it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from controlplane.core.errors import NotFoundError
from controlplane.core.ids import SequentialIds
from controlplane.ingest.subjects import Subject, subject_hash
from controlplane.pipelines.publish import PublishTools, RateCard, publish, republish_due
from controlplane.pipelines.rollout import halt, roll_back
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.velocity import Guarded, lift, velocity_tick
from controlplane.pipelines.watch import Sources, watch_round
from controlplane.pipelines.watch_velocity import velocity_findings
from controlplane.policy import velocity
from controlplane.policy.bundle import Signer, decode_document
from controlplane.policy.document import Cap, Throttle
from controlplane.policy.history import Cause, Change, NodeReport, SignedGeneration
from controlplane.policy.rollout import RolloutTerms
from controlplane.policy.rules import PolicyRules
from controlplane.policy.velocity import VelocityLimit
from controlplane.policy.wire import Generation
from controlplane.store.metadata.alerts import AlertRepository
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.policies import PolicyRepository
from controlplane.store.metadata.quotas import QuotaRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
USD = 1_000_000_000
LIMIT = VelocityLimit(id="wallet", per="user_id", limit_usd="5", rpm=2)
MAPPED = {"tenant": "key.team", "user_id": "user", "api_key": "key.alias"}
BOB = Change(author="bob", author_id="k2")


def rules(*limits: VelocityLimit, tokens: int = 100) -> PolicyRules:
    return PolicyRules(
        tenant="acme",
        rules=(Cap(id="c", max_tokens=tokens),),
        dimension_map=MAPPED,
        velocity=limits,
    )


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def name_of(subject: velocity.Subject) -> str:
    return subject_hash(b"k" * 32, Subject(*subject))[:16]


RULE = f"velocity.wallet.{name_of(('acme', 'ana'))}"


class World(msgspec.Struct):
    """The stores of a hub, and its velocity guard."""

    tools: PublishTools
    spans: DuckDbSpanStore
    ledger: LedgerRepository
    rows: Callable[..., pa.Table]
    written: int = 0

    def call(self, usd: int, user: str = "ana", at: float = 0, **said: Any) -> None:
        """A call of a second that ends so long after now."""
        self.written += 1
        row = {
            "span_id": self.written,
            "trace_lo": self.written,
            "start_time": after(at - 1),
            "duration_us": 1_000_000,
            "tenant": "acme",
            "user_id": user,
            "api_key": "batch",
            "cost_nusd": usd * USD,
        }
        self.spans.write(self.rows(row | said), batch_id=f"b{self.written}")
        settle_tick(self.spans, now=after(at), ledger=None)

    def look(self, at: float = 0) -> list[Guarded]:
        return velocity_tick(after(at), tools=self.tools, reader=self.spans, name_of=name_of)

    def newest(self) -> SignedGeneration:
        found = self.tools.policies.newest("default")
        assert found
        return found

    def held(self, signed: SignedGeneration | None = None) -> list[tuple[str, ...]]:
        """Tenant and value of each automatic rule."""
        return [
            (
                *rule.match.get("tenant", ()),
                *rule.match.get("user_id", rule.match.get("api_key", ())),
            )
            for rule in decode_document((signed or self.newest()).body).rules
            if rule.id.startswith(velocity.AUTOMATIC)
        ]

    def see(self, *nodes: str) -> None:
        """Two nodes, so that new rules go out in stages."""
        applied = self.newest().generation
        for node in nodes:
            report = NodeReport(scope="default", node=node, boot_id="x", applied=applied)
            with self.ledger.transaction() as ledger:
                ledger.see_node(report, now=NOW)


@pytest.fixture
def metadata_alerts(tmp_path: Path) -> Iterator[AlertRepository]:
    engine = open_engine(f"sqlite:///{tmp_path / 'alerts.sqlite'}")
    migrate(engine)
    yield AlertRepository(engine)
    engine.dispose()


@pytest.fixture
def world(tmp_path: Path, span_rows: Callable[..., pa.Table]) -> Iterator[World]:
    spans = DuckDbSpanStore(None)
    metadata_engine = open_engine(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    migrate(metadata_engine)
    tools = PublishTools(
        policies=PolicyRepository(metadata_engine),
        budgets=BudgetRepository(metadata_engine),
        rate_card=lambda _now: RateCard({}, "book-1"),
        signer=Signer(bytes(range(32))),
        terms=RolloutTerms(stage_seconds=30, stage_max_seconds=300, min_calls=20),
        quotas=QuotaRepository(metadata_engine),
    )
    yield World(tools, spans, LedgerRepository(metadata_engine), span_rows)
    metadata_engine.dispose()
    spans.close()


def test_quota_begins_above_the_limit_and_ends_by_itself(world: World) -> None:
    """Each change is one generation with its author and cause; nothing is published between."""
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT))
    world.call(5)
    assert ((), None) == (world.look()[0].begun, world.look()[0].published)
    world.call(1)
    (done,) = world.look()
    assert [("acme", "ana", 6 * USD)] == [(q.tenant, q.value, q.spent_nusd) for q in done.begun]
    newest = world.newest()
    assert [("acme", "ana")] == world.held()
    assert ("velocity guard", Cause.VELOCITY, f"{RULE} began") == (
        newest.change.author,
        newest.change.cause,
        newest.change.message,
    )
    for at in range(2, 900, 90):  # above until 600, then calm
        assert world.look(at)[0].published is None
    assert newest.generation == world.newest().generation
    last_above = max(range(2, 600, 90))
    assert [] == [quota for one in world.look(last_above + 899) for quota in one.ended]
    (done,) = world.look(last_above + 900)
    assert [RULE] == [quota.id for quota in done.ended]
    assert ([], f"{RULE} ended") == (world.held(), world.newest().change.message)
    assert ((), ()) == (world.look(2_000)[0].begun, world.look(2_000)[0].ended)


def test_users_and_keys_of_tenants_are_told_apart(world: World) -> None:
    """A limit is of each: neither another tenant's, nor all users of a key together."""
    keys = VelocityLimit(id="keys", per="api_key", limit_usd="8")
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT, keys))
    for tenant in ("acme", "globex"):
        world.call(3, tenant=tenant)
        world.call(3, user="bo", tenant=tenant)
    assert () == world.look()[0].begun
    world.call(3, user="cy", api_key="batch")
    world.call(6, user="di", tenant="globex", api_key="other")
    world.look()
    assert {("acme", "batch"), ("globex", "di")} == set(world.held())


def test_only_the_calls_that_a_limit_selects_count_and_are_held_back(world: World) -> None:
    prod = msgspec.structs.replace(LIMIT, match={"environment": ("prod*",)})
    mapped = MAPPED | {"environment": "key.alias"}
    selected = msgspec.structs.replace(rules(prod), dimension_map=mapped)
    publish("default", NOW, tools=world.tools, rules=selected)
    world.call(6, environment="dev")
    world.call(6, environment=None)
    world.call(5, environment="prod-1")
    assert () == world.look()[0].begun
    world.call(1, environment="prod-2")
    world.look()
    (rule,) = [r for r in decode_document(world.newest().body).rules if isinstance(r, Throttle)]
    assert {
        "environment": ("prod*",),
        "tenant": ("acme",),
        "user_id": ("ana",),
    } == rule.match


def test_where_agents_know_no_tenant_only_the_scopes_own_count(world: World) -> None:
    own = msgspec.structs.replace(rules(LIMIT), dimension_map={"user_id": "user"})
    publish("default", NOW, tools=world.tools, rules=own)
    world.call(6, tenant="globex")
    assert () == world.look()[0].begun
    world.call(6)
    world.look()
    assert [("ana",)] == world.held()


def test_going_back_and_rolling_out_leave_quotas_alone(world: World) -> None:
    """They are of no rules: both lines have them, and only rules without the limit have none."""
    without = publish("default", NOW, tools=world.tools, rules=rules(tokens=50), at_once=True)
    first = publish("default", NOW, tools=world.tools, rules=rules(LIMIT), at_once=True)
    world.see("a", "b")
    publish("default", after(1), tools=world.tools, rules=rules(LIMIT, tokens=70))
    world.call(6)
    world.look(2)
    serving = world.tools.policies.serving("default")
    assert serving
    assert serving.candidate
    for line, tokens in ((serving.stable, 100), (serving.candidate, 70)):
        assert [("acme", "ana")] == world.held(line)
        assert Cause.VELOCITY is line.change.cause
        (cap,) = [r for r in decode_document(line.body).rules if isinstance(r, Cap)]
        assert tokens == cap.max_tokens
    assert (Generation(1, 4), Generation(1, 5)) == (
        serving.stable.generation,
        serving.candidate.generation,
    )
    halt("default", after(3), tools=world.tools, change=BOB)
    assert [("acme", "ana")] == world.held()
    roll_back("default", first.generation, after(4), tools=world.tools, change=BOB)
    assert [("acme", "ana")] == world.held()
    roll_back("default", without.generation, after(5), tools=world.tools, change=BOB)
    assert [] == world.held()
    roll_back("default", first.generation, after(6), tools=world.tools, change=BOB)
    assert [("acme", "ana")] == world.held()


def test_quota_ends_although_the_guard_no_longer_looks(world: World) -> None:
    """Publishing alone, which looks at the clock each minute, leaves it out."""
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT))
    world.call(6)
    world.look()
    assert [] == republish_due(after(899), tools=world.tools)
    assert 1 == len(republish_due(after(900), tools=world.tools))
    assert [] == world.held()


def test_two_guards_begin_a_quota_once(world: World) -> None:
    """Every replica of the API looks; the slower finds it there."""
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT))
    world.call(6)
    first, second = world.look(), world.look()
    assert (1, 0) == (len(first[0].begun), len(second[0].begun))
    assert Generation(1, 2) == world.newest().generation


def test_person_ends_a_quota(world: World) -> None:
    """It is published with who did it, and what was spent before begins no other."""
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT))
    world.call(6)
    world.look()
    lift("default", RULE, after(10), tools=world.tools, change=BOB)
    assert ([], "bob", Cause.VELOCITY) == (
        world.held(),
        world.newest().change.author,
        world.newest().change.cause,
    )
    assert () == world.look(11)[0].begun
    with pytest.raises(NotFoundError):
        lift("default", RULE, after(12), tools=world.tools, change=BOB)
    world.call(6, at=609)
    assert () == world.look(609)[0].begun
    assert 1 == len(world.look(610)[0].begun)


def test_alert_says_who_what_and_how_to_end_it(world: World) -> None:
    """The user by a keyed hash, the key by its alias; one label set as long as it lasts."""
    keys = VelocityLimit(id="keys", per="api_key", limit_usd="5.5")
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT, keys))
    world.call(6, user="ana@example.com")
    world.look()
    quotas = world.tools.quotas.quotas("default")
    of_key, of_user = velocity_findings(quotas, NOW)
    name = "user_" + name_of(("acme", "ana@example.com"))
    assert ("SpendVelocity", "acme", "wallet", name, "page") == tuple(
        of_user.labels[key] for key in ("alertname", "tenant", "limit", "user_id", "severity")
    )
    assert f"User {name}: $6.00 within 600 s, $5.00 allowed" == of_user.annotations["summary"]
    assert "DELETE /api/v1/policy/quotas/velocity.wallet." in of_user.annotations["action"]
    assert ("batch", "Key batch: $6.00 within 600 s, $5.50 allowed") == (
        of_key.labels["api_key"],
        of_key.annotations["summary"],
    )
    assert not any("ana@" in str(one) for one in (of_user, world.newest().change))
    world.look(60)
    again = velocity_findings(world.tools.quotas.quotas("default"), after(60))
    assert [of_key.labels, of_user.labels] == [one.labels for one in again]
    assert [] == velocity_findings(quotas, after(900))


def test_alert_fires_with_the_quota_and_resolves_after_it(
    world: World, metadata_alerts: AlertRepository
) -> None:
    publish("default", NOW, tools=world.tools, rules=rules(LIMIT))
    world.call(6)
    world.look()

    def firing(at: float) -> list[str]:
        sources = Sources(world.spans, world.spans.signals, world.tools.quotas.quotas("default"))
        found = watch_round(
            sources, [], metadata_alerts, receivers=[], ids=SequentialIds(), now=after(at)
        )
        return [one.labels["limit"] for one in found if "limit" in one.labels]

    assert ["wallet"] == firing(1)
    assert ["wallet"] == firing(899)
    assert [["wallet"], ["wallet"], []] == [firing(at) for at in (900, 960, 1_020)]
