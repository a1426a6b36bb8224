"""What the provider's prompt cache saved, and what it cost to fill it.

Of every call: read saving = cached tokens at the price of uncached input, less what they cost as
cached reads; write premium = written tokens at the price of their time to live, less their price
as uncached input; net = read saving - write premium, below zero where a cache is filled and not
read. Rates are those of the price that made the call's stored cost (tier, hours, contract), each
line item rounded once as the ledger rounds it: cost + net is what the ledger would hold without a
cache. A call that used the cache but whose price is gone, or has no rate of its own for one of the
quantities, is unknown: counted, and in neither sum.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, TypeGuard

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from controlplane.core.money import MAX_NUSD
from controlplane.core.tokens import INPUT_BUCKETS
from controlplane.pricing.itemize import priced_tiers
from controlplane.pricing.price import by_book, line_items
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rates import Rate, Tier
from controlplane.signals.vocabulary import GATEWAY_CACHE, UsageState

Integers = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]
READS: Final = {"cache_read": "input_uncached", "cache_read_audio": "input_audio"}
"""Bucket of cached reads to the bucket that the tokens would be in without a cache."""
WRITES: Final = {"cache_write_5m": "input_uncached", "cache_write_1h": "input_uncached"}
_SAVING: Final = (
    "read saving = sum over calls of round(cached tokens x rate of uncached input)"
    " - round(cached tokens x rate of a cached read)"
)
_PREMIUM: Final = (
    "write premium = sum over calls of round(written tokens x rate of a cache write of their time"
    " to live) - round(written tokens x rate of uncached input)"
)
FORMULA: Final = (_SAVING, _PREMIUM, "net = read saving - write premium")
_SUMMED: Final = (
    *("calls", "hit_calls", "input_tokens", "read_tokens", "write_tokens"),
    *("read_saving_nusd", "write_premium_nusd", "known_calls", "unknown_calls", "unknown_tokens"),
    *("calls_without_usage", "gateway_answers"),
)
Key: TypeAlias = tuple[str | None, ...]


class CacheFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A group of calls, or all of them."""

    key: Key = ()
    calls: int = 0
    """Calls with known input: what hit rates are of."""
    hit_calls: int = 0
    """Those of them that read something from the cache."""
    input_tokens: int = 0
    read_tokens: int = 0
    write_tokens: int = 0
    read_saving_nusd: int = 0
    write_premium_nusd: int = 0
    known_calls: int = 0
    """Calls that used the cache and are in the sums of money."""
    unknown_calls: int = 0
    """Calls that used the cache at a price without the rates to tell."""
    unknown_tokens: int = 0
    """What those read and wrote."""
    calls_without_usage: int = 0
    gateway_answers: int = 0
    """Calls that a gateway answered from a cache of its own: no provider's cache was asked."""

    @property
    def net_nusd(self) -> int:
        """Return the saving after the premium; it may be below zero."""
        return self.read_saving_nusd - self.write_premium_nusd

    @property
    def is_known(self) -> bool:
        """Whether the money says anything: not where every call that used the cache is unknown."""
        return self.known_calls > 0 or self.unknown_calls == 0


def cache_savings(
    batches: Iterable[pa.Table], book: PriceBook, *, by: Mapping[str, tuple[str, ...]]
) -> list[CacheFigures]:
    """Sum calls (CALL_SCHEMA) by dimensions, given as columns of which the first not NULL counts.

    Most tokens read and written first.
    """
    sums: dict[Key, list[int]] = {}
    for table in batches:
        if not table.num_rows:
            continue
        grouped = (
            _measured(table, book)
            .with_columns(**{f"by_{name}": pl.coalesce(columns) for name, columns in by.items()})
            .group_by([f"by_{name}" for name in by] or pl.lit(1).alias("all"))
            .agg(pl.col(name).cast(pl.Int128).sum() for name in _SUMMED)
        )
        for row in grouped.iter_rows():
            key, values = row[: len(by)], row[-len(_SUMMED) :]
            had = sums.setdefault(key, [0] * len(_SUMMED))
            sums[key] = [a + int(b) for a, b in zip(had, values, strict=True)]
    found = [
        CacheFigures(key=key, **dict(zip(_SUMMED, values, strict=True)))
        for key, values in sums.items()
    ]
    return sorted(
        found, key=lambda one: (-one.read_tokens - one.write_tokens, [k or "" for k in one.key])
    )


