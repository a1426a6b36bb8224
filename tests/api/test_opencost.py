"""OpenCost's allocation API: its shape, its words, and sums that are our own to the nano-dollar."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from collectors.billing.files import read_bill
from controlplane.core.calendar import Window
from controlplane.pipelines.gpu_cost import GpuTools, rebuild
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.gpu_pool import DatedPrice, GpuPool, IdlePolicy, NodePrice, PriceKind
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.api.conftest import NOW

BASE = "/api/v1/opencost/allocation"
DAY = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 20, 10, tzinfo=UTC))
PAIR = "2026-11-20T00:00:00Z,2026-11-20T10:00:00Z"
HOUR = NodePrice(kind=PriceKind.ON_DEMAND, hourly_usd="4.000000001")
POOLS = (
    GpuPool(name="a100", price=HOUR, nodes=2, models=("meta/llama-8b",)),
    GpuPool(
        name="h100",
        price=HOUR,
        models=("meta/llama-70b",),
        changes=(DatedPrice(effective_from=DAY.start.date(), price=HOUR, nodes=3),),
    ),
)
FIELDS = {
    "name", "properties", "window", "start", "end", "minutes",
    "cpuCores", "cpuCoreRequestAverage", "cpuCoreLimitAverage", "cpuCoreUsageAverage",
    "cpuCoreHours", "cpuCost", "cpuCostAdjustment", "cpuCostIdle", "cpuEfficiency",
    "gpuCount", "gpuHours", "gpuCost", "gpuCostAdjustment", "gpuCostIdle", "gpuEfficiency",
    "networkTransferBytes", "networkReceiveBytes", "networkCost", "networkCrossZoneCost",
    "networkCrossRegionCost", "networkInternetCost", "networkCostAdjustment",
    "loadBalancerCost", "loadBalancerCostAdjustment", "pvBytes", "pvByteHours", "pvCost", "pvs",
    "pvCostAdjustment", "ramBytes", "ramByteRequestAverage", "ramByteLimitAverage",
    "ramByteUsageAverage", "ramByteHours", "ramCost", "ramCostAdjustment", "ramCostIdle",
    "ramEfficiency", "externalCost", "sharedCost", "totalCost", "totalEfficiency",
    "lbAllocations", "gpuAllocation",
}  # fmt: skip
"""Every name that `AllocationJSON` always writes (opencost/opencost, commit 1ea64d0)."""


@pytest.fixture(scope="module")
def store(span_rows: Callable[..., pa.Table]) -> Iterator[DuckDbSpanStore]:
    """Calls of a provider and of two pools, of two tenants; and one without a price."""
    gpu: dict[str, Any] = {
        "provider": "self-hosted", "layer": "engine", "cost_nusd": None, "cost_state": "unpriced",
        "cost_reason": "no_gpu_price", "duration_us": 600_000_000,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"tenant": tenant, "team": team, "start_time": DAY.start + timedelta(hours=hour),
         "cost_nusd": 1_000_000_001 * (n + 1), **said}
        for n, (tenant, team, hour, said) in enumerate([
            ("acme", "search", 1, {}),
            ("acme", None, 2, {"billing_model": "a/b"}),
            ("globex", "ops", 3, {}),
            ("acme", "search", 4, {**gpu, "billing_model": "meta/llama-8b"}),
            ("globex", "ops", 4, {**gpu, "billing_model": "meta/llama-8b"}),
            ("globex", "ops", 5, {**gpu, "billing_model": "meta/llama-70b"}),
            ("acme", "search", 6, {"cost_nusd": None, "cost_state": "unpriced",
                                   "cost_reason": "unknown_model"}),
        ])
    ]  # fmt: skip
    numbered = [
        {**row, "trace_lo": n + 1, "span_id": n + 1, "content_hash": n + 1}
        for n, row in enumerate(rows)
    ]
    made = DuckDbSpanStore(None)
    made.write(span_rows(*numbered), batch_id="b")
    settle_tick(made, now=NOW, ledger=None)
    rebuild(_tools(made), DAY, now=NOW)
    settle_tick(made, now=NOW, ledger=None)
    yield made
    made.close()


def _tools(store: DuckDbSpanStore) -> GpuTools:
    return GpuTools(store=store.gpu, signals=store.signals, pools=lambda: POOLS, writer=store)


@pytest.fixture
def ask(
    serve: Callable[..., Any], store: DuckDbSpanStore, admin: str
) -> Iterator[Callable[..., Any]]:
    """Ask as an operator; numbers are read with every digit."""
    with serve(reader=store, gpu=_tools(store)).client(admin) as client:

        def get(path: str = BASE, **params: str) -> Any:
            answer = client.get(path, params=params)
            assert 200 == answer.status_code, answer.text
            return json.loads(answer.text, parse_float=Decimal, parse_constant=_refuse)

        yield get


def _refuse(word: str) -> None:
    pytest.fail(f"{word} is no number")


def _sum(answer: Any, field: str = "totalCost") -> Decimal:
    return sum((Decimal(row[field]) for rows in answer["data"] for row in rows.values()), Decimal())


ASKED: list[dict[str, str]] = [
    {"aggregate": "namespace"},
    {"aggregate": "namespace,label:team", "step": "1h"},
    {"aggregate": "controller", "step": "3h", "accumulate": "true"},
    {"aggregate": "node,service", "shareIdle": "true"},
    {"aggregate": "team", "shareIdle": "true", "idleByNode": "true", "step": "15m"},
    {"idleByNode": "true"},
]


def test_whatever_is_asked_for_sums_to_our_own_api(ask: Callable[..., Any]) -> None:
    """Calls and idle time, to the nano-dollar; GPU cost is the pools' bills."""
    window = dict(zip(("start", "end"), PAIR.split(","), strict=True))
    ours = ask("/api/v1/costs", **window)["meta"]
    bills = ask("/api/v1/gpu", **window)["meta"]["bills"]
    for params in ASKED:
        answer = ask(window=PAIR, includeIdle="true", **params)
        assert Decimal(ours["idle"]["with_calls_usd"]) == _sum(answer)
        assert sum(Decimal(bill["bill_usd"]) for bill in bills) == _sum(answer, "gpuCost")
        assert Decimal("6.000000006") == _sum(answer, "externalCost")
        without = ask(window=PAIR, **{**params, "shareIdle": "false"})
        assert Decimal(ours["totals"]["cost_usd"]) == _sum(without)
        assert "1 calls have no known price and are in no cost" == answer["warning"]


