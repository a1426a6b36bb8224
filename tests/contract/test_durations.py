"""How long calls took: every engine answers the same ranks, which are nearest ranks."""

from typing import Any

from controlplane.core.calendar import Window
from controlplane.signals.queries import CostQuery
from tests.contract.span_stores import AT, HOUR, Rows, Store, settle

WINDOW = Window(AT, AT + HOUR)


def test_ranks_are_of_successful_calls_that_took_time(spans: Store, span_rows: Rows) -> None:
    """Of 1 to 41 ms half do not exceed 21, and 39 are 95 %; of 1 to 40 it is 20, and 38 exactly."""
    rows: list[dict[str, Any]] = [
        {"duration_us": ms * 1_000, "team": team}
        for team, most in (("even", 40), ("odd", 41), (None, 1))
        for ms in range(1, most + 1)
    ]
    rows += [
        {"duration_us": 10**9, "team": "odd", "status": "error"},
        {"duration_us": 0, "team": "odd"},
        {"duration_us": 10**9, "team": "odd", "start_time": WINDOW.end},
        {"duration_us": 10**9, "team": "odd", "tenant": "other"},
        {"duration_us": 10**9, "team": "odd", "operation": "embeddings"},
    ]
    numbered = [
        {"start_time": AT, "trace_lo": n, "span_id": n, "content_hash": n, **row}
        for n, row in enumerate(rows, start=1)
    ]
    spans.writer.write(span_rows(*numbered), batch_id="b")
    settle(spans, now=WINDOW.end)
    query = CostQuery(
        tenants=("default",), window=WINDOW, group_by=("team",), filters={"operation": ("chat",)}
    )
    found = spans.store.durations(query)
    assert ["team", "calls", "p50_us", "p95_us"] == found.column_names
    assert [
        ("even", 40, 20_000, 38_000),
        ("odd", 41, 21_000, 39_000),
        (None, 1, 1_000, 1_000),
    ] == [tuple(row.values()) for row in found.to_pylist()]
    nothing = CostQuery(tenants=("nobody",), window=WINDOW)
    assert 0 == spans.store.durations(nothing).num_rows
