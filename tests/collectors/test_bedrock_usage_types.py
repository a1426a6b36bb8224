"""Usage types of Amazon Bedrock as its price list and cost reports write them, and what they bill."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.billing.bedrock import metered
from collectors.billing.files import read_bill
from controlplane.pricing.model_words import ModelWords
from controlplane.pricing.price_book import NotFound, PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.billing import BillKind

SONNET_46 = "Claude Sonnet 4.6 (Amazon Bedrock Edition)"
SEEN: list[tuple[str, str, str, str]] = [
    # usage type, product, our model, our bucket
    ("USE1-Claude3Sonnet-input-tokens", "", "regional.anthropic.claude-3-sonnet-20240229-v1:0",
     "input_uncached"),
    ("EU-Claude3Haiku-output-tokens", "", "regional.anthropic.claude-3-haiku-20240307-v1:0",
     "output"),
    ("USW2-Claude4.5Sonnet-cache-write-input-token-count", "",
     "regional.anthropic.claude-sonnet-4-5-20250929-v1:0", "cache_write_5m"),
    ("USE1-Claude4Sonnet-cache-write-input-token-count-1-hour", "",
     "regional.anthropic.claude-sonnet-4-20250514-v1:0", "cache_write_1h"),
    ("USE1-Claude4.6Opus-cache-read-input-token-count-cross-region-global", "",
     "global.anthropic.claude-opus-4-6-v1:0", "cache_read"),
    ("USE1-Claude4Sonnet-input-tokens-long-context-cross-region-global", "",
     "global.anthropic.claude-sonnet-4-20250514-v1:0", "input_uncached"),
    ("USW2-anthropic.claude-opus-4-8-mantle-cache-write-tokens-1h-global-standard", "",
     "global.anthropic.claude-opus-4-8-v1:0", "cache_write_1h"),
    ("USE1-anthropic.claude-opus-5-mantle-output-tokens-standard", "",
     "regional.anthropic.claude-opus-5", "output"),
    ("USE1-MP:USE1_InputTokenCount-Units", SONNET_46, "regional.anthropic.claude-sonnet-4-6-v1:0",
     "input_uncached"),
    ("USE1-MP:USE1_CacheWrite1hInputTokenCount_Global-Units", SONNET_46,
     "global.anthropic.claude-sonnet-4-6-v1:0", "cache_write_1h"),
    ("USW2-MP:USW2_output_tokens_standard-Units", "Claude Opus 5.5 (Amazon Bedrock Edition)",
     "regional.anthropic.claude-opus-5-5", "output"),
    ("USE1-MP:USE1_MillionBatchInputTokens-Units", "Claude Haiku 4.5 (Amazon Bedrock Edition)",
     "regional.anthropic.claude-haiku-4-5-20251001-v1:0", "input_uncached"),
    ("USE1-MP:USE1_InputTokenCount-Units", "Claude 3.5 Sonnet v2 (Amazon Bedrock Edition)",
     "regional.anthropic.claude-3-5-sonnet-20241022-v2:0", "input_uncached"),
    ("USE1-NovaPro-input-tokens-latency-optimized", "", "amazon.nova-pro-v1:0", "input_uncached"),
    ("USE1-Nova2.0Lite-input-tokens-cross-region-global-batch", "",
     "global.amazon.nova-2-lite-v1:0", "input_uncached"),
    ("USE1-Nova2.0Lite-input-image-token-count", "", "regional.amazon.nova-2-lite-v1:0",
     "input_image"),
    ("USE1-TitanEmbeddingV2-Text-input-tokens", "", "amazon.titan-embed-text-v2:0",
     "input_uncached"),
    ("USE1-Llama4-Maverick-17B-input-tokens-batch", "", "meta.llama4-maverick-17b-instruct-v1:0",
     "input_uncached"),
    ("USE1-Gemma-3-4B-IT-input-tokens-flex", "", "google.gemma-3-4b-it", "input_uncached"),
    ("USE1-openai.gpt-oss-120b-mantle-input-tokens-standard", "", "openai.gpt-oss-120b-1:0",
     "input_uncached"),
    ("USE1-Qwen3-32B-output-tokens-priority", "", "qwen.qwen3-32b-v1:0", "output"),
    ("USE1-moonshotai.kimi-k3-mantle-cache-read-tokens-standard", "", "regional.moonshotai.kimi-k3",
     "cache_read"),
]  # fmt: skip


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers())


@pytest.fixture(scope="module")
def words(book: PriceBook) -> ModelWords:
    return ModelWords(_listed(book, name) or name for who, name in book.names() if who == "aws")


def _listed(book: PriceBook, name: str) -> str | None:
    found = book.find("aws", name)
    return None if isinstance(found, NotFound) else found.model


@pytest.mark.parametrize(("usage_type", "product", "model", "meter"), SEEN)
def test_a_usage_type_is_a_listed_model_and_one_of_its_buckets(
    book: PriceBook, words: ModelWords, usage_type: str, product: str, model: str, meter: str
) -> None:
    found = metered(usage_type, product)
    assert (meter, True, False) == (found.meter, found.is_tokens, found.is_fee)
    assert model == (_listed(book, found.model) or words.find(found.model))


def test_what_is_no_listed_models_tokens_is_not_taken_for_some(words: ModelWords) -> None:
    """A model of one's own, one that is not listed, and another order of the same numbers."""
    guard = metered("USE1-Guardrail-AutomatedReasoningPolicyUnitsConsumed", None)
    assert (False, "requests", None) == (guard.is_tokens, guard.meter, words.find(guard.model))
    custom = metered("USE1-NovaPro-cache-write-input-token-count-custom-model", None)
    assert words.find(custom.model) is None
    assert words.find("Claude5.4Sonnet") is None
    assert words.find("Claude4.5") is None
    assert words.find("claude-3-5-sonnet") is None  # of two dates
    assert "regional.anthropic.claude-sonnet-4-5-20250929-v1:0" == words.find("Claude Sonnet 4.5")


