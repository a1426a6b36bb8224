"""From calls and samples to stored lines: exact, idempotent, and following what arrives late."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.core.calendar import Window
from controlplane.exports.sharing import SharedRule
from controlplane.exports.statement import StatementPlan
from controlplane.exports.statement_pdf import to_pdf
from controlplane.pipelines.export import write_export
from controlplane.pipelines.export_request import ExportRequest, ExportSources
from controlplane.pipelines.export_statements import StatementRequest, make_statements
from controlplane.pipelines.gpu_cost import BUCKET, GpuTools, gpu_round, rebuild
from controlplane.pipelines.gpu_idle import idle_lines
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.showback import ShowbackQuestion, showback
from controlplane.pipelines.signed_directory import Stamp
from controlplane.pricing.currency import ExchangeRate, RateTable
from controlplane.pricing.gpu_pool import GpuPool, IdlePolicy, NodePrice, PriceKind, Slice
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.queries import CallQuery, CostQuery
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pdf_texts import texts

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
NOW = AT + timedelta(minutes=40)
HOUR = Window(AT, AT + timedelta(hours=1))
USD = 1_000_000_000
POOL = GpuPool(
    name="a100",
    price=NodePrice(kind=PriceKind.ON_DEMAND, hourly_usd="4"),
    models=("meta/Llama-8B",),
)
Rows = Callable[..., pa.Table]


@pytest.fixture
def store() -> Iterator[DuckDbSpanStore]:
    made = DuckDbSpanStore(None)
    yield made
    made.close()


def _tools(store: DuckDbSpanStore, *pools: GpuPool) -> GpuTools:
    return GpuTools(
        store=store.gpu, signals=store.signals, pools=lambda: pools or (POOL,), writer=store
    )


def _call(number: int, **said: Any) -> dict[str, Any]:
    return {
        "span_id": number, "trace_lo": number, "content_hash": number, "layer": "engine",
        "provider": "self-hosted", "billing_model": "llama-8b", "tenant": f"t{number % 2}",
        "start_time": AT + timedelta(minutes=1), "duration_us": 60_000_000, "cost_nusd": None,
        "cost_state": "unpriced", "cost_reason": "no_gpu_price", "input_tokens": 1_000, "output_tokens": 100, **said,
    }  # fmt: skip


def _write(store: DuckDbSpanStore, rows: pa.Table, *, batch_id: str = "b") -> None:
    store.write(rows, batch_id=batch_id)
    settle_tick(store, now=NOW, ledger=None)


def _gauge(store: DuckDbSpanStore, meaning: str, value: float, **said: Any) -> None:
    row = {
        **{f.name: "" for f in SAMPLE_SCHEMA if not f.nullable and f.type == pa.string()},
        "tenant": "ops", "meaning": meaning, "kind": "gauge", "labels": "{}", "value": value,
        "series_hash": hash(meaning) % 2**60, "time": AT + timedelta(minutes=5),
        "received_at": NOW, **said,
    }  # fmt: skip
    batch = SignalBatch(
        samples=pa.Table.from_pylist([row], schema=SAMPLE_SCHEMA),
        events=EVENT_SCHEMA.empty_table(),
        accounts=ACCOUNT_SCHEMA.empty_table(),
        rejections=REJECTION_SCHEMA.empty_table(),
    )
    store.write_signals(batch, batch_id=f"gauge-{meaning}-{value}")


def _lines(store: DuckDbSpanStore, window: Window = HOUR) -> list[dict[str, Any]]:
    tenants = ("t0", "t1", "platform")
    rows: list[dict[str, Any]] = store.gpu.shares(
        tenants, window, with_idle=True, by_bucket=False
    ).to_pylist()
    return rows


def test_a_round_bills_closed_buckets_to_the_nano_dollar(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """Two equal calls of one minute in the first quarter: a fifteenth of $1, shared."""
    _write(store, span_rows(_call(1), _call(2), _call(3, provider="openai")))
    assert gpu_round(_tools(store), now=NOW) == 8  # two hours before 10:30
    bills = store.gpu.bills(HOUR).to_pylist()
    assert [("a100", 2 * USD, "low", 2)] == [
        (b["pool"], b["bill_nusd"], b["confidence"], b["buckets"]) for b in bills
    ]
    lines = _lines(store)
    assert 2 * USD == sum(line["cost_nusd"] for line in lines)
    used = {line["tenant"]: line["cost_nusd"] for line in lines if not line["is_idle"]}
    fifteenth = USD // 15
    assert {"t0": fifteenth // 2, "t1": fifteenth - fifteenth // 2} in (
        used,
        {"t0": used["t1"], "t1": used["t0"]},
    )
    assert {"t0": 1, "t1": 1} == {x["tenant"]: x["calls"] for x in lines if not x["is_idle"]}


def test_a_second_round_finds_nothing_to_do_and_late_calls_change_their_bucket(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    _write(store, span_rows(_call(1)))
    gpu_round(_tools(store), now=NOW)
    before = _lines(store)
    assert 0 == gpu_round(_tools(store), now=NOW)
    assert before == _lines(store)
    _write(store, span_rows(_call(2)), batch_id="late")
    assert 1 == gpu_round(_tools(store), now=NOW)
    assert 2 * USD == sum(line["cost_nusd"] for line in _lines(store))
    assert before != _lines(store)


def test_a_rebuild_answers_what_rounds_did(store: DuckDbSpanStore, span_rows: Rows) -> None:
    long = {"duration_us": 1_500_000_000}  # through two buckets
    rows = span_rows(_call(1), _call(2, **long), _call(4, cached_input_tokens=900))
    _write(store, rows)
    gpu_round(_tools(store), now=NOW)
    other = DuckDbSpanStore(None)
    _write(other, rows)
    window = Window(AT - timedelta(hours=1), AT + 2 * BUCKET)
    assert 6 == rebuild(_tools(other), window, now=NOW + timedelta(days=9))
    assert _lines(store) == _lines(other)
    other.close()


def test_what_gpus_and_engines_say_is_used(store: DuckDbSpanStore, span_rows: Rows) -> None:
    _write(store, span_rows(_call(1)))
    _gauge(store, "gpu_utilization_ratio", 0.9, pool="a100", gpu="0")
    _gauge(store, "gpu_active_ratio", 0.25, pool="a100", gpu="0")
    _gauge(store, "gpu_active_ratio", 0.75, pool="other", gpu="1", series_hash=7)
    gpu_round(_tools(store), now=NOW)
    window = Window(AT, AT + BUCKET)
    (bill,) = store.gpu.bills(window).to_pylist()
    assert ("high", 0.25) == (bill["confidence"], bill["busy_ratio"])
    used = [line["cost_nusd"] for line in _lines(store, window) if not line["is_idle"]]
    assert [USD // 4] == used


def test_each_call_knows_its_part(store: DuckDbSpanStore, span_rows: Rows) -> None:
    _write(store, span_rows(_call(1), _call(2)))
    gpu_round(_tools(store), now=NOW)
    listed = store.gpu.served_calls(Window(AT, AT + BUCKET)).to_pylist()
    parts = [
        row["cost_nusd"]
        for call in listed
        for row in store.gpu.call_cost((call["tenant"],), call["call_id"]).to_pylist()
    ]
    assert (2, USD // 15) == (len(parts), sum(parts))
    assert 0 == store.gpu.call_cost(("other",), listed[0]["call_id"]).num_rows


def test_calls_go_to_the_pool_and_slice_of_their_model(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    sliced = GpuPool(
        name="mig",
        price=POOL.price,
        slices=(Slice(name="s", share="1/4", models=("small",)),),
    )
    rest = GpuPool(name="rest", price=POOL.price)
    _write(store, span_rows(_call(1), _call(2, billing_model="small"), _call(4, billing_model="x")))
    rebuild(_tools(store, sliced, POOL, rest), Window(AT, AT + BUCKET), now=NOW)
    used = {line["pool"]: line["model"] for line in _lines(store) if not line["is_idle"]}
    assert {"mig": "small", "a100": "llama-8b", "rest": "x"} == used
    of_mig = [line for line in _lines(store) if line["pool"] == "mig"]
    assert USD == sum(line["cost_nusd"] for line in of_mig)
    assert USD * 3 // 4 == next(x["cost_nusd"] for x in of_mig if x["slice"] == "")


def test_without_pools_nothing_is_billed(store: DuckDbSpanStore, span_rows: Rows) -> None:
    _write(store, span_rows(_call(1)))
    tools = GpuTools(store=store.gpu, signals=store.signals, pools=tuple, writer=store)
    assert 0 == gpu_round(tools, now=NOW)
    assert [] == _lines(store)


def _costs(store: DuckDbSpanStore) -> dict[str, Any]:
    settle_tick(store, now=NOW, ledger=None)
    query = CostQuery(tenants=("t0", "t1"), window=HOUR)
    (row,) = store.costs(query).to_pylist()
    return {name: row[name] for name in ("calls", "unpriced_calls", "cost_nusd", "input_tokens")}


def test_calls_carry_their_gpu_cost_into_the_ledger(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    """API dollars and GPU dollars are one sum; the call is still one call."""
    priced = _call(7, provider="openai", cost_nusd=500, cost_state="priced", cost_reason=None)
    own = _call(8, cost_nusd=900, cost_state="priced", cost_reason=None, price_id="house")
    _write(store, span_rows(_call(1), _call(2), priced, own))
    before = _costs(store)
    assert (4, 2, 1_400) == (before["calls"], before["unpriced_calls"], before["cost_nusd"])
    gpu_round(_tools(store), now=NOW)
    parts = store.gpu.shares(("t0", "t1"), HOUR, with_idle=False, by_bucket=False).to_pylist()
    assert USD // 15 == sum(row["cost_nusd"] for row in parts)
    after = _costs(store)
    # Three calls share the pool; one of them has a price of its own and keeps it.
    of_gpu = [
        sum(row["cost_nusd"] for row in store.gpu.call_cost(("t0", "t1"), name).to_pylist())
        for name in _names(store, price_id="gpu:a100")
    ]
    assert 2 == len(of_gpu)
    assert {**before, "unpriced_calls": 0, "cost_nusd": 1_400 + sum(of_gpu)} == after
    assert 0 == gpu_round(_tools(store), now=NOW)
    assert after == _costs(store)


def _names(store: DuckDbSpanStore, **said: str) -> list[str]:
    calls = store.calls(CallQuery(tenants=("t0", "t1"), window=HOUR)).to_pylist()
    return [
        call["call_id"] for call in calls if all(call[name] == text for name, text in said.items())
    ]


def test_a_call_through_two_buckets_costs_both_and_late_ones_change_it(
    store: DuckDbSpanStore, span_rows: Rows
) -> None:
    _write(store, span_rows(_call(1, duration_us=1_500_000_000)))  # 10:01 to 10:26
    gpu_round(_tools(store), now=NOW)
    alone = _costs(store)["cost_nusd"]
    assert abs(4 * USD * 25 // 60 - alone) <= 2
    _write(store, span_rows(_call(2)), batch_id="late")
    gpu_round(_tools(store), now=NOW)
    both = _costs(store)
    assert (2, 0) == (both["calls"], both["unpriced_calls"])
    assert abs(4 * USD * 25 // 60 - both["cost_nusd"]) <= 2
    of_first = store.gpu.call_cost(("t1",), _names(store, tenant="t1")[0]).to_pylist()
    assert 2 == len(of_first)
    assert sum(row["cost_nusd"] for row in of_first) < alone


@pytest.mark.parametrize("policy", ["own_line", "pro_rata", "owner", "platform"])
def test_calls_and_idle_rows_of_all_exports_are_the_bill(
    store: DuckDbSpanStore, span_rows: Rows, tmp_path: Path, policy: str
) -> None:
    """Four calls of two tenants in one hour at $4; whoever bears the rest, FOCUS sums to $4."""
    pool = msgspec.structs.replace(POOL, idle=IdlePolicy(policy), owner="t1", platform="ops")
    _write(store, span_rows(*(_call(n) for n in range(1, 5))))
    tools = _tools(store, pool)
    late = AT + timedelta(hours=2)
    rebuild(tools, HOUR, now=late)
    settle_tick(store, now=late, ledger=None)
    effective, rows = Decimal(0), 0
    for tenant in ("t0", "t1", "ops"):
        out = tmp_path / tenant
        write_export(
            ExportSources(store, PriceBook("none", []), None, tools),
            ExportRequest(tenant=tenant, window=HOUR, kind="focus"),
            out,
            key=Ed25519PrivateKey.from_private_bytes(bytes(32)),
            stamp=Stamp(export_id="e", created_at=late, software="t"),
        )
        for file in out.glob("focus-*.parquet"):
            for row in pq.read_table(file).to_pylist():
                effective += row["EffectiveCost"]
                idle = row["x_UsageBucket"] == "gpu_idle"
                rows += idle
                assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]
                bearer = {"owner": "t1", "pro_rata": "ops"}.get(policy, "ops")
                assert not idle or bearer == row["BillingAccountId"]
    assert Decimal(4) == effective
    assert 1 == rows  # quarters without a call have nobody to spread their time over
    said = sum(line.cost_nusd for line in idle_lines(tools, ("ops", "t1"), HOUR))
    calls = store.costs(CostQuery(tenants=("t0", "t1"), window=HOUR)).to_pylist()
    assert 4 * USD == said + sum(row["cost_nusd"] for row in calls)


FIXED = {"search": 3, "platform": 1}


def _used_pool(store: DuckDbSpanStore, rows: pa.Table) -> GpuTools:
    """Write calls of one tenant that bears the pool's idle time, and bill the hour."""
    pool = msgspec.structs.replace(POOL, idle=IdlePolicy.OWNER, owner="acme")
    _write(store, rows)
    tools = _tools(store, pool)
    rebuild(tools, HOUR, now=AT + timedelta(hours=2))
    settle_tick(store, now=AT + timedelta(hours=2), ledger=None)
    return tools


