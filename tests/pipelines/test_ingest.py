"""From spooled bytes to stored spans, with every real stage."""

import functools
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.otlp.collector import OtlpCollector
from collectors.spool import SqliteSpool
from controlplane.attribution.rules import with_organisation
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.core.calendar import Window
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.pipelines.ingest import IngestOutcome, ingest_batch
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.queries import TraceQuery
from controlplane.signals.sender import KEYLESS_SENDER, Sender, TenantMap
from controlplane.signals.vocabulary import KeyRole
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.workers.ingest_loop import IngestLoop

NOW = datetime.now(UTC).replace(microsecond=0)
PROXY = Sender(
    domain="prod",
    tenant="platform",
    key_id="k1",
    key_role=KeyRole.PROXY,
    tenant_map=TenantMap("customer.account", {"a-1": "acme"}),
)

Ingest = Callable[[SpoolBatch], IngestOutcome]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDbSpanStore]:
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    yield store
    store.close()


@pytest.fixture
def ingest(store: DuckDbSpanStore, book: PriceBook) -> Ingest:
    return functools.partial(
        ingest_batch,
        book=book,
        rules=with_organisation([]),
        limits=DEFAULT_LIMITS,
        writer=store,
    )


class Calls:
    """A request of model calls, each 1,000 tokens in and 100 out, in one trace."""

    def __init__(self, count: int, model: str = "gpt-4o-2024-08-06", **attributes: str) -> None:
        self.trace_id = secrets.token_bytes(16)
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for _ in range(count):
            span = scope.spans.add(trace_id=self.trace_id, span_id=secrets.token_bytes(8))
            span.start_time_unix_nano = int(NOW.timestamp()) * 1_000_000_000
            span.end_time_unix_nano = span.start_time_unix_nano + 2_000_000_000
            said = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": model,
                "gen_ai.response.model": model,
                "gen_ai.response.id": f"chatcmpl-{secrets.token_hex(12)}",
            }
            for key, text in {**said, **attributes}.items():
                span.attributes.add(key=key).value.string_value = text
            span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 1_000
            span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = 100
        self.body = request.SerializeToString()

    def query(self, tenant: str) -> TraceQuery:
        high, low = int.from_bytes(self.trace_id[:8]), int.from_bytes(self.trace_id[8:])
        return TraceQuery(tenants=(tenant,), trace_hi=high, trace_lo=low)


def _batch(batch_id: str, *bodies: bytes, sender: Sender = KEYLESS_SENDER) -> SpoolBatch:
    entries = tuple(SpoolEntry(Payload(body), sender, NOW) for body in bodies)
    return SpoolBatch(batch_id, entries, tuple(range(len(entries))))


def test_call_is_stored_priced_and_attributed(ingest: Ingest, store: DuckDbSpanStore) -> None:
    """gpt-4o: $2.50 in and $10.00 out per million tokens."""
    calls = Calls(1, **{"team.id": "search"})
    stored = IngestOutcome(1, 1, 0, {}, replayed=False, unknown_dialects={"": 1})
    assert stored == ingest(_batch("b1", calls.body))
    (span,) = store.trace(calls.query("default")).to_pylist()
    assert (1_000 * 2_500 + 100 * 10_000, "priced") == (span["cost_nusd"], span["cost_state"])
    assert ("default", "search", "unknown") == (span["tenant"], span["team"], span["key_role"])
    assert (1_000, 100) == (span["input_tokens"], span["output_tokens"])


def test_unknown_model_is_unpriced_and_not_free(ingest: Ingest, store: DuckDbSpanStore) -> None:
    calls = Calls(1, model="a-model-nobody-sells")
    ingest(_batch("b1", calls.body))
    (span,) = store.trace(calls.query("default")).to_pylist()
    assert (None, "unpriced") == (span["cost_nusd"], span["cost_state"])
    assert span["cost_reason"]


