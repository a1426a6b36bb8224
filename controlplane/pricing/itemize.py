"""Stored calls → line items: what each bucket of a call cost, exactly, or which calls do not split.

A call keeps one cost and the id of the price it was made at. Its line items are computed anew from
that very row of the book; they are believed only where they sum to the stored cost. A call whose
price is no longer in the book, or whose cost was not made from rates, does not split: it is one
item, the call itself, at its own cost. Nothing is ever apportioned by guess.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from controlplane.core.instants import EPOCH, MINUTE_US
from controlplane.core.money import MAX_NUSD
from controlplane.core.tokens import BUCKET_NAMES, INPUT_BUCKETS
from controlplane.pricing.price import PER_CALL, line_items, tiers_reached
from controlplane.pricing.price_book import ModelPrices, NotFound, PriceBook
from controlplane.pricing.rates import PriceRow, Rate, Tier

Integers = npt.NDArray[np.int64]
WHOLE_CALL: Final = "call"
"""The bucket of a call that does not split: one unit at its own cost."""
NEEDED: Final = (
    "provider", "billing_model", "price_id", "start_time", "cost_nusd", *BUCKET_NAMES,
)  # fmt: skip
"""Columns of CALL_SCHEMA that are read."""
_EXACT: Final = 2**62


class _Group(msgspec.Struct, frozen=True):
    """Calls of one tier of one price: their positions, and the rates with the list's beside them."""

    rows: Integers
    tier: Tier
    listed: Tier | None


def itemize(calls: pa.Table, book: PriceBook) -> pl.DataFrame:
    """Return the line items of every call whose cost is known; the items of a call sum to it.

    Columns are `row` (the call's position in `calls`), `bucket`, `quantity`, `cost_nusd`, the
    fractions `rate_*` and `list_*`, and `above_input_tokens`, the tier.
    `list_*` is the public price of the bucket where the book has one, else the price paid.
    Buckets without a quantity have no item; a call that is free and used nothing has none at all.
    """
    frame = _frame_of(calls)
    known = frame.filter(pl.col("cost_nusd").is_not_null())
    parts: list[pl.DataFrame] = []
    split = np.zeros(frame.height, dtype=np.bool_)
    for group, items, is_whole in _split(frame, book):
        parts += items
        split[group.rows[is_whole]] = True
    rest = known.filter(~pl.Series(split[known["row"].to_numpy()]) & (pl.col("cost_nusd") != 0))
    parts.append(_whole_calls(rest))
    return pl.concat(parts).sort("row", "bucket")


def priced_tiers(calls: pa.Table, book: PriceBook) -> Iterator[tuple[Integers, Tier]]:
    """Yield the calls that split, by position, with the very rates that made their cost."""
    for group, _, is_whole in _split(_frame_of(calls), book):
        yield group.rows[is_whole], group.tier


def _frame_of(calls: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(calls.select(list(NEEDED)))).with_row_index("row")


def _split(
    frame: pl.DataFrame, book: PriceBook
) -> Iterator[tuple[_Group, list[pl.DataFrame], npt.NDArray[np.bool_]]]:
    """Yield calls by the rates of their price: their items, and of which of them these are whole."""
    known = frame.filter(pl.col("cost_nusd").is_not_null())
    quantities = {
        bucket: frame[bucket].fill_null(0).to_numpy()
        for bucket in BUCKET_NAMES
        if frame[bucket].null_count() < frame.height
    }
    cost = frame["cost_nusd"].fill_null(0).to_numpy()
    minutes = frame["start_time"].to_physical().to_numpy() // MINUTE_US
    total_input = sum(
        (quantities[b] for b in INPUT_BUCKETS if b in quantities),
        start=np.zeros(frame.height, dtype=np.int64),
    )
    keys = ("provider", "billing_model", "price_id")
    for (provider, model, price_id), listed in _grouped(known, keys):
        for group in _groups(
            book, (provider, model, price_id), rows=listed, facts=(total_input, minutes)
        ):
            items, is_whole = _items(group, quantities, cost)
            yield group, items, is_whole


def _grouped(
    frame: pl.DataFrame, keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str | None, ...], Integers]]:
    for *key, rows in frame.group_by(*keys, maintain_order=True).agg("row").iter_rows():
        yield tuple(key), np.asarray(rows, dtype=np.int64)


