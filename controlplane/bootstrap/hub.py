"""The hub (`--role api`): the one opener of the span store, with the API and the workers beside it.

`run` reads top to bottom: open the stores, build what is served, start it, say so, wait, and stop in
the opposite order.
"""

from collections.abc import Callable
from importlib.metadata import version as package_version

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from controlplane import log, telemetry
from controlplane.api.app import create_app
from controlplane.api.exports import ExportJobs
from controlplane.api.server import ApiServer
from controlplane.api.services import HealthCheck, Services
from controlplane.api.sessions import Sessions
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.bootstrap.business import business_rounds
from controlplane.bootstrap.gpu_pools import gpu_rounds, gpu_tools, load_pools
from controlplane.bootstrap.metadata import open_keys, open_metadata, open_signer
from controlplane.bootstrap.places import (
    EXPORTS_DIR,
    HUB_SOCKET,
    SIGNING_KEY,
    SPANS_FILE,
    SUBJECT_KEY,
)
from controlplane.bootstrap.policy_hints import PolicyHints
from controlplane.bootstrap.policy_rounds import all_quotas, policy_rounds
from controlplane.bootstrap.price_books import LiveBook, open_book
from controlplane.bootstrap.publishing import (
    KeyMaker,
    RateCards,
    price_settle,
)
from controlplane.bootstrap.reconciling import uploaded_bills
from controlplane.bootstrap.recording import content_rounds, recording_of
from controlplane.bootstrap.recovery import notice_restore, recovery_rounds
from controlplane.bootstrap.rerates import close_periods, run_waiting
from controlplane.bootstrap.supervisor import say_ready, wait_for_stop
from controlplane.bootstrap.system import (
    SystemClock,
    UlidIds,
    raise_descriptor_limit,
    secret_file,
)
from controlplane.bootstrap.watching import watch_rounds
from controlplane.budgets.book import LeaseTerms
from controlplane.pipelines.agent_reports import store_settles
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportSources
from controlplane.pipelines.post_ledger import LedgerPosting
from controlplane.pipelines.publish import PublishTools
from controlplane.pipelines.settle import SettleOutcome, settle_tick
from controlplane.pipelines.sync import SyncTools, sweep
from controlplane.pipelines.watch import Sources
from controlplane.policy.rollout import RolloutTerms
from controlplane.pricing.price import repin, reprice
from controlplane.settings import Settings
from controlplane.store.metadata.alerts import AlertRepository
from controlplane.store.metadata.attribution import RulesRepository
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.currencies import ExchangeRateRepository
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.store.metadata.gpu_pools import GpuPoolRepository
from controlplane.store.metadata.keys import KeyRepository
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.policies import PolicyRepository
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.metadata.quotas import QuotaRepository
from controlplane.store.metadata.rerates import RerateRepository
from controlplane.store.metadata.timeline import TimelineRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.flight_server import SpanFlightServer
from controlplane.workers.rounds import Rounds

