"""What-if prices the same usage otherwise; expected values by hand, $1 and $4 a million."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.what_if import (
    KEYS,
    Scenario,
    WhatIfGroup,
    check_scenario,
    merged,
    what_if,
)
from controlplane.signals.schema import CALL_SCHEMA

OWN: list[dict[str, Any]] = [
    {"provider": "p", "model": "m", "usd": {"input_uncached": "1", "cache_read": "0.1", "output_text": "4"}},
    {"provider": "p", "model": "m", "usd": {"input_uncached": "0.5", "cache_read": "0.05", "output_text": "2"}, "service_tier": "batch"},
    {"provider": "p", "model": "small", "usd": {"input_uncached": "0.2", "cache_read": "0.02", "output_text": "0.8"}},
    {"provider": "p", "model": "plain", "usd": {"input_uncached": "1", "output_text": "4"}},
]  # fmt: skip
BOOK = PriceBook("t", [], overrides=compile_overrides(OWN))


def _calls(*rows: dict[str, object]) -> pa.Table:
    base: dict[str, object] = {
        "provider": "p",
        "billing_model": "m",
        "start_time": datetime(2026, 11, 20, tzinfo=UTC),
        "status": "ok",
        "usage_state": "exact",
        "tenant": "a",
        "input_uncached": 800,
        "cache_read": 200,
        "output_text": 100,
        # 800 x 1,000 + 200 x 100 + 100 x 4,000
        "cost_nusd": 1_220_000,
    }
    filled = [{**base, **row} for row in rows]
    columns = [pa.array([row.get(f.name) for row in filled], f.type) for f in CALL_SCHEMA]
    return pa.table(
        columns, schema=pa.schema([f.with_nullable(nullable=True) for f in CALL_SCHEMA])
    )


def _one(scenario: Scenario, *rows: dict[str, object]) -> WhatIfGroup:
    (group,) = what_if([_calls(*(rows or ({},)))], scenario, BOOK)
    return group


@pytest.mark.parametrize(
    ("scenario", "new"),
    [
        (Scenario(model="small"), 800 * 200 + 200 * 20 + 100 * 800),
        (Scenario(service_tier="batch"), 1_220_000 // 2),
        (Scenario(cache_permille=500), 500 * 1_000 + 500 * 100 + 400_000),
        # 200 of 1,000 are cached already: less is not asked for.
        (Scenario(cache_permille=100), 1_220_000),
        (Scenario(max_input_tokens=600), 400 * 1_000 + 200 * 100 + 400_000),
        (Scenario(max_input_tokens=50), 50 * 100 + 400_000),
        # 1.2 times the tokens; 960, 240, 120.
        (Scenario(tokens_permille=1_200), 960 * 1_000 + 240 * 100 + 120 * 4_000),
        # 4, 1 and 0.5 tokens: half up.
        (Scenario(tokens_permille=5, model="small"), 4 * 200 + 1 * 20 + 1 * 800),
        (Scenario(max_input_tokens=600, cache_permille=1_000, model="small"), 600 * 20 + 80_000),
    ],
)
def test_each_scenario_is_its_formula(scenario: Scenario, new: int) -> None:
    group = _one(scenario)
    assert (1, 1_220_000, new, 0) == (
        group.calls,
        group.old_nusd,
        group.new_nusd,
        group.not_compared,
    )
    assert scenario.formula()


def test_calls_without_a_price_on_either_side_are_counted_and_not_summed() -> None:
    group = _one(
        Scenario(model="small"),
        {},
        {"cost_nusd": None, "cost_state": "unpriced"},
        {"usage_state": "unknown", "input_uncached": None, "cache_read": None, "output_text": None},
    )
    assert (1, 2, 1_220_000) == (group.calls, group.not_compared, group.old_nusd)
    unknown = _one(Scenario(model="nobody"))
    assert (0, 1, 0, 0) == (unknown.calls, unknown.not_compared, unknown.old_nusd, unknown.new_nusd)


@pytest.mark.parametrize(
    "scenario", [Scenario(service_tier="flex"), Scenario(model="plain", cache_permille=500)]
)
def test_a_rate_that_stands_in_for_what_is_asked_tells_nothing(scenario: Scenario) -> None:
    """No flex row: the standard one would price it. No rate of cached reads: the input's would."""
    group = _one(scenario)
    assert (0, 1) == (group.calls, group.not_compared)


def test_groups_by_feature_sum_to_groups_by_model() -> None:
    rows = _calls({"feature": "f"}, {"feature": "g"}, {"feature": "f", "tenant": "b"}, {})
    fine = what_if([rows], Scenario(service_tier="batch"), BOOK, by=KEYS)
    assert what_if([rows], Scenario(service_tier="batch"), BOOK) == merged(
        fine, ("tenant", "model")
    )
    assert [("f", 2, 2_440_000), (None, 1, 1_220_000), ("g", 1, 1_220_000)] == [
        (one.feature, one.calls, one.old_nusd) for one in merged(fine, ("feature",))
    ]


def test_groups_are_by_tenant_and_model_dearest_first() -> None:
    rows = _calls({}, {"tenant": "b"}, {"tenant": "b"}, {"billing_model": None, "cost_nusd": 5})
    found = what_if([rows, rows.slice(0, 0)], Scenario(service_tier="batch"), BOOK)
    assert [("b", "m", 2), ("a", "m", 1), ("a", None, 0)] == [
        (g.tenant, g.model, g.calls) for g in found
    ]


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (Scenario(), "changes nothing"),
        (Scenario(cache_permille=1_001), "cache_permille"),
        (Scenario(max_input_tokens=-1), "max_input_tokens"),
        (Scenario(tokens_permille=0), "tokens_permille"),
    ],
)
def test_a_scenario_that_is_none_is_refused(scenario: Scenario, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        check_scenario(scenario)
