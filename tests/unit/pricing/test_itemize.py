"""Line items of stored calls: those of the price that made the cost, or none by guess."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pyarrow as pa

from controlplane.pricing.itemize import WHOLE_CALL, itemize
from controlplane.pricing.price_book import ListedModel, ListedProvider, ModelPrices, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Tier, rate

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
MTOK = 1_000_000
Rows = Callable[..., pa.Table]


def _row(price_id: str, **usd: str) -> PriceRow:
    rates = {bucket: rate(Decimal(text), per=MTOK) for bucket, text in usd.items()}
    return PriceRow(price_id=price_id, validity=ALWAYS, tiers=(Tier(-1, rates),))


LIST = _row("list/1", input_uncached="2.50", output_text="10")
OWN = _row("override/1", input_uncached="2.0005", output_text="9")
BOOK = PriceBook(
    "b@1",
    [
        ListedProvider(
            provider="openai",
            models=[ListedModel(model="gpt-4o", rows=(LIST,), spellings=("gpt-4o",))],
        )
    ],
    overrides=[ModelPrices(provider="openai", model="gpt-4o", rows=(OWN,))],
)
LIST_ONLY = PriceBook(
    "b@1",
    [
        ListedProvider(
            provider="openai",
            models=[ListedModel(model="gpt-4o", rows=(LIST,), spellings=("gpt-4o",))],
        )
    ],
)


def _items(span_rows: Rows, book: PriceBook, *calls: dict[str, object]) -> list[dict[str, object]]:
    used = {"input_uncached": 1_001, "output_text": 3, "start_time": AT, "price_id": "list/1"}
    table = span_rows(*[{**used, **call} for call in calls])
    frame: pl.DataFrame = itemize(table, book)
    return frame.to_dicts()


def test_items_are_quantity_times_rate_each_rounded_once(span_rows: Rows) -> None:
    """1,001 x 2,000.5 nano-USD = 2,002,500.5, half to even: 2,002,500; 3 x 9,000."""
    own = {"price_id": "override/1", "cost_nusd": 2_002_500 + 27_000}
    first, second = _items(span_rows, BOOK, own)
    assert (0, "input_uncached", 1_001, 2_002_500) == tuple(first.values())[:4]
    assert (0, "output_text", 3, 27_000) == tuple(second.values())[:4]
    assert Fraction("2000.5") == Fraction(
        int(str(first["rate_numerator"])), int(str(first["rate_denominator"]))
    )
    assert (2_500, 10_000) == (first["list_numerator"], second["list_numerator"])


def test_a_cost_that_the_price_does_not_make_is_one_item(span_rows: Rows) -> None:
    """Another sum, a price that is gone, a model that is gone, usage without a rate."""
    made = 1_001 * 2_500 + 3 * 10_000
    found = _items(
        span_rows,
        LIST_ONLY,
        {"cost_nusd": made},
        {"cost_nusd": made + 1},
        {"cost_nusd": 7, "price_id": "list/0"},
        {"cost_nusd": 9, "billing_model": "gone"},
        {"cost_nusd": made, "cache_read": 1},
        {"cost_nusd": None, "cost_state": "unpriced"},
    )
    split = [(item["row"], item["bucket"], item["cost_nusd"]) for item in found]
    assert [
        (0, "input_uncached", 1_001 * 2_500),
        (0, "output_text", 30_000),
        (1, WHOLE_CALL, made + 1),
        (2, WHOLE_CALL, 7),
        (3, WHOLE_CALL, 9),
        (4, WHOLE_CALL, made),
    ] == split


def test_a_price_of_the_organisations_alone_is_its_own_list_price(span_rows: Rows) -> None:
    """The list does not know the model: there is no discount off it."""
    book = PriceBook(
        "b", [], overrides=[ModelPrices(provider="openai", model="gpt-4o", rows=(OWN,))]
    )
    own = {"price_id": "override/1", "cost_nusd": 2_002_500 + 27_000}
    found = _items(span_rows, book, own)
    assert [2_002_500, 27_000] == [item["cost_nusd"] for item in found]
    for end in ("numerator", "denominator"):
        assert [item[f"rate_{end}"] for item in found] == [item[f"list_{end}"] for item in found]


def test_a_price_per_call_is_an_item_whether_or_not_calls_were_counted(span_rows: Rows) -> None:
    """0.01 USD a call: one where nothing was said, three where three were."""
    rates = {"requests": rate(Decimal("0.01"), per=1)}
    row = PriceRow(price_id="list/1", validity=ALWAYS, tiers=(Tier(-1, rates),))
    book = PriceBook(
        "b", [], overrides=[ModelPrices(provider="openai", model="gpt-4o", rows=(row,))]
    )
    unused = {"input_uncached": None, "output_text": None}
    found = _items(
        span_rows,
        book,
        {**unused, "cost_nusd": 10_000_000},
        {**unused, "requests": 3, "cost_nusd": 30_000_000},
    )
    assert [(0, "requests", 1, 10_000_000), (1, "requests", 3, 30_000_000)] == [
        tuple(item.values())[:4] for item in found
    ]


def test_hostile_quantities_do_not_wrap(span_rows: Rows) -> None:
    """2^40 tokens at 2.50: 2.7e15 nano-USD; a thousand times dearer is beyond what a cost can be."""
    many = 2**40
    (item,) = _items(
        span_rows,
        LIST_ONLY,
        {"input_uncached": many, "output_text": None, "cost_nusd": many * 2_500},
    )
    assert many * 2_500 == item["cost_nusd"]
    dear = _row("list/1", input_uncached="25000000000")
    book = PriceBook(
        "b", [], overrides=[ModelPrices(provider="openai", model="gpt-4o", rows=(dear,))]
    )
    (whole,) = _items(
        span_rows, book, {"input_uncached": many, "output_text": None, "cost_nusd": 5}
    )
    assert (WHOLE_CALL, 5) == (whole["bucket"], whole["cost_nusd"])
