"""A small real HTTP server that answers like the API, and the dashboard pointed at it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from typing_extensions import override

from dashboard import settings
from tests.dashboard.finance_answers import finance_answer, what_if_answer

NOW: Final = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)
BEARER: Final = "cps_test"
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
ALERT: Final = {
    "labels": {"alertname": "CostAnomaly", "team": "support"},
    "annotations": {"summary": "Team support: $4.20 in 15 min, $0.61 expected"},
    "since": "2026-11-20T09:45:00Z",
}
GENERATION: Final = {
    "scope": "default", "epoch": 1, "gen": 4, "issued_at": "2026-11-20T09:00:00Z",
    "budgets": 2, "rules": 3, "price_book_version": "2026-11-19",
}  # fmt: skip
NODE: Final = {
    "scope": "default", "node": "gateway-1", "state": "rejected", "expected": {"epoch": 1, "gen": 4},
    "applied": {"epoch": 1, "gen": 3}, "rejected": {"epoch": 1, "gen": 4},
    "reason": "unknown field `canary`", "seen_at": "2026-11-20T10:06:58Z",
}  # fmt: skip
MEASURES: Final = (
    "calls", "errors", "unpriced_calls", "unpriced_tokens", "input_tokens",
    "cached_input_tokens", "output_tokens", "cost_nusd",
)  # fmt: skip
DIMENSIONS: Final = ("tenant", "team", "model", "provider", "feature")
SHELL: Final = Path(settings.__file__).with_name("shell.py")


COURSE: Final[dict[str, Any]] = {
    "window_start": "2026-11-01T00:00:00Z", "window_end": "2026-12-01T00:00:00Z",
    "as_of": NOW.isoformat(), "unit": "usd", "limit": "120", "spent": "111",
    "reached": [
        *({"at": f"2026-11-{day:02}T00:00:00Z", "spent": str(5 * day - 5)} for day in range(1, 21)),
        {"at": NOW.isoformat(), "spent": "111"},
    ],
    "expected": [
        {"at": NOW.isoformat(), "p10": "111", "p50": "111", "p90": "111"},
        {"at": "2026-11-26T00:00:00Z", "p10": "124", "p50": "139", "p90": "154"},
        {"at": "2026-12-01T00:00:00Z", "p10": "140", "p50": "163.5", "p90": "187"},
    ],
    "exhausted_at": "2026-11-22T06:00:00Z", "thresholds_crossed": [50, 80],
}  # fmt: skip
REFUSALS: Any = {
    "rows": [
        {
            "tenant": "acme", "budget_id": "search monthly", "rule": None, "calls": 1_234,
            "code": "budget_exhausted", "last_at": "2026-11-20T09:30:00Z",
        },
        {
            "tenant": "acme", "budget_id": None, "rule": "no-gpt-5", "calls": 7,
            "code": "policy_denied", "last_at": "2026-11-20T08:00:00Z",
        },
    ],
    "meta": {},
}  # fmt: skip
EDITS: Final[dict[str, Any]] = {"rows": [
    {"at": "2026-11-12T09:00:00Z", "kind": "changed", "author": "dana",
     "fields": [{"field": "limit", "before": "100", "after": "120"}]},
    {"at": "2026-11-01T08:00:00Z", "kind": "made", "author": "ana", "fields": []},
]}  # fmt: skip


def usd(nusd: int) -> str:
    return format((Decimal(nusd) / 10**9).normalize(), "f")


COMPLETENESS: dict[str, Any] = {
    "accounts": [{
        "tenant": "acme", "key_id": "k1", "service_name": "gateway", "signal": "traces", "received": 130,
        "stored": 120, "duplicates": 7, "rejected": 3, "late": 2, "last_received": NOW.isoformat(),
        "rejected_by_reason": {"malformed_span": 2, "invalid_trace_id": 1}, "is_silent": False,
    }],
    "counters": [{
        "emitter": "vllm", "source": "vllm", "model": "llama", "missing_usd": "0.5", "counted_input_tokens": 9_000,
        "call_input_tokens": 8_000, "counted_output_tokens": 500, "call_output_tokens": 500,
        "missing_tokens": 1_000,
    }],
    "findings": [
        {"code": "silent_emitter", "severity": "warning", "tenant": "acme",
         "emitter": "batch_job",         "message": "nothing for 90 minutes, after a steady flow", "missing_usd": "12.5"},
        {"code": "reported_cost_differs", "severity": "warning", "tenant": "acme",
         "emitter": "gateway",         "message": "4 of 10 calls of m say they cost 3 USD, we price them 2 USD",
         "missing_usd": None},
        {"code": "late_arrivals", "severity": "info", "tenant": "acme",
         "emitter": "gateway",         "message": "2 of 120 stored spans came an hour late or more", "missing_usd": None},
    ],
}  # fmt: skip


SHARES: dict[str, Any] = {
    "server_time": NOW.isoformat(), "price_list_recorded_at": "2026-11-08T04:00:00Z",
    "shares": {"unpriced_tokens": 0.031, "unattributed_cost": 0.42, "duplicate_reports": 0.5,
               "late": 0.0002, "ahead": 0.0, "rejected": None},
}  # fmt: skip


SAVINGS: dict[str, Any] = {
    "saved_usd": "12.5", "rerouted_calls": 1_200, "unknown_calls": 3,
    "rows": [
        {"team": None, "asked_model": "gpt-5", "served_model": "gpt-5-mini", "calls": 1_197,
         "cost_usd": "2.5", "counterfactual_usd": "15", "saved_usd": "12.5"},
    ],
}  # fmt: skip
EXPERIMENT: dict[str, Any] = {
    "rule": "mini", "control": "asked",
    "arms": [
        {"arm": "asked", "units": 210, "means": {"cost_usd_per_call": 0.0125, "latency_ms": 1500.0},
         "against_control": {}},
        {"arm": "small", "units": 205, "means": {"cost_usd_per_call": 0.0021, "latency_ms": 1490.0},
         "against_control": {"cost_usd_per_call": {"verdict": "lower"},
                             "latency_ms": {"verdict": "undecided"}}},
    ],
}  # fmt: skip


class FakeApi:
    """The routes that the dashboard asks, over rows that a test may change.

    `broken` holds paths that answer 503; `asked` every (path, parameters) seen.
    """

    def __init__(self) -> None:
        self.url = ""
        self.rows = history()
        self.spans = trace_spans()
        self.budgets = [
            budget("search monthly", limit=900, enforced=200, around=40, leased=10),
            budget("support monthly", limit=120, enforced=90, around=21, leased=4),
        ]
        self.broken: set[str] = set()
        self.rollout: dict[str, Any] | None = None
        self.alerts = [ALERT]
        self.generations = [GENERATION]
        self.quotas: list[dict[str, Any]] = []
        self.shadow: dict[str, Any] | None = None
        self.ordered: list[tuple[str, Any]] = []
        self.corrections: list[dict[str, str]] = []
        self.tables = dict(TABLES)
        self.data_through: str | None = NOW.isoformat()
        self.basis = "list"
        self.zone = "UTC"
        self.asked: list[tuple[str, list[tuple[str, str]]]] = []
        self.sign_in_tokens = {"once"}

    def total(self, **wanted: str) -> int:
        """Sum the nano-USD of the rows that match; the truth that pages are compared with."""
        rows = [r for r in self.rows if all(r[k] == v for k, v in wanted.items())]
        return sum(int(r["cost_nusd"]) for r in rows)

    def answer(self, path: str, asked: list[tuple[str, str]]) -> Any:
        """Return a table with meta, or a JSON value; None is 404."""
        self.asked.append((path, asked))
        if path == "costs":
            return self._costs(asked)
        if path == "data-quality":
            emitters = pa.table({
                "service_name": ["gateway"], "dialect": ["litellm-proxy"], "stored": [120],
                "calls": [70], "suppressed": [50], "last_event_time": [NOW],
            })  # fmt: skip
            return emitters, {"data_through": self.data_through, "server_time": NOW.isoformat()}
        if path in self.tables:
            return self.tables[path]()
        if path == "calls":
            return calls_of(self.spans), {"zone": "UTC", "next_cursor": None}
        if path == f"traces/{TRACE}":
            return self.spans, {"spans": 3, "cost_usd": "0.0123", "unpriced_calls": 0}
        found = finance_answer(path, asked)
        return self._document(path) if found is None else found

    def _document(self, path: str) -> Any:
        documents: dict[str, Any] = {
            "version": {"version": "0", "api": "v1", "zone": self.zone},
            "alerts": {"rows": self.alerts, "meta": {}},
            "quality/completeness": COMPLETENESS,
            "data-quality/shares": SHARES,
            "budgets": {"rows": self.budgets, "meta": {"recovering_until": None}},
            "policy/generations": {"rows": self.generations},
            "policy/diff": {"older": "1.4", "newer": "1.3", "diff": "-  action: block"},
            "shadow": self.shadow,
            "policy/nodes": {"rows": [NODE]},
            "policy/rollout": self.rollout,
            "policy/quotas": {"rows": self.quotas},
            "refusals": REFUSALS,
            "savings": SAVINGS,
            "experiments": {"rows": [EXPERIMENT]},
        }
        if path.startswith("budgets/"):
            return {"course": COURSE, "edits": EDITS}.get(path.rpartition("/")[2])
        return documents.get(path)

    def _costs(self, asked: list[tuple[str, str]]) -> tuple[pa.Table, dict[str, Any]]:
        group = [v for k, v in asked if k == "group_by"]
        step = dict(asked).get("granularity", "total")
        kept = [row for row in self.rows if matches(row, asked)]
        sums: dict[tuple[Any, ...], list[int]] = {}
        for row in kept:
            width = {"hour": 1, "day": 24}.get(step)
            at = row["at"].replace(hour=row["at"].hour // width * width if width else 0)
            key = (*([at] if step != "total" else []), *(row[g] for g in group))
            had = sums.setdefault(key, [0] * len(MEASURES))
            sums[key] = [a + int(row[m]) for a, m in zip(had, MEASURES, strict=True)]
        keys = sorted(sums, key=lambda k: (k[0] if step != "total" else 0, -sums[k][-1]))
        names = [*(["bucket_start"] if step != "total" else []), *group]
        table: dict[str, Any] = {n: [k[i] for k in keys] for i, n in enumerate(names)}
        if step != "total":
            lasts = timedelta(hours={"hour": 1, "day": 24}[step])
            table["bucket_end"] = [k[0] + lasts for k in keys]
        table |= {m: [sums[k][i] for k in keys] for i, m in enumerate(MEASURES)}
        table["cost_usd"] = [usd(v) for v in table["cost_nusd"]]
        totals: dict[str, Any] = {m: sum(int(r[m]) for r in kept) for m in MEASURES}
        totals["cost_usd"] = usd(totals["cost_nusd"])
        is_whole = not any(name.startswith("filter.") for name, _ in asked)
        idle = {
            "cost_usd": "72", "cost_nusd": str(72 * 10**9),
            "with_calls_usd": usd(totals["cost_nusd"] + 72 * 10**9),
        }  # fmt: skip
        meta = {
            "start": (NOW - timedelta(days=7)).isoformat(), "end": NOW.isoformat(),
            "zone": "UTC", "basis": self.basis, "granularity": step, "data_through": self.data_through, "totals": totals,
            "previous": {"totals": totals, "change_usd": "1.5", "change_ratio": 0.25},
            "corrections": self.corrections,
            "idle": idle if is_whole else None,
        }  # fmt: skip
        return pa.table(table), meta


def matches(row: dict[str, Any], asked: list[tuple[str, str]]) -> bool:
    wanted: dict[str, set[str]] = {}
    for name, value in asked:
        if name == "tenant" or name.startswith("filter."):
            wanted.setdefault(name.removeprefix("filter."), set()).add(value)
    return all((row[name] or "unattributed") in values for name, values in wanted.items())


def history() -> list[dict[str, Any]]:
    """Seven days of hours; costs are primes so that a wrong sum can not look right."""
    teams = (
        ("acme", "support", "claude-haiku-4-5", "anthropic", 1_000_003),
        ("acme", "search", "gpt-5-mini", "openai", 400_009),
        ("globex", None, "gpt-5", "openai", 7_000_003),
    )
    rows = []
    start = NOW.replace(minute=0) - timedelta(days=7)
    for hour in range(7 * 24 + 1):
        at = start + timedelta(hours=hour)
        busy = 3 + abs(12 - at.hour) * -0.2 + 3
        for tenant, team, model, provider, nusd in teams:
            calls = int(busy * 3)
            rows.append({
                "at": at, "tenant": tenant, "team": team, "model": model, "provider": provider,
                "feature": "answer", "calls": calls, "errors": 0, "unpriced_calls": 0,
                "unpriced_tokens": 0, "input_tokens": calls * 2_000, "output_tokens": calls * 200,
                "cached_input_tokens": calls * 500, "cost_nusd": calls * nusd,
            })  # fmt: skip
        rows.append({
            "at": at, "tenant": "initech", "team": "legal", "model": "contract-lens-13b",
            "provider": "self-hosted", "feature": "review", "calls": 2, "errors": 0,
            "unpriced_calls": 2, "unpriced_tokens": 9_000, "input_tokens": 8_000,
            "output_tokens": 1_000, "cached_input_tokens": 0, "cost_nusd": 0,
        })  # fmt: skip
    return rows


def gpu_lines() -> tuple[pa.Table, dict[str, Any]]:
    """A pool's day: a quarter used by one team, the rest idle."""
    rows: list[dict[str, Any]] = [
        {"pool": "a100", "slice": "", "tenant": "acme", "team": "support", "model": "llama",
         "is_idle": False, "calls": 10, "cost_usd": "24", "cost_nusd": 24 * 10**9},
        {"pool": "a100", "slice": "", "tenant": "", "team": None, "model": None,
         "is_idle": True, "calls": 0, "cost_usd": "72", "cost_nusd": 72 * 10**9},
    ]  # fmt: skip
    bill = {"pool": "a100", "bill_usd": "96", "busy_ratio": 0.25, "confidence": "high"}
    meta = {"totals": {"cost_usd": "96"}, "bills": [bill]}
    return pa.Table.from_pylist(rows), meta