def _mixed(span_rows: Rows) -> pa.Table:
    """Three calls on the pool (two of search, one without a team), one of a provider, one refused."""
    acme = {"tenant": "acme"}
    return span_rows(
        _call(1, **acme, team="search"),
        _call(2, **acme, team="search"),
        _call(3, **acme),
        _call(4, **acme, team="support", provider="openai", billing_model="gpt-4o",
              cost_nusd=7_000_003, cost_state="priced", cost_reason=None),
        _call(5, **acme, team="refused", provider="openai", billing_model="gpt-4o", cost_nusd=0,
              cost_state="free", cost_reason="http_429", input_tokens=0, output_tokens=0),
    )  # fmt: skip


@pytest.mark.parametrize("idle_rule", list(SharedRule))
@pytest.mark.parametrize("shared_rule", [SharedRule.NONE, SharedRule.EVEN])
def test_statements_divide_idle_time_by_its_own_rule_and_the_page_says_the_same(
    store: DuckDbSpanStore, span_rows: Rows, shared_rule: SharedRule, idle_rule: SharedRule
) -> None:
    """UX-14: the hour is $4 and a call of $0.007000003, whatever the rules, row by row on both."""
    tools = _used_pool(store, _mixed(span_rows))
    weights = FIXED if idle_rule is SharedRule.FIXED else {}
    plan = StatementPlan(
        tenant="acme", by="team", window=HOUR, period="an hour", zone="UTC",
        shared_rule=shared_rule, idle_rule=idle_rule, idle_shares=weights,
    )  # fmt: skip
    made = make_statements(store, PriceBook("none", []), StatementRequest(plan=plan), gpu=tools)
    totals = {one.owner: one.total_nusd for one in made}
    assert 4 * USD + 7_000_003 == sum(totals.values())
    asked = ShowbackQuestion(
        tenants=("acme",), everyone=False, window=HOUR, by="team",
        shared_rule=shared_rule, idle_rule=idle_rule, idle_shares=weights,
    )  # fmt: skip
    rows = showback(store, tools, asked)
    shown = {row.name: row.total_nusd for row in rows if row.kind != "idle"}
    assert 0 == shown.pop("refused"), "its only call was free: it bears nothing"
    idle = next(row for row in rows if row.kind == "idle")
    assert sum(row.own_nusd for row in rows) == sum(row.total_nusd for row in rows)
    assert totals == {**shown, None: shown[None] + idle.total_nusd}
    nobodys = 4 * USD - sum(one["cost_nusd"] for one in _served(store))
    assert ("a100", nobodys) == (idle.name, idle.own_nusd)
    parts = {row.name or "": row.idle_nusd for row in rows if row.idle_nusd and row.kind == "owner"}
    expected: dict[str, int] = {
        SharedRule.NONE: {},
        SharedRule.EVEN: {"search": 1, "support": 1},
        SharedRule.PROPORTIONAL: {"search": 1},
        SharedRule.FIXED: FIXED,
    }[idle_rule]
    assert {*parts} == {*expected}
    for team, part in parts.items():
        assert abs(part - Fraction(nobodys * expected[team], sum(expected.values()))) < 1


