"""Proposals over recorded calls; every expectation is worked out by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from controlplane.budgets.budget import Budget
from controlplane.core.calendar import Period
from controlplane.pipelines.experiments import analyze
from controlplane.pipelines.replay import Proposed, replay
from controlplane.pipelines.replay_report import ReplayReport
from controlplane.pipelines.savings import savings
from controlplane.policy.assign import assign
from controlplane.policy.document import (
    Arm,
    Cap,
    Deny,
    Downgrade,
    Experiment,
    Mode,
    PolicyDocument,
    Route,
    Rule,
    Throttle,
    When,
)
from controlplane.policy.rules import Deployment
from controlplane.signals.schema import CALL_SCHEMA

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
RATES = {"big": (10, 100), "small": (1, 10)}
"""nano-USD per input and output token."""


def price(*, model: str, usage: Any, **_: Any) -> int | None:
    if model not in RATES:
        return None
    inputs, outputs = RATES[model]
    written: int = usage.get("output_text", 0)
    read: int = sum(usage.values()) - written
    return inputs * read + outputs * written


def call(number: int, **said: Any) -> dict[str, Any]:
    """Call `number`, a minute after the one before: 100 tokens in, 50 out on `big`: 6,000 nano-USD."""
    row = {
        "call_id": f"c{number}",
        "start_time": NOW + timedelta(minutes=number),
        "duration_us": 2_000_000,
        "tenant": "acme",
        "team": "search",
        "provider": "house",
        "operation": "chat",
        "request_model": "big",
        "billing_model": "big",
        "status": "ok",
        "input_tokens": 100,
        "output_tokens": 50,
        "input_uncached": 100,
        "output_text": 50,
        "cost_nusd": 6_000,
        **said,
    }
    blank: dict[str, Any] = {
        f.name: None if f.nullable else "" if pa.types.is_string(f.type) else 0 for f in CALL_SCHEMA
    }
    return blank | {"enforced": False, "received_at": NOW} | row


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=CALL_SCHEMA)


def play(rows: list[dict[str, Any]], *rules: Rule, **proposed: Any) -> ReplayReport:
    document = PolicyDocument(issued_at=NOW, rules=rules) if rules else None

    def batches() -> Iterator[pa.Table]:
        middle = len(rows) // 2
        yield table(rows[:middle])
        yield table(rows[middle:])

    return replay(batches, Proposed(document=document, **proposed), price=price)


def test_nothing_proposed_changes_nothing() -> None:
    """The sums are those of the records."""
    found = play([call(n) for n in range(3)])
    assert (3, 18_000, 18_000, 0, 0) == (
        found.calls,
        found.cost_before_nusd,
        found.cost_after_nusd,
        found.saved_nusd,
        found.changed_calls,
    )
    assert found.assumptions


def test_downgrade_is_priced_with_the_tokens_that_were_used() -> None:
    """100 x 1 + 50 x 10 = 600 instead of 6,000, for the team it selects; latency as recorded."""
    rows = [
        call(0),
        call(1, team="rank"),
        call(2, billing_model="small", request_model="small", duration_us=500_000, cost_nusd=600),
    ]
    found = play(rows, Downgrade(id="d", to="small", match={"team": ("search",)}))
    assert (12_600, 7_200, 5_400) == (
        found.cost_before_nusd,
        found.cost_after_nusd,
        found.saved_nusd,
    )
    (changed,) = found.listed
    assert ("c0", "model", "d", "small", 600) == (
        changed.call_id,
        changed.effect,
        changed.by,
        changed.new_model,
        changed.new_cost_nusd,
    )
    assert -1_500.0 == found.latency_change_ms_mean  # 2 s on big, 0.5 s on small


def test_denied_calls_are_listed_by_team() -> None:
    """They cost nothing, and each is named."""
    rows = [call(0), call(1), call(2, team=None), call(3, team="rank")]
    found = play(rows, Deny(id="no", match={"team": ("search",)}))
    assert (2, 12_000, 12_000) == (found.blocked_calls, found.blocked_cost_nusd, found.saved_nusd)
    assert [("search", 2)] == [(each.team, each.calls) for each in found.blocked_by_team]
    assert ["c0", "c1"] == [each.call_id for each in found.listed]


def test_cap_cuts_the_output() -> None:
    """100 x 10 + 20 x 100 = 3,000."""
    found = play([call(0)], Cap(id="c", max_tokens=20))
    assert (3_000, "cap") == (found.cost_after_nusd, found.listed[0].effect)
    assert 0 == play([call(0)], Cap(id="c", max_tokens=50)).changed_calls


def test_throttle_counts_in_the_time_of_the_calls() -> None:
    """Three in one minute, one allowed; the next minute is another."""
    rows = [call(0), *(call(n, start_time=NOW + timedelta(seconds=n)) for n in (1, 2)), call(1)]
    assert 2 == play(rows, Throttle(id="t", rpm=1)).blocked_calls


def test_route_by_prompt_size_sends_a_share() -> None:
    """Short prompts only; deployments stand for their models."""
    deployments = {
        "cheap": Deployment(provider="house", model="small"),
        "dear": Deployment(provider="house", model="big"),
    }
    rule = Route(
        id="r", weights={"cheap": 1, "dear": 1}, when=When(max_input_tokens=200), sticky=None
    )
    rows = [call(n) for n in range(200)] + [call(n, input_tokens=900) for n in range(200, 220)]
    found = play(rows, rule, deployments=deployments)
    expected = sum(assign("r", f"c{n}", {"cheap": 1, "dear": 1}) == "cheap" for n in range(200))
    assert expected == found.changed_calls
    assert 60 < expected < 140
    assert expected * 5_400 == found.saved_nusd


def budget(limit: int, mode: Mode = Mode.HARD, **more: Any) -> Budget:
    return Budget(
        id="b",
        name="proposed",
        owner="o",
        tenant="acme",
        limit_nusd=limit,
        period=Period.HOUR,
        counts_from=NOW,
        mode=mode,
        **more,
    )


def test_hard_budget_blocks_what_does_not_fit_and_begins_anew() -> None:
    """13,000 an hour are two calls of 6,000; a soft one blocks nobody."""
    rows = [call(n) for n in (0, 1, 2, 3, 60, 61, 62)]
    found = play(rows, budgets=(budget(13_000),))
    assert ["c2", "c3", "c62"] == [each.call_id for each in found.listed]
    assert {"proposed"} == {each.by for each in found.listed}
    assert 0 == play(rows, budgets=(budget(13_000, Mode.SOFT),)).blocked_calls
    assert 0 == play(rows, budgets=(budget(1, match={"team": ("rank",)}),)).blocked_calls


def test_proposed_prices_rate_every_call_again() -> None:
    """Half the price is half the cost; what it does not know is counted, not zero."""

    def half(*, model: str, **more: Any) -> int | None:
        found = price(model=model, **more)
        return found // 2 if found is not None and model == "big" else None

    rows = [call(0), call(1, billing_model="small", request_model="small", cost_nusd=600)]
    found = play(rows, price=half)
    assert (6_000, 3_000, 1) == (
        found.cost_before_nusd,
        found.cost_after_nusd,
        found.unknown_cost_calls,
    )


def test_savings_are_against_the_model_that_was_asked_for() -> None:
    """6,000 on big, 600 on small: 5,400 saved; without a price nothing is claimed.

    `big-2026` is a version of `big`: nothing was rerouted.
    """
    rows = [
        call(0, billing_model="small", cost_nusd=600),
        call(1, billing_model="small", cost_nusd=600, request_model="mystery"),
        call(2),
        call(3, billing_model="big-2026"),
    ]
    same = {("house", "big", "big-2026")}
    found = savings(iter([table(rows)]), price=price, is_same=lambda *names: names in same)
    assert (4, 2, 5_400, 1) == (
        found.calls,
        found.rerouted_calls,
        found.saved_nusd,
        found.unknown_calls,
    )
    (row,) = found.rows
    assert ("big", "small", 6_000, 600) == (
        row.asked_model,
        row.served_model,
        row.counterfactual_nusd,
        row.cost_nusd,
    )


TRIAL = Experiment(id="e", arms={"as-asked": Arm(weight=1), "small": Arm(weight=1, model="small")})


def trial_calls(users: int) -> list[dict[str, Any]]:
    """Each user two calls in its first day and a ruinous one two days later."""
    rows = []
    for n in range(users):
        arm = assign("e", f"u{n}", {"as-asked": 1, "small": 1})
        cost = (600 if arm == "small" else 6_000) + n % 7
        model = "small" if arm == "small" else "big"
        first = NOW + timedelta(seconds=n)
        for hours, more in ((0, 0), (1, 2), (48, 10**9)):
            at = first + timedelta(hours=hours)
            rows.append(
                call(n, user_id=f"u{n}", start_time=at, billing_model=model, cost_nusd=cost + more)
            )
    rows.append(call(0, user_id=None))
    return sorted(rows, key=lambda row: row["start_time"])


@pytest.mark.parametrize("users", [400])
def test_arms_are_worked_out_again_and_compared(users: int) -> None:
    """By user, over the first day of each; the control is the arm that changes nothing."""
    found = analyze(
        iter([table(trial_calls(users))]), TRIAL, now=NOW + timedelta(days=3), unit_hours=24
    )
    assert ("as-asked", 1) == (found.control, found.unassigned_calls)
    control, small = (next(a for a in found.arms if a.arm == n) for n in ("as-asked", "small"))
    assert users == control.units + small.units
    assert 2 * small.units == small.calls
    expected = [
        600 + n % 7 + 1
        for n in range(users)
        if assign("e", f"u{n}", {"as-asked": 1, "small": 1}) == "small"
    ]
    mean = sum(expected) / len(expected) / 1e9
    assert abs(small.means["cost_usd_per_call"] - mean) < 1e-15
    assert "lower" == small.against_control["cost_usd_per_call"].verdict
    assert "undecided" == small.against_control["error_ratio"].verdict
    assert {} == control.against_control


def test_units_wait_until_their_time_is_over() -> None:
    """Half a day tells nothing of a day."""
    found = analyze(iter([table(trial_calls(50))]), TRIAL, now=NOW + timedelta(hours=12))
    assert {0} == {arm.units for arm in found.arms}
    assert 50 == sum(arm.waiting_units for arm in found.arms)
