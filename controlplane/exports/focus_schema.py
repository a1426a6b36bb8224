"""The columns of a FOCUS 1.2 cost and usage file, ours behind them, and how they are written.

Source: FinOps Open Cost and Usage Specification 1.2 (29 May 2025), focus.finops.org. Decimals are
exact in Parquet (38 digits, 18 behind the point) and in CSV; CSV writes a decimal point always, so
that a reader who guesses types does not take a column of whole numbers for integers.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from io import BytesIO
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from controlplane.exports.traces import FORMULA_STARTS

SPEC: Final = "FOCUS 1.2"
_FORMULA: Final = re.compile(FORMULA_STARTS)
SCALE: Final = 18
DECIMAL: Final = pa.decimal128(38, SCALE)
INSTANT: Final = pa.timestamp("us", tz="UTC")
TEXT: Final = pa.string()

_TEXTS: Final = (
    "AvailabilityZone", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "CapacityReservationId", "CapacityReservationStatus", "ChargeCategory",
    "ChargeClass", "ChargeDescription", "ChargeFrequency", "CommitmentDiscountCategory",
    "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountStatus",
    "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedUnit", "InvoiceId", "InvoiceIssuerName", "PricingCategory", "PricingCurrency",
    "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId",
    "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory",
    "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName",
    "SubAccountType", "Tags",
)  # fmt: skip
_DECIMALS: Final = (
    "BilledCost", "CommitmentDiscountQuantity", "ConsumedQuantity", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "ListCost", "ListUnitPrice", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity",
)  # fmt: skip
_INSTANTS: Final = (
    "BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart",
)  # fmt: skip
_OURS: Final[tuple[tuple[str, pa.DataType, str], ...]] = (
    ("x_CallCount", pa.int64(), "Calls with a quantity of this meter"),
    ("x_CommitmentPeriodEnd", INSTANT, "End of the period that a commitment is owed for"),
    ("x_CommitmentPeriodStart", INSTANT, "Start of that period"),
    ("x_ContextTierAboveTokens", pa.int64(), "Input above which this price applies; null: any"),
    ("x_CostState", TEXT, "priced, free or estimated; unpriced usage is in its own file"),
    ("x_CorrectsPeriodStart", INSTANT, "First instant of the period that a correction is about"),
    ("x_ExchangeRateDay", TEXT, "Day of the rate that amounts were converted at; null: USD"),
    ("x_ExchangeRateSource", TEXT, "Where that rate is from"),
    ("x_ExchangeRateUsdPerUnit", DECIMAL, "USD for one unit of BillingCurrency on that day"),
    ("x_Operation", TEXT, "gen_ai.operation.name"),
    ("x_PriceId", TEXT, "The row of the price book that priced these calls"),
    ("x_PriceProvenance", TEXT, "How that row was found: exact, alias, tier, override, fallback"),
    (
        "x_RoundingCost",
        DECIMAL,
        "EffectiveCost less ContractedCost: one rounding per call and meter",
    ),
    ("x_ServiceTier", TEXT, "batch, flex, priority, as served; null: standard"),
    ("x_UsageBucket", TEXT, "Our name of the meter"),
    ("x_UsdEffectiveCost", DECIMAL, "EffectiveCost in USD, in which everything is accounted"),
)
FOCUS_COLUMNS: Final = tuple(sorted((*_TEXTS, *_DECIMALS, *_INSTANTS)))


def _fields() -> list[tuple[str, pa.DataType]]:
    kinds: dict[str, pa.DataType] = {
        **dict.fromkeys(_TEXTS, TEXT),
        **dict.fromkeys(_DECIMALS, DECIMAL),
        **dict.fromkeys(_INSTANTS, INSTANT),
    }
    ours = [(name, kind) for name, kind, _ in _OURS]
    return [*((name, kinds[name]) for name in FOCUS_COLUMNS), *ours]


FOCUS_SCHEMA: Final = pa.schema(_fields())


def longest_texts(table: pa.Table) -> dict[str, int]:
    """Return how many characters the longest text of each column has."""
    texts = (field.name for field in table.schema if field.type == TEXT)
    return {name: pc.max(pc.utf8_length(table[name])).as_py() or 0 for name in texts}


def describe_columns(longest: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the metadata document's column definitions (FOCUS, metadata chapter).

    `longest` is of the files that the document accompanies: names that tenants give have no bound
    of ours that is not far too large.
    """
    ours = {name: about for name, _, about in _OURS}
    return [
        {
            **_described(field, ours),
            **({"StringMaxLength": longest.get(field.name, 0)} if field.type == TEXT else {}),
        }
        for field in FOCUS_SCHEMA
    ]


def _described(field: "pa.Field[Any]", ours: dict[str, str]) -> dict[str, Any]:
    kind: dict[str, Any] = {"ColumnName": field.name, "DataType": "STRING"}
    if field.type == DECIMAL:
        kind |= {"DataType": "DECIMAL", "NumericPrecision": 38, "NumberScale": SCALE}
    elif field.type == INSTANT:
        kind["DataType"] = "DATETIME"
    elif field.type == pa.int64():
        kind |= {"DataType": "INTEGER"}
    elif field.name in {"Tags", "SkuPriceDetails"}:
        kind |= {"DataType": "JSON", "StringEncoding": "UTF-8"}
    else:
        kind |= {"StringEncoding": "UTF-8"}
    if field.name in ours:
        kind["x_Description"] = ours[field.name]
    return kind


def to_parquet(table: pa.Table) -> bytes:
    """Write Parquet with zstd."""
    buffer = BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd")
    return buffer.getvalue()


def to_csv(table: pa.Table) -> bytes:
    """Write CSV: UTC instants with a Z, exact decimals, texts safe to open in a spreadsheet."""
    columns: dict[str, pl.Series] = {}
    for field in table.schema:
        values = table[field.name].to_pylist()
        if field.type == DECIMAL:
            columns[field.name] = pl.Series([_number(v) for v in values], dtype=pl.String)
        elif field.type == INSTANT:
            said = [None if v is None else f"{v:%Y-%m-%dT%H:%M:%SZ}" for v in values]
            columns[field.name] = pl.Series(said, dtype=pl.String)
        elif field.type == TEXT:
            columns[field.name] = pl.Series([_safe(v) for v in values], dtype=pl.String)
        else:
            columns[field.name] = pl.Series(values, dtype=pl.Int64)
    return pl.DataFrame(columns).write_csv().encode()


def _number(value: Decimal | None) -> str | None:
    if value is None:
        return None
    whole, _, decimals = format(value, "f").partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}"


def _safe(text: str | None) -> str | None:
    return f"'{text}" if text is not None and _FORMULA.match(text) else text
