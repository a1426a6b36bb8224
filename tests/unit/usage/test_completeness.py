"""What the meter says of accounts, counters and silence; figures are worked out by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.usage.completeness import (
    Completeness,
    plain_model,
    read_meter,
    with_silence_of,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def _emitter(**said: Any) -> dict[str, Any]:
    return {
        "tenant": "acme", "key_id": "k", "service_name": "app", "signal": "traces",
        "received": 1_200, "stored": 1_200, "duplicates": 0, "rejected": 0, "late": 0, "ahead": 0,
        "first_hour": NOW - 12 * HOUR, "last_received": NOW - MINUTE, **said,
    }  # fmt: skip


def _calls(**said: Any) -> dict[str, Any]:
    return {
        "tenant": "acme", "service_name": "app", "layers": "client", "model": "gpt-4o-2024-08-06",
        "request_model": "gpt-4o", "calls": 10, "input_tokens": 9_000, "output_tokens": 1_000,
        "cost_nusd": 20_000_000, "priced_tokens": 10_000, "first_start": NOW - 12 * HOUR,
        "compared_calls": 0, "off_calls": 0, "off_reported_nusd": 0, "off_cost_nusd": 0,
        "off_nusd": 0, **said,
    }  # fmt: skip


def _growth(meaning: str, increase: float, **said: Any) -> dict[str, Any]:
    return {
        "tenant": "acme", "emitter": "app", "metric": "gen_ai.client.token.usage",
        "meaning": meaning, "model": "gpt-4o", "increase": increase, **said,
    }  # fmt: skip


def _read(**said: Any) -> Completeness:
    empty = dict.fromkeys(("emitters", "instances", "rejections", "growth", "calls"), ())
    rows: dict[str, Any] = {**empty, **said}
    return read_meter(now=NOW, **rows)


def _codes(meter: Completeness) -> list[str]:
    return [found.code for found in meter.findings]


def test_an_emitter_in_its_rhythm_is_no_finding() -> None:
    assert [] == _codes(_read(emitters=[_emitter()]))


def test_a_silent_emitter_costs_its_mean_spend_while_it_is_silent() -> None:
    """$24 in 8 hours, then 4 hours of nothing: $12 are missing."""
    calls = _calls(cost_nusd=24_000_000_000, first_start=NOW - 12 * HOUR)
    meter = _read(emitters=[_emitter(last_received=NOW - 4 * HOUR)], calls=[calls])
    (found,) = meter.findings
    assert ("silent_emitter", 12_000_000_000) == (found.code, found.missing_nusd)
    assert "240 minutes" in found.message


@pytest.mark.parametrize(
    ("said", "silent"),
    [
        ({"last_received": NOW - 14 * MINUTE}, False),
        ({"last_received": NOW - 16 * MINUTE}, True),
        # One in half an hour: two hours of silence are four gaps.
        ({"received": 20, "last_received": NOW - 100 * MINUTE}, False),
        ({"received": 20, "last_received": NOW - 130 * MINUTE}, True),
        # Whatever the rhythm, six hours are silence.
        ({"received": 10, "first_hour": NOW - 90 * HOUR, "last_received": NOW - 7 * HOUR}, True),
        ({"received": 9, "last_received": NOW - 7 * HOUR}, False),
        # It sends for other tenants: this one has nothing to say.
        ({"last_received": NOW - 4 * HOUR, "last_heard": NOW - MINUTE}, False),
    ],
)
def test_what_silence_is(said: dict[str, Any], silent: bool) -> None:  # noqa: FBT001 - a parameter
    (account,) = _read(emitters=[_emitter(**said)]).accounts
    assert silent == account.is_silent


def _instance(
    name: str, *, first: timedelta, last: timedelta, received: int = 400
) -> dict[str, Any]:
    return {
        "tenant": "acme", "key_id": "k", "service_name": "app", "instance": name,
        "received": received, "first_received": NOW - first, "last_received": NOW - last,
    }  # fmt: skip


def test_a_replica_that_falls_silent_is_found_while_others_send() -> None:
    """$24 in 8 hours, a third of it this one's, which is silent for 4: $4 are missing."""
    calls = _calls(cost_nusd=24_000_000_000, first_start=NOW - 12 * HOUR)
    found = [
        _instance("a", first=12 * HOUR, last=MINUTE),
        _instance("b", first=12 * HOUR, last=MINUTE),
        _instance("c", first=12 * HOUR, last=4 * HOUR),
    ]
    meter = _read(emitters=[_emitter()], instances=found, calls=[calls])
    (finding,) = meter.findings
    assert ("silent_instance", 4_000_000_000) == (finding.code, finding.missing_nusd)
    assert "instance c: nothing for 240 minutes" in finding.message


