"""A real server on loopback over real stores; time, ids and alerts are a test's to set."""

import re
import shutil
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar
from sqlalchemy import Engine
from typing_extensions import override

from controlplane.alerts.alert import Alert
from controlplane.api.app import create_app
from controlplane.api.exports import ExportJobs
from controlplane.api.server import ApiServer
from controlplane.api.services import HealthCheck, KeyOrder, Services
from controlplane.api.sessions import Sessions
from controlplane.auth.api_key import KeyText
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import ROLE_SCOPES, Role, Scope
from controlplane.bootstrap.reconciling import uploaded_bills
from controlplane.core.clock import FakeClock
from controlplane.core.ids import SequentialIds
from controlplane.exports.manifest import Manifest
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pipelines.publish import PublishTools, RateCard
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pipelines.sync import SyncTools
from controlplane.policy.bundle import Signer, encode_document
from controlplane.policy.document import PolicyDocument
from controlplane.policy.history import Serving, SignedGeneration
from controlplane.policy.wire import Generation
from controlplane.pricing.price_book import ModelPrices, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Tier, rate
from controlplane.signals.queries import CallQuery, CostQuery, TraceQuery
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.metadata.attribution import RulesRepository
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.currencies import ExchangeRateRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.finance import FinanceRepository
from controlplane.store.metadata.gpu_pools import GpuPoolRepository
from controlplane.store.metadata.keys import KeyRepository, NewKey
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.policies import PolicyRepository
from controlplane.store.metadata.prices import PriceRepository
from controlplane.store.metadata.rerates import RerateRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Loading certificates for each client would take longer than its requests."""
NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)


class Recorder:
    """The real store's answers, and what it was asked."""

    def __init__(self, store: DuckDbSpanStore) -> None:
        self._store = store
        self.asked: list[CostQuery | CallQuery | TraceQuery] = []

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self._store, name)

        def ask(query: Any) -> pa.Table:
            self.asked.append(query)
            table: pa.Table = answer(query)
            return table

        return ask if name in {"costs", "calls", "trace"} else answer


