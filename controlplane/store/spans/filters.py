"""Dimension filters as SQL with bound values."""

from collections.abc import Iterable
from typing import Any

from controlplane.store.spans.cube import value_of
from controlplane.usage.dimensions import Dimension


def filter_sql(
    filters: Iterable[tuple[Dimension, tuple[str | None, ...]]],
    parameters: dict[str, Any],
    *,
    of_cube: bool = False,
    of_booked: bool = False,
) -> str:
    """Write ` AND …` conditions and put their values into `parameters`; None is unattributed."""
    text = ""
    for dimension, values in filters:
        column = dimension.name if of_cube else value_of(dimension, of_booked=of_booked)
        name = f"only_{dimension.name}"
        parameters[name] = [value for value in values if value is not None]
        condition = f"{column} = ANY(${name})"
        if None in values:
            condition = f"({condition} OR {column} IS NULL)"
        text += f" AND {condition}"
    return text
