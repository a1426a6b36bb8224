"""Re-rating: what calls of a window cost at another version of the price book.

A re-rate gives reports the prices of the chosen version, and calls follow from reports as they always
do; what changed is kept, call by call, as adjustments. Once applied the window is *pinned* to the
version: what arrives late for it is priced the same way, so the order of arrival does not matter.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.signals.schema import CALL_SCHEMA

LATE: Final = "late"
"""In the place of a re-rate's id: a correction that a late report made."""

ADJUSTED_COLUMNS: Final = (
    *("call_id", "start_time", "enforced", "tenant", "team", "project", "feature", "customer"),
    *("user_id", "api_key", "environment", "region", "provider", "operation", "request_model"),
    *("response_model", "billing_model"),
)
"""Of a call what an adjustment keeps: what budgets select by and reports group by."""

OWNED_BY: Final = tuple(
    name for name in ADJUSTED_COLUMNS if name not in {"call_id", "start_time", "enforced"}
)
"""Whose money it is and for what: a call that changes one of these moves from there to here."""

PRICE_COLUMNS: Final = ("cost_nusd", "cost_state", "cost_reason", "price_id")
USAGE_COLUMNS: Final = ("input_tokens", "cached_input_tokens", "output_tokens", *BUCKET_NAMES)
"""Totals as reported, and every bucket."""
_FIELDS: Final = [
    *(CALL_SCHEMA.field(name) for name in ADJUSTED_COLUMNS),
    *(
        pa.field(f"{age}_{name}", CALL_SCHEMA.field(name).type)
        for age in ("old", "new")
        for name in PRICE_COLUMNS
    ),
]
ADJUSTMENT_SCHEMA: Final = pa.schema(
    [*_FIELDS, pa.field("is_correction", pa.bool_(), nullable=False)]
)
"""One call whose price changed; NULL old or new columns where it did not exist before or after."""
CORRECTED_SCHEMA: Final = pa.schema(
    [
        *ADJUSTMENT_SCHEMA,
        *(
            pa.field(f"{age}_{name}", pa.int64())
            for age in ("old", "new")
            for name in USAGE_COLUMNS
        ),
    ]
)
"""The same of a closed call, with all its usage before and after."""


class RerateOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to re-rate: a window of call starts, of some tenants or all, at a price version."""

    run_id: str
    window: Window
    price_version: str
    tenants: tuple[str, ...] = ()
    """Empty is every tenant."""
    closed_before: datetime | None = None
    """Periods before this instant are closed: their calls stay, corrections are booked now."""
    zone: str = "UTC"
    """Of the calendar that closes periods: a correction names a day of it."""


class RerateGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one tenant and model whose price changed."""

    tenant: str
    model: str | None
    calls: int
    old_nusd: int
    new_nusd: int
    newly_priced: int
    """Calls that had no price before."""

    @property
    def moved_nusd(self) -> int:
        """Dollars moved: new minus old."""
        return self.new_nusd - self.old_nusd


def group_adjustments(adjustments: Iterable[pa.Table]) -> list[RerateGroup]:
    """Sum adjustments by tenant and model, largest movement first; sums are exact in 128 bits."""
    totals: dict[tuple[str, str | None], list[int]] = {}
    for table in adjustments:
        frame = pl.DataFrame(pl.from_arrow(table))
        model = pl.coalesce("billing_model", "response_model", "request_model")
        sums = frame.group_by("tenant", model.alias("model")).agg(
            pl.len().alias("calls"),
            pl.col("old_cost_nusd").cast(pl.Int128).sum().alias("old"),
            pl.col("new_cost_nusd").cast(pl.Int128).sum().alias("new"),
            (pl.col("old_cost_nusd").is_null() & pl.col("new_cost_nusd").is_not_null())
            .sum()
            .alias("newly"),
        )
        for tenant, name, *values in sums.iter_rows():
            known = totals.setdefault((tenant, name), [0, 0, 0, 0])
            totals[tenant, name] = [a + int(b) for a, b in zip(known, values, strict=True)]
    groups = [
        RerateGroup(
            tenant=tenant, model=name, calls=calls, old_nusd=old, new_nusd=new, newly_priced=newly
        )
        for (tenant, name), (calls, old, new, newly) in totals.items()
    ]
    groups.sort(key=lambda one: (-abs(one.moved_nusd), one.tenant, one.model or ""))
    return groups


class RunState(StrEnum):
    """How far a re-rate that was asked for has come; `to_apply` and `applied` pin its window."""

    TO_PREVIEW = "to_preview"
    PREVIEWED = "previewed"
    TO_APPLY = "to_apply"
    APPLIED = "applied"
    FAILED = "failed"


PINNING: Final = (RunState.TO_APPLY, RunState.APPLIED)


class RerateRun(msgspec.Struct, frozen=True, kw_only=True):
    """A re-rate as it was asked for, and what came of it."""

    id: str
    state: RunState
    window_start: datetime
    window_end: datetime
    tenants: tuple[str, ...]
    price_version: int
    asked_by: str
    asked_at: datetime
    done_at: datetime | None = None
    report: str | None = None
    """The report as JSON, or why it failed."""


class RerateRuns(Protocol):
    """Where runs are kept."""

    def add(self, run: RerateRun) -> None:
        """Keep a new run.

        Raises:
            ConflictError: there is one of that id.
        """
        ...

    def get(self, run_id: str) -> RerateRun:
        """Return a run.

        Raises:
            NotFoundError: there is none of that id.
        """
        ...

    def runs(self, *, states: Sequence[RunState] = (), limit: int = 100) -> list[RerateRun]:
        """Return runs of these states or all, newest first."""
        ...

    def done(self, run_id: str, *, state: RunState, report: str, now: datetime) -> None:
        """Note what came of a run."""
        ...
