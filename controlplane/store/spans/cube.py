"""The money cube's SQL fragments, made from the closed list of dimensions."""

from collections.abc import Iterable
from typing import Final

from controlplane.core.money import MAX_NUSD
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.rerate import USAGE_COLUMNS
from controlplane.store.spans.database import read_sql
from controlplane.usage.dimensions import CUBE_DIMENSIONS, MEASURES, Dimension

BOOKED_SQL: Final = read_sql("booked").format(
    usage=", ".join(
        f"coalesce(new_{name}, 0) - coalesce(old_{name}, 0) AS {name}" for name in USAGE_COLUMNS
    )
)
"""Calls and corrections, where they are charged."""
_MEASURE_SQL: Final = {
    "calls": "coalesce(sum(counted), 0)",
    "errors": "count(*) FILTER (status = 'error')",
    "unpriced_calls": "coalesce(sum(counted) FILTER (cost_state = 'unpriced'), 0)",
    "unpriced_tokens": (
        "coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0))"
        " FILTER (cost_state = 'unpriced'), 0)"
    ),
    **{
        name: f"coalesce(sum({name}), 0)"
        for name in ("input_tokens", "cached_input_tokens", "output_tokens", "cost_nusd")
    },
}


def bounded(total: str) -> str:
    """Write a 128-bit sum as BIGINT, stopped at the largest one.

    DuckDB's cast alone would raise there, and one sender's nonsense would end every settlement.
    """
    return f"least({total}, {MAX_NUSD})::BIGINT"


_SUMS: Final = {
    **{name: bounded(_MEASURE_SQL[name]) for name in MEASURES},
    **{name: bounded(f"coalesce(sum({name}), 0)") for name in BUCKET_NAMES},
}


def value_of(dimension: Dimension, *, of_booked: bool = False) -> str:
    """Write the expression of a dimension's value on a call, or on a row of `booked.sql`."""
    if not dimension.columns:
        return dimension.name if of_booked else "NULL::VARCHAR"
    if len(dimension.columns) == 1:
        return dimension.columns[0]
    return f"coalesce({', '.join(dimension.columns)})"


CALL_DIMENSIONS_SQL: Final = ", ".join(
    f"{value_of(d, of_booked=True)} AS {d.name}" for d in CUBE_DIMENSIONS
)
CALL_MEASURES_SQL: Final = ", ".join(f"{sql} AS {name}" for name, sql in _SUMS.items())
"""Of booked rows, all the cube's sums."""


def call_sums(measures: Iterable[str]) -> str:
    """Write, of booked rows, the sums that a cost answer needs."""
    return ", ".join(f"{_SUMS[name]} AS {name}" for name in measures)


def cube_sums(measures: Iterable[str]) -> str:
    """Write the same of cube rows, or of sums."""
    return ", ".join(f"{bounded(f'sum({name})')} AS {name}" for name in measures)
