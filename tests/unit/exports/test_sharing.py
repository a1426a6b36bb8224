"""UX-14: whatever the rule, sharing moves cost and never makes or loses a nano-dollar."""

from datetime import UTC, datetime
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.exports.sharing import (
    SharedRule,
    divide,
    idle_weights_by,
    read_shares,
    weights_by,
)
from controlplane.exports.statement import StatementPlan, statements_of
from controlplane.exports.statement_currency import Cell
from controlplane.exports.statement_lines import IdleCost

TEAMS = ("a", "b", "c", "d", "élan")
NOVEMBER = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
CHARGES = {
    "team": pl.String, "provider": pl.String, "billing_model": pl.String, "bucket": pl.String,
    "period": pl.Int64, "quantity": pl.Int64, "calls": pl.Int64, "cost_nusd": pl.Int64,
}  # fmt: skip
UNPRICED = {
    "team": pl.String, "calls": pl.Int64, "input_tokens": pl.Int64, "output_tokens": pl.Int64,
}  # fmt: skip
costs = st.integers(-(10**6), 10**15)


@given(
    rule=st.sampled_from(SharedRule),
    own=st.dictionaries(st.sampled_from(TEAMS), costs, min_size=1),
    ownerless=costs,
    shares=st.dictionaries(st.sampled_from(TEAMS), st.integers(1, 10**6), min_size=1),
)
def test_the_sum_after_sharing_is_the_sum_before(
    rule: SharedRule, own: dict[str, int], ownerless: int, shares: dict[str, int]
) -> None:
    """To the nano-dollar, of statements as they are written; each part is its weight's, off < 1."""
    rows = [
        (team, "openai", "gpt-4o", "output_text", 0, 1, 1, cost)
        for team, cost in [*own.items(), (None, ownerless)]
    ]
    plan = StatementPlan(
        tenant="acme", by="team", window=NOVEMBER, period="2026-11", zone="UTC",
        shared_rule=rule, shares=shares if rule is SharedRule.FIXED else {},
    )  # fmt: skip
    charges = pl.DataFrame(rows, schema=CHARGES, orient="row")
    made = statements_of(charges, pl.DataFrame(schema=UNPRICED), {}, plan=plan)
    assert sum(own.values()) + ownerless == sum(one.total_nusd for one in made)
    for one in made:
        assert one.total_nusd == sum(line.cost_nusd for line in one.lines)
    if rule is SharedRule.NONE or not ownerless:
        assert [*sorted(own.items()), (None, ownerless)] == [
            (one.owner, one.total_nusd) for one in made
        ]
        return
    after = {one.owner: one.total_nusd for one in made}
    assert 0 == after.pop(None)
    if rule is SharedRule.FIXED:
        assert {*own, *shares} == set(after)
        for team in {*own, *shares}:
            total = after[team]
            exact = Fraction(ownerless * shares.get(team, 0), sum(shares.values()))
            assert abs(total - own.get(team, 0) - exact) < 1


@given(
    rules=st.tuples(st.sampled_from(SharedRule), st.sampled_from(SharedRule)),
    own=st.dictionaries(st.sampled_from((*TEAMS, None)), costs, min_size=1),
    pools=st.lists(
        st.tuples(
            st.integers(0, 10**13), st.dictionaries(st.sampled_from(TEAMS), st.integers(0, 10**12))
        ),
        min_size=1,
        max_size=3,
    ),
    shares=st.dictionaries(st.sampled_from(TEAMS), st.integers(1, 10**6), min_size=1),
)
def test_idle_time_is_a_row_of_its_own_and_divided_by_its_own_rule(
    rules: tuple[SharedRule, SharedRule],
    own: dict[str | None, int],
    pools: list[tuple[int, dict[str, int]]],
    shares: dict[str, int],
) -> None:
    """UX-14: the sum with idle time is the same before and after, and each part is its weight's, off < 1 a pool."""
    rows = [(*(o, "openai", "gpt-4o", "output_text", 0, 1, 1), cost) for o, cost in own.items()]
    shared, rule = rules
    plan = StatementPlan(
        tenant="acme", by="team", window=NOVEMBER, period="2026-11", zone="UTC",
        shared_rule=shared, shares=shares if shared is SharedRule.FIXED else {},
        idle_rule=rule, idle_shares=shares if rule is SharedRule.FIXED else {},
    )  # fmt: skip
    day = NOVEMBER.start.date()
    idle = [
        IdleCost(pool=f"p{n}", slice="", cells=(Cell(day, 4, 0, cost, 0),), users=users)
        for n, (cost, users) in enumerate(pools)
    ]
    charges = pl.DataFrame(rows, schema=CHARGES, orient="row")
    made = statements_of(charges, pl.DataFrame(schema=UNPRICED), {}, idle=idle, plan=plan)
    assert sum(own.values()) + sum(cost for cost, _ in pools) == sum(one.total_nusd for one in made)
    ownerless = next(one for one in made if one.owner is None)
    said = [
        (line.model, line.quantity, line.cost_nusd)
        for line in ownerless.lines
        if line.meter == "Idle GPU time, quarters of an hour"
    ]
    assert [(f"p{n}", 4, cost) for n, (cost, _) in enumerate(pools)] == said
    owners = {owner for owner, cost in own.items() if owner is not None and cost}
    exact: dict[str, Fraction] = {}
    for cost, users in pools:
        weights = {
            SharedRule.NONE: {},
            SharedRule.EVEN: dict.fromkeys(owners, 1),
            SharedRule.PROPORTIONAL: users,
            SharedRule.FIXED: shares,
        }[rule]
        for team, weight in weights.items():
            part = Fraction(cost * weight, sum(weights.values()) or 1)
            exact[team] = exact.get(team, Fraction()) + part
    for one in made:
        parts = [x.cost_nusd for x in one.lines if x.is_shared and x.model.startswith("Idle")]
        if one.owner is not None:
            assert abs(sum(parts) - exact.get(one.owner, Fraction())) < len(pools)


def test_a_pool_that_nobody_used_is_divided_by_no_use() -> None:
    """Proportional: 10 by 3 and 1 is 8 and 2 (7.5 and 2.5: equal remainders, the first by name)."""
    rule = SharedRule.PROPORTIONAL
    assert {} == idle_weights_by(rule, {"a": 5, "b": 5}, {}, users={"a": 0})
    used = idle_weights_by(rule, {"a": 1, "b": 9}, {}, users={"b": 1, "a": 3})
    assert {"a": 8, "b": 2, None: -10} == divide(10, used)


def test_what_is_left_over_goes_to_the_largest_remainder_then_by_name() -> None:
    """10 by 1:1:1 is 3 each and one left, for the first by name; 11 by 1:2 leaves it to 2/3."""
    even = weights_by(SharedRule.FIXED, {}, {"c": 1, "a": 1, "b": 1})
    assert {"a": 4, "b": 3, "c": 3, None: -10} == divide(10, even)
    assert {"a": 4, "b": 7, None: -11} == divide(11, {"a": 1, "b": 2})


def test_weights_are_read_from_text() -> None:
    """A name may hold `=` itself."""
    assert {"search": 3, "a=b": 1} == read_shares(["search=3", "a=b=1"])
    for wrong in (["search"], ["=3"], ["search=-1"], ["search=1.5"], ["search=1", "search=2"]):
        with pytest.raises(InvalidInputError, match="share"):
            read_shares(wrong)
