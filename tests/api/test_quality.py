"""Duplicates removed, over HTTP: who reported, who bills, and what was not counted twice."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa

from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.pipelines.settle import settle_tick
from controlplane.store.spans.duckdb_store import DuckDbSpanStore


def test_duplicates_are_summed_per_pair_and_tenant(
    serve: Callable[..., Any], keys: Any, clock: Any, span_rows: Callable[..., pa.Table]
) -> None:
    now = clock.now()
    store = DuckDbSpanStore(None)
    sides: list[dict[str, Any]] = [
        {"service_name": "app", "dialect": "openllmetry", "cost_nusd": 1_500_000_001},
        {"service_name": "gate", "dialect": "litellm-proxy", "layer": "proxy"},
    ]
    calls = [
        {**shared, **side, "span_id": 2 * number + layer + 1, "tenant": tenant}
        for number, tenant in enumerate(("acme", "acme", "globex"))
        for shared in ({"start_time": now, "response_id": f"chatcmpl-{number}23456789"},)
        for layer, side in enumerate(sides)
    ]
    store.write(span_rows(*calls), batch_id="a")
    settle_tick(store, now=now + timedelta(minutes=1), ledger=None)
    api = serve(reader=store)
    path = "/api/v1/data-quality/duplicates"
    with api.client(keys.add("acme", scopes=ROLE_SCOPES[Role.VIEWER])) as client:
        body = client.get(path, params={"range": "1h"}).json()
        before = client.get(
            path, params={"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}
        ).json()
        refused = client.get(path, params={"tenant": "globex"})
    (row,) = body["rows"]
    # The report of a known price that is dearer than the gateway's bills (C4): the gateway's two
    # reports of 0.000001 USD each are what was not counted again.
    assert ("gate", "app", 2, 200, 20) == (
        row["service_name"],
        row["billing_service"],
        row["reports"],
        row["input_tokens"],
        row["output_tokens"],
    )
    assert ("0.000002", "2000") == (row["cost_usd"], row["cost_nusd"])
    assert {
        "reports": 2,
        "input_tokens": 200,
        "output_tokens": 20,
        "cost_usd": "0.000002",
        "cost_nusd": "2000",
    } == body["meta"]["totals"]
    assert ([], 0) == (before["rows"], before["meta"]["totals"]["reports"])
    assert 403 == refused.status_code
    store.close()


def test_shares_are_of_the_window_and_of_the_viewers_tenants(
    serve: Callable[..., Any], keys: Any, clock: Any, span_rows: Callable[..., pa.Table]
) -> None:
    """Of acme: four calls, one told twice, one without a price, one of no team."""
    now = clock.now()
    store = DuckDbSpanStore(None)
    plain: dict[str, Any] = {"start_time": now, "tenant": "acme", "team": "a", "input_tokens": 100}
    unpriced = {"cost_nusd": None, "cost_state": "unpriced", "cost_reason": "unknown_model"}
    told_twice = {"response_id": "chatcmpl-123456789"}
    rows = [
        {**plain, "cost_nusd": 600, "output_tokens": 0},
        {**plain, **unpriced, "output_tokens": 100},
        {**plain, "cost_nusd": 200, "team": None, "output_tokens": 0},
        {**plain, **told_twice, "cost_nusd": 200, "output_tokens": 0},
        {**plain, **told_twice, "cost_nusd": 200, "output_tokens": 0, "layer": "proxy"},
        {**plain, "tenant": "globex", "team": None, "cost_nusd": 10**9},
    ]
    numbered = [{**row, "span_id": n, "trace_lo": n // 10 + n} for n, row in enumerate(rows, 1)]
    store.write(span_rows(*numbered), batch_id="a")
    settle_tick(store, now=now + timedelta(minutes=1), ledger=None)
    api = serve(reader=store, signals=store.signals)
    path = "/api/v1/data-quality/shares"
    with api.client(keys.add("acme", scopes=ROLE_SCOPES[Role.VIEWER])) as client:
        body = client.get(path, params={"range": "1h"}).json()
        before = client.get(
            path, params={"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}
        ).json()
        refused = client.get(path, params={"tenant": "globex"})
    shares = body["shares"]
    assert (200 / 500, 200 / 1_000, 1 / 5) == (
        shares["unpriced_tokens"],
        shares["unattributed_cost"],
        shares["duplicate_reports"],
    )
    assert {None} == set(before["shares"].values())
    assert before["data_through"] == body["data_through"] is not None
    assert 403 == refused.status_code
    store.close()
