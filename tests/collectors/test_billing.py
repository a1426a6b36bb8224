"""Bills as providers write them; amounts and quantities worked out by hand from the same text."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.billing.files import read_bill
from collectors.billing.plain import mapping_of
from controlplane.core.errors import InvalidInputError
from controlplane.signals.billing import BillKind, BillLine

Put = Callable[[str, object], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file: text as it is, anything else as JSON."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def facts(lines: list[BillLine]) -> list[tuple[Any, ...]]:
    return [(line.day, line.model, line.meter, line.quantity, line.cost_usd) for line in lines]


OPENAI_COSTS = """{"object": "page", "has_more": false, "next_page": null, "data": [
 {"object": "bucket", "start_time": 1760054400, "end_time": 1760140800, "results": [
  {"object": "organization.costs.result", "amount": {"value": 0.06, "currency": "usd"},
   "line_item": "gpt-4o-2024-08-06, cached input", "project_id": "proj_1"},
  {"object": "organization.costs.result", "amount": {"value": 1.2345678901234567, "currency": "usd"},
   "line_item": "gpt-4o-2024-08-06, output", "project_id": null},
  {"object": "organization.costs.result", "amount": {"value": 3, "currency": "eur"},
   "line_item": "gpt-4o, output", "project_id": null}]}]}"""


def test_openai_costs_keep_every_digit_and_their_currency(put: Put) -> None:
    """1760054400 is 10 October 2025; a float would lose the last digits."""
    told, lines = read_bill(put("costs.json", OPENAI_COSTS))
    assert ("openai", 3, 0) == (told.source, told.lines, told.rejected_lines)
    assert ["USD", "USD", "EUR"] == [line.currency for line in lines]
    day = date(2025, 10, 10)
    assert [
        (day, "gpt-4o-2024-08-06", "cache_read", None, Decimal("0.06")),
        (day, "gpt-4o-2024-08-06", "output", None, Decimal("1.2345678901234567")),
        (day, "gpt-4o", "output", None, Decimal(3)),
    ] == facts(lines)
    assert ("proj_1", 16) == (lines[0].key, lines[0].decimals)


def test_openai_usage_has_cached_tokens_inside_input(put: Put) -> None:
    """1,000 of which 400 cached; impossible numbers are told, not guessed."""
    result = {"object": "organization.usage.completions.result", "input_tokens": 1000,
              "output_tokens": 50, "input_cached_tokens": 400, "num_model_requests": 3,
              "model": "gpt-4o", "api_key_id": "key_1"}  # fmt: skip
    wrong = {**result, "input_cached_tokens": 2000}
    page = {"data": [{"start_time": 1760054400, "results": [result, wrong]}]}
    told, lines = read_bill(put("usage.json", [page]))
    assert ["input_uncached", "cache_read", "output"] == [line.meter for line in lines]
    assert [600, 400, 50] == [line.quantity for line in lines]
    assert 1 == told.rejected_lines


def test_openai_dashboard_exports_are_read_too(put: Put) -> None:
    """Costs with empty days, usage as TSV."""
    costs = (
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,"
        "quantity_unit,line_item,api_key_id,project_id\n"
        "1759622400,1759708800,2025-10-05T00:00:00+00:00,,0.8958740000000000,usd,1200,tokens,"
        '"gpt-5-mini, input",key_1,proj_1\n'
        "1759968000,1760054400,2025-10-09T00:00:00+00:00,,,,,,,,\n"
    )
    _, lines = read_bill(put("cost.csv.gz", costs))
    assert [
        (date(2025, 10, 5), "gpt-5-mini", "input_uncached", 1200, Decimal("0.8958740000000000"))
    ] == facts(lines)
    usage = (
        "start_time\tend_time\tnum_model_requests\tmodel\tinput_tokens\toutput_tokens\t"
        "input_cached_tokens\n1759622400\t1759708800\t2\tgpt-5-mini\t10\t4\t0\n"
    )
    _, lines = read_bill(put("usage.tsv", usage))
    assert [("input_uncached", 10), ("output", 4)] == [(x.meter, x.quantity) for x in lines]


def test_anthropic_amounts_are_cents(put: Put) -> None:
    """ "123.45" is 1.2345 dollars: two public tools were wrong by a hundred here (RC-03)."""
    cost = {"amount": "123.45", "currency": "USD", "cost_type": "tokens", "model": "claude-opus-4-1",
            "token_type": "cache_creation.ephemeral_1h_input_tokens", "workspace_id": "wrkspc_1",
            "description": "Claude Opus 4.1 Usage - Cache Write, 1h"}  # fmt: skip
    search = {"amount": "1000", "currency": "USD", "cost_type": "web_search"}
    page = {"data": [{"starting_at": "2025-08-01T00:00:00Z", "results": [cost, search]}]}
    told, lines = read_bill(put("cost_report.json", page))
    day = date(2025, 8, 1)
    assert "anthropic" == told.source
    assert [
        (day, "claude-opus-4-1", "cache_write_1h", None, Decimal("1.2345")),
        (day, None, "web_searches", None, Decimal(10)),
    ] == facts(lines)
    assert ("wrkspc_1", 4) == (lines[0].key, lines[0].decimals)


def test_anthropic_usage_is_by_bucket(put: Put) -> None:
    usage = {"uncached_input_tokens": 1500, "cache_read_input_tokens": 200, "output_tokens": 500,
             "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 0},
             "server_tool_use": {"web_search_requests": 10}, "model": "claude-opus-4-1",
             "api_key_id": None, "workspace_id": None}  # fmt: skip
    page = {"data": [{"starting_at": "2025-08-01T00:00:00Z", "results": [usage]}]}
    _, lines = read_bill(put("usage_report.json", page))
    assert {
        "input_uncached": 1500, "cache_read": 200, "cache_write_1h": 1000, "output": 500,
        "web_searches": 10,
    } == {line.meter: line.quantity for line in lines}  # fmt: skip


def test_litellm_spend_logs_are_usage_and_spend(put: Put) -> None:
    """The spend of a request is one amount for all of its meters."""
    row = {"request_id": "r1", "spend": 0.00012345, "startTime": "2026-11-02T23:59:59.5Z",
           "model": "openai/gpt-4o", "api_key": "hash", "prompt_tokens": 100, "completion_tokens": 9,
           "metadata": json.dumps({"usage_object": {"prompt_tokens_details": {"cached_tokens": 40}}})}  # fmt: skip
    told, lines = read_bill(put("spend.json", [row, {**row, "startTime": "yesterday"}]))
    assert ("litellm", 1) == (told.source, told.rejected_lines)
    day = date(2026, 11, 2)
    assert [
        (day, "gpt-4o", "input_uncached", 60, None),
        (day, "gpt-4o", "cache_read", 40, None),
        (day, "gpt-4o", "output", 9, None),
        (day, "gpt-4o", None, None, Decimal("0.00012345")),
    ] == facts(lines)


def test_opencost_allocations_are_gpu_hours_and_cost(put: Put) -> None:
    """1.5 hours are 5,400 seconds."""
    allocation = {"name": "vllm", "window": {"start": "2026-11-02T00:00:00Z"}, "gpuHours": 1.5,
                  "gpuCost": 3.0, "totalCost": 3.25}  # fmt: skip
    answer = {
        "code": 200,
        "data": [{"vllm": allocation, "__idle__": {**allocation, "gpuHours": 0}}],
    }
    told, lines = read_bill(put("allocation.json", answer))
    assert "opencost" == told.source
    assert [("vllm", 5400), ("__idle__", 0)] == [(line.key, line.quantity) for line in lines]
    assert Decimal("6.50") == sum(line.cost_usd or 0 for line in lines)


CUR_COLUMNS = {
    "line_item_usage_start_date": "lineItem/UsageStartDate",
    "line_item_usage_type": "lineItem/UsageType",
    "line_item_line_item_type": "lineItem/LineItemType",
    "line_item_product_code": "lineItem/ProductCode",
    "line_item_usage_amount": "lineItem/UsageAmount",
    "line_item_unblended_cost": "lineItem/UnblendedCost",
    "line_item_currency_code": "lineItem/CurrencyCode",
    "line_item_usage_account_id": "lineItem/UsageAccountId",
    "pricing_unit": "pricing/unit",
}
CUR_ROWS: list[tuple[Any, ...]] = [
    (
        datetime(2026, 11, 2, 5, tzinfo=UTC), "USE1-Claude3Sonnet-input-tokens", "Usage",
        "AmazonBedrock", 12.345, 0.037035, "USD", "111", "1K tokens",
    ),
    (
        datetime(2026, 11, 2, 5, tzinfo=UTC), "USE1-Claude3Sonnet-output-tokens", "Usage",
        "AmazonBedrock", 1.0, 0.015, "USD", "111", "1K tokens",
    ),
    (
        datetime(2026, 11, 1, tzinfo=UTC), "", "Tax", "AmazonBedrock", 1.0, 0.5, "USD", "111", "",
    ),
    (
        datetime(2026, 11, 2, tzinfo=UTC), "USE1-BoxUsage:m5", "Usage", "AmazonEC2", 1.0, 9.0, "USD",
        "111", "Hrs",
    ),
]  # fmt: skip


@pytest.mark.parametrize("version", ["cur1.csv", "cur2.parquet"])
def test_aws_reports_of_both_versions(tmp_path: Path, version: str) -> None:
    """12.345 thousand tokens; other services' usage is left out, taxes are not."""
    path = tmp_path / version
    if version.endswith("csv"):
        head = ",".join(CUR_COLUMNS.values())
        rows = [",".join(str(v) for v in row) for row in CUR_ROWS]
        path.write_text("\n".join([head, *rows]))
    else:
        named = [dict(zip(CUR_COLUMNS, row, strict=True)) for row in CUR_ROWS]
        pq.write_table(pa.Table.from_pylist(named), path)
    told, lines = read_bill(path)
    assert ("aws", 0) == (told.source, told.rejected_lines)
    assert [
        (date(2026, 11, 2), "Claude3Sonnet", "input_uncached", 12_345, Decimal("0.037035")),
        (date(2026, 11, 2), "Claude3Sonnet", "output", 1_000, Decimal("0.015")),
        (date(2026, 11, 1), None, None, None, Decimal("0.5")),
    ] == facts(lines)
    assert BillKind.TAX is lines[2].kind


