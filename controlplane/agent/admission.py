"""Admit one call: policy, then holds; local and in any thread, until more lease is needed."""

from typing import Final

import msgspec

from controlplane.agent.admit import (
    Claim,
    claim,
    count_unattributed,
    dearest_rate,
    exhausted,
    unanswered,
    with_parents,
)
from controlplane.agent.bounds import Bound
from controlplane.agent.consult import Consulted, Desk
from controlplane.agent.holder import Holder
from controlplane.agent.lease import Instant
from controlplane.agent.puller import Puller
from controlplane.agent.refusal import Refusal
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Hold
from controlplane.agent.syncer import Syncer
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.core.clock import Clock
from controlplane.core.ids import IdFactory
from controlplane.policy.decide import Decision
from controlplane.policy.document import Mode, StaleMode
from controlplane.policy.match import matches
from controlplane.policy.units import BudgetUnit

NO_POLICY: Final = "none"


class Free(msgspec.Struct, frozen=True):
    """Nothing has to be held."""


FREE: Final = Free()


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the leases at hand have no room for; `Admission.finish` asks for more."""

    request: Request
    wanted: Claim
    consulted: Consulted


class Admission:
    """The admitting half of an agent; its policy, leases and quotas are handed to it."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        clock: Clock,
        ids: IdFactory,
        holder: Holder,
        puller: Puller,
        syncer: Syncer,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._holder = holder
        self._puller = puller
        self._syncer = syncer
        self.desk = Desk(clock, max_call_seconds=settings.max_call_seconds)

    @property
    def policy(self) -> str:
        """The generation in force, as `epoch.gen`."""
        applied = self._puller.applied
        return applied.generation.etag().strip('"') if applied else NO_POLICY

    def start(self, request: Request) -> Ticket | Waiting:
        """Admit from what is at hand, without the network, in any thread.

        Raises:
            RefusedError: with the answer for the sender.
        """
        with self._holder.lock:
            consulted = self._consult(request)
            try:
                consulted = self._fresh_enough(consulted, request)
                wanted = self._claim(request, consulted)
                hold = self._hold(request, wanted)
            except RefusedError:
                self.desk.take_back(consulted, request)
                raise
            if hold is not None:
                return self._ticket(request, consulted, hold=hold, kept=wanted)
        return Waiting(request=request, wanted=wanted, consulted=consulted)

    def start_again(self, request: Request) -> Ticket | Waiting:
        """Hold another attempt of an admitted call: its budgets apply, quotas are not used twice.

        Its model may be another one than was admitted: what denies that is asked again.

        Raises:
            RefusedError: with the answer for the sender.
        """
        applied = self._puller.applied
        if applied is None:
            return Ticket()
        document = applied.document
        with self._holder.lock:
            denied = self.desk.denied(document, request)
        if denied:
            raise self.refused(denied, request)
        unattributed = count_unattributed(document, request.facts)
        if isinstance(unattributed, Refusal):
            raise self.refused(unattributed, request)
        budgets = tuple(b for b in document.budgets if matches(b.match, request.facts))
        decision = Decision(budgets=(*budgets, *unattributed))
        consulted = Consulted(document=document, decision=decision)
        consulted = self._fresh_enough(consulted, request)
        with self._holder.lock:
            wanted = self._claim(request, consulted)
            whole = msgspec.structs.replace(wanted, least=wanted.amounts, bound=None)  # never cut
            hold = self._hold(request, whole)
            if hold is not None:
                return self._ticket(request, consulted, hold=hold, kept=whole)
        return Waiting(request=request, wanted=whole, consulted=consulted)

    def look_again(self, request: Request) -> Ticket:
        """Say what the rules change in a later attempt at another model; nothing is held for it.

        Raises:
            RefusedError: with the answer for the sender.
        """
        applied = self._puller.applied
        if applied is None:
            return Ticket()
        with self._holder.lock:
            consulted = self.desk.consult_again(
                applied.document, request, standings=self._syncer.standings
            )
        if consulted.refusal:
            raise self.refused(consulted.refusal, request)
        return _changes(consulted, request, cap=consulted.cap_tokens)

    async def finish(self, waiting: Waiting) -> Ticket:
        """Ask for more lease; cut the output to fit what came; give up after a moment.

        Runs in the loop of the sync task.

        Raises:
            RefusedError: with the answer for the sender.
        """
        try:
            return await self._finish(waiting)
        except BaseException:  # refused, or the sender has left: it uses no quota
            with self._holder.lock:
                self.desk.take_back(waiting.consulted, waiting.request)
            raise

    async def _finish(self, waiting: Waiting) -> Ticket:
        request, wanted = waiting.request, waiting.wanted
        deadline = self._clock.monotonic() + self._settings.admission_wait_seconds
        while True:
            left = deadline - self._clock.monotonic()
            answered = left > 0 and await self._syncer.more(wanted, left)
            kept = self._hold_cut(request, wanted, may_cut=answered or left <= 0)
            if kept is not None:
                with self._holder.lock:
                    return self._ticket(request, waiting.consulted, hold=kept[0], kept=kept[1])
            if left <= 0 or (answered and not self._holder.queue.is_busy):
                refusal = exhausted(
                    waiting.consulted.budgets,
                    self._syncer.standings,
                    wanted.amounts,
                    now=self._clock.now(),
                    may_free=self._holder.queue.is_busy,
                    recovering_until=self._syncer.recovering_until,
                )
                raise self.refused(
                    unanswered(refusal) if self._syncer.is_late else refusal, request
                )

    def _consult(self, request: Request) -> Consulted:
        applied = self._puller.applied
        if applied is None:
            if self._settings.without_policy == "allow":
                return Consulted.nothing()
            why = "no policy was ever received"
            if self._puller.nack:
                why = "this agent can not apply the policy that it received; its health says why"
            missing = Refusal(code="policy_missing", reason=why, status=503)
            raise self.refused(missing, request)
        consulted = self.desk.consult(applied.document, request, standings=self._syncer.standings)
        if consulted.refusal:
            raise self.refused(consulted.refusal, request)
        return consulted

    def _fresh_enough(self, consulted: Consulted, request: Request) -> Consulted:
        """Apply what each budget says about a policy that is too old."""
        applied = self._puller.applied
        if applied is None:
            return consulted
        stale = applied.document.on_stale
        age = applied.confirmed.seconds_until(Instant.of(self._clock))
        if age <= stale.dead_after_seconds:
            return consulted
        usual = "block" if stale.mode is StaleMode.PESSIMISTIC else "ceiling"
        does = {one.id: usual if one.stale == "policy" else one.stale for one in consulted.budgets}
        hard = next(
            (b for b in consulted.budgets if b.mode is Mode.HARD and does[b.id] == "block"), None
        )
        if hard:
            raise self.refused(
                Refusal(
                    code="policy_stale",
                    reason=f"the policy was last confirmed {age:.0f} s ago; "
                    f"budget {hard.name!r} is not spent blindly",
                    status=503,
                    budget=hard,
                ),
                request,
            )
        held = tuple(one for one in consulted.budgets if does[one.id] != "allow")
        decision = msgspec.structs.replace(consulted.decision, budgets=held)
        return msgspec.structs.replace(consulted, decision=decision)

    def _claim(self, request: Request, consulted: Consulted) -> Claim:
        bound = request.bound
        if consulted.stripped:
            bound = bound.without(_with_tools(consulted.stripped))
        choices = bound.capped(consulted.cap_choices)
        if choices is not None:
            bound = msgspec.structs.replace(bound, choices=choices)
        asked = request.facts.get("model", "")
        if (bound.operation, request.provider, asked) in self.desk.demoted:
            why = "an earlier call used more than its bound"
            bound = msgspec.structs.replace(bound, unbounded=bound.unbounded or why)
        wanted = claim(
            consulted.document,
            with_parents(consulted.document, consulted.budgets),
            bound,
            candidates=_rate_names(request, consulted),
            cap_tokens=consulted.cap_tokens,
        )
        if isinstance(wanted, Refusal):
            raise self.refused(wanted, request)
        return wanted

    def _hold(self, request: Request, wanted: Claim) -> Hold | Free | None:
        """Take the claim from the lease book; None when it does not fit. The lock is held."""
        if not wanted.budget_ids:
            return FREE
        now = Instant.of(self._clock)
        leases = self._holder.book.hold(wanted.amounts, now)
        if leases is None:
            return None
        hold = Hold(
            hold_id=self._ids.new("hold"),
            leases=leases,
            held_nusd=wanted.held_nusd,
            amounts={k: v for k, v in wanted.amounts.items() if v != wanted.held_nusd},
            rate=wanted.rate,
            units={k: v for k, v in wanted.units.items() if v is not BudgetUnit.USD},
            output_tokens=_output_tokens(wanted, request),
            started=now,
            provider=request.provider,
            model=request.facts.get("model", ""),
            operation=request.bound.operation,
            call_id=request.call_id,
            dimensions=dict(request.facts),
        )
        try:
            self._holder.queue.opened(hold)
        except OSError as wrong:  # what is not written down can not be proven after a crash
            self._holder.book.release(leases, wanted.amounts)
            reason = f"the agent's journal can not be written ({wrong.strerror})"
            raise self.refused(
                Refusal(code="journal_unwritable", reason=reason, status=503), request
            ) from wrong
        return hold

    def _hold_cut(
        self, request: Request, wanted: Claim, *, may_cut: bool
    ) -> tuple[Hold | Free, Claim] | None:
        with self._holder.lock:
            hold = self._hold(request, wanted)
            if hold is not None:
                return hold, wanted
            if not may_cut:
                return None
            fits = self._holder.book.fits(wanted.amounts, Instant.of(self._clock))
            cut = wanted.cut_to(fits)
            hold = self._hold(request, cut) if cut else None
            return (hold, cut) if hold and cut else None

    def _ticket(
        self, request: Request, consulted: Consulted, *, hold: Hold | Free, kept: Claim
    ) -> Ticket:
        """Write the answer, and count the request as under way. The lock is held."""
        self._holder.tally.admitted += 1
        decision, cap = consulted.decision, consulted.cap_tokens
        if kept.budget_ids and not kept.is_own_limit:
            cap = min(kept.output_tokens, kept.output_tokens if cap is None else cap)
        rate = None
        if consulted.trial:
            names = _rate_names(request, consulted)
            rate = dearest_rate(consulted.document.rate_card, names)
        slot = self.desk.slot_for(consulted, request, rate)
        slot_id = self._ids.new("call") if slot else None
        if slot and slot_id:
            self.desk.slots.open(slot_id, slot)
        return msgspec.structs.replace(
            _changes(consulted, request, cap=cap),
            hold_id=hold.hold_id if isinstance(hold, Hold) else None,
            slot=slot_id,
            attributes=decision.attributes,
            arm=decision.arm,
        )

    def refused(self, refusal: Refusal, request: Request) -> RefusedError:
        """Count a refusal, and add what is known of its budget."""
        tenant = request.facts.get("tenant", "")
        with self._holder.lock:
            self._holder.tally.refuse(refusal, tenant=tenant, now=self._clock.now())
            self.desk.refusals[refusal.code] = self.desk.refusals.get(refusal.code, 0) + 1
        if refusal.budget and refusal.standing is None:
            standing = self._syncer.standings.get(refusal.budget.id)
            refusal = msgspec.structs.replace(refusal, standing=standing)
        return RefusedError(refusal, self.policy, request_id=request.request_id)


