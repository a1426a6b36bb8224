"""Price files of others: read exactly, refused with the place, and compared before they count."""

import json
from datetime import UTC, date, datetime

import pytest

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.import_csv import read_csv
from controlplane.pricing.import_litellm import read_litellm
from controlplane.pricing.list_diff import (
    Change,
    RateChange,
    dated_changes,
    removed_changes,
    undated_changes,
)
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import quote
from controlplane.pricing.sheet import Sheet, compile_providers

NOV = datetime(2026, 11, 20, tzinfo=UTC)
TODAY = date(2026, 11, 25)
CSV = (
    b"provider,model,bucket,usd,per,service_tier,above_input_tokens,valid_from,valid_to\n"
    b"p,m,input_uncached,2.50,,,,,\n"
    b"p,m,output_text,10,,,,,\n"
    b"p,m,input_uncached,5,,,200000,,\n"
    b"p,m,output_text,4,,batch,,2026-06-01,2027-01-01\n"
    b"p,img,images,0.04,1,,,,\n"
)


def _usd(sheets: tuple[Sheet, ...], model: str, tier: str = "", **usage: int) -> int | None:
    book = PriceBook("t", compile_providers([], sheets))
    return quote(
        book, provider=sheets[0].provider, model=model, at=NOV, usage=usage, service_tier=tier
    ).total_nusd


def test_a_csv_has_every_shape_of_price() -> None:
    sheets = read_csv(CSV, source="csv:1")
    assert 200_000 * 2_500 == _usd(sheets, "m", input_uncached=200_000)
    assert 200_001 * 5_000 + 10_000 == _usd(sheets, "m", input_uncached=200_001, output_text=1)
    assert 4_000 == _usd(sheets, "m", "batch", output_text=1)
    assert 3 * 40_000_000 == _usd(sheets, "img", images=3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"provider,model,usd\n", "misses"),
        (b"provider,model,bucket,usd,color\n", "unknown columns"),
        (b"provider,model,bucket,usd\np,m,tokens,1\n", "line 2.bucket: 'tokens'"),
        (b"provider,model,bucket,usd\np,,output_text,1\n", "line 2.model"),
        (b"provider,model,bucket,usd\np,m,output_text,1,9\n", "line 2"),
        (b"provider,model,bucket,usd,per\np,m,output_text,1,x\n", "whole number"),
        (b"provider,model,bucket,usd,per\np,m,output_text,1,0\n", "per 0 units"),
        (b"provider,model,bucket,usd,valid_from\np,m,output_text,1,May\n", "'May'"),
        (b"provider,model,bucket,usd\np,m,output_text,-1\n", "'-1' is not a price"),
        (b"provider,model,bucket,usd\np,m,output_text,1\np,m,output_text,2\n", "line 3"),
        (
            b"provider,model,bucket,usd,valid_from,valid_to\np,m,output_text,1,2026-02-01,2026-01-01\n",
            "not after valid_from",
        ),
    ],
)
def test_a_wrong_csv_names_the_line(body: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        read_csv(body, source="s")


MAP = {
    "sample_spec": {"input_cost_per_token": 0},
    "gpt-x": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "output_cost_per_reasoning_token": 2e-05,
        "cache_read_input_token_cost": 1.25e-06,
        "cache_creation_input_token_cost_above_1hr": 6e-06,
        "input_cost_per_token_batches": 1.25e-06,
        "output_cost_per_token_priority": 1.7e-05,
        "input_cost_per_token_above_200k_tokens": 5e-06,
        "input_cost_per_token_above_200k_tokens_priority": 9e-06,
        "search_context_cost_per_query": {"search_context_size_medium": 0.035},
        "input_cost_per_pixel": 1e-9,
        "max_tokens": 5,
    },
    "gemini/g": {
        "litellm_provider": "gemini",
        "mode": "chat",
        "tiered_pricing": [
            {"range": [0, 1e3], "input_cost_per_token": 1e-06},
            {"range": [1000, 1e6], "input_cost_per_token": 2e-06},
            {"no": "range"},
        ],
    },
    "vertex_ai/g": {"litellm_provider": "vertex_ai-models", "input_cost_per_token": 7e-06},
    "whisper": {"litellm_provider": "openai", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0},
    "sora": {"litellm_provider": "openai", "mode": "video_generation", "output_cost_per_second": 0.1},
    "nothing": {"litellm_provider": "openai", "mode": "chat"},
}  # fmt: skip


