"""What a node says, on a real metadata database: settle once, grant never twice, tell the truth."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import Role, scopes_of
from controlplane.budgets.book import LeaseTerms
from controlplane.budgets.budget import Budget
from controlplane.core.calendar import Period, Window
from controlplane.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LimitExceededError,
    StoreUnavailableError,
)
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.sync import SyncCall, SyncTools, sweep, sync, sync_together
from controlplane.pipelines.sync_checks import MAX_REASON
from controlplane.policy.document import Mode
from controlplane.policy.wire import (
    LAST_SEQ,
    MAX_SYNC_ITEMS,
    Generation,
    Grant,
    LeaseReturn,
    LeaseWant,
    Nack,
    Settle,
    Standing,
    SyncReply,
    SyncRequest,
)
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.policies import PolicyRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
NUSD_PER_TOKEN = 3
PROXY = Principal(
    id="k",
    kind=PrincipalKind.PROXY,
    name="proxy",
    scopes=scopes_of((Role.PROXY,)),
    tenants=("acme",),
)


def price(settle: Settle) -> int | None:
    """Three nano-USD a token of a model that is known."""
    if settle.model == "unknown":
        return None
    return NUSD_PER_TOKEN * sum((settle.usage or {}).values())


class Reports:
    """Remembers the settles it is told of."""

    def __init__(self) -> None:
        self.hold_ids: list[str] = []

    def __call__(self, settles: Sequence[Settle], caller: Principal, now: datetime) -> None:
        assert PROXY.tenants == caller.tenants
        assert now >= NOW
        self.hold_ids += [settle.hold_id for settle in settles]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def tools(metadata_engine: Engine, reports: Reports) -> SyncTools:
    return SyncTools(
        ledger=LedgerRepository(metadata_engine),
        price_usage=price,
        report=reports,
        ids=SequentialIds(),
        terms=LeaseTerms(ttl_seconds=60, skew_seconds=5),
    )


@pytest.fixture
def make_budget(metadata_engine: Engine) -> Callable[..., Budget]:
    def make(**fields: object) -> Budget:
        plain: dict[str, object] = {
            "id": "b",
            "name": "Acme",
            "owner": "ada",
            "tenant": "acme",
            "limit_nusd": 1_000,
            "period": Period.MONTH,
            "counts_from": NOW,
        }
        budget = msgspec.convert({**plain, **fields}, Budget)
        return BudgetRepository(metadata_engine).create(budget)

    return make


def say(
    tools: SyncTools, *, now: datetime = NOW, holder: str = "h1", **fields: object
) -> SyncReply:
    request = msgspec.convert({"node": "n", "boot_id": holder, **fields}, SyncRequest)
    return sync(request, PROXY, now, tools=tools)


def settle(hold_id: str, lease_id: str, **fields: object) -> Settle:
    plain: dict[str, object] = {
        "hold_id": hold_id,
        "leases": {"b": lease_id},
        "held_nusd": 100,
        "started_at": NOW,
        "ended_at": NOW,
        "provider": "openai",
        "model": "m",
        "usage": {"output_text": 10},
    }
    return msgspec.convert({**plain, **fields}, Settle)


def grant(tools: SyncTools, want: int, *, holder: str = "h1", now: datetime = NOW) -> Grant:
    (granted,) = say(tools, holder=holder, now=now, want=(LeaseWant("b", want, want),)).grants
    return granted


def stands(reply: SyncReply) -> tuple[int, int, int, int]:
    (standing,) = reply.standings
    check(standing)
    return (
        standing.settled_enforced_nusd,
        standing.settled_unproven_nusd,
        standing.leased_nusd,
        standing.free_nusd,
    )


def check(standing: Standing) -> None:
    parts = (
        standing.settled_enforced_nusd
        + standing.settled_unproven_nusd
        + standing.observed_unenforced_nusd
        + standing.leased_nusd
        + standing.free_nusd
    )
    assert standing.limit_nusd + standing.debt_nusd == parts


def test_lease_is_granted_settled_and_returned(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Ten tokens at three nano-USD of a hold of 100; the rest of the lease comes back."""
    make_budget()
    lease = grant(tools, 400)
    assert 400 == lease.amount_nusd
    assert NOW + timedelta(seconds=60) == lease.expires_at
    assert (0, 0, 400, 600) == stands(say(tools))
    reply = say(tools, settle=(settle("h", lease.lease_id),))
    assert ("h",) == reply.settled
    assert (30, 0, 300, 670) == stands(reply)
    reply = say(tools, returns=(LeaseReturn(lease.lease_id, 300),))
    assert (30, 0, 0, 970) == stands(reply)


