"""Recorded text: nothing unless asked for, redacted and cut, gone in its own time; money stays."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.attribution.rules import with_organisation
from controlplane.ingest.content import ContentPolicy, side_of
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.ingest.redaction import Redactor
from controlplane.pipelines.ingest import ingest_batch
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.queries import TraceQuery
from controlplane.signals.sender import KEYLESS_SENDER
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TRACE = TraceQuery(tenants=("default",), trace_hi=0, trace_lo=7)
BOOK = PriceBook(seed_version(), listed_providers())
Ingest = Callable[..., None]


@pytest.fixture
def store() -> Iterator[DuckDbSpanStore]:
    opened = DuckDbSpanStore(None)
    yield opened
    opened.close()


@pytest.fixture
def ingest(store: DuckDbSpanStore) -> Ingest:
    def run(batch_id: str, *, policy: ContentPolicy | None, **texts: str) -> None:
        entry = SpoolEntry(Payload(request_of(texts)), KEYLESS_SENDER, NOW)
        ingest_batch(
            SpoolBatch(batch_id, (entry,), (1,)),
            book=BOOK,
            rules=with_organisation([]),
            limits=DEFAULT_LIMITS,
            writer=store,
            content=policy,
        )

    return run


def request_of(texts: dict[str, str]) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "opentelemetry.util.genai.handler"
    span = scope.spans.add(name="chat gpt-4o", kind=3)
    span.trace_id, span.span_id = (7).to_bytes(16, "big"), (1).to_bytes(8, "big")
    span.start_time_unix_nano = int(NOW.timestamp()) * 10**9
    span.end_time_unix_nano = span.start_time_unix_nano + 10**9
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "authorization": "Bearer secret",
        **texts,
    }
    for name, text in said.items():
        span.attributes.add(key=name.replace("__", ".")).value.string_value = text
    # Usage comes last, behind whatever was written.
    for name, count in (("input_tokens", 1000), ("output_tokens", 10)):
        span.attributes.add(key=f"gen_ai.usage.{name}").value.int_value = count
    return request.SerializeToString()


def policy(**changed: Any) -> ContentPolicy:
    plain: dict[str, Any] = {"redactor": Redactor(), "max_chars": 100, "max_texts": 8}
    return ContentPolicy(**{**plain, **changed})


def texts_of(store: DuckDbSpanStore) -> dict[str, tuple[str, str, bool]]:
    rows = store.contents.content(TRACE).to_pylist()
    return {row["name"]: (row["side"], row["text"], row["is_cut"]) for row in rows}


def test_nothing_is_kept_unless_asked_for(store: DuckDbSpanStore, ingest: Ingest) -> None:
    ingest("b1", policy=None, gen_ai__input__messages="my number is secret")
    assert {} == texts_of(store)


def test_text_is_redacted_and_cut_and_usage_is_neither(
    store: DuckDbSpanStore, ingest: Ingest
) -> None:
    ingest(
        "b1",
        policy=policy(),
        gen_ai__input__messages="I am jo@mail.example",
        gen_ai__output__messages="x" * 5_000,
    )
    assert {
        "gen_ai.input.messages": ("input", "I am [email]", False),
        "gen_ai.output.messages": ("output", "x" * 100, True),
    } == texts_of(store)
    (span,) = store.trace(TRACE).to_pylist()
    # gpt-4o: 1,000 x $2.50 + 10 x $10 per million tokens.
    assert (1000, 10, 2_600_000) == (
        span["input_tokens"],
        span["output_tokens"],
        span["cost_nusd"],
    )


@pytest.mark.parametrize("until_cut", [0, 5, 19, 23])
@pytest.mark.parametrize("more", [0, 600])
def test_a_cut_leaves_no_half_of_a_secret(
    store: DuckDbSpanStore, ingest: Ingest, until_cut: int, more: int
) -> None:
    """The cut falls before, within and after a card number, at the end of a text or far from it."""
    text = "x" * (99 - until_cut) + " 4111 1111 1111 1111" + " y" * more
    ingest("b1", policy=policy(), gen_ai__input__messages=text)
    ((_, kept, is_cut),) = texts_of(store).values()
    clean = text.replace("4111 1111 1111 1111", "[card]")
    assert is_cut == (len(clean) > 100)
    # Of a text that goes on, less is kept by what was taken out of it.
    taken_out = len(text) - len(clean) if more else 0
    assert clean[: 100 - taken_out] == kept


def test_a_secret_at_the_last_character_that_is_looked_at_is_not_kept(
    store: DuckDbSpanStore, ingest: Ingest
) -> None:
    """What was taken out before made room: half of the number would have moved into the text."""
    mails = "someone.with.a.long.name@mail.example.com " * 20
    text = mails[: 100 + 512 - 9] + " 4111 1111 1111 1111"
    ingest("b1", policy=policy(), gen_ai__input__messages=text)
    ((_, kept, is_cut),) = texts_of(store).values()
    assert is_cut
    assert set(kept.replace("[email]", "").strip()) <= set(
        "someone.with.a.long.name@mail.example.com"
    )


def test_a_resend_is_there_once(store: DuckDbSpanStore, ingest: Ingest) -> None:
    for batch in ("b1", "b1", "b2"):
        ingest(batch, policy=policy(), gen_ai__input__messages="hello")
    assert 1 == store.contents.content(TRACE).num_rows


def test_other_tenants_see_nothing(store: DuckDbSpanStore, ingest: Ingest) -> None:
    ingest("b1", policy=policy(), gen_ai__input__messages="hello")
    other = TraceQuery(tenants=("other",), trace_hi=0, trace_lo=7)
    assert 0 == store.contents.content(other).num_rows


def test_text_goes_in_its_own_time_and_money_stays(store: DuckDbSpanStore, ingest: Ingest) -> None:
    ingest("b1", policy=policy(), gen_ai__input__messages="hello")
    assert 0 == store.contents.forget_content(before=NOW)
    assert 1 == store.contents.forget_content(before=NOW + timedelta(seconds=1))
    assert {} == texts_of(store)
    assert 1 == store.trace(TRACE).num_rows


def test_sides() -> None:
    assert ["input", "input", "output", "output", None, None] == [
        side_of(key)
        for key in (
            *("gen_ai.prompt.0.content", "llm.input_messages.3.message.content"),
            *("gen_ai.completion.0.content", "ai.response.text"),
            *("authorization", "gen_ai.usage.input_tokens"),
        )
    ]
