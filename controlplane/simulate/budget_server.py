"""The server of a simulated run: the shipped sync flow and compiler over a ledger that is given.

It may end before a commit (nothing happened) or after it (the answer is lost); what is committed
stays.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import httpx
import msgspec
import pyarrow as pa

from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.budgets.book import LeaseTerms
from controlplane.budgets.budget import Budget
from controlplane.budgets.ledger import Amounts, WindowKey
from controlplane.budgets.ports import Ledger, LedgerTransaction
from controlplane.core.errors import ControlPlaneError, UnavailableError
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.sync import ReportSettles, SyncTools, sweep
from controlplane.policy.bundle import SIGNATURE_HEADER, encode_document
from controlplane.policy.compile import compile_policy
from controlplane.policy.document import PolicyDocument, RatePerMillion
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation, Settle, SyncReply, SyncRequest
from controlplane.simulate.budget_truth import bill_nusd

TENANT = "acme"
MODEL = "m"
LONGEST_POLL_SECONDS = 25.0
PROXY = Principal(
    id="k", kind=PrincipalKind.PROXY, name="proxy", scopes=frozenset(), tenants=(TENANT,)
)

Sync = Callable[..., SyncReply]
"""`pipelines.sync.sync`, or what a test puts in its place."""


class Counts(msgspec.Struct):
    """What the agents' conversation came to."""

    syncs: int = 0
    lease_calls: int = 0
    """Syncs that asked for a lease or gave one back."""
    lease_calls_of_large: int = 0
    """The same while the budget held at least LARGE_HOLDS."""


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What a server finds around it."""

    put_budget: Callable[[Budget], None]
    price: Callable[[datetime], RatePerMillion]
    card: RatePerMillion
    now: Callable[[], datetime]
    run_sync: Sync
    report: ReportSettles
    is_large: Callable[[], bool]
    terms: LeaseTerms


class Server:
    """Budgets, ledger and policy in one place, with the true time as its clock."""

    def __init__(self, ledger: Ledger, around: Around) -> None:
        self._budgets: dict[str, Budget] = {}
        self._around = around
        self._now = around.now
        self._gen = 0
        self._body = b""
        self._changed: list[asyncio.Future[None]] = []
        self._window_ends: datetime | None = None
        self._books = ledger
        self.ledger = Breakable(ledger)
        self.terms = around.terms
        self.counts = Counts()
        self.down_until = 0.0
        self._tools = SyncTools(
            ledger=self.ledger,
            price_usage=lambda settle: _priced(around.price(settle.started_at), settle),
            report=around.report,
            ids=SequentialIds(),
            terms=self.terms,
        )
        self._posting = LedgerPosting(self.ledger, unenforced_grace_seconds=2.0)
        self.lease_windows: dict[str, WindowKey] = {}
        """Of every lease that was ever granted, as the ledger has it."""

    def change(self, budgets: Sequence[Budget]) -> None:
        """Keep budgets as they are now and publish them."""
        for budget in budgets:
            self._budgets[budget.id] = budget
            self._around.put_budget(budget)
        self.publish()

    def publish(self) -> None:
        """Compile and publish, as the hub does."""
        now = self._now()
        self._gen += 1
        clauses = [budget.clause(now) for budget in self._budgets.values()]
        self._window_ends = min(clause.window_end for clause in clauses)
        document = compile_policy(
            PolicyRules(tenant=TENANT),
            clauses,
            rate_card={MODEL: self._around.card},
            price_book_version="simulated",
            issued_at=now,
        )
        self._body = encode_document(_numbered(document, self._gen))
        for waiting in self._changed:
            if not waiting.done():
                waiting.set_result(None)
        self._changed.clear()

    def sweep(self) -> None:
        """Do what the hub does every few seconds."""
        if self._window_ends is not None and self._now() >= self._window_ends:
            self.publish()
        sweep(self.ledger, terms=self.terms, now=self._now())

    def post(self, changes: pa.Table) -> None:
        """Take settled calls, as the settler does."""
        self._posting.post(changes, self._now())

    def amounts(self, budget_id: str) -> Amounts:
        """Return what stands in a budget's window now."""
        window = self._budgets[budget_id].counted_window(self._now())
        with self._books.transaction() as ledger:
            return ledger.amounts_between(budget_id, window.start, window.end)

    async def policy(self, known: str | None, wait_seconds: float) -> httpx.Response:
        """Answer a poll when there is something newer, or the wait is over."""
        if known == self._etag:
            changed = asyncio.get_running_loop().create_future()
            self._changed.append(changed)
            try:
                await asyncio.wait_for(changed, min(wait_seconds, LONGEST_POLL_SECONDS))
            except TimeoutError:
                return httpx.Response(304)
        return httpx.Response(
            200, content=self._body, headers={SIGNATURE_HEADER: "simulated", "ETag": self._etag}
        )

    @property
    def _etag(self) -> str:
        return Generation(1, self._gen).etag()

    def sync(self, body: bytes) -> httpx.Response:
        """Answer a sync; a server that ends in the middle of it gives no answer."""
        request = msgspec.json.decode(body, type=SyncRequest)
        self.counts.syncs += 1
        is_lease_call = bool(request.want or request.returns)
        self.counts.lease_calls += is_lease_call
        self.counts.lease_calls_of_large += is_lease_call and self._around.is_large()
        try:
            reply = self._around.run_sync(request, PROXY, self._now(), tools=self._tools)
        except ControlPlaneError as wrong:
            return httpx.Response(wrong.http_status, json={"code": wrong.code})
        for grant in reply.grants:
            if grant.amount_nusd > 0:
                self.lease_windows[grant.lease_id] = self._window_of(grant.lease_id)
        return httpx.Response(200, content=msgspec.json.encode(reply))

    def _window_of(self, lease_id: str) -> WindowKey:
        with self._books.transaction() as ledger:
            (lease,) = ledger.leases([lease_id])
        return lease.window


class Breakable:
    """A ledger whose process ends at the next commit when told to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.breaks_before_commit = False

    @contextmanager
    def transaction(self) -> Iterator[LedgerTransaction]:
        """Begin one; it may be undone at its end."""
        with self._ledger.transaction() as transaction:
            yield transaction
            if self.breaks_before_commit:
                self.breaks_before_commit = False
                raise UnavailableError("the server ended before its commit")


def _numbered(document: PolicyDocument, gen: int) -> PolicyDocument:
    return msgspec.structs.replace(document, epoch=1, gen=gen)


def _priced(rate: RatePerMillion, settle: Settle) -> int:
    usage = settle.usage or {}
    return bill_nusd(
        rate,
        input_tokens=usage.get("input_uncached", 0),
        output_tokens=usage.get("output_text", 0),
    )
