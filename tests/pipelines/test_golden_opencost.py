"""Recorded OpenCost answers with one residual each: `python -m tests.pipelines.test_golden_opencost`.

Two models on our own GPUs over five days, in sets of a day aggregated by `label:model`, against calls
that cost the same. OpenCost's hours are of GPUs, so money is all there is to compare: cached tokens
are beyond it, and a call that is missing is part of no class but the rest.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from collectors.billing.files import read_bill
from controlplane.pipelines.reconcile import reconcile_bill
from controlplane.pipelines.reconcile_ledger import ReconcileRequest
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.price_book import PriceBook
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.pipelines.golden_calls import FOLDER

START = datetime(2026, 10, 5, tzinfo=UTC)
DAYS = 5
COSTS = {"llama-8b": Decimal("2.000003"), "llama-70b": Decimal("7.000001")}
STEP = Decimal("0.1")
"""How much dearer a model is every day."""
EXPECTED = {
    "uncaptured": "3.25",  # a model that we never saw
    "overcounted": "-36.000005",  # five days of llama-70b: 5 x 7.000001, and 0.1 x (0 + … + 4)
    "price": "2.200003",  # llama-8b a fifth dearer: 11.000015 x 0.2
    "rounding": "-0.00002",  # 3 and 1 millionths on each of five days
    "tax_fees": "4.75",  # idle
    "unexplained": "5",
}
Bill = dict[tuple[int, str], Decimal]


def exact() -> Bill:
    """Return what our calls cost, by day and model."""
    return {(day, model): usd + day * STEP for day in range(DAYS) for model, usd in COSTS.items()}


def planted(name: str) -> Bill:
    """Return a bill with one residual."""
    bill = exact()
    if name == "uncaptured":
        bill[2, "ghost-7b"] = Decimal("3.25")
    elif name == "overcounted":
        bill = {at: usd for at, usd in bill.items() if at[1] != "llama-70b"}
    elif name == "price":
        bill |= {at: usd * Decimal("1.2") for at, usd in bill.items() if at[1] == "llama-8b"}
    elif name == "rounding":  # as OpenCost does
        bill = {at: usd.quantize(Decimal("0.00001")) for at, usd in bill.items()}
    elif name == "tax_fees":
        bill[0, "__idle__"] = Decimal("4.75")
    elif name == "unexplained":
        bill[2, "llama-8b"] += 5
    else:
        bill[1, "llama-8b"] += Decimal("0.5")
        bill[2, "llama-8b"] -= Decimal("0.5")
    return bill


def answer(bill: Bill) -> str:
    """Write an answer of `/allocation?aggregate=label:model&step=1d&includeIdle=true`."""
    sets: list[dict[str, Any]] = [{} for _ in range(DAYS)]
    for (day, model), usd in bill.items():
        window = {name: f"{START + timedelta(days=day + more):%Y-%m-%dT%H:%M:%SZ}"
                  for name, more in (("start", 0), ("end", 1))}  # fmt: skip
        labels = {} if model == "__idle__" else {"labels": {"model": model}}
        sets[day][model] = {
            "name": model, "properties": labels, "window": window, **window, "minutes": 1440,
            "gpuHours": 1.5, "gpuCost": float(usd), "totalCost": float(usd),
        }  # fmt: skip
    return json.dumps({"code": 200, "data": sets}, indent=1) + "\n"


@pytest.fixture(scope="module")
def store(span_rows: Callable[..., pa.Table]) -> DuckDbSpanStore:
    rows: list[dict[str, Any]] = [
        {"provider": "self-hosted", "billing_model": model, "cost_nusd": int(usd * 10**9),
         "cost_state": "estimated", "cost_reason": "gpu", "price_id": "gpu:a100", "trace_lo": n + 1,
         "span_id": n + 1, "content_hash": n, "start_time": START + timedelta(days=day, hours=5)}
        for n, ((day, model), usd) in enumerate(exact().items())
    ]  # fmt: skip
    store = DuckDbSpanStore(None)
    store.write(span_rows(*rows), batch_id="b")
    settle_tick(store, now=START + timedelta(days=DAYS), ledger=None)
    return store


@pytest.mark.parametrize("name", [*EXPECTED, "time_boundary"])
def test_the_planted_residual_is_found_and_named(
    store: DuckDbSpanStore, book: PriceBook, name: str
) -> None:
    """A boundary between two days has nothing in the sum and the same amount on both."""
    path = FOLDER / f"{name}.opencost.json"
    assert answer(planted(name)) == path.read_text(encoding="utf-8")
    file, bill = read_bill(path)
    assert ("opencost", 0) == (file.source, file.rejected_lines)
    asked = ReconcileRequest(tenants=("default",), provider="self-hosted")
    report = reconcile_bill(store, book, ([file], bill), asked=asked)
    found = {key: Decimal(usd) for key, usd in report.classes.items() if Decimal(usd)}
    assert ({name: Decimal(EXPECTED[name])} if name in EXPECTED else {}) == found
    if name == "time_boundary":
        told = [(row.day.day, row.classes) for row in report.rows if row.classes]
        assert [(6, {name: "0.5"}), (7, {name: "-0.5"})] == told
    assert (name != "unexplained") == report.within_tolerance


def main() -> None:
    """Write every bill."""
    for name in (*EXPECTED, "time_boundary"):
        (FOLDER / f"{name}.opencost.json").write_text(answer(planted(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
