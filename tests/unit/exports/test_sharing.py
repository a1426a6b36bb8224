"""UX-14: whatever the rule, sharing moves cost and never makes or loses a nano-dollar."""

from datetime import UTC, datetime
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.exports.sharing import SharedRule, divide, read_shares, weights_by
from controlplane.exports.statement import StatementPlan, statements_of

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
