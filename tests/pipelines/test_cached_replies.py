"""C2: a reply from a gateway's cache repeats the id of the call that filled it, and is its own call."""

from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.attribution.rules import BUILT_IN
from controlplane.pipelines.inspect import InspectedCall, inspect_files
from controlplane.pricing.price_book import PriceBook

START_NS = 1_795_000_000_000_000_000
SECOND_NS = 10**9
RESPONSE_ID = "chatcmpl-0123456789abcdef"

Attributes = dict[str, str | int | bool]


def span(
    request: ExportTraceServiceRequest, scope: str, at_seconds: float, **said: str | int | bool
) -> None:
    group = request.resource_spans.add().scope_spans.add()
    group.scope.name = scope
    made = group.spans.add()
    number = len(request.resource_spans)
    made.name = "litellm_request" if scope == "litellm" else "chat gpt-4o"
    made.trace_id, made.span_id = number.to_bytes(16), number.to_bytes(8)
    made.start_time_unix_nano = START_NS + int(at_seconds * SECOND_NS)
    made.end_time_unix_nano = made.start_time_unix_nano + SECOND_NS
    plain: Attributes = {
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.response.id": RESPONSE_ID,
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
    }
    if scope == "litellm":
        plain["metadata.user_api_key_hash"] = "key"
    for key, value in {**plain, **said}.items():
        held = made.attributes.add(key=key).value
        if isinstance(value, bool):
            held.bool_value = value
        elif isinstance(value, int):
            held.int_value = value
        else:
            held.string_value = value


def inspected(
    request: ExportTraceServiceRequest, folder: Path, book: PriceBook
) -> list[InspectedCall]:
    path = folder / "run.pb"
    path.write_bytes(request.SerializeToString())
    return inspect_files([path], book=book, rules=BUILT_IN).calls


@pytest.mark.parametrize("hit", [{"litellm.cache_hit": True}, {"metadata.cache_hit": "True"}])
def test_a_cached_reply_is_free_and_joins_the_client_that_got_it(
    tmp_path: Path, book: PriceBook, hit: Attributes
) -> None:
    """Two clients and the gateway's two spans, in four traces, all with one response id."""
    request = ExportTraceServiceRequest()
    client = "opentelemetry.instrumentation.openai_v2"
    span(request, client, 0.0)
    span(request, "litellm", 0.1)
    span(request, client, 20.0)
    span(request, "litellm", 20.1, **hit)
    calls = inspected(request, tmp_path, book)
    # gpt-4o: 1,000 x $2.50 + 100 x $10, per million tokens.
    assert [("priced", "0.0035", None), ("free", "0", "cache_hit")] == [
        (call.cost_state, call.cost_usd, call.cost_reason) for call in calls
    ]
    assert [["billed_by_proxy"]] * 2 == [[one.reason for one in c.suppressed] for c in calls]


def test_only_a_gateway_can_say_that_its_cache_replied(tmp_path: Path, book: PriceBook) -> None:
    request = ExportTraceServiceRequest()
    client = "opentelemetry.instrumentation.openai_v2"
    span(request, client, 0.0, **{"gen_ai.response.cache_hit": True})
    span(
        request,
        client,
        5.0,
        **{
            "gen_ai.response.service_tier": "gateway_cache",
            "gen_ai.response.id": "chatcmpl-another-call",
        },
    )
    assert ["priced", "priced"] == [c.cost_state for c in inspected(request, tmp_path, book)]