def test_what_is_said_twice_counts_once(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Settles and returns are resent until they are acknowledged."""
    make_budget()
    lease = grant(tools, 400)
    said = settle("h", lease.lease_id)
    for _ in range(3):
        reply = say(tools, settle=(said, said), returns=(LeaseReturn(lease.lease_id, 300),))
        assert ("h",) == reply.settled
        assert (30, 0, 0, 970) == stands(reply)


@pytest.mark.parametrize(
    ("fields", "enforced", "unproven"),
    [
        ({"usage": {"input_uncached": 4, "output_text": 6}}, 30, 0),
        ({"usage": None}, 0, 100),
        ({"usage": None, "status": "error"}, 0, 100),
        ({"usage": {}, "status": "error"}, 0, 0),
        ({"usage": {}, "status": "ok"}, 0, 100),
        ({"model": "unknown"}, 0, 100),
        ({"usage": {"output_text": 50}}, 150, 0),
    ],
    ids=[
        *("priced", "no usage", "failed without usage", "refused upstream", "ok but empty"),
        *("no price", "above its hold"),
    ],
)
def test_what_is_not_known_is_charged_in_full(
    tools: SyncTools,
    make_budget: Callable[..., Budget],
    *,
    fields: dict[str, object],
    enforced: int,
    unproven: int,
) -> None:
    """Only a refusal of the upstream is free; money above a hold is money all the same."""
    make_budget()
    lease = grant(tools, 100)
    reply = say(tools, settle=(settle("h", lease.lease_id, **fields),))
    assert (enforced, unproven, 0, 1_000 - enforced - unproven) == stands(reply)


def test_expired_lease_is_charged_until_its_holder_proves_less(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Never freed by time, only by the holder's own late word (algorithms L2)."""
    make_budget()
    lease = grant(tools, 400)
    much_later = NOW + timedelta(days=3)
    assert 1 == sweep(tools.ledger, terms=tools.terms, now=much_later)
    assert (0, 400, 0, 600) == stands(say(tools, now=much_later))
    reply = say(tools, now=much_later, settle=(settle("h", lease.lease_id),))
    assert (30, 300, 0, 670) == stands(reply)
    reply = say(tools, now=much_later, returns=(LeaseReturn(lease.lease_id, 300),))
    assert (30, 0, 0, 970) == stands(reply)
    reply = say(tools, now=much_later, returns=(LeaseReturn(lease.lease_id, 300),))
    assert (30, 0, 0, 970) == stands(reply)


def test_a_lease_is_not_swept_before_its_skew(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Five seconds past its expiry, not before."""
    make_budget()
    grant(tools, 400)
    assert (0, 0, 400, 600) == stands(say(tools, now=NOW + timedelta(seconds=64.9)))
    assert (0, 400, 0, 600) == stands(say(tools, now=NOW + timedelta(seconds=65)))


def test_returned_lease_waits_for_its_open_holds(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """A call may outlive its lease; its hold stays promised, then counts as unproven."""
    make_budget()
    lease = grant(tools, 400)
    reply = say(tools, returns=(LeaseReturn(lease.lease_id, 300),))
    assert (0, 0, 100, 900) == stands(reply)
    assert (0, 0, 100, 900) == stands(say(tools, now=NOW + timedelta(seconds=800)))
    assert (0, 100, 0, 900) == stands(say(tools, now=NOW + timedelta(seconds=901)))
    reply = say(tools, now=NOW + timedelta(seconds=950), settle=(settle("h", lease.lease_id),))
    assert (30, 0, 0, 970) == stands(reply)


def test_somebody_elses_lease_is_not_touched(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """A copied state directory frees nothing under another holder's name (algorithms L11)."""
    make_budget()
    lease = grant(tools, 400)
    reply = say(tools, holder="thief", returns=(LeaseReturn(lease.lease_id, 400),))
    assert (0, 0, 400, 600) == stands(reply)


def test_who_says_a_holders_name_without_its_tenant_frees_nothing(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Names of holders are no secret: `GET /policy/nodes` tells them."""
    make_budget()
    lease = grant(tools, 400)
    stranger = msgspec.structs.replace(PROXY, id="s", tenants=("globex",))
    back = (LeaseReturn(lease.lease_id, 400),)
    for said in ({"returns": back}, {"seq": 9, "leases": ()}):
        with pytest.raises(ConflictError):
            as_key(stranger, tools, **said)
    for returns in (back, ()):
        told = as_key(stranger, tools, seq=LAST_SEQ, returns=returns, leases=())
        assert () == told.standings
    assert (0, 0, 400, 600) == stands(say(tools))


def test_a_call_is_charged_to_the_budget_it_names_whatever_lease_it_names(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """A holder that mixes up two leases: the one of another budget stays as it was."""
    make_budget()
    make_budget(id="c")
    other = say(tools, want=(LeaseWant("c", 400, 400),)).grants[0].lease_id
    reply = say(tools, settle=(settle("h", other),))
    found = {one.budget_id: (one.settled_enforced_nusd, one.leased_nusd) for one in reply.standings}
    assert {"b": (30, 0), "c": (0, 400)} == found


def test_a_call_of_a_forgotten_lease_is_still_charged(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """A restored server has lost grants; what was spent was spent (algorithms L6)."""
    make_budget()
    assert (30, 0, 0, 970) == stands(say(tools, settle=(settle("h", "lease_lost"),)))


def test_leases_taper_and_never_exceed_what_is_free(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Half of what is free by one holder, a quarter by each of two; at last what there is."""
    make_budget()

    def ask(holder: str, want: int, need: int) -> int:
        wanted = (LeaseWant("b", want, need),)
        return say(tools, holder=holder, want=wanted).grants[0].amount_nusd

    assert 500 == ask("h1", 10_000, 1)
    assert 125 == ask("h2", 10_000, 1)
    assert 375 == ask("h3", 10_000, 400)
    assert 0 == ask("h3", 10_000, 1)


def test_lease_ends_with_its_window(tools: SyncTools, make_budget: Callable[..., Budget]) -> None:
    """No hold of December is taken from November's money; its late settle stays November's."""
    make_budget(counts_from=NOW, zone="Europe/Madrid")
    turn = datetime(2026, 11, 30, 23, tzinfo=UTC)
    lease = grant(tools, 400, now=turn - timedelta(seconds=10))
    assert turn == lease.expires_at
    assert 10.0 == lease.ttl_seconds
    after = turn + timedelta(seconds=1)
    reply = say(tools, now=after, settle=(settle("h", lease.lease_id),))
    assert (0, 0, 0, 1_000) == stands(reply)
    assert turn == reply.standings[0].window_start


def test_a_refusal_ends_with_its_window(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """An empty budget is full again when the next window begins."""
    make_budget(counts_from=NOW, limit_nusd=1)
    turn = datetime(2026, 12, 1, tzinfo=UTC)
    want = (LeaseWant("b", 400, 400, 400),)
    (early,) = say(tools, now=turn - timedelta(hours=1), want=want).grants
    (late,) = say(tools, now=turn - timedelta(seconds=2), want=want).grants
    assert (0, 5.0) == (early.amount_nusd, early.ttl_seconds)
    assert (0, 2.0) == (late.amount_nusd, late.ttl_seconds)


def test_who_has_open_calls_counts_as_a_holder(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """A lease that went back while a call still runs leaves its holder among those who share."""
    make_budget()
    first = grant(tools, 400)
    say(tools, returns=(LeaseReturn(first.lease_id, 300),))
    (second,) = say(tools, holder="h2", want=(LeaseWant("b", 10_000, 1),)).grants
    assert 900 // 4 == second.amount_nusd
    say(tools, settle=(settle("h", first.lease_id),))
    (third,) = say(tools, holder="h2", want=(LeaseWant("b", 10_000, 1),)).grants
    assert (1_000 - 30 - 225) // 2 == third.amount_nusd


def test_settles_become_reports_after_they_are_durable(
    tools: SyncTools, make_budget: Callable[..., Budget], reports: Reports
) -> None:
    """A report that could not be stored comes again with its settle, which counts once."""
    make_budget()

    def fail(*_: object) -> None:
        raise StoreUnavailableError("not now")

    said = settle("h", grant(tools, 100).lease_id)
    with pytest.raises(StoreUnavailableError):
        say(msgspec.structs.replace(tools, report=fail), settle=(said,))
    assert (30, 0, 0, 970) == stands(say(tools, settle=(said,)))
    assert ["h"] == reports.hold_ids


@pytest.mark.parametrize("mode", [Mode.SOFT, Mode.SHADOW])
def test_only_hard_budgets_are_leased(
    tools: SyncTools, make_budget: Callable[..., Budget], mode: Mode
) -> None:
    """The others never refuse, so there is nothing to promise."""
    make_budget(mode=mode)
    assert 0 == grant(tools, 1).amount_nusd


def test_unknown_budget_is_refused_not_an_error(tools: SyncTools) -> None:
    """A policy may still name a budget that was archived a moment ago."""
    assert 0 == grant(tools, 1).amount_nusd


def test_other_tenants_budgets_are_forbidden(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """A proxy key leases for its own tenants only, and is told of no other."""
    make_budget(tenant="globex")
    with pytest.raises(ForbiddenError):
        grant(tools, 1)
    with pytest.raises(ForbiddenError):
        say(tools, settle=(settle("h", "l"),))
    assert () == say(tools).standings


def test_too_much_at_once_is_refused(tools: SyncTools) -> None:
    """Every list has a limit."""
    many = tuple(LeaseReturn(str(number), 0) for number in range(MAX_SYNC_ITEMS + 1))
    with pytest.raises(LimitExceededError):
        say(tools, returns=many)


def test_impossible_generation_is_refused(tools: SyncTools) -> None:
    """A number that can not be stored must not stop everybody's publishing either."""
    with pytest.raises(InvalidInputError):
        say(tools, applied=Generation(2**40, 1))


def test_negative_hold_is_refused(tools: SyncTools) -> None:
    """It would put money back that was never there."""
    with pytest.raises(InvalidInputError):
        say(tools, settle=(settle("h", "l", held_nusd=-1),))


def test_refused_calls_are_counted_once(
    tools: SyncTools, make_budget: Callable[..., Budget], metadata_engine: Engine
) -> None:
    """A count that is told again or overtaken counts once; holders and hours add up."""
    make_budget()
    make_budget(id="of others", tenant="globex")

    def tell(calls: int, *, holder: str = "h1", hour: int = 10, **more: str) -> None:
        at = NOW.replace(hour=hour)
        said = {"budget_id": "b", "code": "budget_exhausted", **more}
        last = at + timedelta(minutes=calls)
        say(tools, holder=holder, refused=[{**said, "hour": at, "calls": calls, "last_at": last}])

    tell(3)
    tell(3)
    tell(5)
    tell(4)  # overtaken on its way
    tell(2, holder="h2", hour=11)
    tell(7, budget_id="", rule="no-x", tenant="acme", code="policy_denied")
    tell(8, budget_id="of others")
    tell(9, budget_id="", rule="no-x", tenant="globex", code="policy_denied")
    read = BudgetRepository(metadata_engine).refusals
    day = Window(NOW.replace(hour=0), NOW.replace(hour=23))
    assert [
        ("b", "", "budget_exhausted", 7, NOW.replace(hour=11, minute=2)),
        ("", "no-x", "policy_denied", 7, NOW.replace(minute=7)),
    ] == sorted(
        (
            (one.budget_id, one.rule, one.code, one.calls, one.last_at)
            for one in read(["acme"], day)
        ),
        reverse=True,
    )
    assert [] == read(["globex"], day)
    (first, _) = read(["acme"], Window(NOW, NOW.replace(hour=11)))
    assert 7 == first.calls
    with pytest.raises(InvalidInputError):
        tell(-1)


def test_node_state_is_the_last_word(tools: SyncTools, metadata_engine: Engine) -> None:
    """Applied and refused generations are kept per node with the server's own time."""
    say(tools, applied=Generation(1, 4), capabilities=("deny", "lease"))
    refused = Nack(Generation(1, 5), "unknown field", "r1")
    later = NOW + timedelta(seconds=7)
    reply = say(tools, now=later, applied=Generation(1, 4), nack=refused)
    assert Generation(0, 0) == reply.generation
    (node,) = PolicyRepository(metadata_engine).nodes("default")
    assert later == node.seen_at
    assert Generation(1, 4) == node.report.applied
    assert refused == node.report.nack


def test_parallel_syncs_never_grant_more_than_there_is(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Eight threads, one budget: what is granted is what is leased, at most the limit."""
    make_budget(limit_nusd=10_000)
    granted: list[int] = []

    def ask(number: int) -> None:
        for _ in range(10):
            grants = say(tools, holder=f"h{number}", want=(LeaseWant("b", 300, 300),)).grants
            granted.append(grants[0].amount_nusd)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 80 == len(granted)
    assert 10_000 == sum(granted)
    assert (0, 0, 10_000, 0) == stands(say(tools))


def test_replicas_of_the_api_share_one_ledger(
    tools: SyncTools, make_budget: Callable[..., Budget], metadata_engine: Engine
) -> None:
    """Three replicas, each with connections of its own: every hold settles once, none is granted twice."""
    make_budget(limit_nusd=100_000)
    engines = [
        open_engine(metadata_engine.url.render_as_string(hide_password=False)) for _ in "123"
    ]
    replicas = [
        msgspec.structs.replace(tools, ledger=LedgerRepository(engine), ids=PrefixedIds(str(n)))
        for n, engine in enumerate(engines)
    ]
    wrong: list[BaseException] = []

    def serve(number: int) -> None:
        holder, lease = f"h{number}", None
        try:
            for turn in range(6):
                replica = replicas[(number + turn) % 3]
                lease = grant(replica, 500, holder=holder)
                said = settle(f"{holder}:{turn}", lease.lease_id)
                # The same settle reaches two replicas at once or one after the other.
                for other in (replica, replicas[(number + turn + 1) % 3]):
                    say(other, holder=holder, settle=(said,))
                say(replica, holder=holder, returns=(LeaseReturn(lease.lease_id, 400),))
        except BaseException as failed:  # noqa: BLE001 - told by the main thread
            wrong.append(failed)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    assert [] == wrong
    assert (36 * 30, 0, 0, 100_000 - 36 * 30) == stands(say(tools))


class PrefixedIds:
    """Sequential ids that two replicas never share."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._ids = SequentialIds()

    def new(self, prefix: str) -> str:
        return self._ids.new(f"{prefix}{self._prefix}")


def test_a_grant_whose_answer_was_lost_is_free_again(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """The next request names what its holder has; what it does not name it never received."""
    make_budget()
    want = (LeaseWant("b", 400, 400),)
    (lost,) = say(tools, seq=1, leases=(), want=want).grants
    reply = say(tools, seq=2, leases=(), want=want)
    (kept,) = reply.grants
    assert lost.lease_id != kept.lease_id
    assert (0, 0, 400, 600) == stands(reply)
    assert (0, 0, 400, 600) == stands(say(tools, seq=3, leases=(kept.lease_id,)))
    assert (0, 0, 400, 600) == stands(say(tools, seq=4))  # says nothing of its leases


def test_an_expired_lease_that_was_never_received_is_free_again(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """It was charged in full meanwhile: too strict, never too lax."""
    make_budget()
    say(tools, seq=1, leases=(), want=(LeaseWant("b", 400, 400),))
    late = NOW + timedelta(seconds=70)
    assert (0, 400, 0, 600) == stands(say(tools, holder="h2", now=late))
    assert (0, 0, 0, 1_000) == stands(say(tools, now=late, seq=2, leases=()))


def test_a_request_that_was_overtaken_gets_no_lease(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Its sender gave up waiting for it; what it settles counts all the same."""
    make_budget()
    want = (LeaseWant("b", 100, 100),)
    (lease,) = say(tools, seq=5, leases=(), want=want).grants
    reply = say(tools, seq=4, leases=(), want=want, settle=(settle("h", lease.lease_id),))
    assert () == reply.grants
    assert ("h",) == reply.settled
    assert (30, 0, 0, 970) == stands(reply)


def test_too_little_is_left_for_others(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """What does not serve the call at hand is not promised to it."""
    make_budget(limit_nusd=100)
    (refused,) = say(tools, want=(LeaseWant("b", 500, 500, 101),)).grants
    assert 0 == refused.amount_nusd
    (granted,) = say(tools, want=(LeaseWant("b", 500, 500, 100),)).grants
    assert 100 == granted.amount_nusd


def test_a_hold_that_went_back_in_part_takes_the_rest(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Of a hold of 100, 60 can be held again: the lease has those still."""
    make_budget()
    lease = grant(tools, 400)
    reply = say(tools, settle=(settle("h", lease.lease_id, held={"b": 40}),))
    assert (30, 0, 360, 610) == stands(reply)
    reply = say(tools, settle=(settle("h2", lease.lease_id, held={"b": 40}, usage=None),))
    assert (30, 40, 320, 610) == stands(reply)


def test_a_wrong_clock_buys_nothing(tools: SyncTools, make_budget: Callable[..., Budget]) -> None:
    """A call is priced by our own clock, at the dearer end of the minute its lease lived."""
    make_budget()
    change = NOW + timedelta(seconds=30)

    def dearer(said: Settle) -> int:
        return 20 if said.started_at >= change else 10

    priced = msgspec.structs.replace(tools, price_usage=dearer)
    lease = grant(priced, 400)
    yesterday = NOW - timedelta(days=1)
    said = settle("h", lease.lease_id, started_at=yesterday, ended_at=yesterday)
    early = say(priced, now=NOW + timedelta(seconds=20), settle=(said,))
    assert (10, 0, 300, 690) == stands(early)
    said = settle("h2", lease.lease_id, started_at=yesterday, ended_at=yesterday)
    late = say(priced, now=NOW + timedelta(seconds=40), settle=(said,))
    assert (30, 0, 200, 770) == stands(late)


def test_leases_are_recalled_when_little_is_free(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    make_budget()
    (budget,) = (LeaseWant("b", 400, 400),)
    assert () == say(tools, want=(budget,)).recall
    assert ("b",) == say(tools, holder="h2", want=(LeaseWant("b", 550, 550),)).recall


def test_escrow_is_an_ordinary_lease_that_lives_longer(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """It counts from its grant; silent, it is charged in full; the last money is not parked."""
    make_budget(escrow_nusd=200)
    want = LeaseWant("b", 1, 1, 0, is_escrow=True)
    reply = say(tools, want=(want,))
    (kept,) = reply.grants
    assert (200, True, 1_200.0) == (kept.amount_nusd, kept.is_escrow, kept.ttl_seconds)
    assert (0, 0, 200, 800) == stands(reply)
    later = NOW + timedelta(seconds=1_000)
    assert (0, 0, 200, 800) == stands(say(tools, holder="h2", now=later, want=()))
    (other,) = say(tools, holder="h2", now=later, want=(want,)).grants
    assert (200, True) == (other.amount_nusd, other.is_escrow)  # 800 // (2 * 2 holders)
    (third,) = say(tools, holder="h3", now=later, want=(want,)).grants
    assert (0, True) == (third.amount_nusd, third.is_escrow)  # 600 // (2 * 3 holders) < 200
    swept = sweep(tools.ledger, terms=tools.terms, now=NOW + timedelta(seconds=1_206))
    assert 1 == swept
    told = say(
        tools, holder="h2", now=NOW + timedelta(seconds=1_207), settle=(settle("s", kept.lease_id),)
    )
    assert 200 == stands(told)[1]


OTHER_KEY = msgspec.structs.replace(PROXY, id="k2")


def as_key(caller: Principal, tools: SyncTools, **fields: object) -> SyncReply:
    request = msgspec.convert({"node": "n", "boot_id": "h1", **fields}, SyncRequest)
    return sync(request, caller, NOW, tools=tools)


@pytest.mark.parametrize("said_first", [{"seq": 1}, {}], ids=["counted", "not counted"])
def test_a_holder_is_of_the_key_that_spoke_for_it_first(
    tools: SyncTools, make_budget: Callable[..., Budget], said_first: dict[str, object]
) -> None:
    """Another key of the tenant knows its name, from a list of nodes: it frees and ends nothing."""
    make_budget()
    lease = as_key(PROXY, tools, **said_first, want=(LeaseWant("b", 400, 400),)).grants[0]
    for claimed in (
        {"seq": 2, "leases": ()},
        {"seq": LAST_SEQ, "want": (LeaseWant("b", 1, 1),)},
        {"want": (LeaseWant("b", 1, 1),)},
        {},
    ):
        with pytest.raises(ConflictError, match=r"boot_id.*'h1' is in use with another key"):
            as_key(OTHER_KEY, tools, **claimed)
    reply = as_key(OTHER_KEY, tools, seq=LAST_SEQ, leases=())
    assert (0, 0, 400, 600) == stands(reply)  # what it does not name stays the holder's
    (more,) = as_key(PROXY, tools, seq=2, want=(LeaseWant("b", 100, 100),)).grants
    assert 100 == more.amount_nusd
    assert lease.lease_id != more.lease_id


def test_what_a_proxy_left_is_reported_with_its_new_key(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    """Its key was changed between two runs: the journal of the last still settles and gives back."""
    make_budget()
    (lease,) = as_key(PROXY, tools, seq=1, want=(LeaseWant("b", 400, 400),)).grants
    left = {
        "seq": LAST_SEQ,
        "settle": (settle("h", lease.lease_id),),
        "returns": (LeaseReturn(lease.lease_id, 300),),
        "leases": (lease.lease_id,),
    }
    assert (30, 0, 0, 970) == stands(as_key(OTHER_KEY, tools, **left))
    assert (30, 0, 0, 970) == stands(as_key(OTHER_KEY, tools, **left))
    assert as_key(OTHER_KEY, tools, boot_id="h2", seq=1).standings


def test_two_keys_that_begin_one_holder_at_once_are_told_apart(
    tools: SyncTools, make_budget: Callable[..., Budget]
) -> None:
    make_budget()
    request = SyncRequest(node="n", boot_id="h1", want=(LeaseWant("b", 100, 100),))
    calls = [SyncCall(request=request, caller=who, now=NOW) for who in (PROXY, OTHER_KEY)]
    first, second = sync_together(calls, tools=tools)
    assert isinstance(first, SyncReply)
    assert isinstance(second, ConflictError)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"want": (LeaseWant("b", 1, 1),) * 1_001}, "want"),
        ({"returns": (LeaseReturn("l", 1),) * 1_001}, "returns"),
        ({"leases": ("l",) * 1_001}, "leases"),
        ({"capabilities": ("x",) * 101}, "capabilities"),
        (
            {"settle": (settle("h", "l", leases={str(i): "l" for i in range(1_001)}),)},
            "settle.leases",
        ),
        ({"settle": (settle("h", "l", held={str(i): 1 for i in range(1_001)}),)}, "settle.held"),
        ({"settle": (settle("h", "l", usage={str(i): 1 for i in range(101)}),)}, "settle.usage"),
        (
            {"settle": (settle("h", "l", dimensions={str(i): "x" for i in range(101)}),)},
            "settle.dimensions",
        ),
    ],
)
def test_every_list_of_a_sync_has_a_named_limit(
    tools: SyncTools, fields: dict[str, object], named: str
) -> None:
    with pytest.raises(LimitExceededError, match=named) as refused:
        as_key(PROXY, tools, **fields)
    assert named == refused.value.limit
    assert refused.value.hint not in {"", "Send less at once or raise the limit"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"boot_id": ""}, "boot_id"),
        ({"node": "n" * 301}, "node"),
        ({"scope": ""}, "scope"),
        ({"seq": -1}, "seq"),
        ({"seq": 2**62 + 1}, "seq"),
        ({"seq": 2**70}, "seq"),
        ({"applied_ago_seconds": 1e300}, "applied_ago_seconds"),
        ({"capabilities": ("x" * 201,)}, "capabilities"),
    ],
)
def test_a_sync_that_no_node_means_is_refused(
    tools: SyncTools, fields: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        as_key(PROXY, tools, **fields)
    assert named == refused.value.field


def test_a_long_refusal_of_a_generation_is_kept_in_part(
    tools: SyncTools, metadata_engine: Engine
) -> None:
    say(tools, nack=Nack(Generation(1, 1), "x" * 20_000))
    (node,) = PolicyRepository(metadata_engine).nodes("default")
    assert node.report.nack is not None
    assert "x" * MAX_REASON == node.report.nack.reason
