"""One node's word → settled holds, leases and standings, in one transaction of the ledger."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final

import msgspec

from controlplane.auth.principal import Principal
from controlplane.budgets.book import LeaseTerms, LedgerBook
from controlplane.budgets.budget import Budget
from controlplane.budgets.hold import ChargeReason, Outcome
from controlplane.budgets.lease import Lease
from controlplane.budgets.ledger import WindowKey
from controlplane.budgets.ports import Ledger, LedgerTransaction
from controlplane.budgets.standing import standing
from controlplane.core.calendar import Window
from controlplane.core.errors import (
    ControlPlaneError,
)
from controlplane.core.ids import IdFactory
from controlplane.core.tokens import is_possible
from controlplane.pipelines.sync_checks import (
    MAX_HOLD_NUSD,
    MAX_REASON,
    check_holder,
    check_request,
    check_tenants,
    named_budgets,
    told_refusals,
)
from controlplane.policy.history import NodeReport
from controlplane.policy.units import NOTHING, Amount, used_tokens
from controlplane.policy.wire import (
    LAST_SEQ,
    Grant,
    LeaseWant,
    Nack,
    Settle,
    Standing,
    SyncReply,
    SyncRequest,
)

SHORT_SECONDS: Final = 0.1
"""How long a holder need not ask again when others hold what may come back."""
EMPTY_SECONDS: Final = 5.0
"""The same when nothing is promised to anybody: only a higher limit or a new window will help."""
SCARCE_PARTS: Final = 2
"""With less than this part of what is leased free, leases that are not in use are recalled."""
MAX_STANDINGS: Final = 100
MAX_SWEPT: Final = 1_000

PriceUsage = Callable[[Settle], int | None]
"""Nano-USD of a settle's buckets at its own time; None: no price is known."""


ReportSettles = Callable[[Sequence[Settle], Principal, datetime], None]
"""Stores settles as reports of layer `agent`, once however often they come (ADR 004)."""


