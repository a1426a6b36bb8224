"""A real server on loopback over small in-memory ports."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar

from controlplane.alerts.alert import Alert
from controlplane.api.app import create_app
from controlplane.api.exports import ExportJobs
from controlplane.api.server import ApiServer
from controlplane.api.services import HealthCheck, KeyOrder, Services
from controlplane.api.sessions import Sessions
from controlplane.auth.api_key import KeyText, new_key
from controlplane.auth.principal import Principal, PrincipalKind
from controlplane.auth.roles import ROLE_SCOPES, Role, Scope
from controlplane.budgets.budget import Budget, check_budget, check_change
from controlplane.budgets.ledger import Amounts, Entry, WindowKey
from controlplane.core.calendar import Window
from controlplane.core.clock import FakeClock
from controlplane.core.errors import AuthenticationError, NotFoundError
from controlplane.core.ids import SequentialIds
from controlplane.exports.manifest import Manifest
from controlplane.pipelines.export import ExportRequest, Stamp, export_traces
from controlplane.policy.wire import Generation, SyncReply, SyncRequest
from controlplane.pricing.price_book import ModelPrices, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Tier, rate
from controlplane.signals.queries import CallQuery, CostQuery, Granularity, TraceQuery
from controlplane.signals.schema import CALL_SCHEMA, SPAN_SCHEMA, SUPPRESSED_SCHEMA
from controlplane.usage.dimensions import MEASURES

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)


class FakeReader:
    """A SpanReader over plain call rows; group-by and filters by team and model only."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[CostQuery | CallQuery | TraceQuery] = []

    def _chosen(self, query: CostQuery | CallQuery) -> list[dict[str, Any]]:
        self.asked.append(query)
        return [
            row
            for row in self.rows
            if row["tenant"] in query.tenants
            and query.window.contains(row["start_time"])
            and all(row.get(d) in values for d, values in query.filters.items())
        ]

    def costs(self, query: CostQuery) -> pa.Table:
        groups: dict[tuple[Any, ...], dict[str, int]] = {}
        timed = query.granularity is not Granularity.TOTAL
        for row in self._chosen(query):
            key: tuple[Any, ...] = (row["start_time"].replace(minute=0),) if timed else ()
            key += tuple(row.get(name) for name in query.group_by)
            total = groups.setdefault(key, dict.fromkeys(MEASURES, 0))
            total["calls"] += 1
            total["unpriced_calls"] += row["cost_nusd"] is None
            total["unpriced_tokens"] += 30 if row["cost_nusd"] is None else 0
            total["input_tokens"] += 20
            total["cached_input_tokens"] += 5
            total["output_tokens"] += 10
            total["cost_nusd"] += row["cost_nusd"] or 0
        names = (["bucket_start"] if timed else []) + list(query.group_by)
        columns: dict[str, Any] = {
            name: pa.array(
                [key[i] for key in groups],
                pa.timestamp("us", tz="UTC") if name == "bucket_start" else pa.string(),
            )
            for i, name in enumerate(names)
        }
        columns |= {m: pa.array([g[m] for g in groups.values()], pa.int64()) for m in MEASURES}
        return pa.table(columns)

    def calls(self, query: CallQuery) -> pa.Table:
        rows = sorted(self._chosen(query), key=_newest, reverse=True)
        if query.before is not None:
            rows = [row for row in rows if _newest(row) < query.before]
        return _table(rows[: query.limit], CALL_SCHEMA)

    def trace(self, query: TraceQuery) -> pa.Table:
        self.asked.append(query)
        rows = [
            row
            for row in self.rows
            if row["tenant"] in query.tenants
            and (row["trace_hi"], row["trace_lo"]) == (query.trace_hi, query.trace_lo)
        ]
        extra = [pa.field("call_id", pa.string()), pa.field("suppressed_reason", pa.string())]
        return _table(rows, pa.schema([*SPAN_SCHEMA, *extra]))

    def suppressed(self, call_ids: list[str]) -> pa.Table:
        assert call_ids
        return SUPPRESSED_SCHEMA.empty_table()

    def accounting(self, tenants: tuple[str, ...]) -> pa.Table:
        rows = [row for row in self.rows if row["tenant"] in tenants]
        names = sorted({row["service_name"] for row in rows})
        return pa.table({"service_name": pa.array(names, pa.string())})

    def tenants(self) -> tuple[str, ...]:
        return tuple(sorted({row["tenant"] for row in self.rows}))

    def latencies(self, query: CostQuery) -> pa.Table:
        rows = self._chosen(query)
        return pa.table(
            {
                "model": pa.array([row["model"] for row in rows], pa.string()),
                "operation": pa.array(["chat"] * len(rows), pa.string()),
                "bucket": pa.array([1] * len(rows), pa.int32()),
                "calls": pa.array([1] * len(rows), pa.int64()),
                "duration_us": pa.array([200_000] * len(rows), pa.int64()),
            }
        )

    def output_lengths(self, tenants: tuple[str, ...], window: Window) -> pa.Table:
        raise NotImplementedError  # for the watch loop, not for the API

    def data_through(self, tenants: tuple[str, ...]) -> datetime | None:
        return max((r["start_time"] for r in self.rows if r["tenant"] in tenants), default=None)


