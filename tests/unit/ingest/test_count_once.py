"""Which reports are one call, and which of them bills (requirements/algorithms C1-C6, C9)."""

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from controlplane.ingest.billing import trust_order
from controlplane.ingest.count_once import CountedCall, count_once
from controlplane.ingest.join_keys import is_join_key
from controlplane.ingest.report import Parents, Report

SECOND = 1_000_000
HOUR = 3_600 * SECOND
AT = 1_763_632_800 * SECOND
ID = "chatcmpl-0123456789"


def report(row: int, **said: Any) -> Report:
    """A successful client call of a second; `row` makes the span id."""
    plain = {
        "domain": "d",
        "trace_hi": 0,
        "trace_lo": 1,
        "span_id": row + 1,
        "start_us": AT,
        "content_hash": row,
        "layer": "client",
        "key_role": "unknown",
        "scope": "opentelemetry.instrumentation.openai.v1",
        "response_id": None,
        "gateway_call_id": None,
        "trace_joins": True,
        "status": "ok",
        "usage_state": "exact",
        "tokens": 110,
        "details": 0,
        "billing_model": "gpt-4o",
        "cost_nusd": 1_000,
        "cost_state": "priced",
    }
    fields = {**plain, "row": row, **said}
    fields.setdefault("end_us", fields["start_us"] + SECOND)
    fields.setdefault("response_id_joins", is_join_key(fields["response_id"]))
    fields.setdefault("gateway_id_joins", is_join_key(fields["gateway_call_id"]))
    return Report(**fields)


def parents(*edges: tuple[int, int]) -> Parents:
    """Edges (span, parent) of trace 1."""
    return {("d", 0, 1, span): parent for span, parent in edges}


def groups(calls: Sequence[CountedCall]) -> list[tuple[int, ...]]:
    """Rows of each call, the billing one first."""
    return [call.members for call in calls]


def test_layers_join_by_response_id_and_the_proxy_bills() -> None:
    """C1: also when they start in different minutes, hours and months."""
    for boundary in (60 * SECOND, HOUR, 24 * HOUR):
        edge = AT - AT % boundary
        calls = count_once(
            [
                report(0, response_id=ID, start_us=edge - 100),
                report(1, response_id=ID, start_us=edge + 100, layer="proxy"),
                report(2, response_id=ID, start_us=edge + 400, layer="engine"),
            ],
            {},
        )
        assert [(1, 0, 2)] == groups(calls)
        assert 0 == calls[0].home
        assert ("billed_by_proxy", "billed_by_proxy") == calls[0].reasons
        assert "client,engine,proxy" == calls[0].layers


@pytest.mark.parametrize("value", ["", "7", "chatcmpl-999", "msg_12", "cmpl-1234567", None])
def test_an_id_with_little_of_its_own_is_no_key(value: str | None) -> None:
    """C2: Ollama's 0-999 and TGI's empty ids."""
    assert not is_join_key(value)
    calls = count_once(
        [
            report(0, response_id=value, trace_lo=1),
            report(1, response_id=value, trace_lo=2, layer="proxy"),
        ],
        {},
    )
    assert 2 == len(calls)


def test_an_id_joins_across_traces_only_near_in_time() -> None:
    near = report(1, response_id=ID, trace_lo=2, layer="proxy", start_us=AT + 59 * SECOND)
    far = report(1, response_id=ID, trace_lo=2, layer="proxy", start_us=AT + 61 * SECOND)
    long = report(0, response_id=ID, end_us=AT + 90 * SECOND)
    assert 1 == len(count_once([report(0, response_id=ID), near], {}))
    assert 2 == len(count_once([report(0, response_id=ID), far], {}))
    assert 1 == len(count_once([long, far], {}))
    assert 2 == len(count_once([report(0, response_id=ID), report(1, response_id=ID)], {}))


def test_two_reports_of_one_layer_never_share_a_call_undeclared() -> None:
    proxies = [
        report(n, response_id=ID, layer="proxy", scope="litellm", start_us=AT + n) for n in range(3)
    ]
    assert 3 == len(count_once(proxies, {}))
    with_client = count_once([*proxies, report(3, response_id=ID)], {})
    assert [1, 1, 2] == sorted(len(call.members) for call in with_client)