def _served(store: DuckDbSpanStore) -> list[dict[str, Any]]:
    rows = store.costs(CostQuery(tenants=("acme",), window=HOUR, group_by=("provider",)))
    return [row for row in rows.to_pylist() if row["provider"] == "self-hosted"]


def test_idle_time_in_euros_is_what_focus_says(
    store: DuckDbSpanStore, span_rows: Rows, tmp_path: Path
) -> None:
    """A day of idle time is converted once; what is shared is shared in euros, and the PDF says how."""
    tools = _used_pool(store, _mixed(span_rows))
    rate = ExchangeRate(
        currency="EUR", day=AT.date(), usd_per_unit="1.07", source="ecb", recorded_at=AT
    )
    out = tmp_path / "focus"
    write_export(
        ExportSources(store, PriceBook("none", []), _Rates([rate]), tools),
        ExportRequest(tenant="acme", window=HOUR, kind="focus", currency="EUR"),
        out,
        key=Ed25519PrivateKey.from_private_bytes(bytes(32)),
        stamp=Stamp(export_id="e", created_at=NOW, software="t"),
    )
    (row,) = pq.read_table(out / "focus-idle.parquet").to_pylist()
    totals = []
    for rule in (SharedRule.NONE, SharedRule.EVEN):
        plan = StatementPlan(
            tenant="acme", by="team", window=HOUR, period="an hour", zone="UTC", idle_rule=rule
        )
        made = make_statements(
            store, PriceBook("none", []), StatementRequest(plan=plan, currency="EUR"),
            gpu=tools, rates=RateTable([rate]),
        )  # fmt: skip
        totals.append(sum(one.billing.total_nano for one in made if one.billing))
        (place,) = [
            n for n, line in enumerate(made[-1].lines) if line.meter.startswith("Idle GPU time")
        ]
        billing = made[-1].billing
        assert billing is not None
        assert int(row["EffectiveCost"] * 10**9) == billing.of_line(place)
        idle = "Idle GPU time is shared evenly."
        assert (rule is SharedRule.EVEN) == (idle in texts(to_pdf(made[0])))
    assert totals[0] == totals[1]


class _Rates:
    """Rates that stand in a list."""

    def __init__(self, rates: list[ExchangeRate]) -> None:
        self._rates = rates

    def add(self, rates: Iterable[ExchangeRate]) -> None:
        self._rates += rates

    def of(self, currency: str) -> list[ExchangeRate]:
        return [rate for rate in self._rates if rate.currency == currency]

    def currencies(self) -> list[str]:
        return sorted({rate.currency for rate in self._rates})
