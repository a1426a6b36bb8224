"""Everything a request may reach, handed in once; the API opens nothing by itself."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from controlplane.alerts.alert import Alert
from controlplane.api.exports import ExportJobs
from controlplane.api.sessions import Sessions
from controlplane.attribution.history import RulesHistory
from controlplane.auth.api_key import KeyText
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import Scope
from controlplane.budgets.ports import Budgets
from controlplane.core.calendar import Window
from controlplane.core.clock import Clock
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
from controlplane.core.ids import IdFactory
from controlplane.pipelines.budget_course import SpentByBudget
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pipelines.ports import SubjectStore
from controlplane.pipelines.publish import PublishTools
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pipelines.sync import SyncTools
from controlplane.policy.wire import RefusedCalls
from controlplane.pricing.currency import ExchangeRates
from controlplane.pricing.gpu_pool import GpuPool
from controlplane.pricing.gpu_ports import GpuPools
from controlplane.pricing.history import PriceHistory
from controlplane.pricing.price_book import Found, PriceBook
from controlplane.pricing.rerate import RerateRuns
from controlplane.signals.content import ContentKeeper, Recording
from controlplane.signals.ports import SpanReader
from controlplane.signals.sender import TenantMap
from controlplane.signals.signal_ports import SignalReader, SignalWriter
from controlplane.usage.ports import BusinessMetrics, KeptReconciliations


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it may be listed: everything but its secret."""

    id: str
    kind: PrincipalKind
    role: str
    name: str
    tenant: str
    all_tenants: bool
    scopes: tuple[Scope, ...]
    policy_scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class BudgetStore(Budgets, SpentByBudget, Protocol):
    """Budgets, what was spent of them by when, and what was refused for them."""

    def refusals(self, tenants: Collection[str], span: Window) -> list[RefusedCalls]:
        """Return the refused calls of the hours that begin in a span, by reason, most first."""
        ...


class KeyDirectory(Protocol):
    """Where API keys are known."""

    def resolve(self, bearer: str, *, now: datetime) -> Principal:
        """Return whose key this is, in constant time for every wrong secret.

        Raises:
            AuthenticationError: malformed, unknown, expired or revoked.
            UnavailableError: it can not be looked up now.
        """
        ...

    def list(self) -> Sequence[msgspec.Struct]:
        """Return every key, revoked ones included, as structs with KeyInfo's fields or more."""
        ...

    def revoke(self, key_id: str, *, now: datetime) -> None:
        """End a key; twice is once.

        Raises:
            NotFoundError: there is none of that id.
        """
        ...


class KeyOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key is asked for; its id and secret are the composition root's to draw."""

    kind: PrincipalKind
    role: str
    name: str
    tenant: str
    all_tenants: bool = False
    tenant_map: TenantMap | None = None
    dimensions: dict[str, str] = {}
    policy_scopes: tuple[str, ...] = ("default",)
    """Whose policy a proxy key may pull and acknowledge; `*` is any."""
    expires_at: datetime | None = None


CreateKey = Callable[[KeyOrder, datetime], KeyText]
"""Makes and keeps a key; raises InvalidInputError when kind and role do not go together."""


class HealthCheck(msgspec.Struct, frozen=True):
    """One dependency: `probe` returns a short detail, or raises when it does not work."""

    name: str
    probe: Callable[[], str]
    vital: bool = True
    """Without it the service is not ready; a check that is not vital only degrades."""


class AlertList(Protocol):
    """Where alerts are kept."""

    def alerts(self) -> list[Alert]:
        """Return every alert that is not forgotten."""
        ...


class Prices(Protocol):
    """The price book in force."""

    @property
    def version(self) -> str:
        """Which version of all prices it is."""
        ...

    def find(self, provider: str | None, model: str | None) -> Found:
        """Return a model's rows, or why there are none."""
        ...

    def current(self) -> PriceBook:
        """Return the book as it is now, whole."""
        ...


class BillUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A bill as it came, and what it is compared with."""

    body: bytes
    name: str
    provider: str
    source: str | None
    mapping: str | None
    zone: str
    tenants: tuple[str, ...]
    tolerance_percent: str = "0.5"
    tolerance_usd: str = "1"


ReconcileBill = Callable[[BillUpload], ReconciliationReport]
"""Reads and compares a bill; raises InvalidInputError when it can not be read."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of one running API."""

    reader: SpanReader
    contents: ContentKeeper
    signals: SignalReader
    signal_writer: SignalWriter
    subjects: SubjectStore
    gpu: GpuTools
    gpu_pools: GpuPools
    keys: KeyDirectory
    create_key: CreateKey
    publishing: PublishTools
    sync: SyncTools
    prices: Prices
    rules: RulesHistory
    price_history: PriceHistory
    rerates: RerateRuns
    exchange_rates: ExchangeRates
    budgets: BudgetStore
    exports: ExportJobs
    metrics: BusinessMetrics
    reconciliations: KeptReconciliations
    reconcile_bill: ReconcileBill
    alerts: AlertList
    sessions: Sessions
    clock: Clock
    ids: IdFactory
    version: str
    recording: Recording = Recording()
    fixed_pools: tuple[GpuPool, ...] = ()
    zone: str = "UTC"
    calendar: FiscalCalendar = GREGORIAN
    checks: tuple[HealthCheck, ...] = ()
    requests_per_minute: int = 6_000
    connects_per_second: int = 700
    require_approval: bool = False
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
