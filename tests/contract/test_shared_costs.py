"""Sums by team with shared accounts: every engine divides them to the same nano-dollar."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.pipelines.settle import settle_tick
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.store.memory.span_store import MemorySpanStore
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 20, tzinfo=UTC)
DAYS = Window(AT, AT + timedelta(days=3))
POOL = "shared:bots[ads=1,search=2]"
Rows = Callable[..., pa.Table]

_calls = st.lists(
    st.tuples(
        st.integers(0, 3 * 96 - 1),  # quarter hour
        st.sampled_from([POOL, "search", None]),
        st.sampled_from(["gpt-4o", "gpt-4.1"]),
        st.integers(0, 10),
    ),
    min_size=1,
    max_size=25,
)


def _stores(rows: pa.Table) -> list[MemorySpanStore | DuckDbSpanStore]:
    stores: list[MemorySpanStore | DuckDbSpanStore] = [MemorySpanStore(), DuckDbSpanStore(None)]
    for store in stores:
        store.write(rows, batch_id="a")
        settle_tick(store, now=AT, ledger=None)
        store.roll_up(now=AT + timedelta(days=9))
    return stores


def _query(granularity: Granularity, *groups: str, **filters: tuple[str | None, ...]) -> CostQuery:
    return CostQuery(
        tenants=("default",),
        window=DAYS,
        granularity=granularity,
        group_by=groups,
        filters=filters,
        zone="Asia/Kolkata",
    )


def _by_team(table: pa.Table) -> Counter[str | None]:
    sums: Counter[str | None] = Counter()
    for row in table.to_pylist():
        sums[row["team"]] += row["cost_nusd"]
    return sums


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(calls=_calls)
def test_teams_sum_to_the_total_whatever_they_are_grouped_by(
    calls: list[tuple[int, str | None, str, int]], span_rows: Rows
) -> None:
    rows = span_rows(
        *(
            {
                "span_id": number + 1,
                "trace_lo": number + 1,
                "start_time": AT + timedelta(minutes=15 * quarter),
                "team": team,
                "billing_model": model,
                "cost_nusd": cost,
            }
            for number, (quarter, team, model, cost) in enumerate(calls)
        )
    )
    pooled: Counter[tuple[int, str]] = Counter()
    direct: Counter[str | None] = Counter()
    for quarter, team, model, cost in calls:
        if team == POOL:
            pooled[quarter, model] += cost
        else:
            direct[team] += cost
    # By hand, a third and two thirds: of 3n+1 the unit left over is nearer to search's (2/3 of it
    # against 1/3), of 3n+2 nearer to that of ads (2/3 against 1/3).
    for total in pooled.values():
        ads = total // 3 + (1 if total % 3 == 2 else 0)
        direct["ads"] += ads
        direct["search"] += total - ads
    expected = {team: cost for team, cost in direct.items() if cost}
    for store in _stores(rows):
        for query in (
            _query(Granularity.TOTAL, "team"),
            _query(Granularity.DAY, "team"),
            _query(Granularity.HOUR, "team", "model"),
            _query(Granularity.QUARTER_HOUR, "model", "team"),
        ):
            answer = store.costs(query)
            assert expected == {t: c for t, c in _by_team(answer).items() if c}
            assert POOL not in answer["team"].to_pylist()
        only = store.costs(_query(Granularity.TOTAL, "model", team=("ads",)))
        assert expected.get("ads", 0) == (pc.sum(only["cost_nusd"]).as_py() or 0)
        whole = store.costs(_query(Granularity.TOTAL))
        assert sum(cost for *_, cost in calls) == pc.sum(whole["cost_nusd"]).as_py()


def test_what_only_calls_know_shows_the_pool(span_rows: Rows) -> None:
    """Users are not in the cube; the pool stands as it is."""
    rows = span_rows({"team": POOL, "user_id": "bot-1", "start_time": AT})
    for store in _stores(rows):
        answer = store.costs(_query(Granularity.TOTAL, "team", "user"))
        assert [POOL] == answer["team"].to_pylist()


@pytest.mark.parametrize("granularity", [Granularity.TOTAL, Granularity.DAY])
def test_calls_and_tokens_are_divided_like_money(granularity: Granularity, span_rows: Rows) -> None:
    rows = span_rows(
        *({"span_id": n, "trace_lo": n, "team": POOL, "start_time": AT} for n in range(1, 7))
    )
    for store in _stores(rows):
        answer = store.costs(_query(granularity, "team")).to_pylist()
        assert {("ads", 2, 200), ("search", 4, 400)} == {
            (row["team"], row["calls"], row["input_tokens"]) for row in answer
        }