@pytest.mark.parametrize("shared_id", [True, False])
@pytest.mark.parametrize("n", [2, 7, 20])
def test_identical_parallel_calls_stay_apart(n: int, shared_id: bool) -> None:  # noqa: FBT001 - parameter
    """C3: equal prompts, equal usage, with propagation; even a constant id makes n calls."""
    rows = []
    edges: dict[tuple[str, int, int, int], int] = {}
    for call in range(n):
        key = {"trace_lo": call, "response_id": "constant-id" if shared_id else None}
        rows.append(report(2 * call, span_id=1, **key))
        rows.append(report(2 * call + 1, span_id=2, layer="proxy", **key))
        edges["d", 0, call, 2] = 1
    for _ in range(5):
        random.shuffle(rows)
        assert {(2 * c + 1, 2 * c) for c in range(n)} == set(groups(count_once(rows, edges)))


def test_equal_numbers_without_id_or_ancestry_never_join() -> None:
    assert 2 == len(count_once([report(0), report(1, layer="proxy")], {}))


def test_an_ancestor_edge_joins_across_spans_that_are_no_reports() -> None:
    """The client's span, an HTTP span, the proxy's server span, its call."""
    calls = count_once(
        [report(0, span_id=10), report(1, span_id=13, layer="proxy")],
        parents((11, 10), (12, 11), (13, 12)),
    )
    assert [(1, 0)] == groups(calls)


@pytest.mark.parametrize(("hours", "calls"), [(24, 1), (25, 2)])
def test_an_ancestor_is_looked_for_within_a_day(hours: int, calls: int) -> None:
    """A trace that lives for days is a session's: what a day parts is no request's answer."""
    asked = report(0, span_id=10)
    answered = report(1, span_id=12, start_us=AT + hours * HOUR, layer="proxy")
    assert calls == len(count_once([asked, answered], parents((12, 10))))


def test_ids_that_differ_contradict_an_ancestor_edge() -> None:
    calls = count_once(
        [
            report(0, span_id=10, response_id=ID),
            report(1, span_id=11, response_id="chatcmpl-9876543210", layer="proxy"),
        ],
        parents((11, 10)),
    )
    assert 2 == len(calls)


def test_each_attempt_is_a_call_and_the_client_saw_the_last() -> None:
    """C5: the first attempt fails over; the client's report joins the one that answered."""
    calls = count_once(
        [
            report(0, span_id=10, end_us=AT + 9 * SECOND),
            report(1, span_id=11, layer="proxy", status="error", usage_state="absent"),
            report(2, span_id=12, layer="proxy", start_us=AT + 3 * SECOND),
            report(3, span_id=13, layer="proxy", start_us=AT + 6 * SECOND),
        ],
        parents((11, 10), (12, 10), (13, 10)),
    )
    assert {(1,), (2,), (3, 0)} == set(groups(calls))


def test_an_engine_that_hangs_below_the_client_joins_by_id() -> None:
    """LiteLLM forwards the client's traceparent: vLLM's span is the proxy span's sibling."""
    calls = count_once(
        [
            report(0, span_id=10, response_id=ID),
            report(1, span_id=11, response_id=ID, layer="proxy"),
            report(2, span_id=12, response_id=ID, layer="engine"),
        ],
        parents((11, 10), (12, 10)),
    )
    assert [(1, 0, 2)] == groups(calls)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("said", [200, 100], ids=["the sum", "the last one"])
def test_a_span_around_several_calls_bills_none_of_them(order: tuple[int, ...], said: int) -> None:
    """Whatever a framework calls it, and whichever of its inner calls it repeats."""
    instrumentor = "openinference.instrumentation.openai"
    told = [
        report(0, span_id=10, scope="acme.flows", tokens=said, cost_nusd=said, details=9),
        report(1, span_id=11, scope=instrumentor, tokens=100, cost_nusd=100),
        report(2, span_id=12, scope=instrumentor, tokens=100, cost_nusd=100, start_us=AT + SECOND),
    ]
    calls = count_once([told[at] for at in order], parents((11, 10), (12, 10)))
    assert [(1,), (2, 0)] == sorted(groups(calls))


