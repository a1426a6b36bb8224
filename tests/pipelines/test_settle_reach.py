"""What a settlement reads: hours in which something is, however much is stored; chains to an end."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.queries import CallQuery
from controlplane.store.spans import neighborhood
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
Rows = Callable[..., pa.Table]
Row = dict[str, Any]
PAIRS = 14


def _report(number: int, *, start: datetime, **columns: object) -> Row:
    named = {"trace_lo": number, "span_id": number, "content_hash": number, "start_time": start}
    return {**named, "response_id": f"chatcmpl-{number:016x}", **columns}


def _pair(number: int, *, client: datetime, proxy: datetime) -> list[Row]:
    """Two reports of one call in two traces."""
    one = _report(number, start=client)
    proxied = {"trace_lo": number + 1_000_000, "span_id": number + 1_000_000, "layer": "proxy"}
    return [one, {**one, **proxied, "start_time": proxy}]


def _settle(store: DuckDbSpanStore, rows: list[Row], span_rows: Rows, *, batch_id: str) -> Any:
    store.write(span_rows(*rows), batch_id=batch_id)
    return settle_tick(store, now=AT + timedelta(days=2), ledger=None)


def _calls(store: DuckDbSpanStore) -> list[tuple[int, int]]:
    """The trace of each call's bill, and how many reports it has."""
    window = Window(AT - timedelta(days=30), AT + timedelta(days=2))
    found = store.calls(CallQuery(tenants=("default",), window=window, limit=1_000)).to_pylist()
    return sorted((row["trace_lo"], row["reports"]) for row in found)


def _hours_read(span_rows: Rows, monkeypatch: pytest.MonkeyPatch, *, hours: int) -> list[str]:
    """The statements that look for keys and edges, of ticks over a history as long as that."""
    store, statements = DuckDbSpanStore(None), list[str]()
    made = iter(range(1, 1_000_000))
    for hour in range(hours):
        start = AT - timedelta(hours=hour + 1)
        _settle(
            store,
            [_report(next(made), start=start + timedelta(seconds=n)) for n in range(8)],
            span_rows,
            batch_id=f"history {hour}",
        )
    run = neighborhood.Neighborhood._run

    def noted(self: neighborhood.Neighborhood, name: str, **parameters: Any) -> None:
        if name in {"found_asked", "found_more", "add_edges", "hour_keys", "member_keys"}:
            statements.extend(
                [name] * round((parameters["end"] - parameters["start"]).seconds / 3_600)
            )
        run(self, name, **parameters)

    with monkeypatch.context() as patch:
        patch.setattr(neighborhood.Neighborhood, "_run", noted)
        for tick in range(4):
            start = AT + timedelta(seconds=tick)
            pairs = [_pair(next(made), client=start, proxy=start) for _ in range(20)]
            outcome = _settle(store, [r for p in pairs for r in p], span_rows, batch_id=f"{tick}")
            assert 20 == outcome.changed_calls
    store.close()
    return statements


def test_what_is_read_does_not_grow_with_what_is_stored(
    span_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of new calls are nowhere: only their own hour is read, for the edges of their traces."""
    short, long = (_hours_read(span_rows, monkeypatch, hours=hours) for hours in (6, 48))

    assert ["add_edges"] * 4 == short == long


def test_a_report_finds_its_call_a_day_away_after_a_restart_too(
    span_rows: Rows, tmp_path: Any
) -> None:
    traces = {"trace_lo": 77}
    first = {**_report(1, start=AT), **traces}
    second = {**_report(2, start=AT + timedelta(hours=23)), **traces}
    second |= {"layer": "proxy", "response_id": first["response_id"], "parent_span_id": 1}
    for restarts in (False, True):
        store = DuckDbSpanStore(tmp_path / f"{restarts}.duckdb")
        _settle(store, [first], span_rows, batch_id="1")
        if restarts:
            store.close()
            store = DuckDbSpanStore(tmp_path / f"{restarts}.duckdb")
        _settle(store, [second], span_rows, batch_id="2")
        assert [(77, 2)] == _calls(store)
        store.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_of_keys_longer_than_is_followed_is_settled_in_any_order(
    span_rows: Rows, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A proxy's span is in the trace of the next client's: each key leads to the next call."""
    monkeypatch.setattr(neighborhood, "MAX_ROUNDS", 2)
    rows = []
    for number in range(1, PAIRS + 1):
        start = AT + timedelta(minutes=number)
        client, proxy = _pair(number, client=start, proxy=start)
        rows += [client, {**proxy, "trace_lo": number + 1, "parent_span_id": 0}]
    random.Random(seed).shuffle(rows)
    store = DuckDbSpanStore(None)
    outcomes = [
        _settle(store, rows[first : first + 4], span_rows, batch_id=str(first))
        for first in range(0, len(rows), 4)
    ]

    calls = _calls(store)
    store.close()
    assert [2] * PAIRS == [reports for _, reports in calls]
    assert any(outcome.has_long_chains for outcome in outcomes)


def test_a_chain_leads_to_a_new_report_more_than_a_day_from_the_one_that_it_shares_an_id_with(
    span_rows: Rows,
) -> None:
    """Two days lie between two reports with one id; one between them has another."""
    gateway = {"gateway_call_id": "5e0ac4b2-7d1f-4a38"}
    early = _report(1, start=AT, **gateway)
    middle = _report(2, start=AT + timedelta(hours=30), layer="proxy")
    middle["response_id"] = early["response_id"]
    late = _report(3, start=AT + timedelta(hours=60), layer="engine", **gateway)
    alone = _report(4, start=AT + timedelta(hours=60))
    store = DuckDbSpanStore(None)
    _settle(store, [early], span_rows, batch_id="1")
    store.write(span_rows(middle, late, alone), batch_id="2")

    taken = store.take()
    store.close()
    assert {1, 2, 3} == set(taken.grouped.column("span_id").to_pylist())
    assert 1 == taken.lone_reports