def trace_spans() -> pa.Table:
    """An application's request, its client's report and the proxy's, which bills."""
    at = NOW - timedelta(seconds=30)
    base = {
        "trace_id": TRACE, "tenant": "acme", "team": "support", "service_name": "support-app",
        "billing_model": None, "request_model": None, "input_tokens": None,
        "cached_input_tokens": None, "output_tokens": None, "cost_usd": None, "cost_nusd": None,
        "cost_state": None, "cost_reason": None, "price_id": None, "price_provenance": None,
        "suppressed_reason": None, "call_id": None, "status": "ok", "error_type": None,
        "layer": "client", "ttft_us": None, "inter_token_us": None,
    }  # fmt: skip
    said = {
        "request_model": "claude-haiku-4-5", "billing_model": "claude-haiku-4-5-20251001",
        "input_tokens": 3_812, "cached_input_tokens": 1_024, "output_tokens": 411,
        "cost_usd": "0.0123", "cost_nusd": 12_300_000, "cost_state": "priced", "price_id": "p/1",
        "price_provenance": "exact", "ttft_us": 310_400, "inter_token_us": 8_350,
    }  # fmt: skip
    return pa.Table.from_pylist([
        {**base, "span_id": "00000000000000a1", "parent_span_id": None, "name": "POST /ask",
         "report_kind": "none", "start_time": at, "duration_us": 2_400_000},
        {**base, **said, "span_id": "00000000000000a2", "parent_span_id": "00000000000000a1",
         "name": "chat claude-haiku-4-5", "report_kind": "call",
         "suppressed_reason": "outranked_by_proxy",
         "start_time": at + timedelta(milliseconds=20), "duration_us": 2_300_000},
        {**base, **said, "span_id": "00000000000000a3", "parent_span_id": "00000000000000a2",
         "name": "litellm_request", "report_kind": "call", "layer": "proxy",
         "call_id": "c1", "start_time": at + timedelta(milliseconds=30), "duration_us": 2_200_000},
    ])  # fmt: skip