def test_idle_time_of_an_owner_that_sent_nothing_is_in_every_sum(
    serve: Callable[..., Any], span_rows: Callable[..., pa.Table], admin: str
) -> None:
    """Two hours of one node at $4.000000001 that nobody used are the landlord's, also once the pool is gone."""
    pool = GpuPool(name="l4", price=HOUR, idle=IdlePolicy.OWNER, owner="landlord")
    store = DuckDbSpanStore(None)
    store.write(
        span_rows({"tenant": "acme", "start_time": DAY.start, "cost_nusd": 5}), batch_id="b"
    )
    settle_tick(store, now=NOW, ledger=None)
    then = GpuTools(store=store.gpu, signals=store.signals, pools=lambda: (pool,), writer=store)
    rebuild(then, Window(DAY.start, DAY.start + timedelta(hours=2)), now=NOW)
    window = dict(zip(("start", "end"), PAIR.split(","), strict=True))
    now = GpuTools(store=store.gpu, signals=store.signals, pools=lambda: (), writer=store)
    for tools in (then, now):
        with serve(reader=store, gpu=tools).client(admin) as client:
            gpu = client.get("/api/v1/gpu", params=window).json()
            costs = client.get("/api/v1/costs", params=window).json()["meta"]
            asked = {"window": PAIR, "includeIdle": "true"}
            answer = json.loads(client.get(BASE, params=asked).text, parse_float=Decimal)
        assert ["landlord"] == [row["tenant"] for row in gpu["rows"]]
        assert "8.000000002" == gpu["meta"]["totals"]["cost_usd"] == costs["idle"]["cost_usd"]
        assert Decimal("8.000000007") == Decimal(costs["idle"]["with_calls_usd"]) == _sum(answer)
    store.close()


def test_every_field_is_there_and_says_what_it_is(ask: Callable[..., Any]) -> None:
    answer = ask(window=PAIR, aggregate="node,label:team", includeIdle="true", idleByNode="true")
    assert (200, "success", 1) == (answer["code"], answer["status"], len(answer["data"]))
    (rows,) = answer["data"]
    assert {
        "__unallocated__/search", "__unallocated__/ops", "__unallocated__/__unallocated__",
        "a100/search", "a100/ops", "h100/ops", "a100/__idle__", "h100/__idle__",
    } == set(rows)  # fmt: skip
    for name, row in rows.items():
        assert FIELDS == set(row)
        assert name == row["name"]
        assert {"start": row["start"], "end": row["end"]} == row["window"]
        assert ("2026-11-20T00:00:00Z", "2026-11-20T10:00:00Z", 600) == (
            row["start"], row["end"], row["minutes"],
        )  # fmt: skip
        parts = ("cpuCost", "gpuCost", "ramCost", "networkCost", "pvCost", "loadBalancerCost",
                 "externalCost", "sharedCost")  # fmt: skip
        assert sum(Decimal(row[part]) for part in parts) == Decimal(row["totalCost"])
    assert {"node": "a100", "labels": {"team": "search"}} == rows["a100/search"]["properties"]
    # one call a team of ten minutes in a quarter of an hour, alike: a third of 2 nodes' quarter each
    assert Decimal("0.166666667") == rows["a100/search"]["gpuHours"].quantize(Decimal("1E-9"))
    assert (1, 0) == (rows["a100/ops"]["gpuEfficiency"], rows["a100/__idle__"]["gpuEfficiency"])
    hours = _sum(answer, "gpuHours")
    assert abs(hours - (2 * 10 + 3 * 10)) < Decimal("1E-8")  # h100 has three nodes since midnight
    assert abs(_sum(answer, "gpuCount") - 5) < Decimal("1E-8")