@pytest.mark.parametrize(
    ("instances", "lost"),
    [
        # A roll-out: each old one has a new one, which began while it was still there.
        ([("a", 12, 3, 400), ("b", 12, 3, 400), ("c", 3.1, 0, 90), ("d", 3, 0, 90)], []),
        # Two went and one came.
        ([("a", 12, 3, 400), ("b", 12, 2, 400), ("c", 3, 0, 90)], ["b"]),
        # One that came before the other went does not stand in for it.
        ([("a", 12, 1, 400), ("c", 3, 0, 90)], ["a"]),
        # A job that ran once.
        ([("a", 12, 0, 400), ("job", 5, 4.9, 9)], []),
        # Functions that live for a request: more of them than are known.
        ([("a", 12, 3, 400), *((str(n), 12, 3, 20) for n in range(64))], []),
    ],
)
def test_which_replicas_are_lost(
    instances: list[tuple[str, float, float, int]], lost: list[str]
) -> None:
    rows = [
        _instance(name, first=first * HOUR, last=last * HOUR, received=received)
        for name, first, last, received in instances
    ]
    findings = _read(emitters=[_emitter()], instances=rows).findings
    assert lost == [one.message.split()[1].rstrip(":") for one in findings]


def test_replicas_of_a_silent_emitter_are_one_finding() -> None:
    rows = [_instance(name, first=12 * HOUR, last=4 * HOUR) for name in "abc"]
    meter = _read(emitters=[_emitter(last_received=NOW - 4 * HOUR)], instances=rows)
    assert ["silent_emitter"] == _codes(meter)


def test_a_silent_emitter_without_prices_has_no_estimate() -> None:
    calls = _calls(cost_nusd=0, priced_tokens=0)
    (found,) = _read(emitters=[_emitter(last_received=NOW - 4 * HOUR)], calls=[calls]).findings
    assert found.missing_nusd is None


def test_counters_that_agree_are_no_finding() -> None:
    growth = [_growth("input_tokens", 9_100), _growth("output_tokens", 1_000)]
    meter = _read(growth=growth, calls=[_calls()])
    (check,) = meter.counters
    assert (9_100, 1_000, 9_000, 1_000, 100) == (
        check.counted_input_tokens,
        check.counted_output_tokens,
        check.call_input_tokens,
        check.call_output_tokens,
        check.missing_tokens,
    )
    assert [] == _codes(meter)


def test_counters_ahead_of_calls_are_missing_data_at_the_mean_price() -> None:
    """10,000 tokens cost $0.02: 5,000 missing ones are worth a cent."""
    growth = [_growth("input_tokens", 14_000), _growth("output_tokens", 1_000)]
    (found,) = _read(growth=growth, calls=[_calls()]).findings
    assert ("counters_ahead_of_calls", 10_000_000) == (found.code, found.missing_nusd)


def test_parts_of_tokens_are_never_added() -> None:
    parts = ("cached_input_tokens", "cache_creation_input_tokens", "reasoning_tokens")
    growth = [_growth("input_tokens", 9_000), *(_growth(part, 8_000) for part in parts)]
    (check,) = _read(growth=growth, calls=[_calls()]).counters
    assert 9_000 == check.counted_input_tokens
    assert 0 == check.missing_tokens


def test_old_and_new_metrics_of_one_program_count_the_same_tokens() -> None:
    growth = [
        _growth("input_tokens", 9_000),
        _growth("input_tokens", 9_000, metric="gen_ai.client.inference.usage.input_tokens"),
    ]
    (check,) = _read(growth=growth, calls=[_calls()]).counters
    assert 9_000 == check.counted_input_tokens


def test_instances_of_one_job_add_up() -> None:
    growth = [_growth("input_tokens", 4_500, instance=i) for i in ("a", "b")]
    (check,) = _read(growth=growth, calls=[_calls()]).counters
    assert 9_000 == check.counted_input_tokens