class SyncTools(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync needs beside the request; the same for all."""

    ledger: Ledger
    price_usage: PriceUsage
    report: ReportSettles
    ids: IdFactory
    terms: LeaseTerms = LeaseTerms()


class SyncCall(msgspec.Struct, frozen=True, kw_only=True):
    """One node's word, who speaks for it, and when it came."""

    request: SyncRequest
    caller: Principal
    now: datetime


SyncAnswer = SyncReply | ControlPlaneError


def sync(request: SyncRequest, caller: Principal, now: datetime, *, tools: SyncTools) -> SyncReply:
    """Settle, take back, sweep, grant and answer; durable on return, and repeatable.

    A hold is settled by its first settle, whatever is resent; a lease is given back once. The
    server prices what a settle says was used.

    Raises:
        LimitExceededError: a list is too long.
        InvalidInputError: a hold, a time or a generation that can not be.
        ForbiddenError: a budget of a tenant that the caller does not act for.
        ConflictError: a holder of another key.
        UnavailableError: nothing was changed; say it again.
    """
    (answer,) = sync_together([SyncCall(request=request, caller=caller, now=now)], tools=tools)
    if isinstance(answer, ControlPlaneError):
        raise answer
    return answer


def sync_together(calls: Sequence[SyncCall], *, tools: SyncTools) -> list[SyncAnswer]:
    """Do for each call, in their order, what `sync` does, in one transaction (L9).

    A call that is refused changes nothing, and the others go on without it. If the transaction
    fails, each call is tried in one of its own, so that none fails for another's sake.
    """
    try:
        answers = _in_one_transaction(calls, tools=tools)
    except ControlPlaneError as failed:
        if len(calls) == 1:
            return [failed]
        return [answer for call in calls for answer in sync_together([call], tools=tools)]
    # After the commit: a report that fails here comes again with the settle that nobody answered.
    settled: dict[str, list[int]] = {}
    for number, answer in enumerate(answers):
        if isinstance(answer, SyncReply) and calls[number].request.settle:
            settled.setdefault(calls[number].caller.id, []).append(number)
    for numbers in settled.values():
        of_caller = [calls[number] for number in numbers]
        settles = tuple(settle for call in of_caller for settle in call.request.settle)
        try:
            tools.report(settles, of_caller[0].caller, of_caller[-1].now)
        except ControlPlaneError as failed:
            answers = [failed if at in numbers else one for at, one in enumerate(answers)]
    return answers


def _in_one_transaction(calls: Sequence[SyncCall], *, tools: SyncTools) -> list[SyncAnswer]:
    answers: list[SyncAnswer] = []
    sweeps = True
    with tools.ledger.transaction() as ledger:
        budgets = ledger.budgets()
        frozen = ledger.frozen_until(calls[0].now, for_seconds=tools.terms.frozen_seconds)
        owners = ledger.owners({call.request.boot_id for call in calls})
        for call in calls:
            try:
                check_request(call.request)
                check_tenants(call.request, call.caller, budgets)
                check_holder(call.request, call.caller, owners)
            except ControlPlaneError as refused:
                answers.append(refused)
                continue
            owners.setdefault(call.request.boot_id, call.caller.id)
            answer = _answer(ledger, call, budgets, tools=tools, sweeps=sweeps, frozen=frozen)
            answers.append(answer)
            sweeps = False  # once is enough for all
    return answers


def _answer(
    ledger: LedgerTransaction,
    call: SyncCall,
    budgets: dict[str, Budget],
    *,
    tools: SyncTools,
    sweeps: bool,
    frozen: datetime | None,
) -> SyncReply:
    """Do what a checked call says; of another key's holder it only settles and gives back."""
    request, now = call.request, call.now
    if request.seq < LAST_SEQ:  # else: the node runs what its living process says
        ledger.see_node(_node_report(request, call.caller), now=now)
    if request.refused:
        told = told_refusals(request, call.caller, budgets)
        ledger.count_refused(told, holder=request.boot_id)
    book = _open_book(ledger, call, budgets, terms=tools.terms)
    ids = {settle.hold_id for settle in request.settle}
    for settle in _first_of_each(request.settle, ledger.known_holds(ids)):
        span = book.span_of(settle, holder=request.boot_id)
        outcome = outcome_of(settle, tools.price_usage, began_within=span)
        book.settle(settle, outcome, holder=request.boot_id)
    for given in request.returns:
        book.give_back(given, holder=request.boot_id)
    is_newest = _advance(ledger, call)
    if is_newest and frozen is None:  # else: what it does not name may be spent and forgotten
        _free_unknown(ledger, book, call, budgets=budgets)
    if sweeps:
        _sweep(ledger, book, now)
    # A request that was overtaken gets no lease: its sender no longer listens for it.
    wants = request.want if is_newest else ()
    grants = tuple(
        _grant(book, want, request, now=now, ids=tools.ids)
        if frozen is None
        else _frozen(want, frozen, now)
        for want in wants
    )
    ledger.append(book.entries)
    ledger.save_leases(book.leases)
    ledger.save_holds(book.holds)
    standings = _standings(book, _told(request, call.caller, budgets), now)
    return SyncReply(
        generation=ledger.generation(request.scope),
        settled=tuple(dict.fromkeys(settle.hold_id for settle in request.settle)),
        grants=grants,
        standings=standings,
        server_time=now,
        recall=tuple(one.budget_id for one in standings if _is_scarce(one)),
        recovering_until=frozen,
    )


def outcome_of(
    settle: Settle, price_usage: PriceUsage, *, began_within: Window | None = None
) -> Outcome:
    """Say what a call is charged; what is not known is charged in full.

    A holder's clock may be hours off, and a price may change: by our own clock the call began
    while its lease could be held from, so it is priced at the dearer end of that minute. Its trace
    corrects what little that is too much.
    """
    if not settle.usage:
        if settle.usage is not None and settle.status == "error":
            return Outcome(NOTHING, ChargeReason.REFUSED_UPSTREAM)
        # Without usage nobody can say that a failed call ever arrived; one that did not fail did.
        arrived = None if settle.status == "error" else 1
        return Outcome(Amount(None, None, arrived), ChargeReason.UNKNOWN_USAGE)
    if not is_possible(settle.usage):
        return Outcome(Amount(None, None, 1), ChargeReason.UNKNOWN_USAGE)
    tokens = used_tokens(settle.usage)
    begins = (began_within.start, began_within.end) if began_within else (settle.started_at,)
    costs = [price_usage(msgspec.structs.replace(settle, started_at=at)) for at in begins]
    cost = None if None in costs else max(one for one in costs if one is not None)
    if cost is None or not 0 <= cost <= MAX_HOLD_NUSD:
        return Outcome(Amount(None, tokens, 1), ChargeReason.UNPRICED)
    return Outcome(Amount(cost, tokens, 1), ChargeReason.PRICED)


def sweep(ledger: Ledger, *, terms: LeaseTerms, now: datetime) -> int:
    """Charge in full the leases of holders that fell silent; returns how many.

    Raises:
        UnavailableError: nothing was changed.
    """
    with ledger.transaction() as transaction:
        book = LedgerBook({}, terms=terms, now=now, holders={}, amounts={})
        swept = _sweep(transaction, book, now)
        transaction.append(book.entries)
        transaction.save_leases(book.leases)
    return swept


def _advance(ledger: LedgerTransaction, call: SyncCall) -> bool:
    """Note the caller's word; True when it is the holder's newest, or its words are not counted."""
    seq = call.request.seq
    return ledger.advance(call.request.boot_id, seq, key_id=call.caller.id, now=call.now) or not seq


def _node_report(request: SyncRequest, caller: Principal) -> NodeReport:
    return NodeReport(
        scope=request.scope,
        node=request.node,
        boot_id=request.boot_id,
        applied=request.applied,
        applied_sha256=request.applied_sha256,
        nack=_shortened(request.nack),
        capabilities=request.capabilities,
        counts=request.counts,
        tenants=None if caller.all_tenants else caller.tenants,
    )


def _shortened(nack: Nack | None) -> Nack | None:
    """Keep the beginning of a long reason: refused whole, nobody would hear of the refusal."""
    return nack and msgspec.structs.replace(nack, reason=nack.reason[:MAX_REASON])


def _open_book(
    ledger: LedgerTransaction, call: SyncCall, budgets: dict[str, Budget], *, terms: LeaseTerms
) -> LedgerBook:
    request, now = call.request, call.now
    windows = [WindowKey(one.id, one.window(now).start) for one in budgets.values()]
    leases = {given.lease_id for given in request.returns}
    leases.update(lease for settle in request.settle for lease in settle.leases.values())
    wanted = {want.budget_id for want in request.want}
    asked = [key for key in windows if key.budget_id in wanted]
    book = LedgerBook(
        budgets,
        terms=terms,
        now=now,
        holders=ledger.holders(asked, now=now, other_than=request.boot_id),
        amounts=ledger.amounts(windows),
        earlier={
            one.id: ledger.amounts_between(
                one.id, one.counted_window(now).start, one.window(now).start
            )
            for one in budgets.values()
            if one.is_rolling
        },
    )
    book.know(_visible(ledger.leases(leases), call.caller, budgets))
    return book


def _visible(leases: Sequence[Lease], caller: Principal, budgets: dict[str, Budget]) -> list[Lease]:
    """Leave out leases of other tenants' budgets: a holder's name alone is no proof of being it."""
    of = [(lease, budgets.get(lease.window.budget_id)) for lease in leases]
    return [lease for lease, budget in of if budget is None or caller.may_see(budget.tenant)]


def _free_unknown(
    ledger: LedgerTransaction, book: LedgerBook, call: SyncCall, *, budgets: dict[str, Budget]
) -> None:
    """Free what was granted in an answer that never arrived; its holder names what it has."""
    request = call.request
    if not request.seq or request.leases is None:
        return
    has = {*request.leases, *(given.lease_id for given in request.returns)}
    changed = {lease.id: lease for lease in book.leases}
    in_hand = _visible(ledger.leases_in_hand(request.boot_id), call.caller, budgets)
    lost = [lease for lease in in_hand if lease.id not in has]
    book.know(lease for lease in lost if lease.id not in changed)
    for lease in lost:
        book.disown(changed.get(lease.id, lease))


def _is_scarce(standing: Standing) -> bool:
    """Whether most of what is left is promised to somebody."""
    return standing.free_nusd * SCARCE_PARTS < standing.leased_nusd


def _first_of_each(settles: Collection[Settle], known: Collection[str]) -> list[Settle]:
    """Leave out what was settled before, and what one request says twice."""
    fresh: dict[str, Settle] = {}
    for settle in settles:
        if settle.hold_id not in known:
            fresh.setdefault(settle.hold_id, settle)
    return list(fresh.values())


def _sweep(ledger: LedgerTransaction, book: LedgerBook, now: datetime) -> int:
    changed = {lease.id for lease in book.leases}
    overdue = [
        lease
        for lease in ledger.overdue_leases(now, limit=MAX_SWEPT)
        if lease.id not in changed  # its holder has just spoken of it
    ]
    book.know(overdue)
    return sum(book.expire(lease.id) for lease in overdue)


def _grant(
    book: LedgerBook, want: LeaseWant, request: SyncRequest, *, now: datetime, ids: IdFactory
) -> Grant:
    lease = book.grant(want, holder=request.boot_id, new_id=lambda: ids.new("lease"))
    if lease is None:
        seconds = SHORT_SECONDS if book.is_leased(want.budget_id) else EMPTY_SECONDS
        seconds = book.most_seconds(want.budget_id, seconds)
        return Grant(want.budget_id, "", 0, seconds, now, want.is_escrow)
    return _to_wire(lease, now, is_escrow=want.is_escrow)


def _frozen(want: LeaseWant, until: datetime, now: datetime) -> Grant:
    seconds = min(EMPTY_SECONDS, (until - now).total_seconds())
    return Grant(want.budget_id, "", 0, seconds, now, want.is_escrow)


def _to_wire(lease: Lease, now: datetime, *, is_escrow: bool) -> Grant:
    return Grant(
        budget_id=lease.window.budget_id,
        lease_id=lease.id,
        amount_nusd=lease.amount_nusd,
        ttl_seconds=(lease.expires_at - now).total_seconds(),
        expires_at=lease.expires_at,
        is_escrow=is_escrow,
    )


def _told(request: SyncRequest, caller: Principal, budgets: dict[str, Budget]) -> list[Budget]:
    """Return the budgets whose standing is sent: those spoken of first, then others there are."""
    named = named_budgets(request)
    visible = [one for one in budgets.values() if caller.may_see(one.tenant)]
    visible.sort(key=lambda one: (one.id not in named, one.id))
    return visible[: max(MAX_STANDINGS, len(named))]


def _standings(book: LedgerBook, budgets: list[Budget], now: datetime) -> tuple[Standing, ...]:
    return tuple(standing(budget, book.amounts(budget), now) for budget in budgets)