def test_a_framework_over_an_instrumentor_is_one_client_call() -> None:
    framework = "openinference.instrumentation.langchain"
    instrumentor = "openinference.instrumentation.openai"
    calls = count_once(
        [
            report(0, span_id=10, scope=framework),
            report(1, span_id=11, scope=instrumentor, details=2),
            report(2, span_id=12, scope=instrumentor, start_us=AT + 5 * SECOND),
        ],
        parents((11, 10), (12, 10)),
    )
    assert [(2, 0), (1,)] == groups(calls)  # the last of several answers is the framework's
    assert ("same_call_same_layer",) == calls[0].reasons
    # The other way round is no declared pair: an instrumentor does not wrap a framework.
    assert 2 == len(
        count_once(
            [report(0, span_id=10, scope=instrumentor), report(1, span_id=11, scope=framework)],
            parents((11, 10)),
        )
    )


def test_stacked_libraries_that_share_no_trace_join_by_id() -> None:
    """LangChain's instrumentor keeps no context: OpenAI's below it starts a trace of its own."""
    framework = report(0, scope="openinference.instrumentation.langchain", response_id=ID)
    instrumentor = report(1, scope="openinference.instrumentation.openai", response_id=ID)
    elsewhere = instrumentor._replace(trace_lo=2, start_us=AT + 10)
    assert 1 == len(count_once([framework, elsewhere], {}))
    assert 2 == len(count_once([framework, elsewhere._replace(response_id="other-identity")], {}))
    later = elsewhere._replace(start_us=AT + 70 * SECOND, end_us=AT + 71 * SECOND)
    assert 2 == len(count_once([framework, later], {}))
    alike = framework._replace(row=2, span_id=9, scope="openinference.instrumentation.crewai")
    assert 2 == len(count_once([framework, alike._replace(trace_lo=2)], {}))


def test_an_sdk_and_its_instrumentor_are_one_call_even_when_it_failed() -> None:
    native = "com.anthropic.sdk.python"
    failed = {"status": "error", "usage_state": "absent", "tokens": 0, "cost_nusd": 0}
    beside = [
        report(0, scope="opentelemetry.instrumentation.anthropic", **failed),
        report(1, scope=native, start_us=AT + 10, end_us=AT + 20, **failed),
    ]
    assert 1 == len(count_once(beside, {}))
    elsewhere = [beside[0], beside[1]._replace(trace_lo=2)]
    assert 1 == len(count_once(elsewhere, {}))
    for other in (
        {"service": "another process"},
        {"key_id": "another key"},
        {"tenant": "another tenant"},
        {"status": "ok"},
        {"end_us": AT + 2 * SECOND},
        {"billing_model": "another model"},
        {"pair_joins": False},
    ):
        assert 2 == len(count_once([beside[0], elsewhere[1]._replace(**other)], {})), other


@pytest.mark.parametrize("n", [1, 2, 9])
def test_each_failure_of_a_burst_is_one_call(n: int) -> None:
    """Both libraries report each of n parallel failures, in 2n traces; one report is lost."""
    failed = {"status": "error", "usage_state": "absent", "tokens": 0, "cost_nusd": 0}
    rows = []
    for call in range(n):
        start, end = AT + 1_000 * call, AT + SECOND + 777 * (call * 5 % n)
        outer = {"scope": "openinference.instrumentation.anthropic", "trace_lo": 2 * call + 1}
        inner = {"scope": "com.anthropic.sdk.python", "trace_lo": 2 * call + 2}
        rows.append(report(2 * call, start_us=start, end_us=end, **outer, **failed))
        rows.append(report(2 * call + 1, start_us=start + 50, end_us=end - 50, **inner, **failed))
    for _ in range(5):
        random.shuffle(rows)
        assert n == len(count_once(rows, {}))
        assert n == len(count_once(rows[1:], {}))


def sequence(row: int, **said: Any) -> Report:
    """One span of vLLM: without a trace in common, as it makes them without a parent."""
    plain = {"layer": "engine", "scope": "vllm.tracing.otel", "trace_lo": 100 + row, "service": "v"}
    asked = {"response_id": "chatcmpl-x", "input_tokens": 900, "choices": 3}
    return report(row, **{**plain, **asked, **said})