def test_an_engines_counters_are_compared_with_the_calls_it_served() -> None:
    growth = [
        _growth(
            "input_tokens", 9_000, emitter="vllm", metric="vllm:prompt_tokens", model="Llama-8B"
        )
    ]
    calls = [
        _calls(model="meta/llama-8b", layers="client,engine"),
        _calls(model="meta/llama-8b", layers="client"),  # of another endpoint
        _calls(layers="engine"),  # of another model
    ]
    (check,) = _read(growth=growth, calls=calls).counters
    assert ("vllm", 9_000) == (check.source, check.call_input_tokens)


def test_an_engine_that_counts_while_no_span_arrives_is_found() -> None:
    growth = [_growth("output_tokens", 5_000, emitter="vllm", metric="vllm:generation_tokens")]
    (found,) = _read(growth=growth).findings
    assert ("counts_without_calls", None) == (found.code, found.missing_nusd)


def test_rejections_clocks_and_late_spans_are_found_with_their_numbers() -> None:
    emitter = _emitter(rejected=3, ahead=2, late=5)
    reasons = [
        {**emitter, "reason": "missing_time", "rejected": 1},
        {**emitter, "reason": "invalid_trace_id", "rejected": 2},
    ]
    meter = _read(emitters=[emitter], rejections=reasons)
    assert ["items_rejected", "clock_ahead", "late_arrivals"] == _codes(meter)
    assert "2 invalid_trace_id, 1 missing_time" in meter.findings[0].message


def test_models_are_compared_without_prefix_and_case() -> None:
    assert "gpt-4o" == plain_model("openai/GPT-4o")


def test_a_producer_whose_own_cost_is_not_ours_is_a_finding() -> None:
    """A gateway says $3 for 4 calls that are $2 by our prices; a cent of $100 is rounding."""
    off = _calls(
        service_name="gateway", cost_nusd=5_000_000_000, compared_calls=10, off_calls=4,
        off_reported_nusd=3_000_000_000, off_cost_nusd=2_000_000_000, off_nusd=1_000_000_000,
    )  # fmt: skip
    rounding = _calls(
        service_name="app", cost_nusd=100_000_000_000, compared_calls=900, off_calls=1,
        off_reported_nusd=30_000_000, off_cost_nusd=20_000_000, off_nusd=10_000_000,
    )  # fmt: skip
    (found,) = _read(calls=[off, rounding]).findings
    assert ("reported_cost_differs", "gateway") == (found.code, found.emitter)
    assert (
        "4 of 10 calls of gpt-4o-2024-08-06 say they cost 3 USD, we price them 2 USD"
        == found.message
    )


def test_a_cost_reported_for_what_is_free_is_a_finding() -> None:
    free = _calls(
        cost_nusd=0, compared_calls=1, off_calls=1, off_reported_nusd=5, off_cost_nusd=0, off_nusd=5
    )
    assert ["reported_cost_differs"] == _codes(_read(calls=[free]))


def test_who_stopped_before_a_short_window_is_silent_in_it() -> None:
    """The last hour has no account of it; the last day knows that it went on until 4 hours ago."""
    calls = _calls(cost_nusd=24_000_000_000, first_start=NOW - 12 * HOUR)
    recent = _read(emitters=[_emitter(last_received=NOW - 4 * HOUR)], calls=[calls])
    hour = _read(emitters=[_emitter(service_name="other", rejected=1)])
    meter = with_silence_of(hour, recent)
    assert ["silent_emitter", "items_rejected"] == _codes(meter)
    assert 12_000_000_000 == meter.findings[0].missing_nusd
    assert ["other"] == [account.service_name for account in meter.accounts]


def test_a_slow_rhythm_is_known_from_the_day() -> None:
    """By the hour's own twelve items it would be silent; the day knows gaps of this length."""
    hour = _read(emitters=[_emitter(received=12, first_hour=NOW - HOUR, last_received=NOW - HOUR)])
    assert hour.accounts[0].is_silent
    day = _read(emitters=[_emitter(received=24, last_received=NOW - HOUR)])
    meter = with_silence_of(hour, day)
    assert [] == _codes(meter)
    assert not meter.accounts[0].is_silent


def test_findings_name_items_and_an_emitter_without_a_name() -> None:
    nameless = _emitter(key_id="", service_name="", signal="metrics", received=4, rejected=2)
    (found,) = _read(
        emitters=[nameless], rejections=[{**nameless, "reason": "missing_time"}]
    ).findings
    assert ("no service.name", "2 of 4 data points rejected: 2 missing_time") == (
        found.emitter,
        found.message,
    )