def test_focus_of_others_is_read_by_its_words(put: Put) -> None:
    """A consumed unit of a million tokens; a tax row."""
    text = (
        "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargeDescription,SkuId,"
        "SkuMeter,ConsumedQuantity,ConsumedUnit,SubAccountId\n"
        '1.5,USD,Usage,2026-11-02T00:00:00Z,"Claude, cached",x/claude-3,Cached input tokens,0.5,'
        "1000000 Tokens,team-a\n"
        "0.3,USD,Tax,2026-11-02T00:00:00Z,VAT,,,,,\n"
    )
    told, lines = read_bill(put("focus.csv", text))
    assert "focus" == told.source
    assert [
        (date(2026, 11, 2), "claude-3", "cache_read", 500_000, Decimal("1.5")),
        (date(2026, 11, 2), None, None, None, Decimal("0.3")),
    ] == facts(lines)
    assert BillKind.TAX is lines[1].kind


INVOICED_FOCUS = (
    "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ServiceName,x_UsageType,InvoiceId\n"
    "1.5,USD,Usage,2026-11-02T00:00:00Z,Amazon Bedrock,USE1-Claude3Sonnet-input-tokens,A-1\n"
    "9,USD,Usage,2026-11-02T00:00:00Z,Amazon EC2,USE1-BoxUsage:m5,{other}\n"
    "0.3,USD,Tax,2026-11-02T00:00:00Z,,,\n"
)
INVOICED_CUR = (
    "bill/InvoiceId,lineItem/UsageStartDate,lineItem/UsageType,lineItem/LineItemType,"
    "lineItem/ProductCode,lineItem/UnblendedCost\n"
    "A-1,2026-11-02T00:00:00Z,USE1-Claude3Sonnet-input-tokens,Usage,AmazonBedrock,1.5\n"
    "{other},2026-11-02T00:00:00Z,USE1-BoxUsage:m5,Usage,AmazonEC2,9\n"
    ",2026-11-02T00:00:00Z,,Tax,AmazonBedrock,0.3\n"
)


