"""Committed spend: its periods, the call in which it runs out, and what of that call is covered."""

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.calendar import Window
from controlplane.exports.charges import split_items
from controlplane.pricing.commitments import (
    Boundary,
    Drawdown,
    boundary_in,
    commitment_periods,
    is_priced_by,
    mark,
)
from controlplane.pricing.contracts import Contract

NOV = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = Window(NOV, datetime(2026, 12, 1, tzinfo=UTC))
SCHEMA: dict[str, Any] = {
    "start_time": pl.Datetime("us", "UTC"),
    "call_id": pl.String,
    "price_id": pl.String,
    "cost_nusd": pl.Int64,
}


def contract(**said: Any) -> Contract:
    return Contract(**{"id": "c1", "provider": "openai", "commitment_usd": "1", **said})


def days(one: Contract, start: date, end: date) -> list[tuple[str, str]]:
    span = Window(*(datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (start, end)))
    return [
        (f"{period.start:%Y-%m-%d}", f"{period.end:%Y-%m-%d}")
        for period in commitment_periods(one, span)
    ]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [("2026-10-01", "2026-11-01"), ("2026-11-01", "2026-12-01")]),
        ({"commitment_period": "quarter"}, [("2026-10-01", "2027-01-01")]),
        ({"commitment_period": "year"}, [("2026-01-01", "2027-01-01")]),
        # counted from the first day; the 31st is the last day of a shorter month
        (
            {"valid_from": date(2026, 8, 31)},
            [("2026-09-30", "2026-10-31"), ("2026-10-31", "2026-11-30")],
        ),
        # nothing before the first day, and the last period ends with the contract
        (
            {"valid_from": date(2026, 11, 10), "valid_to": date(2026, 11, 20)},
            [("2026-11-10", "2026-11-20")],
        ),
        ({"valid_to": date(2026, 10, 1)}, []),
    ],
)
def test_periods_are_counted_from_the_contracts_first_day(
    said: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = days(contract(**said), date(2026, 10, 15), date(2026, 11, 25))
    assert expected == found


def test_periods_tile_time() -> None:
    found = days(contract(valid_from=date(2024, 1, 31)), date(2024, 1, 31), date(2027, 1, 1))
    assert "2024-01-31" == found[0][0]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    assert 36 == len(found)


@pytest.mark.parametrize(
    ("price_id", "expected"),
    [
        ("seed@1/openai/gpt-4o/base*c1@0a1b", True),
        ("seed@1/openai/gpt-4o/base*c1@ffff", True),
        ("seed@1/openai/gpt-4o/base*c11@0a1b", False),
        ("seed@1/openai/gpt-4o/base", False),
        ("c1@0a1b", False),
        ("override/openai/c1*x@1", False),
    ],
)
def test_a_price_names_its_contract(price_id: str, expected: bool) -> None:  # noqa: FBT001 - data
    """The Python reading and the columnar one are the same."""
    assert expected == is_priced_by(price_id, "c1")
    calls = pl.DataFrame([(NOV, "a", price_id, 1)], schema=SCHEMA, orient="row")
    one = Drawdown(contract=contract(), period=PERIOD, amount_nusd=1, used_nusd=1, calls=1)
    assert expected == (mark(calls, [one])["commitment"][0] == "c1")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=12),
    st.integers(1, 120),
)
def test_what_is_covered_is_the_amount_to_the_nano_dollar(
    drawn: list[tuple[int, int]], amount: int
) -> None:
    """Against a count by hand, one call after the other by (start, id); equal starts included."""
    calls = sorted(
        (NOV + timedelta(seconds=second), f"call_{n:02d}", cost)
        for n, (second, cost) in enumerate(drawn)
    )
    left, expected = amount, {}
    for _, call_id, cost in calls:
        expected[call_id] = min(left, cost)
        left -= expected[call_id]
    frame = pl.DataFrame([(*call[:2], "p*c1@x", call[2]) for call in calls],
                         schema=SCHEMA, orient="row")  # fmt: skip
    one = Drawdown(
        contract=contract(),
        period=PERIOD,
        amount_nusd=amount,
        used_nusd=sum(call[2] for call in calls),
        calls=len(calls),
        boundary=boundary_in(calls, before_nusd=0, amount_nusd=amount),
    )
    found = {
        row["call_id"]: (row["covered_nusd"] if row["covered_nusd"] is not None
                         else row["cost_nusd"] if row["commitment"] else 0)
        for row in mark(frame, [one]).iter_rows(named=True)
    }  # fmt: skip
    assert expected == found
    assert one.drawn_nusd == sum(expected.values())
    assert one.left_nusd == left
    assert one.amount_nusd + one.overage_nusd == max(one.used_nusd, amount)


def test_periods_have_a_boundary_each() -> None:
    """A call at the end of one period belongs to the next."""
    second = Window(PERIOD.end, PERIOD.end + timedelta(days=31))
    calls = pl.DataFrame(
        [(PERIOD.end - timedelta(seconds=1), "a", "p*c1@x", 5), (PERIOD.end, "b", "p*c1@x", 5)],
        schema=SCHEMA,
        orient="row",
    )
    said: dict[str, Any] = {"contract": contract(), "amount_nusd": 5, "used_nusd": 5, "calls": 1}
    ran_out = Boundary(PERIOD.start, "x", 0)
    found = mark(
        calls,
        [Drawdown(period=PERIOD, boundary=ran_out, **said), Drawdown(period=second, **said)],
    )
    assert [None, "c1"] == found["commitment"].to_list()


def test_the_item_in_which_it_ran_out_is_split_into_whole_units() -> None:
    """2 and 3 nano-dollars a token; 100 of 260 are covered: 80 of the first, 20 of the second."""
    items = pl.DataFrame(
        {
            "row": [0, 0],
            "bucket": ["input_uncached", "output_text"],
            "quantity": [40, 60],
            "cost_nusd": [80, 180],
            "rate_numerator": [2, 3],
            "rate_denominator": [1, 1],
            "commitment": ["c1", "c1"],
            "covered_nusd": [100, 100],
        }
    )
    found = split_items(items).select("bucket", "quantity", "cost_nusd", "commitment").rows()
    assert [
        ("input_uncached", 40, 80, "c1"),
        ("output_text", 6, 20, "c1"),  # six tokens are 18; the rest of a token is in the cost
        ("output_text", 54, 160, None),
    ] == found