def test_tenant_is_the_keys_and_only_its_map_changes_it(
    ingest: Ingest, store: DuckDbSpanStore
) -> None:
    mapped = Calls(1, **{"customer.account": "a-1", "tenant": "mallory"})
    other = Calls(1, **{"customer.account": "a-2", "tenant": "mallory"})
    ingest(_batch("b1", mapped.body, other.body, sender=PROXY))
    assert 1 == store.trace(mapped.query("acme")).num_rows
    assert 1 == store.trace(other.query("platform")).num_rows
    assert 0 == store.trace(other.query("mallory")).num_rows


def test_replayed_batch_changes_nothing(ingest: Ingest, store: DuckDbSpanStore) -> None:
    calls = Calls(3)
    ingest(_batch("b1", calls.body))
    assert ingest(_batch("b1", calls.body)).replayed
    assert 3 == store.trace(calls.query("default")).num_rows


def test_resent_request_is_counted_as_duplicates(ingest: Ingest, store: DuckDbSpanStore) -> None:
    calls = Calls(3)
    ingest(_batch("b1", calls.body))
    again = ingest(_batch("b2", calls.body, Calls(2).body))
    assert (5, 2, 3) == (again.received, again.stored, again.duplicates)
    assert 3 == store.trace(calls.query("default")).num_rows


def test_bad_request_in_a_batch_loses_itself_alone(ingest: Ingest, store: DuckDbSpanStore) -> None:
    """Receivers refuse such bytes; an older release may have spooled them."""
    good = Calls(4)
    outcome = ingest(_batch("b1", good.body, good.body[:-3], b"\xff\xff"))
    assert 4 == store.trace(good.query("default")).num_rows
    assert outcome.received == outcome.stored + outcome.duplicates + sum(outcome.rejected.values())
    assert sum(outcome.rejected.values()) > 0


class _Keyless:
    def resolve(self, authorization: str | None, *, now: datetime) -> Sender:
        del authorization, now
        return KEYLESS_SENDER


def test_acknowledged_span_is_visible_within_a_second(
    tmp_path: Path, ingest: Ingest, store: DuckDbSpanStore
) -> None:
    """Receiver, spool, loop and store together; the median, because other tests share the cores.

    Where they are more than the machine has, everything takes as many times as long.
    """
    spool = SqliteSpool(tmp_path / "spool.sqlite", key=b"k" * 32, ids=UlidIds())
    loop = IngestLoop(spool, ingest=ingest)
    collector = OtlpCollector(
        keys=_Keyless(), spool=spool, clock=SystemClock(), grpc_port=0, http_port=0
    )
    loop.start()
    collector.start()
    try:
        url = f"http://127.0.0.1:{collector.http_port}/v1/traces"
        waited = [_seconds_to_visible(url, Calls(2), store) for _ in range(5)]
    finally:
        collector.stop()
        loop.stop()
        spool.close()
    assert statistics.median(waited) < 1.0 * max(1.0, os.getloadavg()[0])


def _seconds_to_visible(url: str, calls: Calls, store: DuckDbSpanStore) -> float:
    headers = {"content-type": "application/x-protobuf"}
    assert 200 == httpx.post(url, content=calls.body, headers=headers, timeout=60).status_code
    acked = time.monotonic()
    while store.trace(calls.query("default")).num_rows < 2:
        assert time.monotonic() - acked < 60
        time.sleep(0.005)
    return time.monotonic() - acked


def test_every_emitters_account_adds_up(ingest: Ingest, store: DuckDbSpanStore) -> None:
    """received = stored + duplicate + rejected, over resends, flaws and bodies that are nothing."""
    calls, flawed = Calls(5), ExportTraceServiceRequest()
    spans = flawed.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=b"t" * 15, span_id=b"s" * 8, end_time_unix_nano=1)
    spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, end_time_unix_nano=10**18)
    bodies = (calls.body, flawed.SerializeToString(), calls.body, b"\xff")
    ingest(_batch("b1", *bodies, sender=PROXY))
    ingest(_batch("b1", *bodies, sender=PROXY))
    ingest(_batch("b2", calls.body, sender=PROXY))
    window = Window(NOW - timedelta(hours=2), NOW + timedelta(hours=2))
    (account,) = store.signals.emitters(("platform",), window).to_pylist()
    told = {n: account[n] for n in ("received", "stored", "duplicates", "rejected", "late")}
    assert {"received": 18, "stored": 6, "duplicates": 10, "rejected": 2, "late": 1} == told
    reasons = store.signals.rejections(("platform",), window).to_pylist()
    assert {"invalid_trace_id": 1, "malformed_payload": 1} == {
        row["reason"]: row["rejected"] for row in reasons
    }


