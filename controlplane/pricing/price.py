"""ATTRIBUTED rows → SPAN rows: what each report costs, or why that is not known.

Each distinct (provider, model) is looked up once a batch; then a bucket is one array product and
one half-even division over the rows of a price. Products that could pass 58 bits are made with
Python's unbounded integers instead: exact in every case, slow only for hostile ones.
"""

from datetime import timedelta
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.core.instants import EPOCH, MINUTE_US, to_micros
from controlplane.core.money import MAX_NUSD, divide_half_even
from controlplane.core.tokens import BUCKET_NAMES, INPUT_BUCKETS
from controlplane.pricing.price_book import ModelPrices, NotFound, PriceBook, tier_stands_in
from controlplane.pricing.rates import PriceRow, Rate, Tier
from controlplane.signals.schema import PRICED
from controlplane.signals.vocabulary import (
    CACHE_HIT,
    GATEWAY_CACHE,
    UNKNOWN_USAGE,
    CostState,
    ErrorType,
    PriceProvenance,
    ReportKind,
    Status,
    UsageState,
)

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64] | npt.NDArray[np.object_]
"""int64, or Python integers where int64 could overflow."""

PER_CALL: Final = "requests"
NOT_BILLED: Final = frozenset({ErrorType.RATE_LIMITED.value, ErrorType.CLIENT_ERROR.value})
"""Failures that a provider refuses before it works: free when they carry no usage (C5)."""
SAFE_ITEM: Final = 2**58
"""Line items below it can be added over all buckets without leaving int64."""
_FACTS: Final = (
    *("report_kind", "provider", "billing_model", "service_tier", "start_time", "status"),
)


class Outcome(msgspec.Struct, frozen=True):
    """Everything about a price but the amount; a batch has few distinct ones."""

    cost_state: CostState
    cost_reason: str | None = None
    price_id: str | None = None
    price_provenance: PriceProvenance | None = None


class _Sheet:
    """The answer under construction: an amount and an outcome per row."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        self.quantities = {
            bucket: frame[bucket].fill_null(0).to_numpy()
            for bucket in BUCKET_NAMES
            if frame[bucket].null_count() < frame.height
        }
        zero = np.zeros(frame.height, dtype=np.int64)
        self.total_input: Integers = sum(
            (self.quantities[b] for b in INPUT_BUCKETS if b in self.quantities), start=zero
        )
        self.cost = np.zeros(frame.height, dtype=np.int64)
        self._minutes: Integers | None = None
        self._outcomes: dict[Outcome, int] = {}
        self._outcome_of = np.full(frame.height, -1, dtype=np.int64)

    def minutes(self) -> Integers:
        """Return the minute each row started in, from the epoch."""
        if self._minutes is None:
            starts = self.frame["start_time"].to_physical().fill_null(0).to_numpy()
            self._minutes = starts // MINUTE_US
        return self._minutes

    def put(self, rows: Integers, outcome: Outcome) -> None:
        """Give rows an outcome."""
        if rows.size:
            self._outcome_of[rows] = self._outcomes.setdefault(outcome, len(self._outcomes))

    def columns(self) -> dict[str, pl.Series]:
        """Return the answer's columns; NULL throughout for rows that are no call."""
        outcomes = [*self._outcomes, None]  # position -1
        known = np.array([o is not None and o.cost_state != CostState.UNPRICED for o in outcomes])
        cost = pl.Series(self.cost).set(pl.Series(~known[self._outcome_of]), None)
        take = pl.Series(np.where(self._outcome_of < 0, len(outcomes) - 1, self._outcome_of))
        texts = {
            name: pl.Series([getattr(o, name, None) for o in outcomes], dtype=pl.String).gather(
                take
            )
            for name in Outcome.__struct_fields__
        }
        return {"cost_nusd": cost, **texts}


def price(spans: pa.Table, book: PriceBook) -> pa.Table:
    """Add cost, state, reason, price id and provenance; the rows and their order stay.

    Rows of a window that was re-rated get the prices of the version it was re-rated with.
    """
    (first, places), *others = by_book(spans, book)
    if not others:
        return _price(spans, first)
    parts = [_price(spans.take(places), first)]
    parts += [_price(spans.take(rows), pinned) for pinned, rows in others]
    order = np.concatenate([places, *(rows for _, rows in others)])
    return pa.concat_tables(parts).take(np.argsort(order))


def by_book(spans: pa.Table, book: PriceBook) -> list[tuple[PriceBook, Integers]]:
    """Return rows (tenant, start_time) by the book that prices them; never an empty list."""
    which = _pinned(spans, book) if book.pins else None
    if which is None or not which.any():
        return [(book, np.arange(spans.num_rows))]
    books = [book, *(pin.book() for pin in book.pins)]
    return [(books[number], np.flatnonzero(which == number)) for number in np.unique(which)]