def _with_tools(features: tuple[str, ...]) -> tuple[str, ...]:
    """Return the features that are gone: without any tool there is no server's tool either."""
    return (*features, "server_tools") if "tools" in features else features


def _lower(cap: int | None, asked: int | None) -> int | None:
    """Return the cap where it is less than what is asked for, or nothing is."""
    return cap if cap is not None and (asked is None or cap < asked) else None


def _changes(consulted: Consulted, request: Request, *, cap: int | None) -> Ticket:
    """Write what the rules change in a request, at most `cap` output tokens among it."""
    decision, bound = consulted.decision, request.bound
    return Ticket(
        model=decision.model,
        output_tokens=_lower(cap, bound.output_tokens),
        choices=_choices(consulted, bound),
        strip=consulted.stripped,
        weights=decision.weights,
        sticky=consulted.sticky,
        failover=decision.failover,
        headers=decision.headers,
        notes=decision.rules,
    )


def _choices(consulted: Consulted, bound: Bound) -> int | None:
    return consulted.cap_choices if bound.capped(consulted.cap_choices) else None


def _output_tokens(wanted: Claim, request: Request) -> int:
    choices = wanted.bound.choices if wanted.bound else request.bound.choices
    return wanted.output_tokens * choices


def _rate_names(request: Request, consulted: Consulted) -> tuple[tuple[str, ...], ...]:
    """Return the rate-card names of every deployment that may serve the call."""
    decision = consulted.decision
    model = decision.model or request.facts.get("model", "")
    order = decision.failover.order if decision.failover else ()
    named = {*order, *(decision.weights or ())}
    found = request.deployments(model, named) if request.deployments and named else ()
    return found or request.candidates(model)