def total_of(groups: Iterable[CacheFigures]) -> CacheFigures:
    """Sum groups; exact, so the total is that of any way of grouping."""
    listed = list(groups)
    return CacheFigures(**{name: sum(getattr(one, name) for one in listed) for name in _SUMMED})


def _measured(table: pa.Table, book: PriceBook) -> pl.DataFrame:
    """Return the calls with the measures of each beside them."""
    saving, premium = (np.zeros(table.num_rows, dtype=np.int64) for _ in range(2))
    told = np.zeros(table.num_rows, dtype=np.bool_)
    frame = pl.DataFrame(pl.from_arrow(table))
    for one_book, places in by_book(table, book):
        part = table.take(places) if len(places) < table.num_rows else table
        for chosen, tier in priced_tiers(part, one_book):
            rows = places[chosen]
            read, reads_known = _moved(frame, rows, tier, pairs=READS)
            written, writes_known = _moved(frame, rows, tier, pairs=WRITES)
            saving[rows], premium[rows] = read, -written
            told[rows] = reads_known & writes_known
    money = {"saving": saving, "premium": premium, "told": told}
    frame = frame.with_columns(**{name: pl.Series(values) for name, values in money.items()})
    return frame.with_columns(**_marks()).with_columns(**_measures())


def _marks() -> dict[str, pl.Expr]:
    from_gateway = (pl.col("service_tier") == GATEWAY_CACHE).fill_null(value=False)
    is_exact = (pl.col("usage_state") == UsageState.EXACT.value) & ~from_gateway
    return {
        "from_gateway": from_gateway,
        "no_usage": ~is_exact & ~from_gateway,
        "input": pl.when(is_exact).then(_sum_of(INPUT_BUCKETS)).otherwise(0),
        "read": pl.when(is_exact).then(_sum_of(READS)).otherwise(0),
        "written": pl.when(is_exact).then(_sum_of(WRITES)).otherwise(0),
    }


def _measures() -> dict[str, pl.Expr]:
    used = (pl.col("read") + pl.col("written")) > 0
    known, unknown = used & pl.col("told"), used & ~pl.col("told")
    return {
        "calls": pl.col("input") > 0,
        "hit_calls": pl.col("read") > 0,
        "input_tokens": pl.col("input"),
        "read_tokens": pl.col("read"),
        "write_tokens": pl.col("written"),
        "read_saving_nusd": pl.when(known).then(pl.col("saving")).otherwise(0),
        "write_premium_nusd": pl.when(known).then(pl.col("premium")).otherwise(0),
        "known_calls": known,
        "unknown_calls": unknown,
        "unknown_tokens": pl.when(unknown).then(pl.col("read") + pl.col("written")).otherwise(0),
        "calls_without_usage": pl.col("no_usage"),
        "gateway_answers": pl.col("from_gateway"),
    }


def _sum_of(buckets: Iterable[str]) -> pl.Expr:
    return pl.sum_horizontal(pl.col(bucket).fill_null(0) for bucket in buckets)


def _moved(
    frame: pl.DataFrame, rows: Integers, tier: Tier, *, pairs: Mapping[str, str]
) -> tuple[Integers, Marks]:
    """Return what the tokens would cost without a cache, less what they cost; and where it is known."""
    moved = np.zeros(rows.size, dtype=np.int64)
    known = np.ones(rows.size, dtype=np.bool_)
    for bucket, plain in pairs.items():
        quantity = frame[bucket].fill_null(0).to_numpy()[rows]
        if not quantity.any():
            continue
        paid, otherwise = tier.rates.get(bucket), tier.rates.get(plain)
        if not _is_own(paid) or not _is_own(otherwise):
            known &= quantity == 0
            continue
        was, would_be = line_items(quantity, paid), line_items(quantity, otherwise)
        known &= np.asarray((was <= MAX_NUSD) & (would_be <= MAX_NUSD), dtype=np.bool_)
        moved += np.where(known, would_be - was, 0).astype(np.int64)
    return moved, known


def _is_own(rate: Rate | None) -> TypeGuard[Rate]:
    """Whether a price has the rate itself: a stand-in says what was charged, not what is saved."""
    return rate is not None and not rate.stand_in