def _groups(
    book: PriceBook,
    key: tuple[str | None, ...],
    *,
    rows: Integers,
    facts: tuple[Integers, Integers],
) -> Iterator[_Group]:
    """Yield the calls of one price by tier, and where the list's price changes, by that too."""
    provider, model, price_id = key
    row = book.row_of(provider, model, price_id)
    if row is None:
        return
    total_input, minutes = facts
    # A contract's row is named after the row of the list that it changes, behind which stands a "*".
    listed_row = book.row_of(provider, model, row.price_id.partition("*")[0])
    for number, tier in enumerate(row.tiers):
        chosen = rows[tiers_reached(row, total_input[rows]) == number]
        if not row.price_id.startswith("override/"):
            yield _Group(chosen, tier, (listed_row or row).tiers[number])
            continue
        public = book.listed(provider, model)
        for listed, part in _list_rows(public, chosen, minutes):
            reached = tiers_reached(listed, total_input[part]) if listed else np.zeros(part.size)
            for n, list_tier in enumerate(listed.tiers if listed else (None,)):
                yield _Group(part[reached == n], tier, list_tier)


def _list_rows(
    public: ModelPrices | NotFound, rows: Integers, minutes: Integers
) -> Iterator[tuple[PriceRow | None, Integers]]:
    """Yield calls by the row of the public list that was in force; prices change on minutes."""
    if isinstance(public, NotFound):
        yield None, rows
        return
    distinct, which = np.unique(minutes[rows], return_inverse=True)
    valid = [public.at(EPOCH + timedelta(minutes=int(minute))) for minute in distinct]
    for one in {id(row): row for row in valid}.values():
        yield one, rows[np.array([row is one for row in valid], dtype=np.bool_)[which]]


def _items(
    group: _Group, quantities: dict[str, Integers], cost: Integers
) -> tuple[list[pl.DataFrame], npt.NDArray[np.bool_]]:
    """Return the items of the calls that split, and which calls those are."""
    made: list[tuple[str, Rate, Integers, Integers]] = []
    total = np.zeros(group.rows.size, dtype=np.int64)
    is_whole = np.ones(group.rows.size, dtype=np.bool_)
    for bucket in BUCKET_NAMES:
        quantity = _quantity(group, bucket, quantities)
        rate = group.tier.rates.get(bucket)
        if rate is None:
            is_whole &= quantity == 0
            continue
        items = line_items(quantity, rate)
        if items.dtype == np.object_:  # some item passes 64 bits: such a call has no cost
            is_whole &= np.asarray(items <= _EXACT, dtype=np.bool_)
            items = np.minimum(items, MAX_NUSD).astype(np.int64)
        total = np.minimum(total, _EXACT) + np.minimum(items, _EXACT).astype(np.int64)
        made.append((bucket, rate, quantity, items.astype(np.int64)))
    is_whole &= total == cost[group.rows]
    frames = [
        _frame(group, bucket, item=(rate, quantity, items), keep=is_whole & (quantity > 0))
        for bucket, rate, quantity, items in made
    ]
    return frames, is_whole


def _quantity(group: _Group, bucket: str, quantities: dict[str, Integers]) -> Integers:
    known = quantities.get(bucket)
    quantity = np.zeros(group.rows.size, dtype=np.int64) if known is None else known[group.rows]
    rate = group.tier.rates.get(bucket)
    if bucket == PER_CALL and rate:  # a price per call applies whether or not it was counted
        return np.maximum(quantity, 1)
    return quantity


def _frame(
    group: _Group,
    bucket: str,
    *,
    item: tuple[Rate, Integers, Integers],
    keep: npt.NDArray[np.bool_],
) -> pl.DataFrame:
    rate, quantity, cost = item
    public = group.listed.rates.get(bucket, rate) if group.listed else rate
    return pl.DataFrame(
        {"row": group.rows[keep], "quantity": quantity[keep], "cost_nusd": cost[keep]}
    ).select(
        pl.col("row").cast(pl.Int64),
        pl.lit(bucket).alias("bucket"),
        pl.col("quantity"),
        pl.col("cost_nusd"),
        pl.lit(rate.numerator, pl.Int64).alias("rate_numerator"),
        pl.lit(rate.denominator, pl.Int64).alias("rate_denominator"),
        pl.lit(public.numerator, pl.Int64).alias("list_numerator"),
        pl.lit(public.denominator, pl.Int64).alias("list_denominator"),
        pl.lit(group.tier.above_input_tokens, pl.Int64).alias("above_input_tokens"),
    )


def _whole_calls(calls: pl.DataFrame) -> pl.DataFrame:
    cost, one = pl.col("cost_nusd"), pl.lit(1, pl.Int64)
    return calls.select(
        pl.col("row").cast(pl.Int64),
        pl.lit(WHOLE_CALL).alias("bucket"),
        one.alias("quantity"),
        cost,
        cost.alias("rate_numerator"),
        one.alias("rate_denominator"),
        cost.alias("list_numerator"),
        one.alias("list_denominator"),
        pl.lit(-1, pl.Int64).alias("above_input_tokens"),
    )