@pytest.mark.parametrize(
    "usage_type",
    ["USE1-MP:USE1_Reserved_1Month_InputTPM_Geo-Units",
     "USE1-Claude3Haiku-ProvisionedThroughput-ModelUnit-1MonthCommit"],
)  # fmt: skip
def test_capacity_is_a_fee(usage_type: str) -> None:
    assert metered(usage_type, SONNET_46).is_fee


def test_a_report_sold_through_the_marketplace_is_read_by_its_product(tmp_path: Path) -> None:
    """Version 2.0 has a map of the product, Parquet a list of pairs and CSV a JSON text."""
    row: dict[str, Any] = {
        "line_item_usage_start_date": datetime(2026, 11, 2, 5, tzinfo=UTC),
        "line_item_usage_type": "USE1-MP:USE1_OutputTokenCount_Global-Units",
        "line_item_line_item_type": "Usage", "line_item_product_code": "3mbzuvmgk2yk4jlp1h5xvkznz",
        "line_item_usage_amount": 0.25, "line_item_unblended_cost": 3.75,
        "line_item_currency_code": "USD", "line_item_usage_account_id": "111", "pricing_unit": "Units",
    }  # fmt: skip
    names = pa.array([[("product_name", SONNET_46)]], pa.map_(pa.string(), pa.string()))
    table = pa.Table.from_pylist([row]).append_column("product", names)
    pq.write_table(table, tmp_path / "cur.parquet")
    _, parquet = read_bill(tmp_path / "cur.parquet")
    told = json.dumps({"product_name": SONNET_46}).replace('"', '""')
    lines = [",".join([*row, "product"]), ",".join([*map(str, row.values()), f'"{told}"'])]
    (tmp_path / "cur.csv").write_text("\n".join(lines))
    _, text = read_bill(tmp_path / "cur.csv")
    assert parquet == text
    ((line,),) = (parquet,)
    assert ("global.Claude Sonnet 4.6", "output", 250_000, BillKind.USAGE) == (
        line.model, line.meter, line.quantity, line.kind,
    )  # fmt: skip


def test_focus_of_aws_is_read_by_its_usage_type(tmp_path: Path) -> None:
    """Its `SkuId` is a code; other services are not on a bill of models."""
    (tmp_path / "focus.csv").write_text(
        "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargeDescription,SkuId,"
        "ConsumedQuantity,ConsumedUnit,ServiceName,x_ServiceCode,x_UsageType,SubAccountId\n"
        "0.33,USD,Usage,2026-11-02T00:00:00Z,x,4TJ,100,1K tokens,Amazon Bedrock,AmazonBedrock,"
        "USE1-Claude4.5Sonnet-input-tokens,111\n"
        "9,USD,Usage,2026-11-02T00:00:00Z,x,5TK,24,Hours,Amazon EC2,AmazonEC2,USE1-BoxUsage:m5,111\n"
        "1,USD,Tax,2026-11-02T00:00:00Z,VAT,,,,Amazon Bedrock,AmazonBedrock,,111\n"
    )
    told, lines = read_bill(tmp_path / "focus.csv")
    assert ("focus", 0) == (told.source, told.rejected_lines)
    assert [("Claude4.5Sonnet", "input_uncached", 100_000), (None, None, None)] == [
        (line.model, line.meter, line.quantity) for line in lines
    ]