def recorded() -> tuple[pa.Table, dict[str, Any]]:
    """What was recorded of the trace: a prompt with an address taken out, and an answer cut."""
    at = NOW - timedelta(seconds=30)
    base = {
        "trace_id": TRACE, "span_id": "00000000000000a3", "start_time": at, "tenant": "acme",
        "kept_until": at + timedelta(days=7),
    }  # fmt: skip
    rows = pa.Table.from_pylist([
        {**base, "side": "output", "name": "gen_ai.output.messages", "is_cut": True,
         "text": "# Not a heading\n<b>not bold</b>", "redactions": ""},
        {**base, "side": "input", "name": "gen_ai.input.messages", "is_cut": False,
         "text": "Write to [email] about [card]", "redactions": "email,card"},
    ])  # fmt: skip
    return rows, {"texts": 2, "capture": True, "retention_days": 7}


def duplicates() -> tuple[pa.Table, dict[str, Any]]:
    """What two clients reported of calls that a gateway and another tenant's engine bill."""
    rows = pa.table({
        "service_name": ["app", "app"], "dialect": ["openllmetry", "vllm"],
        "billing_service": ["gateway", None], "billing_dialect": ["litellm-proxy", None],
        "reason": ["billed_by_proxy", "billed_by_engine"], "reports": [1_250, 3],
        "input_tokens": [2_500_000, 9], "output_tokens": [40_000, 1],
        "cost_usd": ["12.5", "0"], "cost_nusd": [12_500_000_000, 0], "unpriced_reports": [0, 3],
    })  # fmt: skip
    totals = {
        "reports": 1_253, "input_tokens": 2_500_009, "output_tokens": 40_001,
        "cost_usd": "12.5", "cost_nusd": "12500000000",
    }  # fmt: skip
    return rows, {"totals": totals, "zone": "UTC"}


