import json
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.agent.admit import (
    Claim,
    claim,
    count_unattributed,
    dearest_rate,
    exhausted,
    with_parents,
)
from controlplane.agent.bounds import bound_request, shrink
from controlplane.agent.refusal import Refusal
from controlplane.policy.document import BudgetClause, PolicyDocument, RatePerMillion
from controlplane.policy.units import BudgetUnit
from controlplane.policy.wire import Standing

TEXT = [{"role": "user", "content": "hello"}]


def _chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": TEXT, **fields}


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (_chat(web_search_options={"x": 1}), "server tool"),
        (_chat(tools=[{"type": "web_search"}]), "server tool (web_search)"),
        (_chat(modalities=["text", "audio"]), "modalities"),
        (_chat(service_tier="priority"), "service tier"),
        (_chat(service_tier=["priority"]), "service tier"),
        (_chat(extra_body={"max_tokens": 9}), "fields this proxy does not read"),
        (_chat(prediction={"content": "x"}), "prediction"),
        (_chat(max_tokens="9"), "output limit"),
        (_chat(max_tokens=True), "output limit"),
        (_chat(n=True), "n is not a whole number"),
        (_chat(n=2.0), "n is not a whole number"),
        (_chat(best_of="3"), "best_of is not a whole number"),
        (_chat(n=101, prompt=["x"] * 100), "more choices"),
        ({"messages": [{"role": "user", "content": [{"type": {"a": 1}}]}]}, "content part"),
        (
            {"messages": [{"content": [{"type": "image"}, {"type": "video"}]}]},
            "content part (video)",
        ),
        (_chat(system=[{"type": "search_result"}]), "content part (search_result)"),
    ],
)
def test_what_has_no_bound_says_why(request_: dict[str, Any], why: str) -> None:
    bound = bound_request("chat", request_)
    assert bound.unbounded
    assert why in bound.unbounded


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (_chat(previous_response_id="r"), "stored conversation"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"input": [{"type": "input_file", "file_id": "f"}]}, "input_file"),
        (_chat(system=[{"type": "text"}, {"type": "document"}]), "document"),
        (
            {"messages": [{"content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
            "image",
        ),
    ],
)
def test_what_is_held_elsewhere_is_bounded_by_the_context_window(
    request_: dict[str, Any], what: str
) -> None:
    """1,000 tokens of context at 3 nano-USD, 20 of output at 5; refused where it is not known."""
    bound = bound_request("chat", request_ | {"max_tokens": 20})
    assert bound.unbounded is None
    assert what in (bound.from_elsewhere or "")
    rate = RatePerMillion(input_nusd=3_000_000, output_nusd=5_000_000, context_tokens=1_000)
    names = (("m",),)
    held = claim(_document(rate), (_budget(),), bound, candidates=names, cap_tokens=None)
    assert isinstance(held, Claim)
    assert 0 <= held.held_nusd - (3_000 + 100) <= 20
    unknown = msgspec.structs.replace(rate, context_tokens=0)
    refused = claim(_document(unknown), (_budget(),), bound, candidates=names, cap_tokens=None)
    assert isinstance(refused, Refusal)
    assert "budget_unbounded_request" == refused.code


def test_a_request_without_a_limit_is_held_at_the_models_own_and_is_not_changed() -> None:
    """The documented output limit, else the context window; nothing is written into the request."""
    bound, names = bound_request("chat", _chat()), (("m",),)
    for limits, output in (((50, 900), 50), ((0, 900), 900)):
        rate = RatePerMillion(
            input_nusd=0, output_nusd=10**6, max_output_tokens=limits[0], context_tokens=limits[1]
        )
        held = claim(_document(rate), (_budget(),), bound, candidates=names, cap_tokens=None)
        assert isinstance(held, Claim)
        assert (output, True) == (held.output_tokens, held.is_own_limit)
        cut = held.cut_to({"b": 45})
        assert cut is not None
        assert not cut.is_own_limit
        assert cut.output_tokens < 50


def test_an_operation_nobody_looked_at_is_unbounded() -> None:
    assert bound_request("aimage_generation", {"prompt": "a cat"}).unbounded


@pytest.mark.parametrize("field", ["models", "additional_drop_params", "drop_params", "plugins"])
def test_a_field_nobody_looked_at_is_unbounded(field: str) -> None:
    assert bound_request("chat", _chat(), sent_fields=["model", field]).unbounded
    assert bound_request("chat", _chat(), sent_fields=["model", "messages"]).unbounded is None


@given(st.text(max_size=300), st.integers(0, 10_000), st.integers(1, 4))
def test_input_is_never_more_tokens_than_bytes(text: str, limit: int, choices: int) -> None:
    request = _chat(messages=[{"role": "user", "content": text}], max_tokens=limit, n=choices)
    bound = bound_request("chat", request)
    assert bound.input_tokens >= len(text.encode())
    assert (limit, choices, None) == (bound.output_tokens, bound.choices, bound.unbounded)


def test_the_larger_of_two_limits_counts_and_both_are_lowered() -> None:
    request = _chat(max_tokens=5, max_completion_tokens=50)
    assert 50 == bound_request("chat", request).output_tokens
    shrink(request, "chat", 3)
    assert (3, 3) == (request["max_tokens"], request["max_completion_tokens"])
    bare = _chat()
    shrink(bare, "chat", 3)
    assert 3 == bare["max_tokens"]


def test_of_n_and_best_of_the_larger_is_written() -> None:
    """An API writes `best_of` and shows `n` of them; every one is billed."""
    for n, best_of, choices in ((2, 5, 5), (5, 2, 5), (None, 3, 3)):
        request = {"prompt": "x", "n": n, "best_of": best_of, "max_tokens": 7}
        assert choices == bound_request("text_completion", request).choices


def test_what_a_provider_says_about_tools_is_input() -> None:
    """Anthropic adds up to 530 tokens of its own for as little as one tool."""
    tool = {"name": "f", "input_schema": {"type": "object"}}
    bare = bound_request("messages", _chat(max_tokens=9)).input_tokens
    for field in ("tools", "functions"):
        asked = bound_request("messages", _chat(max_tokens=9, **{field: [tool]}))
        assert asked.input_tokens - bare >= 530 + len(json.dumps([tool], separators=(",", ":")))


@pytest.mark.parametrize(
    ("budget_tokens", "cap", "left"),
    [(5_000, 2_000, 1_999), (2_000, 2_000, 1_999), (1_999, 2_000, 1_999), (5_000, 1_024, None)],
)
def test_thinking_stays_below_the_output_limit(
    budget_tokens: int, cap: int, left: int | None
) -> None:
    """As the API wants it; with less than the API's least there is none."""
    request = _chat(thinking={"type": "enabled", "budget_tokens": budget_tokens}, max_tokens=9_000)
    shrink(request, "messages", cap)
    assert (cap, left) == (request["max_tokens"], request.get("thinking", {}).get("budget_tokens"))


def test_many_prompts_are_many_outputs() -> None:
    bound = bound_request("text_completion", {"prompt": ["a", "b", "c"], "n": 2, "max_tokens": 1})
    assert 6 == bound.choices


def test_reasoning_and_structured_output_are_not_cut() -> None:
    assert not bound_request("chat", _chat(reasoning_effort="high")).can_shrink
    assert not bound_request("chat", _chat(response_format={"type": "json_object"})).can_shrink
    assert bound_request("chat", _chat()).can_shrink


RATE = st.builds(
    RatePerMillion,
    input_nusd=st.integers(0, 10**11),
    output_nusd=st.integers(1, 10**11),
    request_nusd=st.integers(0, 10**8),
)


def _document(rate: RatePerMillion, **changes: Any) -> PolicyDocument:
    text = json.dumps({"issued_at": "2026-01-01T00:00:00Z", **changes})
    document = msgspec.json.decode(text, type=PolicyDocument)
    return msgspec.structs.replace(document, rate_card={"m": rate})


def _budget(**changes: Any) -> BudgetClause:
    clause = {
        "id": "b",
        "name": "b",
        "owner": "o",
        "match": {},
        "limit_nusd": 1,
        "window_start": "2026-01-01T00:00:00Z",
        "window_end": "2026-02-01T00:00:00Z",
    }
    return msgspec.convert({**clause, **changes}, BudgetClause)


@given(RATE, st.integers(1, 5_000), st.integers(0, 10**12), st.integers(1, 3))
def test_a_cut_claim_fits_and_still_covers_the_bill(
    rate: RatePerMillion, limit: int, fits: int, choices: int
) -> None:
    """The hold covers any bill within the bound, priced in Decimal and rounded per line."""
    request = _chat(max_tokens=limit, n=choices)
    bound = bound_request("chat", request)
    whole = claim(_document(rate), (_budget(),), bound, candidates=(("m",),), cap_tokens=None)
    assert isinstance(whole, Claim)
    cut = whole.cut_to(dict.fromkeys(whole.amounts, fits))
    if cut is not None:
        assert cut.held_nusd <= max(fits, whole.held_nusd)
        assert cut.output_tokens <= limit
        assert fits >= cut.held_nusd or cut.output_tokens == 0
    for one in (whole, cut or whole):
        lines = (
            Decimal(bound.input_tokens) * rate.input_nusd / 10**6,
            Decimal(one.output_tokens * choices) * rate.output_nusd / 10**6,
            Decimal(rate.request_nusd),
        )
        bill = sum(int(line.quantize(Decimal(1), ROUND_HALF_EVEN)) for line in lines)
        assert bill <= one.held_nusd


def test_the_dearest_reachable_deployment_is_held() -> None:
    card = {
        "cheap": RatePerMillion(input_nusd=1, output_nusd=9, max_output_tokens=10),
        "openai/dear": RatePerMillion(input_nusd=5, output_nusd=7, max_output_tokens=20),
        "dear": RatePerMillion(input_nusd=0, output_nusd=0),
    }
    rate = dearest_rate(card, (("openai/cheap", "cheap"), ("openai/dear", "dear")))
    assert rate == RatePerMillion(input_nusd=5, output_nusd=9, max_output_tokens=20)
    assert dearest_rate(card, (("openai/cheap", "cheap"), ("openai/new", "new"))) is None


def test_a_model_without_a_price_is_blocked_unless_the_budget_allows_it() -> None:
    rate = RatePerMillion(input_nusd=1, output_nusd=1)
    bound = bound_request("chat", _chat(max_tokens=1))

    def ask(budget: BudgetClause) -> Claim | Refusal:
        return claim(_document(rate), (budget,), bound, candidates=(("new",),), cap_tokens=None)

    blocked = ask(_budget())
    assert isinstance(blocked, Refusal)
    assert "budget_unpriced_model" == blocked.code
    assert Claim() == ask(_budget(unpriced="allow"))
    assert Claim() == ask(_budget(mode="shadow"))


def _claim_of(*budgets: BudgetClause, card: dict[str, RatePerMillion]) -> Claim | Refusal:
    ceilings = {"p": card["p/dear"], "q": card["q/dearest"]}
    document = msgspec.structs.replace(
        _document(card["p/dear"]), rate_card=card, provider_ceilings=ceilings
    )
    bound = bound_request("chat", _chat(max_tokens=10))
    names = (("p/new", "new"),)
    return claim(document, budgets, bound, candidates=names, cap_tokens=None)


def test_a_model_without_a_price_is_held_at_its_providers_dearest() -> None:
    card = {
        "p/dear": RatePerMillion(input_nusd=0, output_nusd=5_000_000),
        "p/cheap": RatePerMillion(input_nusd=0, output_nusd=1_000_000),
        "q/dearest": RatePerMillion(input_nusd=0, output_nusd=9_000_000),
    }
    held = _claim_of(_budget(unpriced="ceiling"), card=card)
    assert isinstance(held, Claim)
    assert 10 * 5 <= held.held_nusd < 10 * 9
    mixed = _claim_of(
        _budget(id="x", unpriced="allow"), _budget(id="y", unpriced="ceiling"), card=card
    )
    assert isinstance(mixed, Claim)
    assert ("y",) == mixed.budget_ids
    blocked = _claim_of(_budget(unpriced="ceiling"), _budget(id="z"), card=card)
    assert isinstance(blocked, Refusal)
    assert "budget_unpriced_model" == blocked.code


def test_a_request_that_lacks_a_fact() -> None:
    """Blocked, held as if it matched, or left alone, as its budget says."""
    rate = RatePerMillion(input_nusd=0, output_nusd=1)

    def counted(facts: dict[str, str], **fields: str) -> tuple[str, ...] | str:
        budget = _budget(match={"team": ["a"], "environment": ["prod"]}, **fields)
        document = msgspec.structs.replace(_document(rate), budgets=(budget,))
        found = count_unattributed(document, facts)
        return found.code if isinstance(found, Refusal) else tuple(one.id for one in found)

    lacking = {"environment": "prod"}
    assert () == counted(lacking)
    assert ("b",) == counted(lacking, unattributed="ceiling")
    assert "budget_unattributed_request" == counted(lacking, unattributed="block")
    for facts in ({"environment": "test"}, {"environment": "prod", "team": "z"}):
        assert () == counted(facts, unattributed="block")


def test_a_call_is_held_at_every_level() -> None:
    top, middle = _budget(id="top"), _budget(id="middle", parent="top")
    leaf, other = _budget(id="leaf", parent="middle"), _budget(id="other")
    document = msgspec.structs.replace(
        _document(RatePerMillion(input_nusd=0, output_nusd=1)), budgets=(top, middle, leaf, other)
    )
    assert {"leaf", "middle", "top"} == {one.id for one in with_parents(document, (leaf,))}
    assert {"other"} == {one.id for one in with_parents(document, (other,))}


def test_a_budget_holds_in_its_own_unit() -> None:
    """Of one call: 128 input and 2 x 30 output tokens, one request, and what those tokens cost."""
    rate = RatePerMillion(input_nusd=1_000_000, output_nusd=2_000_000)
    budgets = (
        _budget(id="usd"),
        _budget(id="tok", unit="tokens"),
        _budget(id="req", unit="requests"),
    )
    bound = bound_request("chat", _chat(max_tokens=30, n=2))
    wanted = claim(_document(rate), budgets, bound, candidates=(("m",),), cap_tokens=None)
    assert isinstance(wanted, Claim)
    tokens = bound.input_tokens + 60
    assert (tokens, 1) == (wanted.amounts["tok"], wanted.amounts["req"])
    assert 0 <= wanted.amounts["usd"] - (bound.input_tokens + 2 * 60) <= 20
    assert wanted.held_nusd == wanted.amounts["usd"]
    cut = wanted.cut_to({"usd": 10**9, "tok": bound.input_tokens + 41, "req": 5})
    assert cut is not None
    assert (20, bound.input_tokens + 40, 1) == (
        cut.output_tokens,
        cut.amounts["tok"],
        cut.amounts["req"],
    )
    assert wanted.cut_to({"usd": 10**9, "tok": 10**9, "req": 0}) is None


def test_only_money_needs_a_price_and_only_amounts_need_a_bound() -> None:
    """A budget of requests takes any call; one of tokens takes a model without a price."""
    document = _document(RatePerMillion(input_nusd=1, output_nusd=1))

    def ask(unit: str, **fields: Any) -> Claim | Refusal:
        bound = bound_request("chat", _chat(**fields))
        budget = _budget(unit=unit)
        return claim(document, (budget,), bound, candidates=(("new",),), cap_tokens=None)

    counted = ask("requests", background=True)
    assert isinstance(counted, Claim)
    assert ({"b": 1}, True) == (counted.amounts, counted.is_own_limit)
    assert isinstance(ask("tokens", max_tokens=5), Claim)
    for unit, fields, code in (
        ("tokens", {"previous_response_id": "r", "max_tokens": 5}, "budget_unbounded_request"),
        ("tokens", {}, "budget_no_output_limit"),
        ("usd", {"max_tokens": 5}, "budget_unpriced_model"),
    ):
        refused = ask(unit, **fields)
        assert isinstance(refused, Refusal)
        assert code == refused.code


def test_a_free_call_still_counts_where_money_is_not_counted() -> None:
    free = _document(RatePerMillion(input_nusd=0, output_nusd=0))
    bound = bound_request("chat", _chat(max_tokens=5))
    budgets = (_budget(id="usd"), _budget(id="req", unit="requests"))
    wanted = claim(free, budgets, bound, candidates=(("m",),), cap_tokens=None)
    assert isinstance(wanted, Claim)
    assert {"req": 1} == wanted.amounts


def test_a_refusal_speaks_in_the_unit_of_its_budget() -> None:
    budgets = tuple(
        msgspec.structs.replace(_budget(id="t", unit="tokens", limit_nusd=500), rolling=rolling)
        for rolling in (None, "24h")
    )
    now = datetime(2026, 1, 20, tzinfo=UTC)
    standing = Standing(
        budget_id="t",
        window_start=now,
        window_end=now + timedelta(minutes=15),
        limit_nusd=500,
        debt_nusd=0,
        settled_enforced_nusd=400,
        settled_unproven_nusd=50,
        observed_unenforced_nusd=0,
        leased_nusd=20,
        free_nusd=30,
        unit=BudgetUnit.TOKENS,
    )
    fixed, rolling = (
        exhausted((one,), {"t": standing}, {"t": 90}, now=now, may_free=False) for one in budgets
    )
    assert "may take up to 90 tokens" in fixed.reason
    said = fixed.body(request_id="r", policy="1.1")["budget"]
    assert isinstance(said, dict)
    assert {"unit": "tokens", "limit_tokens": 500, "spent_tokens": 450, "free_tokens": 30} == {
        key: said[key] for key in ("unit", "limit_tokens", "spent_tokens", "free_tokens")
    }
    assert 12 * 24 * 3_600 == fixed.retry_after_seconds
    assert (15 * 60, True) == (rolling.retry_after_seconds, "the last 24h" in rolling.reason)


def test_a_restored_ledger_is_no_exhausted_budget() -> None:
    """503 until the server grants again; afterwards the usual answer."""
    now = datetime(2026, 1, 20, tzinfo=UTC)
    until = now + timedelta(seconds=90)

    def ask(at: datetime) -> Refusal:
        return exhausted((_budget(),), {}, {"b": 9}, now=at, may_free=False, recovering_until=until)

    assert ("budget_recovering", 503, 90) == (
        ask(now).code,
        ask(now).status,
        ask(now).retry_after_seconds,
    )
    assert "budget_exhausted" == ask(until).code


@pytest.mark.parametrize(
    ("least", "cap", "held"), [(0, None, 7), (16, None, 16), (16, 5, 16), (16, 90, 16), (0, 5, 5)]
)
def test_what_a_proxy_asks_for_at_least_is_held(least: int, cap: int | None, held: int) -> None:
    """LiteLLM sends no limit below 16 to OpenAI's responses, whatever it was asked for."""
    bound = bound_request("responses", {"input": "x", "max_output_tokens": 7})
    bound = msgspec.structs.replace(bound, least_output_tokens=least)
    rate = RatePerMillion(input_nusd=0, output_nusd=10**6)
    found = claim(_document(rate), (_budget(),), bound, candidates=(("m",),), cap_tokens=cap)
    assert isinstance(found, Claim)
    assert held == found.output_tokens
    assert 0 <= found.held_nusd - held <= 20