def _newest(row: dict[str, Any]) -> tuple[datetime, str]:
    return row["start_time"], row["call_id"]


def _blank(kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return NOW
    if pa.types.is_string(kind):
        return ""
    return False if pa.types.is_boolean(kind) else 0


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    filled = [
        {f.name: row.get(f.name, None if f.nullable else _blank(f.type)) for f in schema}
        for row in rows
    ]
    return pa.Table.from_pylist(filled, schema=schema)


def call(tenant: str, number: int, **said: Any) -> dict[str, Any]:
    """A call row of `tenant`, `number` hours before now."""
    return {
        "tenant": tenant,
        "call_id": f"{tenant}-{number:04d}",
        "trace_hi": sum(tenant.encode()),
        "trace_lo": number,
        "span_id": number + 1,
        "start_time": NOW - timedelta(hours=number),
        "service_name": f"{tenant}-gateway",
        "report_kind": "call",
        "team": f"{tenant}-team",
        "model": "gpt-4o",
        "cost_nusd": 1_500_000_001,
        "cost_state": "priced",
        "status": "ok",
        **said,
    }


class FakeKeys:
    """Keys by their text; an expired one is refused by the time asked."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.known: dict[str, Principal] = {}
        self.lookups = 0

    def add(self, *tenants: str, scopes: frozenset[Scope], **said: Any) -> str:
        text = f"cp_user_{len(self.known)}_secret"
        self.known[text] = Principal(
            id=f"key_{len(self.known)}",
            kind=PrincipalKind.USER,
            name="a person",
            tenants=tenants,
            scopes=scopes,
            **said,
        )
        return text

    def list(self) -> Sequence[msgspec.Struct]:
        return []

    def revoke(self, key_id: str, *, now: datetime) -> None:
        raise NotFoundError("key", f"{key_id} at {now}")

    def create(self, wanted: KeyOrder, _now: datetime) -> KeyText:
        return new_key(wanted.kind, "made", bytes(32))

    def resolve(self, bearer: str, *, now: datetime) -> Principal:
        self.lookups += 1
        principal = self.known.get(bearer)
        if principal is None:
            raise AuthenticationError("unknown_key", "Create a key and send it")
        if principal.expires_at is not None and now >= principal.expires_at:
            raise AuthenticationError("expired_key", "Create a new key")
        return principal


class Policy(msgspec.Struct, frozen=True):
    generation: Generation
    body: bytes
    signature: str = "ed25519;kid=k1;sig=AAAA"


class FakePolicies:
    """Generations by scope; counts its readers."""

    def __init__(self) -> None:
        self.by_scope: dict[str, Policy] = {}
        self.reads = 0

    def publish(self, gen: int, *, scope: str = "default") -> None:
        self.by_scope[scope] = Policy(Generation(1, gen), b'{"gen":%d}' % gen)

    def newest(self, scope: str) -> Policy | None:
        self.reads += 1
        return self.by_scope.get(scope)


class Api:
    """A running server and what stands behind it."""

    def __init__(self, services: Services, *, app: Litestar, url: str) -> None:
        self.services = services
        self.url = url
        self.schema: dict[str, Any] = app.openapi_schema.to_schema()

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """Return a client that sends `key`."""
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        hooks = {"response": [self._is_documented]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, event_hooks=hooks)

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
def keys(clock: FakeClock) -> FakeKeys:
    return FakeKeys(clock)


@pytest.fixture
def reader() -> FakeReader:
    rows = [call(tenant, number) for tenant in ("acme", "globex") for number in range(5)]
    rows.append(
        call("acme", 5, model="mystery-1", cost_nusd=None, cost_state="unpriced", team=None)
    )
    return FakeReader(rows)


@pytest.fixture
def policies() -> FakePolicies:
    return FakePolicies()


class FakeAlerts:
    """Alerts as they were put in."""

    def __init__(self) -> None:
        self.kept: list[Alert] = []

    def alerts(self) -> list[Alert]:
        return self.kept


class FakeBudgets:
    """Budgets in a dict; standings as a test sets them."""

    def __init__(self) -> None:
        self.kept: dict[str, Budget] = {}
        self.amounts: dict[str, Amounts] = {}
        self.posted: list[Entry] = []

    def create(self, budget: Budget) -> Budget:
        check_budget(budget)
        self.kept[budget.id] = budget
        return budget

    def get(self, budget_id: str) -> Budget:
        if budget_id not in self.kept:
            raise NotFoundError("budget", budget_id)
        return self.kept[budget_id]

    def active(self, *, tenants: Collection[str] | None = None) -> list[Budget]:
        return [
            budget
            for budget in self.kept.values()
            if budget.archived_at is None and (tenants is None or budget.tenant in tenants)
        ]

    def update(self, budget: Budget) -> Budget:
        check_change(self.get(budget.id), budget)
        self.kept[budget.id] = budget
        return budget

    def archive(self, budget_id: str, *, now: datetime) -> None:
        self.kept[budget_id] = msgspec.structs.replace(self.get(budget_id), archived_at=now)

    def balances(self, budgets: Sequence[Budget], *, at: datetime) -> Mapping[str, Amounts]:
        assert at.tzinfo is not None
        return {budget.id: self.amounts.get(budget.id, Amounts()) for budget in budgets}

    def entries(self, window: WindowKey, *, limit: int, before: int | None = None) -> list[Entry]:
        assert before is None
        return [entry for entry in self.posted if entry.window == window][:limit]


class FakePublisher:
    """Counts what it is asked, and publishes to the fake policies."""

    def __init__(self, policies: FakePolicies) -> None:
        self._policies = policies
        self.asked: list[str] = []

    def republish(self, *, by: str, now: datetime) -> None:
        assert now.tzinfo is not None
        self.asked.append(by)
        self._policies.publish(len(self.asked) + 100)


@pytest.fixture
def budgets() -> FakeBudgets:
    return FakeBudgets()


@pytest.fixture
def publisher(policies: FakePolicies) -> FakePublisher:
    return FakePublisher(policies)


@pytest.fixture
def prices() -> PriceBook:
    base = Tier(-1, {"input_uncached": rate(Decimal("2.50"), per=1_000_000)})
    row = PriceRow(price_id="house@1/openai/gpt-4o/2026-01-01", validity=ALWAYS, tiers=(base,))
    return PriceBook(
        "house@1", [], overrides=[ModelPrices(provider="openai", model="gpt-4o", rows=(row,))]
    )


@pytest.fixture
def exports(reader: FakeReader, tmp_path: Path) -> Iterator[ExportJobs]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))

    def export(request: ExportRequest, out: Path, stamp: Stamp) -> Manifest:
        return export_traces(reader, request, out, key=key, stamp=stamp)

    jobs = ExportJobs(export, tmp_path, software="test")
    yield jobs
    jobs.close()


@pytest.fixture
def alerts() -> FakeAlerts:
    return FakeAlerts()


def _sync(request: SyncRequest, _who: Principal, now: datetime) -> SyncReply:
    settled = tuple(settle.hold_id for settle in request.settle)
    return SyncReply(generation=Generation(1, 1), settled=settled, server_time=now)


@pytest.fixture
def services(
    clock: FakeClock,
    keys: FakeKeys,
    reader: FakeReader,
    policies: FakePolicies,
    alerts: FakeAlerts,
    budgets: FakeBudgets,
    publisher: FakePublisher,
    prices: PriceBook,
    exports: ExportJobs,
) -> Services:
    return Services(
        reader=reader,
        keys=keys,
        policies=policies,
        sync=_sync,
        alerts=alerts,
        budgets=budgets,
        publisher=publisher,
        prices=prices,
        create_key=keys.create,
        exports=exports,
        sessions=Sessions(),
        clock=clock,
        ids=SequentialIds(),
        version="0.1.0",
        checks=(HealthCheck("store", lambda: "open"),),
    )


@pytest.fixture
def serve(services: Services) -> Iterator[Callable[..., Api]]:
    """Start a server over `services`, with some of them replaced."""
    running: list[ApiServer] = []

    def start(**replaced: Any) -> Api:
        chosen = msgspec.structs.replace(services, **replaced)
        app = create_app(chosen)
        server = ApiServer(app)
        running.append(server)
        server.start()
        return Api(chosen, app=app, url=server.url)

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def api(serve: Callable[..., Api]) -> Api:
    return serve()


@pytest.fixture
def admin(keys: FakeKeys) -> str:
    return keys.add(scopes=frozenset(Scope), all_tenants=True)


@pytest.fixture
def acme(keys: FakeKeys) -> str:
    return keys.add("acme", scopes=ROLE_SCOPES[Role.ENGINEERING_LEAD])
