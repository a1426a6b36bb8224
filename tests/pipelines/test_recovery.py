"""A ledger that was put back grants nothing until what it has forgotten must be over (L6)."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, update

from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import Role, scopes_of
from controlplane.bootstrap.recovery import note_of, notice_restore
from controlplane.bootstrap.system import SystemClock
from controlplane.budgets.book import LeaseTerms
from controlplane.budgets.budget import Budget
from controlplane.budgets.recovery import Mark, is_another
from controlplane.core.calendar import Period
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.publish import PublishTools, RateCard, publish
from controlplane.pipelines.sync import SyncTools, sync
from controlplane.policy.bundle import Signer
from controlplane.policy.document import RatePerMillion
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation, LeaseWant, Settle, SyncReply, SyncRequest
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.policies import PolicyRepository
from controlplane.store.metadata.tables import ledger_timeline
from controlplane.store.metadata.timeline import TimelineRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
IDS = SequentialIds()
TERMS = LeaseTerms(ttl_seconds=60, skew_seconds=5, max_call_seconds=100, escrow_seconds=60)
PROXY = Principal(
    id="k",
    kind=PrincipalKind.PROXY,
    name="proxy",
    scopes=scopes_of((Role.PROXY,)),
    tenants=("acme",),
)
BUDGET = Budget(
    id="b",
    name="Acme",
    owner="ada",
    tenant="acme",
    limit_nusd=1_000,
    period=Period.MONTH,
    counts_from=NOW,
)


def say(engine: Engine, request: SyncRequest, now: datetime = NOW) -> SyncReply:
    tools = SyncTools(
        ledger=LedgerRepository(engine),
        price_usage=lambda settle: 3 * sum((settle.usage or {}).values()),
        report=lambda *_: None,
        ids=IDS,
        terms=TERMS,
    )
    return sync(request, PROXY, now, tools=tools)


def asking(amount: int, **fields: object) -> SyncRequest:
    want = (LeaseWant("b", amount, amount),)
    return SyncRequest(node="n", boot_id="h", want=want, **fields)  # type: ignore[arg-type]  # the fields of a request


def test_a_new_timeline_freezes_the_ledger(metadata_engine: Engine) -> None:
    """60 + 5 + 100 seconds: the longest lease, the clocks, the longest call held against it."""
    BudgetRepository(metadata_engine).create(BUDGET)
    (granted,) = say(metadata_engine, asking(100, seq=1, leases=())).grants
    assert 100 == granted.amount_nusd
    with metadata_engine.begin() as connection:  # as a standby that was promoted finds it
        connection.execute(update(ledger_timeline).values(timeline="another"))
    frozen = say(metadata_engine, asking(100, seq=2, leases=()))
    assert NOW + timedelta(seconds=165) == frozen.recovering_until
    assert ["", 0] == [frozen.grants[0].lease_id, frozen.grants[0].amount_nusd]
    # The lease that its holder does not name may be one of those that were forgotten: not freed.
    assert 100 == frozen.standings[0].leased_nusd
    later = NOW + timedelta(seconds=164)
    assert say(metadata_engine, asking(100), later).recovering_until is not None
    over = say(metadata_engine, asking(100), NOW + timedelta(seconds=165))
    assert over.recovering_until is None
    assert 100 == over.grants[0].amount_nusd


def test_what_was_held_from_a_forgotten_lease_is_charged(metadata_engine: Engine) -> None:
    BudgetRepository(metadata_engine).create(BUDGET)
    TimelineRepository(metadata_engine).recover(NOW + timedelta(seconds=165))
    settle = Settle(
        hold_id="hold",
        leases={"b": "lease of the lost hour"},
        held_nusd=90,
        started_at=NOW,
        ended_at=NOW,
        provider="openai",
        model="m",
        usage={"output_text": 20},
    )
    reply = say(metadata_engine, SyncRequest(node="n", boot_id="h", settle=(settle,)))
    assert ("hold",) == reply.settled
    assert 60 == reply.standings[0].settled_enforced_nusd


def test_a_copy_that_is_put_back_is_noticed_and_posted_to_again(tmp_path: Path) -> None:
    """The note beside the span store is ahead of the database."""
    path = tmp_path / "metadata.sqlite"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    BudgetRepository(engine).create(BUDGET)
    reposted: list[int] = []

    def notice() -> bool:
        return notice_restore(
            tmp_path,
            TimelineRepository(engine),
            terms=TERMS,
            clock=SystemClock(),
            repost=reposted.append,
        )

    assert not notice()
    with LedgerRepository(engine).transaction() as ledger:
        ledger.save_posted({4}, now=NOW)
    engine.dispose()
    shutil.copy(path, tmp_path / "copy")
    (granted,) = say(engine, asking(100)).grants
    assert granted.amount_nusd
    mark = TimelineRepository(engine).mark()
    (tmp_path / "ledger-mark.json").write_text(f'{{"timeline":"","seq":{mark.seq}}}')
    assert not notice()
    engine.dispose()
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy", path)
    assert notice()
    assert [4] == reposted
    timeline = TimelineRepository(engine)
    assert timeline.unannounced()
    timeline.announced()
    assert not timeline.unannounced()
    assert say(engine, asking(100), SystemClock().now()).recovering_until is not None
    assert not notice()  # once
    (tmp_path / "ledger-mark.json").write_bytes(b"")  # as a torn disk leaves it: it proves nothing
    assert notice()
    assert not notice()
    engine.dispose()


@pytest.mark.parametrize(
    ("kept", "found", "another"),
    [(None, 0, False), (5, 5, False), (5, 9, False), (5, 4, True)],
)
def test_only_a_ledger_that_goes_on_is_the_same(
    kept: int | None, found: int, *, another: bool
) -> None:
    before = None if kept is None else Mark(timeline="1", seq=kept)
    assert another == is_another(before, Mark(timeline="1", seq=found))
    assert kept is None or is_another(before, Mark(timeline="2", seq=99))


def test_every_scope_has_a_new_epoch_after_a_recovery_once(
    metadata_engine: Engine, tmp_path: Path
) -> None:
    """The round of the hub: agents are told once, and the note says how far the ledger is."""
    BudgetRepository(metadata_engine).create(BUDGET)
    tools = PublishTools(
        policies=PolicyRepository(metadata_engine),
        budgets=BudgetRepository(metadata_engine),
        rate_card=lambda _now: RateCard({"m": RatePerMillion(input_nusd=1, output_nusd=2)}, "book"),
        signer=Signer(bytes(range(32))),
    )
    publish("default", NOW, tools=tools, rules=PolicyRules(tenant="acme"))
    told: list[str] = []
    timeline = TimelineRepository(metadata_engine)
    note = note_of(
        tmp_path,
        timeline,
        publishing=tools,
        clock=SystemClock(),
        published=lambda: told.append("published"),
    )
    note()
    assert ([], Generation(1, 1)) == (told, newest(tools))
    timeline.recover(NOW + timedelta(seconds=165))
    note()
    note()
    assert (["published"], Generation(2, 1)) == (told, newest(tools))
    kept = msgspec.json.decode((tmp_path / "ledger-mark.json").read_bytes(), type=Mark)
    assert timeline.mark() == kept


def newest(tools: PublishTools) -> Generation:
    signed = tools.policies.newest("default")
    assert signed is not None
    return signed.generation
