"""What agents and the server say to each other; JSON over HTTP, the schema of `/api/v1/sync`.

`GET  /api/v1/policy?scope&node&wait` + `If-None-Match: "epoch.gen"` → 200 the exact signed bytes of
a `PolicyDocument` with `ETag: "epoch.gen"` and `Policy-Signature: ed25519;kid=…;sig=<base64>`, or
304; never an older generation than the caller's. `POST /api/v1/sync` with `SyncRequest` → `SyncReply`. Every list is bounded by MAX_SYNC_ITEMS.
"""

from datetime import datetime

import msgspec

from controlplane.policy.units import BudgetUnit

MAX_SYNC_ITEMS = 1_000
LAST_SEQ = 2**62
"""`seq` of what a dead process left in its journal: it says nothing after this."""


class Generation(msgspec.Struct, frozen=True, order=True):
    """A place in a scope's history; compared as a pair."""

    epoch: int
    gen: int

    def etag(self) -> str:
        """Write the pair as the strong ETag of its document."""
        return f'"{self.epoch}.{self.gen}"'


class Nack(msgspec.Struct, frozen=True):
    """A generation that this node refuses, and why."""

    generation: Generation
    reason: str
    rule: str | None = None


class Settle(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one hold, idempotent by `hold_id`; the server prices the bucket vector.

    `usage` None: the call ended without usage, the hold is charged in full until a trace proves
    less. `usage` empty and status error: the upstream refused it, nothing is charged.
    """

    hold_id: str
    leases: dict[str, str]  # budget id → lease id the hold was taken from
    held_nusd: int
    held: dict[str, int] = {}
    """Budget id → what is taken from its lease, in its unit, where that is not `held_nusd`: the
    rest of the hold is back in the lease already."""
    started_at: datetime
    ended_at: datetime
    provider: str
    model: str
    operation: str = "chat"
    status: str = "ok"
    error_type: str | None = None
    http_status: int | None = None
    usage: dict[str, int] | None = None
    response_id: str | None = None
    call_id: str | None = None  # litellm.call_id
    dimensions: dict[str, str] = {}


class LeaseWant(msgspec.Struct, frozen=True):
    """A request for a slice of a budget: as much as `want`, at least `need` for the call at hand."""

    budget_id: str
    want_nusd: int
    need_nusd: int
    least_nusd: int = 0
    """Less than this is of no use: rather nothing, so that it can go to somebody else."""
    is_escrow: bool = False
    """To be spent only while the server can not be reached: it lives longer, and is all or none."""


class LeaseReturn(msgspec.Struct, frozen=True):
    """What a holder gives back of a lease that it has not spent and does not hold."""

    lease_id: str
    unspent_nusd: int


class CallCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent did since it started: how a roll-out sees that a policy does harm."""

    admitted: int = 0
    refused: int = 0
    errors: int = 0
    """Of the admitted, those that ended with an error."""


class RefusedCalls(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls one holder refused within an hour for one reason; a later count is higher."""

    hour: datetime
    code: str
    budget_id: str = ""
    rule: str = ""
    tenant: str = ""
    """Whose calls they were, where a rule refused them; of a budget its own tenant is taken."""
    calls: int
    last_at: datetime


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One round of everything a node has to say."""

    node: str
    boot_id: str  # (boot id, pid, start time, nonce): a fork or restart is another holder (L11)
    scope: str = "default"
    applied: Generation | None = None
    applied_sha256: str | None = None
    """Of the document in force: the same pair with another hash is an alarm (D2)."""
    applied_ago_seconds: float = 0.0
    """Since when it is in force: a fleet does not acknowledge in one moment."""
    nack: Nack | None = None
    capabilities: tuple[str, ...] = ()
    counts: CallCounts = CallCounts()
    refused: tuple[RefusedCalls, ...] = ()
    """The counts that changed since they were last acknowledged: twice is once."""
    settle: tuple[Settle, ...] = ()
    want: tuple[LeaseWant, ...] = ()
    returns: tuple[LeaseReturn, ...] = ()
    seq: int = 0
    """Rises with every request of a holder; one that comes late gets no lease. 0: not counted.

    A holder is of the key that first used its `boot_id`. Another key may report only what is left
    of it, with LAST_SEQ and wanting nothing: a proxy that came back with a new key.
    """
    leases: tuple[str, ...] | None = None
    """Every lease the holder has or is giving back: what is not here was never received, and no
    call was ever held against it. None: not said."""


class Grant(msgspec.Struct, frozen=True):
    """A lease; spend at most `amount_nusd` before `expires_at`; 0 means refused until then."""

    budget_id: str
    lease_id: str
    amount_nusd: int
    ttl_seconds: float
    expires_at: datetime
    is_escrow: bool = False
    """As it was wanted."""


class Standing(msgspec.Struct, frozen=True):
    """Where a budget is, all in its `unit`: limit + debt = the sum of the other parts (L5)."""

    budget_id: str
    window_start: datetime
    window_end: datetime
    limit_nusd: int
    debt_nusd: int
    settled_enforced_nusd: int
    settled_unproven_nusd: int
    observed_unenforced_nusd: int
    leased_nusd: int
    free_nusd: int
    restated_nusd: int = 0
    """What re-rates and invoices moved after the fact, up or down."""
    unit: BudgetUnit = BudgetUnit.USD


class SyncReply(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer; `settled` lists the hold ids that are durable now."""

    generation: Generation
    settled: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    standings: tuple[Standing, ...] = ()
    server_time: datetime
    recall: tuple[str, ...] = ()
    """Budgets that have nothing free: what is not in use of their leases is wanted back."""
    recovering_until: datetime | None = None
    """The ledger was put back to an earlier moment: nothing is granted until then (L6)."""
