"""What recorded calls would have cost otherwise: another model, a tier, more cache, a shorter context.

Every call is priced again with its own usage, changed as the scenario says, at its own start and with
the price book as it is. Only calls that have a price before and after are compared; the others are
counted. It is arithmetic on what was used: another model would write longer or shorter answers, and
that is not guessed.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.errors import InvalidInputError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.price import reprice
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.schema import PRICED

MAX_PERMILLE: Final = 1_000
COLUMNS: Final = (
    *("report_kind", "provider", "billing_model", "service_tier", "start_time", "status"),
    *("error_type", "usage_state", "tenant", *BUCKET_NAMES),
    *(field.name for field in PRICED),
)


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different; at least one thing is."""

    provider: str | None = None
    model: str | None = None
    """Every call goes to this model, at `provider` or the call's own."""
    service_tier: str | None = None
    """Every call is served in this tier, e.g. `batch` or `flex`."""
    cache_permille: int | None = None
    """So many thousandths of each call's text input are read from the cache, at least."""
    max_input_tokens: int | None = None
    """Longer inputs are cut to this: first what was not cached."""

    def formula(self) -> list[str]:
        """Say what is computed, line by line."""
        lines = ["moved = sum of (new cost - old cost) over calls that have both"]
        if self.max_input_tokens is not None:
            lines.append(
                f"cut = max(0, input_uncached + cache_read - {self.max_input_tokens}),"
                " from input_uncached first, then from cache_read"
            )
        if self.cache_permille is not None:
            lines.append(
                "cache_read = max(cache_read, floor((input_uncached + cache_read) x"
                f" {self.cache_permille} / 1000)); input_uncached is the rest"
            )
        where = f"{self.provider or 'its provider'}/{self.model or 'its model'}"
        tier = f" in tier {self.service_tier}" if self.service_tier else ""
        lines.append(f"new cost = sum over buckets of round(quantity x rate of {where}{tier})")
        return lines


def check_scenario(scenario: Scenario) -> None:
    """Check what people ask.

    Raises:
        InvalidInputError: nothing is different, or a number out of its range.
    """
    if scenario == Scenario():
        raise InvalidInputError(
            "scenario",
            "changes nothing",
            "Give model, service_tier, cache_permille or max_input_tokens",
        )
    if scenario.cache_permille is not None and not 0 <= scenario.cache_permille <= MAX_PERMILLE:
        raise InvalidInputError("cache_permille", f"{scenario.cache_permille}", "Write 0 to 1000")
    if scenario.max_input_tokens is not None and scenario.max_input_tokens < 0:
        raise InvalidInputError("max_input_tokens", f"{scenario.max_input_tokens}", "0 or more")


class WhatIfGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one tenant and model, as they were and as they would have been."""

    tenant: str
    model: str | None
    calls: int
    old_nusd: int
    new_nusd: int
    not_compared: int
    """Calls without a price before, or after: in neither sum."""


def what_if(batches: Iterable[pa.Table], scenario: Scenario, book: PriceBook) -> list[WhatIfGroup]:
    """Compare calls (tables with COLUMNS but report_kind) with the scenario, dearest group first."""
    sums: dict[tuple[str, str | None], list[int]] = {}
    for table in batches:
        if not table.num_rows:
            continue
        kinds = pa.repeat(pa.scalar("call"), table.num_rows)
        rows = table.append_column("report_kind", kinds).select(COLUMNS)
        new = reprice(changed(rows, scenario), book)
        frame = pl.DataFrame(pl.from_arrow(rows.select(["tenant", "billing_model", "cost_nusd"])))
        frame = frame.with_columns(
            new=pl.Series(new.column("cost_nusd").to_pylist(), dtype=pl.Int64)
        )
        both = pl.col("cost_nusd").is_not_null() & pl.col("new").is_not_null()
        grouped = frame.group_by("tenant", "billing_model").agg(
            both.sum().alias("calls"),
            pl.col("cost_nusd").filter(both).cast(pl.Int128).sum().alias("old"),
            pl.col("new").filter(both).cast(pl.Int128).sum().alias("moved_to"),
            (~both).sum().alias("without"),
        )
        for tenant, model, *values in grouped.iter_rows():
            known = sums.setdefault((tenant, model), [0, 0, 0, 0])
            sums[tenant, model] = [a + int(b) for a, b in zip(known, values, strict=True)]
    groups = [
        WhatIfGroup(
            tenant=tenant, model=model, calls=calls, old_nusd=old, new_nusd=new, not_compared=rest
        )
        for (tenant, model), (calls, old, new, rest) in sums.items()
    ]
    return sorted(groups, key=lambda one: (-one.old_nusd, one.tenant, one.model or ""))


def changed(rows: pa.Table, scenario: Scenario) -> pa.Table:
    """Return the calls as the scenario has them, their prices not yet."""
    frame = pl.DataFrame(pl.from_arrow(rows))
    text = pl.col("input_uncached").fill_null(0) + pl.col("cache_read").fill_null(0)
    known = pl.col("input_uncached").is_not_null() | pl.col("cache_read").is_not_null()
    if scenario.max_input_tokens is not None:
        over = (text - scenario.max_input_tokens).clip(lower_bound=0)
        from_fresh = pl.min_horizontal(over, pl.col("input_uncached").fill_null(0))
        frame = frame.with_columns(
            input_uncached=pl.when(known).then(pl.col("input_uncached").fill_null(0) - from_fresh),
            cache_read=pl.when(known).then(pl.col("cache_read").fill_null(0) - (over - from_fresh)),
        )
    if scenario.cache_permille is not None:
        wanted = (text * scenario.cache_permille) // MAX_PERMILLE
        read = pl.max_horizontal(pl.col("cache_read").fill_null(0), wanted)
        frame = frame.with_columns(
            input_uncached=pl.when(known).then(text - read), cache_read=pl.when(known).then(read)
        )
    named = {
        "provider": scenario.provider,
        "billing_model": scenario.model,
        "service_tier": scenario.service_tier,
    }
    frame = frame.with_columns(
        **{name: pl.lit(value) for name, value in named.items() if value is not None}
    )
    table = frame.to_arrow()
    for number, field in enumerate(rows.schema):
        table = table.set_column(number, field, table.column(field.name).cast(field.type))
    return table