def _pinned(spans: pa.Table, book: PriceBook) -> Integers:
    """Return for each row the number of its pin, counted from one; 0 is none."""
    starts = spans.column("start_time").cast(pa.int64()).to_numpy()
    tenants = np.array(spans.column("tenant").to_pylist(), dtype=object)
    which = np.zeros(spans.num_rows, dtype=np.int64)
    for number, pin in enumerate(book.pins, start=1):
        since, until = (to_micros(at) for at in (pin.window.start, pin.window.end))
        inside = (starts >= since) & (starts < until)
        if pin.tenants:
            inside &= np.isin(tenants, pin.tenants)
        which[inside] = number
    return which


def _price(spans: pa.Table, book: PriceBook) -> pa.Table:
    needed = [*_FACTS, "error_type", "usage_state", *BUCKET_NAMES]
    frame = pl.DataFrame(pl.from_arrow(spans.select(needed))).with_row_index("row")
    sheet = _Sheet(frame)
    calls = frame.filter(pl.col("report_kind") == ReportKind.CALL.value)
    _without_usage(sheet, calls.filter(pl.col("usage_state") != UsageState.EXACT.value))
    usable = calls.filter(pl.col("usage_state") == UsageState.EXACT.value)
    names = ("provider", "billing_model", "service_tier")
    for provider, model, tier, listed in (
        usable.group_by(*names, maintain_order=True).agg("row").iter_rows()
    ):
        rows = np.asarray(listed, dtype=np.int64)
        if tier == GATEWAY_CACHE:
            sheet.put(rows, Outcome(CostState.FREE, CACHE_HIT))
            continue
        found = book.find(provider, model)
        if isinstance(found, NotFound):
            sheet.put(rows, Outcome(CostState.UNPRICED, found.reason))
        else:
            _price_model(sheet, rows, found, service_tier=tier or "")
    columns = sheet.columns()
    for field in PRICED:
        spans = spans.append_column(field, columns[field.name].to_arrow().cast(field.type))
    return spans


def reprice(reports: pa.Table, book: PriceBook) -> pa.Table:
    """Price rows that were priced before, whose usage is another now."""
    return price(reports.drop_columns([field.name for field in PRICED]), book)


def repin(reports: pa.Table, book: PriceBook) -> pa.Table:
    """Price the rows of windows that were re-rated as these were; the others keep what they have."""
    inside = pa.array(_pinned(reports, book) > 0)
    if not book.pins or True not in inside.to_pylist():
        return reports
    outside = pc.invert(inside)
    rated = reprice(reports.filter(inside), book).select(reports.schema.names)
    return pa.concat_tables([rated.cast(reports.schema), reports.filter(outside)])


def _without_usage(sheet: _Sheet, calls: pl.DataFrame) -> None:
    if calls.is_empty():
        return
    impossible = pl.col("usage_state") == UsageState.IMPOSSIBLE.value
    failed = pl.col("status") == Status.ERROR.value
    refused = failed & pl.col("error_type").is_in(sorted(NOT_BILLED)) & ~impossible
    left = failed & (pl.col("error_type") == ErrorType.CANCELLED.value) & ~impossible
    dispatched = ~impossible & ~refused.fill_null(value=False) & ~left.fill_null(value=False)
    for which, outcome in (
        (impossible, Outcome(CostState.UNPRICED, "impossible_usage")),
        (refused, Outcome(CostState.FREE, "failed_without_usage")),
        (left, Outcome(CostState.UNPRICED, f"{UNKNOWN_USAGE}:disconnect")),
        (dispatched, Outcome(CostState.UNPRICED, UNKNOWN_USAGE)),
    ):
        sheet.put(calls.filter(which)["row"].to_numpy().astype(np.int64), outcome)


def _price_model(sheet: _Sheet, rows: Integers, prices: ModelPrices, *, service_tier: str) -> None:
    for row, chosen in _by_validity(sheet, rows, prices, service_tier=service_tier):
        if row is None:
            sheet.put(chosen, Outcome(CostState.UNPRICED, "no_price_at_time"))
            continue
        reached = tiers_reached(row, sheet.total_input[chosen])
        for number, tier in enumerate(row.tiers):
            source = _Source(
                tier,
                row.price_id,
                provenance_of(row, prices, is_context_tier=number > 0),
                f"no_tier_rate:{service_tier}" if tier_stands_in(row, service_tier) else None,
            )
            _price_tier(sheet, chosen[reached == number], source)


def tiers_reached(row: PriceRow, total_input: Integers) -> Integers:
    """Return for each call the number of its context tier; a tier begins above its threshold."""
    starts = np.array([tier.above_input_tokens for tier in row.tiers])
    reached: Integers = np.searchsorted(starts, total_input, side="left") - 1
    return reached