def _blank(kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return NOW
    return "" if pa.types.is_string(kind) else 0


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    filled = [
        {f.name: row.get(f.name, None if f.nullable else _blank(f.type)) for f in schema}
        for row in rows
    ]
    return pa.Table.from_pylist(filled, schema=schema)


def report(tenant: str, number: int, **said: Any) -> dict[str, Any]:
    """A report of `tenant`, `number` hours before now: 20 tokens in (5 cached), 10 out."""
    return {
        "tenant": tenant,
        "key_role": "proxy",
        "trace_hi": sum(tenant.encode()),
        "trace_lo": number,
        "span_id": number + 1,
        "start_time": NOW - timedelta(hours=number),
        "duration_us": 200_000,
        "content_hash": number,
        "service_name": f"{tenant}-gateway",
        "dialect": "litellm",
        "layer": "proxy",
        "report_kind": "call",
        "provider": "openai",
        "operation": "chat",
        "billing_model": "gpt-4o",
        "team": f"{tenant}-team",
        "status": "ok",
        "usage_state": "exact",
        "input_tokens": 20,
        "cached_input_tokens": 5,
        "output_tokens": 10,
        "cost_nusd": 1_500_000_001,
        "cost_state": "priced",
        **said,
    }


def made_spans() -> DuckDbSpanStore:
    """Five priced calls of each of two tenants, and one of acme without price and team."""
    rows = [report(tenant, number) for tenant in ("acme", "globex") for number in range(5)]
    unpriced = {"cost_nusd": None, "cost_state": "unpriced", "cost_reason": "unknown_model"}
    rows.append(report("acme", 5, billing_model="mystery-1", team=None, **unpriced))
    store = DuckDbSpanStore(None)
    store.write(_table(rows, SPAN_SCHEMA), batch_id="b1")
    settle_tick(store, now=NOW, ledger=None)
    return store


def own_spans() -> Iterator[DuckDbSpanStore]:
    """The fixture `spans` of a module whose tests write: a store of each one's own."""
    store = made_spans()
    yield store
    store.close()


spans = pytest.fixture(scope="session", name="spans")(own_spans)
"""The store of all other tests, which only read it."""


class Api:
    """A running server and what stands behind it."""

    def __init__(self, services: Services, *, schema: dict[str, Any], url: str) -> None:
        self.services = services
        self.url = url
        self.schema = schema

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """Return a client that sends `key`."""
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        hooks = {"response": [self._is_documented]}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=30, event_hooks=hooks, verify=NO_TLS
        )

    def _is_documented(self, response: httpx.Response) -> None:
        """Hold every answer of every test to the OpenAPI document."""
        path = response.request.url.path.rstrip("/") or "/"
        for template, operations in self.schema["paths"].items():
            pattern = re.sub(r"\\{[a-z_]+\\}", "[^/]+", re.escape(template))
            operation = operations.get(response.request.method.lower())
            if operation is not None and re.fullmatch(pattern, path):
                answer = operation["responses"].get(str(response.status_code))
                assert answer is not None, (template, response.status_code)
                kind = response.headers.get("content-type", "").partition(";")[0]
                assert not kind or kind in answer["content"], (template, kind)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never looks for a new generation by itself: who gets one has been told."""
    monkeypatch.setattr("controlplane.api.policy_watch.REREAD_SECONDS", 3_600.0)


@pytest.fixture
def reader(spans: DuckDbSpanStore) -> Recorder:
    return Recorder(spans)


@pytest.fixture
def prices() -> PriceBook:
    base = Tier(-1, {"input_uncached": rate(Decimal("2.50"), per=1_000_000)})
    row = PriceRow(price_id="house@1/openai/gpt-4o/2026-01-01", validity=ALWAYS, tiers=(base,))
    return PriceBook(
        "house@1", [], overrides=[ModelPrices(provider="openai", model="gpt-4o", rows=(row,))]
    )


@pytest.fixture
def exports(reader: Any, prices: PriceBook, tmp_path: Path) -> Iterator[ExportJobs]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    sources = ExportSources(reader, prices)

    def export(request: ExportRequest, out: Path, stamp: Stamp) -> Manifest:
        return write_export(sources, request, out, key=key, stamp=stamp)

    jobs = ExportJobs(export, tmp_path, software="test")
    yield jobs
    jobs.close()


class FakeAlerts:
    """Alerts as they were put in."""

    def __init__(self) -> None:
        self.kept: list[Alert] = []

    def alerts(self) -> list[Alert]:
        return self.kept


@pytest.fixture
def alerts() -> FakeAlerts:
    return FakeAlerts()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated metadata database to copy: migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("metadata") / "metadata.sqlite"
    engine = open_engine(f"sqlite:///{file}")
    migrate(engine)
    engine.dispose()
    return file


@pytest.fixture
def metadata(tmp_path: Path, migrated: Path) -> Iterator[Engine]:
    """The metadata database as an installation has it."""
    file = shutil.copy(migrated, tmp_path)
    engine = open_engine(f"sqlite:///{file}")
    yield engine
    engine.dispose()


class CountedPolicies(PolicyRepository):
    """The real ones; counts how often the newest generation is read."""

    reads = 0

    @override
    def serving(self, scope: str) -> Serving | None:
        self.reads += 1
        return super().serving(scope)

    def publish(self, gen: int, *, scope: str = "default", signer: Signer) -> None:
        """Keep generation `gen`, as another process would."""
        document = PolicyDocument(scope=scope, gen=gen, issued_at=NOW)
        body = encode_document(document)
        self.add(
            SignedGeneration(
                scope=scope,
                generation=Generation(1, gen),
                body=body,
                signature=signer.sign(body),
                sha256=sha256(body).hexdigest(),
                issued_at=NOW,
            )
        )


class Minter:
    """Makes credentials: real keys, and sessions of principals that no role would make."""

    def __init__(self, repository: KeyRepository, sessions: Sessions, clock: FakeClock) -> None:
        self.repository = repository
        self._sessions = sessions
        self._clock = clock
        self._made = 0

    def key(self, wanted: NewKey) -> str:
        """Return the text of a new key."""
        self._made += 1
        secret = self._made.to_bytes(32, "big")
        now, key_id = self._clock.now(), f"k{self._made}"
        return self.repository.create(wanted, key_id=key_id, secret_bytes=secret, now=now).text

    def add(self, *tenants: str, scopes: frozenset[Scope], all_tenants: bool = False) -> str:
        """Return the bearer of a principal with exactly these scopes."""
        self._made += 1
        principal = Principal(
            id=f"who_{self._made}",
            kind=PrincipalKind.SESSION,
            name="somebody",
            tenants=tenants,
            scopes=scopes,
            all_tenants=all_tenants,
            policy_scopes=("*",),
        )
        token = self._sessions.issue_sign_in(principal, now=self._clock.now())
        return self._sessions.exchange(token, now=self._clock.now()).bearer


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def keys(metadata: Engine, sessions: Sessions, clock: FakeClock) -> Minter:
    return Minter(KeyRepository(metadata, pepper=b"p" * 32), sessions, clock)


@pytest.fixture
def policies(metadata: Engine) -> CountedPolicies:
    return CountedPolicies(metadata)


@pytest.fixture
def budgets(metadata: Engine) -> BudgetRepository:
    return BudgetRepository(metadata)


@pytest.fixture
def signer() -> Signer:
    return Signer(b"s" * 32)


@pytest.fixture
def publishing(
    policies: CountedPolicies, budgets: BudgetRepository, signer: Signer
) -> PublishTools:
    card = RateCard({}, "house@1")
    return PublishTools(
        policies=policies, budgets=budgets, rate_card=lambda _now: card, signer=signer
    )


@pytest.fixture
def services(
    clock: FakeClock,
    keys: Minter,
    sessions: Sessions,
    reader: Any,
    alerts: FakeAlerts,
    metadata: Engine,
    publishing: PublishTools,
    prices: PriceBook,
    exports: ExportJobs,
) -> Services:
    def create_key(order: KeyOrder, now: datetime) -> KeyText:
        wanted = msgspec.convert(order, NewKey, from_attributes=True)
        return keys.repository.create(
            wanted, key_id=f"o{len(keys.repository.list())}", secret_bytes=b"o" * 32, now=now
        )

    def no_report(*_said: object) -> None:
        """Agents' settles become spans elsewhere."""

    ids = SequentialIds()
    return Services(
        reader=reader,
        contents=reader.contents,
        signals=reader.signals,
        signal_writer=reader,
        subjects=reader,
        gpu=GpuTools(
            store=reader.gpu,
            signals=reader.signals,
            pools=GpuPoolRepository(metadata).pools,
            writer=reader,
        ),
        gpu_pools=GpuPoolRepository(metadata),
        keys=keys.repository,
        create_key=create_key,
        publishing=publishing,
        sync=SyncTools(
            ledger=LedgerRepository(metadata),
            price_usage=lambda _settle: 7,
            report=lambda *_: None,
            ids=ids,
        ),
        budgets=BudgetRepository(metadata),
        prices=prices,
        rules=RulesRepository(metadata),
        price_history=PriceRepository(metadata),
        rerates=RerateRepository(metadata),
        exchange_rates=ExchangeRateRepository(metadata),
        exports=exports,
        metrics=FinanceRepository(metadata),
        reconciliations=FinanceRepository(metadata),
        reconcile_bill=uploaded_bills(reader, prices, ExchangeRateRepository(metadata)),
        alerts=alerts,
        sessions=sessions,
        clock=clock,
        ids=ids,
        version="0.1.0",
        checks=(HealthCheck("store", lambda: "open"),),
    )


@pytest.fixture(scope="session")
def schema_of() -> Callable[[Litestar], dict[str, Any]]:
    """Return the OpenAPI document of an app: made once, for it is of the routes alone."""
    made: list[dict[str, Any]] = []

    def schema(app: Litestar) -> dict[str, Any]:
        if not made:
            made.append(app.openapi_schema.to_schema())
        return made[0]

    return schema


@pytest.fixture
def serve(
    services: Services, schema_of: Callable[[Litestar], dict[str, Any]]
) -> Iterator[Callable[..., Api]]:
    """Start a server over `services`, with some of them replaced."""
    running: list[ApiServer] = []

    def start(**replaced: Any) -> Api:
        chosen = msgspec.structs.replace(services, **replaced)
        app = create_app(chosen)
        server = ApiServer(app)
        running.append(server)
        server.start()
        return Api(chosen, schema=schema_of(app), url=server.url)

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def api(serve: Callable[..., Api]) -> Api:
    return serve()


@pytest.fixture
def admin(keys: Minter) -> str:
    return keys.add(scopes=frozenset(Scope), all_tenants=True)


@pytest.fixture
def acme(keys: Minter) -> str:
    return keys.add("acme", scopes=ROLE_SCOPES[Role.ENGINEERING_LEAD])
