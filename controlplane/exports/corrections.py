"""Corrected calls → corrections by bucket: what was booked later, and for which meter.

Both sides of a correction are split into line items as a call is, each at its own price; what they
differ by is the correction of a bucket. The parts sum to what was booked, to the nano-dollar. A side
without a known price is usage alone, told apart.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.tokens import BUCKET_NAMES
from controlplane.pricing.itemize import NEEDED, WHOLE_CALL, itemize
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.schema import CORRECTION_SIDE_SCHEMA
from controlplane.usage.converted import OWNERS

_SKU: Final = ("provider", "billing_model", "operation", "price_id", "cost_state")
KEYS: Final = ("applied_at", "run_id", "price_version", "day", *OWNERS, *_SKU, "bucket")


_UNPRICED: Final = (
    "applied_at", "day", *OWNERS, "provider", "billing_model", "operation", "cost_reason",
)  # fmt: skip
_USED: Final = ("input_tokens", "output_tokens", *BUCKET_NAMES)


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """What corrections moved.

    `buckets`: KEYS, quantity and cost_nusd in the order of the keys; a call that does not split is
    the bucket `call`, without a quantity. `unpriced`: whose, when, why, and tokens and buckets of
    usage whose cost is not known, less where a price was found. What comes to nothing is in neither.
    """

    buckets: Sequence[dict[str, Any]]
    unpriced: pl.DataFrame


def corrections_of(batches: Iterable[pa.Table], book: PriceBook) -> Corrected:
    """Sum CORRECTION_SIDE_SCHEMA tables."""
    parts: list[pl.DataFrame] = []
    unpriced = [_without_price(CORRECTION_SIDE_SCHEMA.empty_table())]
    for batch in batches:
        is_priced = pc.is_valid(batch.column("cost_nusd"))
        parts.append(_items(batch.filter(is_priced), book))
        unpriced.append(_without_price(batch.filter(pc.invert(is_priced))))
    return Corrected(
        buckets=_moved(parts, KEYS, ("quantity", "cost_nusd")).to_dicts() if parts else [],
        unpriced=_moved(unpriced, _UNPRICED, _USED),
    )


def _moved(parts: list[pl.DataFrame], keys: Sequence[str], sums: Sequence[str]) -> pl.DataFrame:
    summed = pl.concat(parts).group_by(keys).agg(pl.col(sums).sum())
    moved = summed.filter(pl.any_horizontal(pl.col(sums) != 0))
    return moved.sort(keys, nulls_last=True)


def _without_price(sides: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(sides.select([*_UNPRICED, *_USED, "sign"])))
    signed = pl.col(_USED).fill_null(0).cast(pl.Int128) * pl.col("sign").cast(pl.Int128)
    return frame.with_columns(signed).group_by(_UNPRICED).agg(pl.col(_USED).sum())


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
