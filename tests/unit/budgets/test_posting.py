"""Which calls a budget counts: the columnar reading of selectors is the agent's reading."""

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import msgspec
import polars as pl
from hypothesis import given

from controlplane.budgets.budget import Budget
from controlplane.budgets.posting import MODEL_COLUMNS, counted, counted_with_children
from controlplane.core.calendar import Period
from controlplane.policy.match import matches

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
KEYS = ("team", "environment", "provider", "model")
VALUES = ("", "a", "ab", "abc", "b", "b*", "é", None)
PATTERNS = ("a", "ab", "a*", "ab*", "*", "b*", "é*", "none")

rows = st.lists(
    st.fixed_dictionaries(
        {
            **{key: st.sampled_from(VALUES) for key in KEYS[:3]},
            **{key: st.sampled_from(VALUES) for key in MODEL_COLUMNS},
            "tenant": st.sampled_from(["acme", "globex"]),
            "start_time": st.sampled_from([NOW - timedelta(microseconds=1), NOW]),
        }
    ),
    min_size=1,
    max_size=20,
)
selectors = st.dictionaries(
    st.sampled_from(KEYS),
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3).map(tuple),
    max_size=4,
)


@given(rows, selectors)
def test_columnar_selectors_agree_with_the_agents(
    calls: list[dict[str, object]], match: dict[str, tuple[str, ...]]
) -> None:
    """Row by row with `policy.match`; the model is any of the names a call has."""
    budget = Budget(
        id="b",
        name="b",
        owner="o",
        tenant="acme",
        limit_nusd=1,
        period=Period.DAY,
        counts_from=NOW,
        match=match,
    )
    names = [*KEYS[:3], *MODEL_COLUMNS, "tenant"]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        **dict.fromkeys(names, pl.String()),
        "start_time": pl.Datetime("us", "UTC"),
    }
    frame = pl.DataFrame(calls, schema=schema).with_row_index("row")
    expected = [
        number
        for number, call in enumerate(calls)
        if call["tenant"] == "acme"
        and call["start_time"] == NOW
        and any(
            matches(
                match,
                {
                    **{key: str(call[key]) for key in KEYS[:3] if call[key] is not None},
                    **({} if call[name] is None else {"model": str(call[name])}),
                },
            )
            for name in MODEL_COLUMNS
        )
    ]
    assert expected == counted(frame, budget)["row"].to_list()


def test_a_parent_counts_what_its_children_count() -> None:
    """Each call once, whatever the parent's own selectors say; from the parent's start on."""

    def budget(name: str, **fields: object) -> Budget:
        plain: dict[str, object] = {
            "id": name,
            "name": name,
            "owner": "o",
            "tenant": "acme",
            "limit_nusd": 1,
            "period": Period.DAY,
            "counts_from": NOW,
        }
        return msgspec.convert({**plain, **fields}, Budget)

    top = budget("top", match={"team": ["z"]})
    left = budget("left", parent="top", match={"team": ["a"]})
    right = budget("right", parent="left", match={"environment": ["p"]})
    early = NOW - timedelta(microseconds=1)
    calls = [
        ("a", "p", NOW),
        ("a", None, NOW),
        (None, "p", NOW),
        ("z", None, NOW),
        ("b", None, NOW),
        ("a", "p", early),
    ]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        **dict.fromkeys(("tenant", "team", "environment"), pl.String()),
        "start_time": pl.Datetime("us", "UTC"),
    }
    frame = pl.DataFrame([("acme", *call) for call in calls], schema=schema, orient="row")
    family = [top, left, right]
    assert [4, 3, 2] == [counted_with_children(frame, one, family).height for one in family]