def test_sequences_of_one_request_are_one_call() -> None:
    """n = 3: one id, one arrival, one prompt; also where the id is too short to join anything."""
    spans = [sequence(n, end_us=AT + SECOND + n) for n in range(3)]
    for order in permutations(spans):
        (call,) = count_once(order, {})
        assert (("same_request_sequence",) * 2, 3) == (call.reasons, len(call.members))
        assert ({0, 1, 2},) == tuple(map(set, call.prompts))
    for other in (
        {"start_us": AT + 1},
        {"input_tokens": 901},
        {"service": "w"},
        {"tenant": "other"},
        {"domain": "e"},
        {"response_id": "chatcmpl-y"},
        {"sequence_joins": False},
        {"choices": 1},
        {"choices": None},
    ):
        assert 2 == len(count_once([spans[0], spans[1]._replace(**other)], {})), other


def test_samples_that_do_not_say_so_hang_in_one_place_or_have_one_caller() -> None:
    """vLLM's spans of n samples may say n = 1 each; a constant id proves nothing."""
    spans = [sequence(n, choices=1, response_id=ID, trace_lo=1) for n in range(3)]
    edges = parents((1, 9), (2, 9), (3, 8))
    assert {(0, 1), (2,)} == set(groups(count_once(spans, edges)))
    roots = [sequence(n, choices=1, response_id=ID) for n in range(3)]
    assert 1 == len(count_once(roots, {}))
    clients = [report(n, response_id=ID, trace_lo=n) for n in range(3, 6)]
    assert 1 == len(count_once([*roots, clients[0]], {}))
    assert 3 == len(count_once([*roots, *clients], {}))
    short = [one._replace(response_id="chatcmpl-7", response_id_joins=False) for one in roots]
    assert 3 == len(count_once(short, {}))
    hanging = {("d", 0, 100 + n, n + 1): 7 for n in range(3)}
    assert 3 == len(count_once(roots, hanging))


def test_a_client_of_several_sequences_bills_them_once() -> None:
    spans = [sequence(n, response_id=ID) for n in range(3)]
    (call,) = count_once([*spans, report(3, response_id=ID)], {})
    assert (3, ("billed_by_client",) * 3, ()) == (call.members[0], call.reasons, call.prompts)


def test_prompts_of_a_batch_are_one_request_whose_prompts_add_up() -> None:
    """vLLM numbers the prompts of a completions request after the response's id."""
    whole = "cmpl-0123456789abcdef"
    spans = [
        sequence(0, response_id=f"{whole}-0", start_us=AT),
        sequence(1, response_id=f"{whole}-0", start_us=AT),
        sequence(2, response_id=f"{whole}-1", start_us=AT + 400, input_tokens=7),
    ]
    (alone,) = count_once(spans, {})
    assert ({0, 1}, {2}) == tuple(map(set, alone.prompts))
    (joined,) = count_once([*spans, report(3, response_id=whole)], {})
    assert 3 == joined.members[0]
    # A caller's id that never changes: each request starts with prompt 0 again.
    again = [sequence(n, response_id=f"{whole}-0", start_us=AT + n * SECOND) for n in range(4)]
    assert 4 == len(count_once(again, {}))


def test_more_reports_than_a_call_has_join_only_inside_each_trace() -> None:
    """Ids that somebody mixed up: 40 libraries in each of two traces, all with one id."""
    scopes = [f"framework-{n}" for n in range(40)]
    rows = [
        report(40 * trace + n, scope=scope, trace_lo=trace + 1, span_id=n + 1, response_id=ID)
        for trace in range(2)
        for n, scope in enumerate(scopes)
    ]
    proxy = report(80, layer="proxy", trace_lo=9, response_id=ID)
    native = report(81, scope="com.anthropic.sdk.python", trace_lo=2, response_id=ID)
    one_trace = count_once([*rows[:40], proxy], {})
    assert [(41, False)] == [(len(call.members), call.was_split) for call in one_trace]
    both = count_once([*rows, proxy, native], {})
    assert 82 == sum(len(call.members) for call in both)
    assert 64 >= max(len(call.members) for call in both)


def test_a_request_of_many_samples_counts_as_one_report() -> None:
    """Seventy spans of one engine's request are no mistake of somebody's ids."""
    samples = [sequence(n, response_id=ID, choices=70) for n in range(70)]
    (call,) = count_once([*samples, report(70, response_id=ID, trace_lo=9)], {})
    assert (71, 70, False) == (len(call.members), call.members[0], call.was_split)


