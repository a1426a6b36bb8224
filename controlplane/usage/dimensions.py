"""The closed list of what cost can be grouped and filtered by, and which grid answers it."""

from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.core.errors import InvalidInputError

BUCKET_MINUTES: Final = 15
"""Width of the money cube's bucket: every IANA zone's hours and days are whole multiples of it."""

MAX_SCAN_DAYS: Final = 31
"""A dimension outside the cube is answered from calls, over at most this many days."""


class Dimension(msgspec.Struct, frozen=True):
    """One dimension; `columns` are the call's columns, the first that is not NULL is its value.

    One without columns is of corrections only.
    """

    name: str
    columns: tuple[str, ...]
    in_cube: bool = True

    def value_of(self, call: Mapping[str, str | None]) -> str | None:
        """Read the dimension of one call; None is unattributed."""
        return next((call[c] for c in self.columns if call[c] is not None), None)


DIMENSIONS: Final[tuple[Dimension, ...]] = (
    Dimension("tenant", ("tenant",)),
    Dimension("team", ("team",)),
    Dimension("project", ("project",)),
    Dimension("feature", ("feature",)),
    Dimension("customer", ("customer",)),
    Dimension("api_key", ("api_key",)),
    Dimension("environment", ("environment",)),
    Dimension("region", ("region",)),
    Dimension("provider", ("provider",)),
    Dimension("model", ("billing_model", "response_model", "request_model")),
    Dimension("operation", ("operation",)),
    Dimension("status", ("status",)),
    Dimension("cost_state", ("cost_state",)),
    Dimension("price_id", ("price_id",)),
    Dimension("corrects", ()),
    Dimension("user", ("user_id",), in_cube=False),
    Dimension("service", ("service_name",), in_cube=False),
    Dimension("dialect", ("dialect",), in_cube=False),
    Dimension("error_type", ("error_type",), in_cube=False),
    Dimension("cost_reason", ("cost_reason",), in_cube=False),
    Dimension("request_model", ("request_model",), in_cube=False),
)
"""Users are too many for the cube (algorithms I8).

`corrects` is the day (`YYYY-MM-DD`) of a closed period that a correction is about; a call has none.
"""

CALLS_ONLY: Final[dict[str, tuple[str | None, ...]]] = {"corrects": (None,)}
"""The filter that leaves corrections out, for who asks what is being spent at present."""

BY_NAME: Final = {dimension.name: dimension for dimension in DIMENSIONS}
CUBE_DIMENSIONS: Final = tuple(d for d in DIMENSIONS if d.in_cube)

MEASURES: Final = (
    "calls",
    "errors",
    "unpriced_calls",
    "unpriced_tokens",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cost_nusd",
)
"""What `SpanReader.costs` answers per group, all int64."""


def dimension(name: str, *, field: str = "group_by") -> Dimension:
    """Look a dimension up.

    Raises:
        InvalidInputError: there is no such dimension; the fix lists those there are.
    """
    found = BY_NAME.get(name)
    if found is None:
        raise InvalidInputError(
            field, f"no dimension {name!r}", "Use one of " + ", ".join(sorted(BY_NAME))
        )
    return found
