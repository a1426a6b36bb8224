"""Calls → charges: line items summed by period, dimensions, meter and price.

What finance reads is not a call but a charge: so many units of one meter at one price, of one owner,
in one period. Charges keep the exact rate they were made at, so that unit price times quantity can
be checked; `cost_nusd` is the sum of the calls' own rounded items, the ledger to the nano-dollar.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.core.instants import to_micros
from controlplane.pricing.commitments import Drawdown, mark, split_quantity
from controlplane.pricing.currency import RateTable
from controlplane.pricing.itemize import NEEDED, itemize
from controlplane.pricing.price_book import PriceBook
from controlplane.usage.converted import OWNERS, key_of

SKU: Final = (
    "provider", "billing_model", "operation", "service_tier", "price_id", "price_provenance",
    "cost_state",
)  # fmt: skip
KEYS: Final = (
    "period", *OWNERS, *SKU, "bucket", "rate_numerator", "rate_denominator", "list_numerator",
    "list_denominator", "above_input_tokens", "commitment",
)  # fmt: skip
_DRAWN: Final = ("commitment", "covered_nusd")
READ: Final = tuple(
    dict.fromkeys(
        ("call_id", *NEEDED, *OWNERS, *SKU, "cost_reason", "input_tokens", "output_tokens")
    )
)
"""Columns of CALL_SCHEMA that charges are made of."""


def amounts_of(charges: pl.DataFrame, days: Sequence[date], rates: RateTable) -> list[int | None]:
    """Convert each charge, as a part of its cell; `days` are the local days of the periods."""
    return rates.convert_cells(
        [
            (days[row["period"]], key_of(row), int(row["cost_nusd"]))
            for row in charges.iter_rows(named=True)
        ]
    )


def corrected_amounts(
    corrections: Sequence[Mapping[str, Any]], zone: str, rates: RateTable
) -> list[int | None]:
    """Convert each row of `Corrected.buckets`, as a part of its cell, on the day it was booked."""
    tz = ZoneInfo(zone)
    return rates.convert_cells(
        [
            (
                row["applied_at"].astimezone(tz).date(),
                key_of(row, corrects=row["day"].date().isoformat()),
                int(row["cost_nusd"]),
            )
            for row in corrections
        ]
    )


class Charges(msgspec.Struct, frozen=True, kw_only=True):
    """Charges of one window, and the usage whose cost is not known.

    `charges`: KEYS, quantity, cost_nusd (both Int128) and calls. `unpriced`: period, owners,
    provider, model, reason, calls and tokens.
    """

    charges: pl.DataFrame
    unpriced: pl.DataFrame

    def total_nusd(self) -> int:
        """Return what the charges sum to."""
        return sum(self.charges["cost_nusd"].to_list())


UNPRICED_KEYS: Final = ("period", *OWNERS, "provider", "billing_model", "operation", "cost_reason")


def charges_of(
    batches: Iterable[pa.Table],
    book: PriceBook,
    *,
    periods: Sequence[Window],
    drawn: Sequence[Drawdown] = (),
) -> Charges:
    """Sum the line items of calls by charge; `periods` are ascending and hold every call.

    `period` in the answer is the position in `periods`, `commitment` the contract whose commitment
    was consumed. Rows are in the order of their keys, so the same calls give the same rows.
    """
    charged: list[pl.DataFrame] = []
    unpriced: list[pl.DataFrame] = []
    for batch in batches:
        frame = pl.DataFrame(pl.from_arrow(batch.select(list(READ)))).with_row_index("row")
        period = _positions(frame["start_time"], periods)
        frame = frame.with_columns(pl.col("row").cast(pl.Int64), period=period)
        items = itemize(batch, book)
        marked = mark(frame, drawn).select("row", "period", *OWNERS, *SKU, *_DRAWN)
        joined = split_items(items.join(marked, on="row"))
        charged.append(_summed(joined.with_columns(calls=pl.lit(1, pl.Int64)), KEYS))
        unpriced.append(_unpriced(frame.filter(pl.col("cost_nusd").is_null())))
    if not charged:
        nothing = pl.DataFrame(schema=[*KEYS, "quantity", "cost_nusd", "calls"])
        return Charges(charges=nothing, unpriced=pl.DataFrame(schema=_UNPRICED_SCHEMA))
    return Charges(
        charges=_summed(pl.concat(charged), KEYS).sort(KEYS, nulls_last=True),
        unpriced=_added(unpriced),
    )


def with_corrected(
    charges: Charges, corrected: pl.DataFrame, *, periods: Sequence[Window]
) -> Charges:
    """Add `Corrected.unpriced` to the usage without a price, where it was booked; it is no call."""
    late = corrected.with_columns(
        period=_positions(corrected["applied_at"], periods), calls=pl.lit(0, pl.Int128)
    )
    both = [charges.unpriced, late.select(_UNPRICED_SCHEMA.keys())]
    return msgspec.structs.replace(charges, unpriced=_added(both))


def _added(unpriced: Iterable[pl.DataFrame]) -> pl.DataFrame:
    summed = pl.concat(unpriced).group_by(UNPRICED_KEYS).agg(pl.col(_COUNTED).sum())
    told = summed.filter(pl.any_horizontal(pl.col(_COUNTED) != 0))
    return told.sort(UNPRICED_KEYS, nulls_last=True)


def _positions(starts: pl.Series, periods: Sequence[Window]) -> pl.Series:
    """Return in which of the periods each moment is."""
    begin = np.array([to_micros(p.start) for p in periods], dtype=np.int64)
    at = np.searchsorted(begin, starts.to_physical().to_numpy(), side="right") - 1
    return pl.Series(at, dtype=pl.Int64)


_COUNTED: Final = ("calls", "input_tokens", "output_tokens")
_UNPRICED_SCHEMA: Final[dict[str, pl.DataType]] = {
    "period": pl.Int64(),
    **dict.fromkeys(UNPRICED_KEYS[1:], pl.String()),
    **dict.fromkeys(_COUNTED, pl.Int128()),
}


def split_items(items: pl.DataFrame) -> pl.DataFrame:
    """Split the item in which a commitment ran out: what was covered, and what is beyond it.

    A call's items are covered in the order of their meters. Quantities stay whole: the part of a
    unit that the amount did not pay for is in the cost alone.
    """
    ran_out = items.filter(pl.col("covered_nusd").is_not_null())
    if ran_out.is_empty():
        return items
    rows: list[dict[str, Any]] = []
    left: dict[int, int] = {}
    for item in ran_out.sort("row", "bucket").iter_rows(named=True):
        covered = min(left.setdefault(item["row"], item["covered_nusd"]), item["cost_nusd"])
        left[item["row"]] -= covered
        rows += _parts(item, covered)
    split = pl.DataFrame(rows, schema=items.schema)
    return pl.concat([items.filter(pl.col("covered_nusd").is_null()), split])


def _parts(item: dict[str, Any], covered_nusd: int) -> list[dict[str, Any]]:
    beyond = item["cost_nusd"] - covered_nusd
    if not beyond:
        return [item]
    if not covered_nusd:
        return [{**item, "commitment": None}]
    quantity = split_quantity(
        item["quantity"],
        covered_nusd=covered_nusd,
        numerator=item["rate_numerator"],
        denominator=item["rate_denominator"],
    )
    rest = item["quantity"] - quantity
    return [
        {**item, "quantity": quantity, "cost_nusd": covered_nusd},
        {**item, "quantity": rest, "cost_nusd": beyond, "commitment": None},
    ]


def _summed(items: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    wide = pl.col("quantity", "cost_nusd", "calls").cast(pl.Int128).sum()  # Int64 would wrap
    return items.group_by(keys).agg(wide)


def _unpriced(calls: pl.DataFrame) -> pl.DataFrame:
    tokens = pl.col("input_tokens", "output_tokens").fill_null(0).cast(pl.Int128).sum()
    return calls.group_by(UNPRICED_KEYS).agg(pl.len().cast(pl.Int128).alias("calls"), tokens)