def test_litellms_map_is_read_to_the_last_digit() -> None:
    """Context tiers, service tiers, both at once; names of two providers that are one to us."""
    read = read_litellm(json.dumps(MAP).encode(), source="litellm:1")
    sheets = read.sheets
    assert 1_000 * 2_500 == _usd(sheets, "gpt-x", input_uncached=1_000)
    assert 1_000 * 1_250 == _usd(sheets, "gpt-x", "batch", input_uncached=1_000)
    assert 200_001 * 5_000 == _usd(sheets, "gpt-x", input_uncached=200_001)
    assert 200_001 * 9_000 == _usd(sheets, "gpt-x", "priority", input_uncached=200_001)
    # Reasoning has a rate of its own; where only the tier's output is said, it is output again.
    assert 20_000 == _usd(sheets, "gpt-x", output_reasoning=1)
    assert 17_000 == _usd(sheets, "gpt-x", "priority", output_reasoning=1)
    assert 35_000_000 == _usd(sheets, "gpt-x", web_searches=1)
    assert 100_000 == _usd(sheets, "whisper", audio_seconds=1)
    assert 100_000_000 == _usd(sheets, "sora", video_seconds=1)
    google = tuple(sheet for sheet in sheets if sheet.provider == "google")
    assert (1_000, 2_002_000) == (
        _usd(google, "g", input_uncached=1),
        _usd(google, "g", input_uncached=1_001),
    )
    assert {"input_cost_per_pixel": 1, "google/g: another price under vertex_ai/g": 1} == dict(
        read.left_out
    )


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": 1}'])
def test_what_is_no_price_map_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_litellm(body, source="s")


def test_an_impossible_price_of_a_map_is_refused() -> None:
    wrong = {"m": {"litellm_provider": "p", "input_cost_per_token": -1}}
    with pytest.raises(InvalidInputError, match="not a price"):
        read_litellm(json.dumps(wrong).encode(), source="s")


def _list(*lines: str) -> tuple[Sheet, ...]:
    header = "provider,model,bucket,usd,valid_from\n"
    return read_csv((header + "\n".join(lines) + "\n").encode(), source="new")


def test_an_undated_list_changes_from_its_day_and_never_before() -> None:
    known = {s.key: s for s in _list("p,m,input_uncached,2,", "p,m,output_text,8,", "p,k,pages,1,")}
    offered = _list("p,m,output_text,6,", "p,new,output_text,1,", "p,k,pages,1.0,")
    changed, added = undated_changes(known, offered, effective=TODAY)
    assert (Change.CHANGED, "p/m") == (changed.change, changed.key)
    assert (
        RateChange(
            row="base",
            above_input_tokens=-1,
            bucket="output_text",
            old_usd_per_million="8",
            new_usd_per_million="6",
        ),
    ) == changed.rates
    assert (Change.ADDED, "p/new") == (added.change, added.key)
    assert changed.sheet
    book = PriceBook("t", compile_providers([], [changed.sheet]))
    usage = {"input_uncached": 10**6, "output_text": 10**6}
    prices = [
        quote(book, provider="p", model="m", at=at, usage=usage).total_nusd
        for at in (datetime(2026, 11, 24, 23, 59, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC))
    ]
    # What the new list is silent about keeps its rate.
    assert [10 * 10**9, 8 * 10**9] == prices
    # The day after, the same list is no change.
    again = undated_changes({changed.key: changed.sheet}, offered[:1], effective=TODAY)
    assert [] == again


def test_a_dated_list_replaces_and_a_complete_one_removes() -> None:
    known = {s.key: s for s in _list("p,m,output_text,8,", "p,gone,output_text,1,")}
    offered = _list("p,m,output_text,8,", "p,m,output_text,6,2026-12-01")
    (changed,) = dated_changes(known, offered)
    assert [("2026-12-01", None, "6")] == [
        (r.row, r.old_usd_per_million, r.new_usd_per_million)
        for r in changed.rates
        if r.bucket == "output_text"
    ]
    (removed,) = removed_changes(known, offered)
    assert (Change.REMOVED, "p/gone", None) == (removed.change, removed.key, removed.sheet)
    assert [] == dated_changes(known, _list("p,m,output_text,8,"))
    (added,) = dated_changes({}, _list("p,m,output_text,8,"))
    assert Change.ADDED == added.change


def test_an_hourly_rate_is_shown_to_twelve_places() -> None:
    hourly = read_csv(b"provider,model,bucket,usd,per\np,g,gpu_seconds,1,3600\n", source="s")
    (change,) = dated_changes({}, hourly)
    assert "277.777777777778" == change.rates[0].new_usd_per_million


def test_an_undated_list_with_a_context_tier_keeps_the_rates_below() -> None:
    known = {s.key: s for s in _list("p,m,input_uncached,2,", "p,m,web_searches,0.01,")}
    header = b"provider,model,bucket,usd,above_input_tokens\n"
    offered = read_csv(header + b"p,m,input_uncached,2,\np,m,input_uncached,4,1000\n", source="n")
    (change,) = undated_changes(known, offered, effective=TODAY)
    assert change.sheet
    book = PriceBook("t", compile_providers([], [change.sheet]))
    at = datetime(2026, 11, 25, tzinfo=UTC)
    usage = {"input_uncached": 1_001, "web_searches": 1}
    answer = quote(book, provider="p", model="m", at=at, usage=usage)
    assert 1_001 * 4_000 + 10_000_000 == answer.total_nusd


def test_an_undated_list_adds_a_tier_that_was_not_there() -> None:
    known = {s.key: s for s in _list("p,m,output_text,2,")}
    header = b"provider,model,bucket,usd,service_tier\n"
    offered = read_csv(header + b"p,m,output_text,1,flex\n", source="n")
    (change,) = undated_changes(known, offered, effective=TODAY)
    assert [(None, "1")] == [(r.old_usd_per_million, r.new_usd_per_million) for r in change.rates]
