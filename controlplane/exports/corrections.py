"""Corrected calls → corrections by bucket: what was booked later, and for which meter.

Both sides of a correction are split into line items as a call is, each at its own price; what they
differ by is the correction of a bucket. The parts sum to what was booked, to the nano-dollar.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import polars as pl
import pyarrow as pa

from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.itemize import NEEDED, WHOLE_CALL, itemize
from controlplane.pricing.price_book import PriceBook
from controlplane.usage.converted import OWNERS

_SKU: Final = ("provider", "billing_model", "operation", "price_id", "cost_state")
KEYS: Final = ("applied_at", "run_id", "price_version", "day", *OWNERS, *_SKU, "bucket")


def corrected_buckets(batches: Iterable[pa.Table], book: PriceBook) -> Iterator[dict[str, Any]]:
    """Yield KEYS, quantity and cost_nusd of CORRECTION_SIDE_SCHEMA tables, in the order of the keys.

    What comes to nothing is left out; a call that does not split is the bucket `call`, without a
    quantity.
    """
    parts = [_items(batch, book) for batch in batches]
    if not parts:
        return
    summed = pl.concat(parts).group_by(KEYS).agg(pl.col("quantity", "cost_nusd").sum())
    moved = summed.filter((pl.col("quantity") != 0) | (pl.col("cost_nusd") != 0))
    yield from moved.sort(KEYS, nulls_last=True).iter_rows(named=True)


def _items(batch: pa.Table, book: PriceBook) -> pl.DataFrame:
    priced = batch.drop_columns(["price_id"]).rename_columns({"side_price_id": "price_id"})
    items = itemize(priced.select(list(NEEDED)), book).select(
        "row", "bucket", "quantity", "cost_nusd"
    )
    booked = pl.DataFrame(pl.from_arrow(batch)).with_row_index("row")
    booked = booked.with_columns(pl.col("row").cast(pl.Int64))
    # A side whose price left the book does not split, and then its other side must not either.
    whole = booked.join(items.filter(pl.col("bucket") == WHOLE_CALL), on="row", how="semi")
    is_whole = booked.join(whole, on=("applied_at", "run_id", "call_id"), how="semi")
    split = items.join(is_whole, on="row", how="anti")
    sides = pl.concat([split, _unsplit(is_whole)]).join(
        booked.select("row", "sign", *(key for key in KEYS if key != "bucket")), on="row"
    )
    signed = pl.col("quantity", "cost_nusd").cast(pl.Int128) * pl.col("sign").cast(pl.Int128)
    return sides.with_columns(signed).group_by(KEYS).agg(pl.col("quantity", "cost_nusd").sum())


def _unsplit(sides: pl.DataFrame) -> pl.DataFrame:
    """Return the cost of calls as that of the calls, and their usage by bucket."""
    cost = sides.select(
        "row", bucket=pl.lit(WHOLE_CALL), quantity=pl.lit(0, pl.Int64), cost_nusd="cost_nusd"
    )
    used = sides.unpivot(
        list(BUCKET_NAMES), index="row", variable_name="bucket", value_name="quantity"
    ).select("row", "bucket", "quantity", cost_nusd=pl.lit(0, pl.Int64))
    return pl.concat([cost, used.filter(pl.col("quantity") > 0)])