@pytest.mark.parametrize("text", [INVOICED_FOCUS, INVOICED_CUR])
def test_lines_say_their_invoice_and_files_what_else_is_on_it(put: Put, text: str) -> None:
    """An invoice with a machine on it is of more than models; a tax of a bill to come has none."""
    for other, beside in (("A-1", ("A-1",)), ("A-2", ("A-2",)), ("", ())):
        told, lines = read_bill(put("bill.csv", text.format(other=other)))
        assert ["A-1", None] == [line.invoice_id for line in lines]
        assert (beside, 0) == (told.other_invoices, told.rejected_lines)
    mapping = mapping_of("day=Date,cost=Amount,invoice=Invoice")
    _, lines = read_bill(put("any.csv", "Date,Amount,Invoice\n2026-11-02,1,I-7\n"), mapping=mapping)
    assert ["I-7"] == [line.invoice_id for line in lines]


def test_any_table_is_read_by_its_mapping(put: Put) -> None:
    """Dollar signs and thousands; cents where they are said to be cents."""
    path = put("bill.csv", 'Date,SKU,Amount\n2026-11-02,gpt-4o,"$1,234.5"\n2026-11-03,gpt-4o,x\n')
    told, lines = read_bill(path, mapping=mapping_of("day=Date,model=SKU,cost=Amount"))
    assert ("plain", 1) == (told.source, told.rejected_lines)
    assert [(date(2026, 11, 2), "gpt-4o", None, None, Decimal("1234.5"))] == facts(lines)
    _, lines = read_bill(
        put("cents.csv", "d,c\n2026-11-02,150\n"), mapping=mapping_of("day=d,cost_cents=c")
    )
    assert [Decimal("1.50")] == [line.cost_usd for line in lines]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("day=Date", "lacks"), ("cost=Amount", "lacks"), ("day=Date,price=x", "Known"), ("", "lacks")],
)
def test_a_mapping_names_what_it_needs(text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        mapping_of(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bill.csv", "a,b\n1,2\n"),
        ("bill.csv", ""),
        ("bill.json", "{"),
        ("bill.json", {"data": []}),
        ("bill.json", "[" * 100_000),
        ("bill.parquet", "PAR1 no"),
        ("bill.csv", "x" * 200_000 + "," + "y" * 200_000),
        ("bill.jsonl", '{"a": 1'),
    ],
)
def test_what_is_no_bill_is_refused_with_a_sentence(put: Put, name: str, content: object) -> None:
    with pytest.raises(InvalidInputError):
        read_bill(put(name, content))


def test_a_torn_gzip_is_refused(put: Put) -> None:
    path = put("cost.csv.gz", "amount_value,start_time\n1,1760054400\n")
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(InvalidInputError):
        read_bill(path)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "-1e13"])
def test_amounts_that_are_none_are_told(put: Put, value: str) -> None:
    path = put("bill.csv", f"Date,Amount\n2026-11-02,{value}\n")
    told, lines = read_bill(path, mapping=mapping_of("day=Date,cost=Amount"))
    assert ([], 1) == (lines, told.rejected_lines)
