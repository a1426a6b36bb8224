"""The SQL of corrections, written from the columns that one has: whose it is, what it cost and used.

What was booked of a call last is its newest correction; a posting that moved a call from one owner
to another has two rows, of which the one with a cost state is what is booked now.
"""

from collections.abc import Iterable
from typing import Final

from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.rerate import (
    ADJUSTED_COLUMNS,
    OWNED_BY,
    PRICE_COLUMNS,
    USAGE_COLUMNS,
)
from controlplane.signals.schema import CORRECTION_SIDE_SCHEMA
from controlplane.store.spans.database import read_sql

_COLUMNS: Final = ", ".join(ADJUSTED_COLUMNS)
_SIDE: Final = ("cost_nusd", "cost_reason", "input_tokens", "output_tokens", *BUCKET_NAMES)
_WHOLE: Final = ", ".join((*ADJUSTED_COLUMNS, *PRICE_COLUMNS, *USAGE_COLUMNS))


def _each(names: Iterable[str], text: str) -> str:
    return ", ".join(text.format(name=name) for name in names)


def _side(age: str, table: str) -> str:
    """Write a call's cost and usage as the old or the new side of a correction."""
    return ", ".join(
        [
            _each(PRICE_COLUMNS, f"{table}.{{name}} AS {age}_{{name}}"),
            _each(USAGE_COLUMNS, f"coalesce({table}.{{name}}, 0) AS {age}_{{name}}"),
        ]
    )


_LAST_BOOKED: Final = read_sql("last_booked").format(
    columns=_COLUMNS,
    # Of usage what was said last: a re-rate from before every correction said it says nothing.
    usage=_each(
        USAGE_COLUMNS,
        "arg_max(new_{name}, posting) OVER (PARTITION BY call_id) AS {name}",
    ),
)
LATE_CORRECTIONS: Final = read_sql("late_corrections").format(
    whole=_WHOLE,
    last_booked=_LAST_BOOKED,
    columns=_each(ADJUSTED_COLUMNS, "corrected.{name} AS {name}"),
    price=_each(PRICE_COLUMNS, "corrected.{name} AS {name}"),
    usage=_each(USAGE_COLUMNS, "coalesce(corrected.{name}, stored.{name}) AS {name}"),
    owner_was=_each(OWNED_BY, "was.{name}"),
    owner_now=_each(OWNED_BY, "now.{name}"),
    of_was=_each(ADJUSTED_COLUMNS, "was.{name} AS {name}"),
    of_now=_each(ADJUSTED_COLUMNS, "now.{name} AS {name}"),
    of_either=_each(ADJUSTED_COLUMNS, "if(is_there, now.{name}, was.{name}) AS {name}"),
    old_was=_side("old", "was"),
    new_now=_side("new", "now"),
    old_said=_side("old", "was"),
    new_said=_side("new", "now"),
    amounts_was="was.cost_nusd, " + _each(USAGE_COLUMNS, "coalesce(was.{name}, 0)"),
    amounts_now="now.cost_nusd, " + _each(USAGE_COLUMNS, "coalesce(now.{name}, 0)"),
)
"""Parameters start and end: `end` is where what is closed ends."""
CORRECTIONS: Final = read_sql("corrections").format(
    moved=_each(
        BUCKET_NAMES,
        "sum(coalesce(new_{name}, 0)::HUGEINT - coalesce(old_{name}, 0))::BIGINT AS {name}",
    )
)


def _sides(at: str) -> str:
    return read_sql("correction_sides").format(
        at=at,
        columns=", ".join(
            {"price_id": "booked_price_id AS price_id"}.get(name, name)
            for name in CORRECTION_SIDE_SCHEMA.names
        ),
        **{
            age: _each(_SIDE, f"{age}_{{name}} AS {{name}}") + f", {age}_price_id AS side_price_id"
            for age in ("old", "new")
        },
    )


CORRECTION_SIDES: Final = _sides("applied_at")
"""Parameters: tenants, start and end of when it was booked."""
SIDES_OF_CALLS: Final = _sides("start_time")
"""The same of when the calls were."""
DUE_CORRECTIONS: Final = read_sql("due_corrections").format(
    whole=_WHOLE,
    columns=_COLUMNS,
    last_booked=_LAST_BOOKED,
    owned="rated.call_id AS call_id, rated.start_time AS start_time, "
    + _each(
        ("enforced", *OWNED_BY),
        "if(corrected.call_id IS NULL, rated.{name}, corrected.{name}) AS {name}",
    ),
    old_price=_each(
        PRICE_COLUMNS,
        "if(corrected.call_id IS NULL, rated.old_{name}, corrected.{name}) AS old_{name}",
    ),
    new_price=_each(PRICE_COLUMNS, "rated.new_{name} AS new_{name}"),
    old_usage=_each(USAGE_COLUMNS, "coalesce(corrected.{name}, stored.{name}, 0) AS old_{name}"),
    new_usage=_each(USAGE_COLUMNS, "coalesce(corrected.{name}, stored.{name}, 0) AS new_{name}"),
)
"""Parameters start, end and tenants."""