SWEEP_SECONDS = 5.0
VERSION = package_version("inference-controlplane")
CLOCK = SystemClock()
IDS = UlidIds()


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is kept, open."""

    engine: Engine
    spans: DuckDbSpanStore
    keys: KeyRepository
    budgets: BudgetRepository
    ledger: LedgerRepository
    policies: PolicyRepository
    alerts: AlertRepository
    gpu_pools: GpuPoolRepository
    finance: FinanceRepository
    quotas: QuotaRepository

    def close(self) -> None:
        """Let go of the files."""
        self.spans.close()
        self.engine.dispose()


def open_stores(settings: Settings) -> Stores:
    """Open both databases.

    Raises:
        UnavailableError: one can not be opened, or another process owns the span store.
    """
    engine = open_metadata(settings)
    return Stores(
        engine=engine,
        spans=DuckDbSpanStore(
            settings.data_dir / SPANS_FILE,
            subject_key=secret_file(settings.secrets_dir / SUBJECT_KEY),
        ),
        keys=open_keys(settings, engine),
        budgets=BudgetRepository(engine),
        ledger=LedgerRepository(engine),
        policies=PolicyRepository(engine),
        alerts=AlertRepository(engine),
        gpu_pools=GpuPoolRepository(engine),
        finance=FinanceRepository(engine),
        quotas=QuotaRepository(engine),
    )


def run(settings: Settings, *, supervised: bool) -> None:
    """Serve until stopped."""
    log.configure(level=settings.log_level)
    raise_descriptor_limit()
    stores, sessions = open_stores(settings), Sessions()
    book = open_book(settings, stores.engine)
    signer = open_signer(settings)
    publishing = PublishTools(
        policies=stores.policies,
        budgets=stores.budgets,
        rate_card=RateCards(book),
        signer=signer,
        terms=rollout_terms(settings),
        quotas=stores.quotas,
    )
    notice_restore(
        settings.data_dir,
        TimelineRepository(stores.engine),
        terms=lease_terms(settings),
        clock=CLOCK,
        repost=stores.spans.repost,
    )
    services = build_services(settings, stores, book=book, publishing=publishing, sessions=sessions)
    app = create_app(services)
    published = app.state.policy_watch.published
    server = ApiServer(app, host=settings.api.host, port=settings.api.port)
    hints = PolicyHints(stores.engine, published)
    rounds = build_rounds(settings, stores, publishing, book=book, published=published)
    rounds.append(
        recovery_rounds(
            settings.data_dir,
            TimelineRepository(stores.engine),
            publishing=publishing,
            clock=CLOCK,
            published=published,
        )
    )
    flight = SpanFlightServer(settings.data_dir / HUB_SOCKET, stores.spans)
    server.start()
    hints.start()
    for one in rounds:
        one.start()
    say_ready(
        api=server.url,
        sign_in_token=sessions.issue_sign_in(local_operator(), now=CLOCK.now()),
        policy_keys=signer.pinned,
    )
    wait_for_stop(supervised=supervised)
    structlog.get_logger().info("hub_stopping")
    hints.stop()
    server.stop()
    for one in rounds:
        one.stop()
    flight.close()
    services.exports.close()
    stores.close()


def build_services(
    settings: Settings,
    stores: Stores,
    *,
    book: LiveBook,
    publishing: PublishTools,
    sessions: Sessions,
) -> Services:
    """Put together what a request may reach."""
    sync = SyncTools(
        ledger=stores.ledger,
        price_usage=lambda settle: price_settle(book, settle),
        report=lambda settles, caller, now: store_settles(
            settles, caller, book=book.current(), writer=stores.spans, now=now
        ),
        ids=IDS,
        terms=lease_terms(settings),
    )
    gpu = gpu_tools(stores.spans, load_pools(settings.gpu_pools), stores.gpu_pools)
    rates = ExchangeRateRepository(stores.engine)
    return Services(
        reader=stores.spans,
        contents=stores.spans.contents,
        recording=recording_of(settings.content),
        signals=stores.spans.signals,
        signal_writer=stores.spans,
        subjects=stores.spans,
        gpu=gpu,
        gpu_pools=stores.gpu_pools,
        fixed_pools=load_pools(settings.gpu_pools),
        keys=stores.keys,
        create_key=KeyMaker(stores.keys),
        publishing=publishing,
        sync=sync,
        prices=book,
        rules=RulesRepository(stores.engine),
        price_history=PriceRepository(stores.engine),
        rerates=RerateRepository(stores.engine),
        exchange_rates=rates,
        budgets=stores.budgets,
        exports=export_jobs(
            settings, ExportSources(stores.spans, book, rates, gpu, stores.finance)
        ),
        metrics=stores.finance,
        reconciliations=stores.finance,
        reconcile_bill=uploaded_bills(stores.spans, book, rates),
        alerts=stores.alerts,
        sessions=sessions,
        clock=CLOCK,
        ids=IDS,
        version=VERSION,
        zone=settings.zone,
        calendar=settings.calendar,
        checks=health_checks(stores),
        requests_per_minute=settings.api.requests_per_minute,
        connects_per_second=settings.policy.connects_per_second,
        require_approval=settings.policy.require_approval,
        allowed_hosts=settings.api.allowed_hosts,
    )


def lease_terms(settings: Settings) -> LeaseTerms:
    """Return how long leases live."""
    return LeaseTerms(ttl_seconds=settings.budgets.lease_ttl_seconds)


def export_jobs(settings: Settings, sources: ExportSources) -> ExportJobs:
    """Return what runs exports, signed with the key that policies are signed with."""
    key = Ed25519PrivateKey.from_private_bytes(secret_file(settings.secrets_dir / SIGNING_KEY))
    directory = settings.data_dir / EXPORTS_DIR
    directory.mkdir(exist_ok=True, mode=0o700)
    return ExportJobs(
        lambda request, out, stamp: write_export(sources, request, out, key=key, stamp=stamp),
        directory,
        software=f"inference-controlplane {VERSION}",
    )


def rollout_terms(settings: Settings) -> RolloutTerms | None:
    """Return how careful new rules are rolled out; None: to all at once."""
    if not settings.policy.staged:
        return None
    return RolloutTerms(
        stage_seconds=settings.policy.stage_seconds,
        stage_max_seconds=settings.policy.stage_max_seconds,
        min_calls=settings.policy.stage_min_calls,
    )


def build_rounds(
    settings: Settings,
    stores: Stores,
    publishing: PublishTools,
    *,
    book: LiveBook,
    published: Callable[[], None],
) -> list[Rounds]:
    """Return the workers: settle, republish, roll out, watch, deliver."""
    posting = LedgerPosting(
        stores.ledger, unenforced_grace_seconds=settings.budgets.unenforced_grace_seconds
    )

    @telemetry.SETTLE_SECONDS.time()
    def settle() -> None:
        closing = close_periods(settings, stores.spans, now=CLOCK.now())
        outcome = settle_tick(
            stores.spans,
            now=CLOCK.now(),
            ledger=posting,
            reprice=lambda rows: reprice(rows, book.current()),
            repin=lambda rows: repin(rows, book.current()),
        )
        log_findings(outcome)
        run_waiting(
            stores.spans.rerates,
            RerateRepository(stores.engine),
            book=book,
            ledger=posting,
            closing=closing,
            now=CLOCK.now(),
        )

    gpu = gpu_tools(stores.spans, load_pools(settings.gpu_pools), stores.gpu_pools)
    return [
        *gpu_rounds(gpu, stores.spans, CLOCK),
        business_rounds(settings, stores.spans, stores.finance, clock=CLOCK),
        content_rounds(settings.content, stores.spans.contents, CLOCK),
        Rounds(
            "settle",
            settle,
            seconds=settings.settle_interval_seconds,
        ),
        Rounds(
            "sweep",
            lambda: sweep(stores.ledger, terms=lease_terms(settings), now=CLOCK.now()),
            seconds=SWEEP_SECONDS,
        ),
        *policy_rounds(settings, publishing, stores.spans, clock=CLOCK, published=published),
        *watch_rounds(
            settings,
            lambda: Sources(stores.spans, stores.spans.signals, all_quotas(publishing)),
            stores.budgets,
            alerts=stores.alerts,
            clock=CLOCK,
            ids=IDS,
        ),
    ]


def log_findings(outcome: SettleOutcome) -> None:
    """Say what settlement found to be wrong with somebody's ids."""
    logger = structlog.get_logger()
    for weak in outcome.learned:
        logger.warning("ids_repeat", service=weak.service_name, scope=weak.scope_name)
    if outcome.split_calls:
        logger.warning("calls_split", calls=outcome.split_calls)
    if outcome.has_long_chains:
        logger.warning("ids_chained", reports=outcome.reports)


def local_operator() -> Principal:
    """Return who opens the printed sign-in link: the person who started the program."""
    return Principal(
        id="local",
        kind=PrincipalKind.SESSION,
        name="local operator",
        scopes=ROLE_SCOPES[Role.ADMIN],
        all_tenants=True,
    )


def health_checks(stores: Stores) -> tuple[HealthCheck, ...]:
    """Return what readiness depends on."""

    def metadata() -> str:
        with stores.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return stores.engine.dialect.name

    def spans() -> str:
        return f"{len(stores.spans.tenants())} tenants"

    return (HealthCheck("metadata", metadata), HealthCheck("spans", spans))