def _events_of_tenants(*accounts: str) -> tuple[bytes, bytes]:
    """Per account an evaluation on a span with a guardrail below it, and one in a log record."""
    traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
    spans = traces.resource_spans.add().scope_spans.add().spans
    times = {"start_time_unix_nano": 10**18, "end_time_unix_nano": 2 * 10**18}
    for number, account in enumerate(accounts):
        ids = {"trace_id": b"t" * 16, "span_id": bytes([number + 1] * 8)}
        chat = spans.add(**ids, name="chat", **times)
        chat.events.add(name="gen_ai.evaluation.result", time_unix_nano=10**18)
        guard = spans.add(trace_id=b"t" * 16, span_id=bytes([number + 101] * 8), **times)
        guard.name, guard.parent_span_id = "guardrail", ids["span_id"]
        guard.attributes.add(key="guardrail_name").value.string_value = "pii"
        group = logs.resource_logs.add()
        record = group.scope_logs.add().log_records.add(**ids, time_unix_nano=10**18)
        record.event_name = "gen_ai.evaluation.result"
        group.scope_logs[0].log_records.add(time_unix_nano=1).body.string_value = "a line"
        # The resource may name the account of a log record, as it may of a span.
        of_log = group.resource if number == 0 else record
        for told in (chat, guard, of_log):
            told.attributes.add(key="customer.account").value.string_value = account
    return traces.SerializeToString(), logs.SerializeToString()


@pytest.mark.parametrize("role", [KeyRole.PROXY, KeyRole.CLIENT])
def test_events_and_accounts_follow_the_tenants_of_a_shared_key(
    ingest: Ingest, store: DuckDbSpanStore, role: KeyRole
) -> None:
    """Nobody sees another's; `received = stored + duplicate + rejected` is each one's own."""
    sender = Sender(
        tenant="platform",
        key_id="k1",
        key_role=role,
        tenant_map=TenantMap("customer.account", {"a-1": "acme", "b-1": "beta"}),
    )
    traces, logs = _events_of_tenants("a-1", "b-1", "b-1", "nobody")
    payloads = (Payload(traces), Payload(traces), Payload(logs, "protobuf", "logs"))
    entries = tuple(SpoolEntry(one, sender, NOW) for one in payloads)
    ingest(SpoolBatch("b1", entries, (1, 2, 3)))
    half, window = int.from_bytes(b"t" * 8), Window(NOW - timedelta(1), NOW + timedelta(1))
    told: dict[str, list[tuple[int, ...]]] = {}
    for tenant in ("acme", "beta", "platform"):
        events = store.signals.trace_events((tenant,), [(half, half)], [])
        accounts = store.signals.emitters((tenant,), window).sort_by("signal").to_pylist()
        sums = ("received", "stored", "duplicates", "rejected")
        told[tenant] = [(events.num_rows,), *(tuple(one[n] for n in sums) for one in accounts)]
    # Sent per account: two spans, twice; a log record and a line that is about no call.
    of_one = [(3,), (2, 1, 0, 1), (4, 2, 2, 0)]
    if role is KeyRole.PROXY:
        # A line of the service of account a-1 names it by its resource; a line of others nobody.
        of_two = [(6,), (2, 2, 0, 0), (8, 4, 4, 0)]
        rest = [(3,), (4, 1, 0, 3), (4, 2, 2, 0)]
        assert {"acme": of_one, "beta": of_two, "platform": rest} == told
    else:
        every = [(12,), (8, 4, 0, 4), (16, 8, 8, 0)]
        assert {"acme": [(0,)], "beta": [(0,)], "platform": every} == told


