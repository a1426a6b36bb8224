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
from controlplane.pricing.price_book import PriceBook, tier_stands_in
from controlplane.signals.schema import PRICED

MAX_PERMILLE: Final = 1_000
MAX_TOKENS_PERMILLE: Final = 10_000
TEXT_BUCKETS: Final = (
    *("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h"),
    *("output_text", "output_reasoning"),
)
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
    tokens_permille: int | None = None
    """So many thousandths as many text tokens, each quantity rounded half up: another tokenizer."""

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
        if self.tokens_permille is not None:
            lines.append(
                f"tokens = floor((tokens x {self.tokens_permille} + 500) / 1000), of every text"
                " bucket, after the changes above"
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
            "Give model, service_tier, cache_permille, max_input_tokens or tokens_permille",
        )
    if scenario.cache_permille is not None and not 0 <= scenario.cache_permille <= MAX_PERMILLE:
        raise InvalidInputError("cache_permille", f"{scenario.cache_permille}", "Write 0 to 1000")
    if scenario.max_input_tokens is not None and scenario.max_input_tokens < 0:
        raise InvalidInputError("max_input_tokens", f"{scenario.max_input_tokens}", "0 or more")
    tokens = scenario.tokens_permille
    if tokens is not None and not 1 <= tokens <= MAX_TOKENS_PERMILLE:
        raise InvalidInputError("tokens_permille", f"{tokens}", f"1 to {MAX_TOKENS_PERMILLE}")


class WhatIfGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one tenant, model and feature, as they were and as they would have been."""

    tenant: str = ""
    model: str | None = None
    feature: str | None = None
    calls: int
    old_nusd: int
    new_nusd: int
    not_compared: int
    """Calls without a price before, or after: in neither sum."""


KEYS: Final = ("tenant", "model", "feature")
_SUMMED: Final = ("calls", "old_nusd", "new_nusd", "not_compared")


def what_if(
    batches: Iterable[pa.Table],
    scenario: Scenario,
    book: PriceBook,
    *,
    by: tuple[str, ...] = ("tenant", "model"),
) -> list[WhatIfGroup]:
    """Compare calls (tables with COLUMNS but report_kind, and feature) with the scenario.

    Grouped `by` some of KEYS, dearest group first. A call whose new price has no rate for what the
    scenario asks (its tier, cached reads), so that another rate stands in, is not compared.
    """
    sums: dict[tuple[str | None, ...], list[int]] = {}
    for table in batches:
        if not table.num_rows:
            continue
        kinds = pa.repeat(pa.scalar("call"), table.num_rows)
        rows = table.append_column("report_kind", kinds).select(COLUMNS)
        new = reprice(changed(rows, scenario), book)
        frame = pl.DataFrame(
            pl.from_arrow(table.select(["tenant", "billing_model", "feature", "cost_nusd"]))
        ).rename({"billing_model": "model"})
        frame = frame.with_columns(
            new=pl.Series(new.column("cost_nusd").to_pylist(), dtype=pl.Int64),
            tells=pl.Series(_tells(new, scenario, book), dtype=pl.Boolean),
        )
        both = pl.col("cost_nusd").is_not_null() & pl.col("new").is_not_null() & pl.col("tells")
        grouped = frame.group_by(by).agg(
            both.sum().alias("calls"),
            pl.col("cost_nusd").filter(both).cast(pl.Int128).sum().alias("old"),
            pl.col("new").filter(both).cast(pl.Int128).sum().alias("moved_to"),
            (~both).sum().alias("without"),
        )
        for row in grouped.iter_rows():
            key, values = row[: len(by)], row[len(by) :]
            known = sums.setdefault(key, [0] * len(_SUMMED))
            sums[key] = [a + int(b) for a, b in zip(known, values, strict=True)]
    return _sorted(sums, by)


def merged(groups: Iterable[WhatIfGroup], by: tuple[str, ...]) -> list[WhatIfGroup]:
    """Sum groups over the keys that are not in `by`, dearest first."""
    sums: dict[tuple[str | None, ...], list[int]] = {}
    for one in groups:
        key = tuple(getattr(one, name) for name in by)
        known = sums.setdefault(key, [0] * len(_SUMMED))
        sums[key] = [a + getattr(one, name) for a, name in zip(known, _SUMMED, strict=True)]
    return _sorted(sums, by)


def _sorted(
    sums: dict[tuple[str | None, ...], list[int]], by: tuple[str, ...]
) -> list[WhatIfGroup]:
    named: list[dict[str, str | int | None]] = [
        {**dict(zip(by, key, strict=True)), **dict(zip(_SUMMED, values, strict=True))}
        for key, values in sums.items()
    ]
    groups = [msgspec.convert(each, WhatIfGroup) for each in named]
    return sorted(
        groups, key=lambda one: (-one.old_nusd, one.tenant, one.model or "", one.feature or "")
    )


def _tells(new: pa.Table, scenario: Scenario, book: PriceBook) -> list[bool]:
    """Say of each call whether its new price has rates for what the scenario asks."""
    names = ("provider", "billing_model", "price_id", "cost_reason")
    rows = zip(*(new.column(name).to_pylist() for name in names), strict=True)
    told: dict[tuple[str | None, ...], bool] = {}
    return [
        told[row] if row in told else told.setdefault(row, _tells_one(row, scenario, book))
        for row in rows
    ]


def _tells_one(row: tuple[str | None, ...], scenario: Scenario, book: PriceBook) -> bool:
    provider, model, price_id, reason = row
    if scenario.cache_permille is not None and reason == "no_own_rate:cache_read":
        return False
    if scenario.service_tier is None or price_id is None:
        return True
    found = book.row_of(provider, model, price_id)
    return found is None or not tier_stands_in(found, scenario.service_tier)


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
    if scenario.tokens_permille is not None:
        frame = frame.with_columns(
            (pl.col(name) * scenario.tokens_permille + MAX_PERMILLE // 2) // MAX_PERMILLE
            for name in TEXT_BUCKETS
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