def test_shared_idle_time_is_in_the_cost_of_what_ran(ask: Callable[..., Any]) -> None:
    own = ask(window=PAIR, aggregate="node", includeIdle="true", idleByNode="true")["data"][0]
    spread = ask(window=PAIR, aggregate="node", shareIdle="true", idleByNode="true")["data"][0]
    assert {"__unallocated__", "a100", "h100"} == set(spread)
    for pool in ("a100", "h100"):
        idle = own[f"{pool}/__idle__"]["gpuCost"]
        assert idle == spread[pool]["gpuCostIdle"]
        assert own[pool]["gpuCost"] + idle == spread[pool]["gpuCost"]
        assert 0 < spread[pool]["gpuEfficiency"] < 1


def test_names_that_join_to_the_same_text_lose_nothing(ask: Callable[..., Any]) -> None:
    """A model may have a slash: `a/b` of one label is `a` and `b` of two."""
    answer = ask(window=PAIR, aggregate="label:model,label:team")
    assert _sum(answer) == _sum(ask(window=PAIR, aggregate="namespace"))
    assert "a/b/__unallocated__" in answer["data"][0]


def test_a_step_is_a_set_and_accumulate_makes_one_of_them(ask: Callable[..., Any]) -> None:
    """Calls are in hours 1 to 6: nothing ran in the last, shorter step."""
    answer = ask(window=PAIR, aggregate="namespace", step="4h")
    minutes = [{row["minutes"] for row in rows.values()} for rows in answer["data"]]
    assert [{240}, {240}, set()] == minutes
    whole = ask(window=PAIR, aggregate="namespace", step="4h", accumulate="true")
    assert whole["data"] == ask(window=PAIR, aggregate="namespace")["data"]


def test_the_importer_reads_our_own_answer_to_the_same_dollars(
    ask: Callable[..., Any], serve: Callable[..., Any], store: DuckDbSpanStore, admin: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Reconciliation takes the file as OpenCost's; no line is refused and no digit is lost."""
    params = {"window": PAIR, "aggregate": "namespace,team", "includeIdle": "true", "step": "1h"}
    with serve(reader=store, gpu=_tools(store)).client(admin) as client:
        (tmp_path / "allocation.json").write_bytes(client.get(BASE, params=params).content)
    file, lines = read_bill(tmp_path / "allocation.json")
    assert ("opencost", 0) == (file.source, file.rejected_lines)
    assert _sum(ask(**params)) == sum((line.cost_usd or Decimal() for line in lines), Decimal())


def test_a_client_that_knows_a_host_only_is_answered_too(ask: Callable[..., Any]) -> None:
    for path in ("/allocation", "/allocation/compute", f"{BASE}/compute"):
        assert ask(path, window="today", step="1d") == ask(window="today")
    assert ask(window="today", resolution="1m") == ask(window="today")


def test_a_tenants_key_sees_its_own_and_not_what_an_hour_costs(
    serve: Callable[..., Any], store: DuckDbSpanStore, acme: str
) -> None:
    with serve(reader=store, gpu=_tools(store)).client(acme) as client:
        answer = client.get(BASE, params={"window": PAIR, "aggregate": "namespace"})
        assert b"globex" not in answer.content
        (row,) = answer.json()["data"][0].values()
        assert ("acme", None, None) == (row["name"], row["gpuHours"], row["gpuCount"])
        theirs = client.get(BASE, params={"window": PAIR, "tenant": "globex"})
        assert 403 == theirs.status_code


REFUSED: list[dict[str, str]] = [
    {},
    {"window": "fortnight"},
    {"window": "10m"},
    {"window": "2026-11-20T00:00:00Z"},
    {"window": "2026-11-20T00:01:00Z,2026-11-20T01:00:00Z"},
    {"window": "2026-11-20T01:00:00Z,2026-11-20T00:00:00Z"},
    {"window": "1d", "step": "7m"},
    {"window": "1d", "step": "0m"},
    {"window": "9999d"},
    {"window": "1d", "aggregate": "annotation:x"},
    {"window": "1d", "aggregate": "label:colour"},
    {"window": "1d", "aggregate": "pod,node,team,service,product,label:model"},
    {"window": "1d", "includeIdle": "perhaps"},
    {"window": "1d", "resolution": "fine"},
    {"window": "1d", "filter": 'namespace:"acme"'},
]


def test_what_can_not_be_answered_exactly_is_refused(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        for params in REFUSED:
            answer: httpx.Response = client.get(BASE, params=params)
            assert 400 == answer.status_code, (params, answer.text)
        assert 413 == client.get(BASE, params={"window": "30d", "step": "15m"}).status_code