def test_an_attempt_that_another_followed_or_accompanied_says_so() -> None:
    """C5: three upstreams for one request of a client; only the last answers."""
    lost = {"layer": "proxy", "status": "error", "usage_state": "absent", "tokens": 0}
    client = report(0, span_id=10, end_us=AT + 9 * SECOND)
    tried = [
        report(1, span_id=11, **lost),
        report(2, span_id=12, start_us=AT + 3 * SECOND, end_us=AT + 5 * SECOND, **lost),
        report(3, span_id=13, start_us=AT + 4 * SECOND, layer="proxy"),
    ]
    edges = parents((11, 10), (12, 10), (13, 10))
    calls = {call.members[0]: call.attempt for call in count_once([client, *tried], edges)}
    assert {1: "retry", 2: "hedge", 3: None} == calls
    alone = count_once([client, tried[0]], edges)
    assert [None] == [call.attempt for call in alone]


def test_a_vouched_role_outranks_what_a_scope_says() -> None:
    """C4: a forged proxy report with fewer tokens joins and does not bill."""
    calls = count_once(
        [
            report(0, response_id=ID, layer="proxy", key_role="proxy", cost_nusd=900),
            report(1, response_id=ID, layer="proxy", key_role="client", cost_nusd=1, tokens=1),
        ],
        {},
    )
    assert [(0, 1)] == groups(calls)


def test_a_vouched_client_outranks_a_proxy_that_nobody_knows() -> None:
    """C4: an untrusted report may enrich, and neither lowers nor raises a trusted bill."""
    known = report(0, response_id=ID, key_role="client")
    for cost_nusd in (1, 5_000):
        unknown = report(1, response_id=ID, layer="proxy", cost_nusd=cost_nusd)
        assert [(0, 1)] == groups(count_once([known, unknown], {}))


def test_an_sdk_corrects_the_instrumentor_of_its_own_process_only() -> None:
    """The instrumentor counts a few tokens too many; another process's count is another's word."""
    sdk = report(0, response_id=ID, scope="com.anthropic.sdk.python", service="a", key_id="k")
    more = {"tokens": 114, "cost_nusd": 1_400, "scope": "opentelemetry.instrumentation.anthropic"}
    own = report(1, response_id=ID, service="a", key_id="k", **more)
    assert [(0, 1)] == groups(count_once([sdk, own], {}))
    for other in ({"service": "b"}, {"key_id": "l"}, {"tokens": 127}, {"input_tokens": 1}):
        assert [(1, 0)] == groups(count_once([sdk, own._replace(**other)], {})), other


def test_no_unknown_sender_lowers_anothers_bill() -> None:
    cheap = report(0, response_id=ID, layer="proxy", cost_nusd=1, tokens=1)
    dear = report(1, response_id=ID, cost_nusd=900)
    assert [(1, 0)] == groups(count_once([cheap, dear], {}))
    # A reply from the gateway's cache is free whatever the client believes.
    cached = cheap._replace(cost_state="free", cost_nusd=0)
    assert [(0, 1)] == groups(count_once([cached, dear], {}))
    # Another model is another price, not a lie.
    alias = dear._replace(billing_model="alias")
    assert [(0, 1)] == groups(count_once([cheap, alias], {}))


def test_known_usage_bills_before_unknown() -> None:
    calls = count_once(
        [
            report(0, response_id=ID),
            report(1, response_id=ID, layer="proxy", usage_state="unknown", cost_nusd=None),
        ],
        {},
    )
    assert [(0, 1)] == groups(calls)


def test_only_an_agents_key_enforces() -> None:
    """C9: alone it is the call; a client that calls itself an agent proves nothing."""
    settled = report(0, response_id=ID, layer="agent", key_role="agent", trace_lo=9)
    forged = settled._replace(key_role="client")
    assert [True] == [call.enforced for call in count_once([settled], {})]
    assert [False] == [call.enforced for call in count_once([forged], {})]
    late = settled._replace(start_us=AT + 50 * SECOND, end_us=AT + 50 * SECOND)
    (joined,) = count_once([report(1, response_id=ID, layer="proxy"), late], {})
    assert joined.enforced
    assert "agent_settle" in joined.reasons or joined.members[0] == 0