def calls_of(spans: pa.Table) -> pa.Table:
    billed = spans.slice(2, 1)
    return billed.append_column("reports", pa.array([2], pa.int32()))


def budget(name: str, *, limit: int, enforced: int, around: int, leased: int) -> dict[str, Any]:
    """A budget of whole dollars whose money is where the arguments say; the rest is free."""
    amounts = {
        "limit": limit, "debt": 0, "settled_enforced": enforced, "settled_unproven": 0,
        "observed_unenforced": around, "restated": 0, "leased": leased,
        "free": limit - enforced - around - leased,
    }  # fmt: skip
    return {
        "id": name, "name": name, "owner": "finops@acme.example", "tenant": "acme",
        "match": {"team": ["support"]}, "zone": "UTC", "mode": "hard", "period": "month",
        "window": "calendar", "every": None,
        "standing": {
            "unit": "usd", **{part: str(dollars) for part, dollars in amounts.items()},
            "window_start": "2026-11-01T00:00:00Z", "window_end": "2026-12-01T00:00:00Z",
            "used_ratio": (enforced + around) / limit,
            **{f"{part}_usd": str(dollars) for part, dollars in amounts.items()},
        },
    }  # fmt: skip


TABLES: dict[str, Callable[[], tuple[pa.Table, dict[str, Any]]]] = {
    "gpu": gpu_lines,
    f"traces/{TRACE}/content": recorded,
    "data-quality/duplicates": duplicates,
}