def test_the_replicas_of_an_emitter_are_told_apart(ingest: Ingest, store: DuckDbSpanStore) -> None:
    """By service.instance.id, else by the pod, else by the host."""
    bodies = []
    for said in ({"service.instance.id": "i-1", "host.name": "h"}, {"k8s.pod.name": "pod-2"}, {}):
        request = ExportTraceServiceRequest.FromString(Calls(2).body)
        for key, text in said.items():
            request.resource_spans[0].resource.attributes.add(key=key).value.string_value = text
        bodies.append(request.SerializeToString())
    ingest(_batch("b1", *bodies, bodies[1]))
    window = Window(NOW - timedelta(hours=2), NOW + timedelta(hours=2))
    found = store.signals.instances(("default",), window).to_pylist()
    assert {"i-1": 2, "pod-2": 4} == {row["instance"]: row["received"] for row in found}
    assert [] == store.signals.instances(("other",), window).to_pylist()


def test_events_on_spans_and_guardrail_spans_are_kept_for_their_call(
    ingest: Ingest, store: DuckDbSpanStore
) -> None:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "app"
    spans = group.scope_spans.add().spans
    times = {"start_time_unix_nano": 10**18, "end_time_unix_nano": 2 * 10**18}
    chat = spans.add(trace_id=b"t" * 16, span_id=b"a" * 8, name="chat", **times)
    event = chat.events.add(name="gen_ai.evaluation.result", time_unix_nano=10**18)
    event.attributes.add(key="gen_ai.evaluation.name").value.string_value = "relevance"
    event.attributes.add(key="gen_ai.evaluation.score.value").value.double_value = 0.75
    event.attributes.add(key="gen_ai.evaluation.explanation").value.string_value = "secret"
    chat.events.add(name="gen_ai.content.prompt", time_unix_nano=10**18)
    guard = spans.add(
        trace_id=b"t" * 16, span_id=b"b" * 8, parent_span_id=b"a" * 8, name="guardrail", **times
    )
    guard.attributes.add(key="guardrail_name").value.string_value = "pii"
    guard.attributes.add(key="guardrail_status").value.string_value = "guardrail_intervened"
    spans.add(trace_id=b"t" * 16, span_id=b"c" * 8, name="guardrail", **times)
    assert 2 == ingest(_batch("b1", request.SerializeToString())).events
    half = int.from_bytes(b"t" * 8)
    rows = store.signals.trace_events(("default",), [(half, half)], []).to_pylist()
    told = {(r["kind"], r["name"], r["score"], r["action"], r["source"]) for r in rows}
    assert {
        ("evaluation", "relevance", 0.75, None, "span_event"),
        ("guardrail", "pii", None, "blocked", "span"),
    } == told
    assert "secret" not in str(rows)


def test_evaluations_in_logs_find_their_trace_or_response(
    ingest: Ingest, store: DuckDbSpanStore
) -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    first = records.add(event_name="gen_ai.evaluation.result", time_unix_nano=10**18)
    first.trace_id = b"t" * 16
    first.attributes.add(key="gen_ai.evaluation.score.label").value.string_value = "pass"
    second = records.add(observed_time_unix_nano=10**18)
    second.attributes.add(key="event.name").value.string_value = "gen_ai.evaluation.result"
    second.attributes.add(key="gen_ai.response.id").value.string_value = "chatcmpl-1"
    records.add(time_unix_nano=1).body.string_value = "an ordinary line"
    payload = Payload(request.SerializeToString(), "protobuf", "logs")
    batch = SpoolBatch("b1", (SpoolEntry(payload, KEYLESS_SENDER, NOW),), (1,))
    assert 2 == ingest(batch).events
    half = int.from_bytes(b"t" * 8)
    assert ["pass"] == [
        row["label"]
        for row in store.signals.trace_events(("default",), [(half, half)], []).to_pylist()
    ]
    found = store.signals.trace_events(("default",), [], ["chatcmpl-1"])
    assert 1 == found.num_rows
    window = Window(NOW - timedelta(hours=2), NOW + timedelta(hours=2))
    (account,) = store.signals.emitters(("default",), window).to_pylist()
    assert (3, 2, 0, 1) == tuple(
        account[name] for name in ("received", "stored", "duplicates", "rejected")
    )