def test_the_last_word_of_a_span_stands_in_either_order() -> None:
    """C6: pending then final, and the reverse."""
    pending = report(0, span_id=5, end_us=AT, usage_state="absent", tokens=0)
    final = report(1, span_id=5)
    for rows in ([pending, final], [final, pending]):
        assert [(1,)] == groups(count_once(rows, {}))


@pytest.mark.parametrize(
    ("stands", "falls"),
    [
        ({"tokens": 100}, {"tokens": 500, "usage_state": "unknown"}),
        ({"tokens": 120, "end_us": AT + 1}, {"tokens": 100}),
        ({"end_us": AT + 2 * SECOND, "content_hash": 1}, {"content_hash": 2}),
        ({"content_hash": 2}, {"content_hash": 1}),
    ],
)
def test_of_two_revisions_the_more_certain_then_the_larger_then_the_later_stands(
    stands: dict[str, Any], falls: dict[str, Any]
) -> None:
    """C6: exact usage over unknown, more usage over less, a later end over an earlier, then a hash."""
    last, first = report(0, span_id=5, **stands), report(1, span_id=5, **falls)
    for rows in ([last, first], [first, last]):
        assert [(0,)] == groups(count_once(rows, {}))


def test_domains_never_meet() -> None:
    here = report(0, response_id=ID)
    assert 2 == len(count_once([here, report(1, response_id=ID, layer="proxy", domain="e")], {}))


def test_every_order_of_six_reports_gives_the_same_calls() -> None:
    reports = [
        report(0, span_id=10, response_id=ID, end_us=AT + 4 * SECOND),
        report(1, span_id=11, layer="proxy", status="error", usage_state="absent"),
        report(2, span_id=12, layer="proxy", response_id=ID, start_us=AT + SECOND),
        report(3, span_id=12, layer="proxy", response_id=ID, start_us=AT + SECOND, tokens=5),
        report(4, span_id=13, layer="engine", response_id=ID, trace_lo=7),
        report(5, span_id=14, scope="openinference.instrumentation.langchain"),
    ]
    edges = parents((11, 10), (12, 10), (10, 14))
    first = count_once(reports, edges)
    assert {(1,), (2, 0, 5, 4)} == set(groups(first))
    for order in permutations(reports):
        assert first == count_once(order, edges)


@pytest.mark.parametrize("scope", ["vllm.llm_engine", "litellm"])
@pytest.mark.parametrize(("cost", "state"), [(1, "priced"), (0, "free"), (None, "unpriced")])
def test_no_tenants_client_lowers_the_bill_of_another(
    scope: str, cost: int | None, state: str
) -> None:
    """C4: with another's response id, a declared layer above and more details than the real one."""
    real = report(0, response_id=ID, key_role="client", tenant="victim")
    forged = report(1, response_id=ID, key_role="client", tenant="forger", trace_lo=2)._replace(
        scope=scope,
        layer="proxy" if scope == "litellm" else "engine",
        cost_nusd=cost,
        cost_state=state,
        tokens=1,
        details=3,
    )
    for reports in permutations([real, forged]):
        assert [(0, 1)] == groups(count_once(reports, {}))


def test_a_client_that_claims_anothers_call_dearer_pays_for_it() -> None:
    """C4: and the clients of one tenant keep the report that says most."""
    real = report(0, response_id=ID, key_role="client", tenant="victim")
    dearer = report(1, response_id=ID, key_role="client", layer="engine", cost_nusd=2_000)
    own = report(2, response_id=ID, key_role="client", layer="engine", cost_nusd=10, details=3)
    assert [(1, 0)] == groups(count_once([real, dearer._replace(tenant="forger")], {}))
    assert [(2, 0)] == groups(count_once([real, own._replace(tenant="victim")], {}))


def test_who_pays_is_believed_in_the_order_of_trust() -> None:
    """A proxy or agent, an engine, a keyless sender by its layer, a client's own word."""
    members = [
        (0, "client", "client"),
        (1, "unknown", "client"),
        (2, "unknown", "proxy"),
        (3, "engine", "engine"),
        (4, "proxy", "proxy"),
        (5, "agent", "agent"),
    ]
    assert [4, 5, 3, 2, 1, 0] == trust_order(members)
    assert [5, 4, 3, 2, 1, 0] == trust_order(members[::-1])