def provenance_of(row: PriceRow, prices: ModelPrices, *, is_context_tier: bool) -> PriceProvenance:
    """Say how the rates of a row were found, stand-ins aside."""
    if is_context_tier or row.service_tier:
        return PriceProvenance.TIER
    return PriceProvenance.OVERRIDE if row.contract else prices.provenance


def _by_validity(
    sheet: _Sheet, rows: Integers, prices: ModelPrices, *, service_tier: str
) -> list[tuple[PriceRow | None, Integers]]:
    if len(prices.rows) == 1 and prices.rows[0].validity.is_always:
        only = prices.rows[0]
        return [(only if only.service_tier in {"", service_tier} else None, rows)]
    # Prices change on minutes at the finest, so a minute is looked up once.
    distinct, which = np.unique(sheet.minutes()[rows], return_inverse=True)
    valid = [prices.at(EPOCH + timedelta(minutes=int(minute)), service_tier) for minute in distinct]
    return [
        (row, rows[np.array([one is row for one in valid])[which]])
        for row in {id(one): one for one in valid}.values()
    ]


class _Source(msgspec.Struct, frozen=True):
    """The rates that apply, how they were found, and what is not as asked."""

    tier: Tier
    price_id: str
    provenance: PriceProvenance
    tier_reason: str | None


def _price_tier(sheet: _Sheet, rows: Integers, source: _Source) -> None:
    total: Numbers = np.zeros(rows.size, dtype=np.int64)
    costs_something = np.zeros(rows.size, dtype=np.bool_)
    reason = np.zeros(rows.size, dtype=np.int64)  # 0: none; ±(bucket + 1): missing or stood in for
    for number, bucket in enumerate(BUCKET_NAMES):
        rate = source.tier.rates.get(bucket)
        quantity = _quantity(sheet, bucket, rows)
        if bucket == PER_CALL and rate:  # a price per call applies whether or not it was counted
            quantity = np.maximum(quantity, 1)
        used = quantity > 0
        if not used.any():
            continue
        if rate is None:
            reason[used & (reason >= 0)] = -(number + 1)
            continue
        total = total + line_items(quantity, rate)
        costs_something |= used & (rate.numerator > 0)
        if rate.stand_in:
            reason[used & (reason == 0)] = number + 1
    settled = _Settled(total, costs_something, reason)
    _put_outcomes(sheet, rows, source=source, settled=settled)


class _Settled(msgspec.Struct, frozen=True):
    """Per row: the sum of line items, whether a rate was above zero, and which bucket stood out."""

    total: Numbers
    costs_something: npt.NDArray[np.bool_]
    reason: Integers


def _quantity(sheet: _Sheet, bucket: str, rows: Integers) -> Integers:
    known = sheet.quantities.get(bucket)
    return np.zeros(rows.size, dtype=np.int64) if known is None else known[rows]


def _put_outcomes(sheet: _Sheet, rows: Integers, *, source: _Source, settled: _Settled) -> None:
    overflow = np.asarray(settled.total > MAX_NUSD, dtype=np.bool_) & (settled.reason >= 0)
    known = ~overflow & (settled.reason >= 0)
    sheet.cost[rows[known]] = settled.total[known].astype(np.int64)
    unpriced = Outcome(CostState.UNPRICED, "cost_out_of_range", source.price_id, source.provenance)
    sheet.put(rows[overflow], unpriced)
    for code in np.unique(settled.reason):
        for paid in (True, False):
            which = ~overflow & (settled.reason == code) & (settled.costs_something == paid)
            sheet.put(rows[which], _outcome(int(code), source, paid=paid))


def _outcome(code: int, source: _Source, *, paid: bool) -> Outcome:
    state = CostState.PRICED if paid else CostState.FREE
    if code == 0:
        found = PriceProvenance.FALLBACK if source.tier_reason else source.provenance
        return Outcome(state, source.tier_reason, source.price_id, found)
    bucket = BUCKET_NAMES[abs(code) - 1]
    if code < 0:
        reason = f"missing_rate:{bucket}"
        return Outcome(CostState.UNPRICED, reason, source.price_id, source.provenance)
    return Outcome(state, f"no_own_rate:{bucket}", source.price_id, PriceProvenance.FALLBACK)


def line_items(quantity: Integers, rate: Rate) -> Numbers:
    """Return quantity times rate for every row, each rounded half-even once."""
    largest = int(quantity.max(initial=0)) * rate.numerator
    if max(largest, rate.denominator) >= SAFE_ITEM:
        exact = [divide_half_even(int(q) * rate.numerator, rate.denominator) for q in quantity]
        return np.array(exact, dtype=np.object_)
    product = quantity * rate.numerator
    quotient = product // rate.denominator
    twice = 2 * (product - quotient * rate.denominator)
    up = (twice > rate.denominator) | ((twice == rate.denominator) & (quotient % 2 == 1))
    items: Integers = quotient + up
    return items
