"""Our calls of one provider over a bill's days → usage and cost by day, model, meter and key."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import polars as pl
import pyarrow as pa

from controlplane.core.calendar import Period, Window, midnight, windows
from controlplane.core.money import format_usd
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.exports.charges import charges_of
from controlplane.exports.corrections import corrections_of
from controlplane.pricing.itemize import WHOLE_CALL
from controlplane.pricing.model_words import ModelWords
from controlplane.pricing.price_book import NotFound, PriceBook
from controlplane.pricing.providers import price_provider
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery
from controlplane.signals.schema import TIMESTAMP
from controlplane.usage.reconcile import Tolerance
from controlplane.usage.reconcile_usage import EDGE_MINUTES, Edge, LedgerLine

KEYS: Final = ("api_key", "project")
"""Our dimensions that a bill's keys may be of, tried in this order."""
_OUTPUT: Final = frozenset({"output_text", "output_reasoning"})
_EDGE: Final = timedelta(minutes=EDGE_MINUTES)


class ReconcileRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose ledger, against which provider's bill; `zone` is that of the bill's days."""

    tenants: tuple[str, ...]
    provider: str
    zone: str = "UTC"
    tolerance: Tolerance = Tolerance()


class BilledLedger:
    """Our calls of one provider over a bill's days, by day, model, meter and key."""

    def __init__(
        self, reader: SpanReader, book: PriceBook, *, asked: ReconcileRequest, window: Window
    ) -> None:
        self._reader = reader
        self._book = book
        self._asked = asked
        self.window = window
        self._provider = price_provider(asked.provider)
        self._zone = ZoneInfo(asked.zone)
        self._names: dict[str, str] = {}
        self._words: ModelWords | None = None
        self._rows = self._summed(window)
        self._later = self._corrected(window)
        self.unpriced_calls = sum(
            row["calls"] for row in self._rows if row["cost_nusd"] is None and row["is_call"]
        )

    def model_name(self, model: str | None) -> str | None:
        """Return one name for every spelling of a model that the price book knows."""
        if model is None:
            return None
        name = self._names.get(model)
        if name is None:
            name = self._names[model] = self._listed_name(model) or self._by_words(model)
        return name

    def _listed_name(self, model: str) -> str | None:
        found = self._book.find(self._provider, model)
        return None if isinstance(found, NotFound) else found.model.lower()

    def _by_words(self, model: str) -> str:
        """Return the listed or called model that has the same words, else the name itself."""
        if self._words is None:
            listed = {name for who, name in self._book.names() if who == self._provider}
            called = {row["billing_model"] for row in self._rows if row["billing_model"]}
            known = {self._listed_name(name) or name.lower() for name in listed | called}
            self._words = ModelWords(known)
        return self._words.find(model) or model.lower()

    def key_dimension(self, keys: set[str]) -> str | None:
        """Return which of our dimensions the bill's keys are values of; None if of none."""
        for dimension in KEYS:
            if keys & {row[dimension] for row in (*self._rows, *self._later)}:
                return dimension
        return None

    def lines(self, dimension: str | None) -> list[LedgerLine]:
        """Return our usage and cost."""
        return [
            LedgerLine(
                day=row["day"],
                model=self.model_name(row["billing_model"]),
                meter=row["meter"],
                key=row[dimension] if dimension else None,
                quantity=row["quantity"],
                cost_nusd=row["cost_nusd"],
                calls=row["calls"],
                is_later=is_later,
            )
            for is_later, rows in ((False, self._rows), (True, self._later))
            for row in rows
        ]

    def booked_later(self) -> dict[str, str]:
        """Return what corrections came to, by the month that they were booked in."""
        sums: dict[str, int] = {}
        for row in self._later:
            if row["cost_nusd"] is None:
                continue
            month = f"{row['applied_at'].astimezone(self._zone):%Y-%m}"
            sums[month] = sums.get(month, 0) + row["cost_nusd"]
        return {month: format_usd(sums[month]) for month in sorted(sums)}

    def edges(self, dimension: str | None) -> Iterator[Edge]:
        """Yield our usage within minutes of both ends."""
        start, end = self.window.start, self.window.end
        for window, is_start, is_inside in (
            (Window(start - _EDGE, start), True, False),
            (Window(start, start + _EDGE), True, True),
            (Window(end - _EDGE, end), False, True),
            (Window(end, end + _EDGE), False, False),
        ):
            for row in self._summed(window):
                yield Edge(
                    model=self.model_name(row["billing_model"]),
                    meter=row["meter"],
                    key=row[dimension] if dimension else None,
                    is_start=is_start,
                    is_inside=is_inside,
                    quantity=row["quantity"],
                )

    def rate_of(self, model: str | None, meter: str | None, day: date) -> Fraction | None:
        """Return a meter's base rate on a day, in nano-USD, from the price book."""
        found = self._book.find(self._provider, model)
        row = None if isinstance(found, NotFound) else found.at(midnight(day, self._zone))
        if row is None or meter is None:
            return None
        rate = row.tiers[0].rates.get("output_text" if meter == "output" else meter)
        return None if rate is None else Fraction(rate.numerator, rate.denominator)

    def _summed(self, window: Window) -> list[dict[str, Any]]:
        periods = tuple(windows(Period.DAY, window, zone=self._asked.zone))
        days = [period.start.astimezone(self._zone).date() for period in periods]
        query = CallQuery(tenants=self._asked.tenants, window=window)
        charges = charges_of(
            (self._of_provider(batch) for batch in self._reader.call_batches(query)),
            self._book,
            periods=periods,
        ).charges
        rows = [
            {
                **row,
                "day": days[row["period"]],
                "meter": meter_of(row["bucket"]),
                "quantity": int(row["quantity"]),
                "cost_nusd": int(row["cost_nusd"]),
                "is_call": False,
            }
            for row in charges.iter_rows(named=True)
        ]
        unpriced = msgspec.structs.replace(query, filters={"cost_state": ("unpriced",)})
        for batch in self._reader.call_batches(unpriced):
            rows += self._unpriced(self._of_provider(batch).to_pylist())
        return rows

    def _corrected(self, window: Window) -> list[dict[str, Any]]:
        """Return what was booked later about calls of these days, by bucket."""
        sides = self._reader.correction_sides(self._asked.tenants, window, of_calls=True)
        moved = corrections_of((self._on_its_day(batch) for batch in sides), self._book)
        unpriced = [
            {**row, "bucket": bucket, "quantity": row[bucket], "cost_nusd": None}
            for row in moved.unpriced.iter_rows(named=True)
            for bucket in BUCKET_NAMES
            if row[bucket]
        ]
        return [
            {
                **row,
                "day": row["day"].date(),
                "meter": meter_of(row["bucket"]),
                "quantity": int(row["quantity"]),
                "cost_nusd": None if row["cost_nusd"] is None else int(row["cost_nusd"]),
                "calls": 1,
            }
            for row in (*moved.buckets, *unpriced)
        ]

    def _on_its_day(self, batch: pa.Table) -> pa.Table:
        """Name each correction's day in the zone of the bill."""
        ours = self._of_provider(batch)
        frame = pl.DataFrame(pl.from_arrow(ours.select(["start_time"])))
        local = pl.col("start_time").dt.convert_time_zone(self._asked.zone).dt.date()
        days = frame.select(local.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).to_series()
        at = ours.schema.get_field_index("day")
        return ours.set_column(at, ours.schema.field(at), days.to_arrow().cast(TIMESTAMP))

    def _of_provider(self, batch: pa.Table) -> pa.Table:
        frame = pl.DataFrame(pl.from_arrow(batch.select(["provider"])))
        said = {name: price_provider(name or "") for name in frame["provider"].unique()}
        keep = frame["provider"].map_elements(
            lambda name: said[name] == self._provider, return_dtype=pl.Boolean, skip_nulls=False
        )
        return batch.filter(keep.to_arrow())

    def _unpriced(self, calls: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        for call in calls:
            used = {bucket: call[bucket] for bucket in BUCKET_NAMES if call[bucket]}
            for number, (bucket, quantity) in enumerate((used or {WHOLE_CALL: 0}).items()):
                yield {
                    **{name: call[name] for name in ("billing_model", *KEYS)},
                    "day": call["start_time"].astimezone(self._zone).date(),
                    "meter": meter_of(bucket),
                    "quantity": quantity,
                    "cost_nusd": None,
                    "calls": 1,
                    "is_call": number == 0,
                }


def meter_of(bucket: str) -> str:
    """Return the meter that providers bill a bucket as: reasoning is output."""
    return "output" if bucket in _OUTPUT else bucket