def arrow(table: pa.Table, meta: dict[str, Any]) -> bytes:
    table = table.replace_schema_metadata({b"controlplane.meta": json.dumps(meta).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


class Handler(BaseHTTPRequestHandler):
    """One connection; `api` is set on a subclass."""

    api: FakeApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.removeprefix("/api/v1/").partition("?")
        if self.headers.get("authorization") != f"Bearer {BEARER}" and path != "version":
            self._problem(401, "unauthenticated", "no credential. Sign in")
        elif path in self.api.broken:
            self._problem(503, "store_unavailable", "the span store is away")
        else:
            self._found(self.api.answer(path, parse_qsl(query)))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if urlsplit(self.path).path == "/api/v1/policy/rollback":
            self._roll_back(body)
            return
        if urlsplit(self.path).path == "/api/v1/what-if":
            self.api.ordered.append(("what-if", body))
            self._found(what_if_answer(body["scenario"]))
            return
        token = body["token"]
        if urlsplit(self.path).path == "/api/v1/session" and token in self.api.sign_in_tokens:
            self.api.sign_in_tokens.remove(token)
            told = {"bearer": BEARER, "expires_at": NOW.isoformat()}
            self._send(201, "application/json", json.dumps(told).encode())
        else:
            self._problem(401, "unauthenticated", "unknown sign in token")

    def _roll_back(self, body: dict[str, str]) -> None:
        if "policy/rollback" in self.api.broken:
            self._problem(403, "forbidden", "needs policy:write")
            return
        self.api.ordered.append(("policy/rollback", body))
        self._send(200, "application/json", json.dumps({**GENERATION, "gen": 5}).encode())

    def _found(self, answer: Any) -> None:
        if answer is None:
            self._problem(404, "not_found", "no such thing")
        elif isinstance(answer, tuple):
            self._send(200, "application/vnd.apache.arrow.stream", arrow(*answer))
        else:
            self._send(200, "application/json", json.dumps(answer).encode())

    def _problem(self, status: int, code: str, detail: str) -> None:
        body = json.dumps({"code": code, "detail": detail, "status": status}).encode()
        self._send(status, "application/problem+json", body)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[FakeApi]:
    fake = FakeApi()
    handler = type("Bound", (Handler,), {"api": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API that a test may change."""
    with serving() as fake:
        yield fake


@pytest.fixture(scope="module")
def steady_api() -> Iterator[FakeApi]:
    """An API that a module's tests only read."""
    with serving() as fake:
        yield fake


@pytest.fixture
def open_page(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """Run a page as a signed-in viewer would see it."""
    monkeypatch.setenv("CONTROLPLANE_DASHBOARD_API_URL", api.url)
    settings.current.cache_clear()
    st.cache_data.clear()

    def opened(page: str, *, bearer: str | None = BEARER, **query: str) -> AppTest:
        app = AppTest.from_file(str(SHELL), default_timeout=60)
        if bearer:
            app.session_state["bearer"] = bearer
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        return app if page == "overview" else app.switch_page(f"pages/{page}.py").run()

    yield opened
    st.cache_resource.clear()
