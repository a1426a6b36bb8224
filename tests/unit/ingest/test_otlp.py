import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from google.protobuf.json_format import MessageToDict, MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controlplane.core.errors import LimitExceededError, PayloadError
from controlplane.ingest.limits import DEFAULT_LIMITS, Limits
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import Decoded, decode_requests, split_payload
from controlplane.ingest.otlp_split import split_request
from controlplane.ingest.ports import Payload
from controlplane.signals.schema import NORMALIZED_SCHEMA
from controlplane.signals.sender import KEYLESS_SENDER

CORPUS = Path(__file__).parents[2] / "corpus"
LITELLM = CORPUS / "litellm-proxy" / "chat.part5.pb"

Decode = Callable[..., Decoded]
MakeRequest = Callable[..., ExportTraceServiceRequest]


def test_nothing_decodes_to_nothing(decode: Decode) -> None:
    for decoded in (decode(), decode(b"")):
        assert (0, {}, 0) == (decoded.spans.num_rows, decoded.rejected, decoded.received)
        assert normalize(decoded).schema == NORMALIZED_SCHEMA


def test_a_malformed_request_loses_only_itself(decode: Decode) -> None:
    good = LITELLM.read_bytes()
    decoded = decode(good, b"not a request", good[:-7], good)
    assert {"malformed_payload": 2} == decoded.rejected
    assert decoded.received == decoded.spans.num_rows + 2
    assert 2 * decode(good).spans.num_rows == decoded.spans.num_rows


def test_a_malformed_span_loses_only_itself(decode: Decode, make_request: MakeRequest) -> None:
    request = make_request()
    spans = request.resource_spans[0].scope_spans[0].spans
    spans.append(spans[0])
    spans[1].span_id = b"\x09" * 8
    body = request.SerializeToString()
    wrong = spans[1].SerializeToString()
    at = body.rindex(wrong)
    # The name's field header now claims a fixed32, so the span's fields no longer parse.
    broken = wrong.replace(b"\x2a\x0b", b"\x2d\x0b", 1)
    decoded = decode(body[:at] + broken + body[at + len(wrong) :])
    assert {"malformed_span": 1} == decoded.rejected
    assert [int.from_bytes(bytes(range(1, 9)))] == decoded.spans.column("span_id").to_pylist()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b"short"}, "invalid_trace_id"),
        ({"span_id": b"much longer than eight"}, "invalid_span_id"),
        ({"start_time_unix_nano": 0, "end_time_unix_nano": 0}, "missing_time"),
    ],
)
def test_a_span_without_identity_is_rejected(
    decode: Decode, make_request: MakeRequest, fields: dict[str, Any], reason: str
) -> None:
    decoded = decode(make_request(**fields).SerializeToString(), make_request().SerializeToString())
    assert ({reason: 1}, 1, 2) == (decoded.rejected, decoded.spans.num_rows, decoded.received)
    assert normalize(decoded).num_rows == 1


def test_zero_ids_come_from_the_content(decode: Decode, make_request: MakeRequest) -> None:
    def ids(name: str) -> tuple[int, int, int]:
        request = make_request(trace_id=b"\x00" * 16, span_id=b"", name=name)
        row = decode(request.SerializeToString()).spans.to_pylist()[0]
        return row["trace_hi"], row["trace_lo"], row["span_id"]

    assert ids("a") == ids("a")
    assert ids("a") != ids("b")
    assert all(ids("a"))


def test_text_that_is_not_utf8_loses_its_bad_bytes_only(
    decode: Decode, make_request: MakeRequest
) -> None:
    request = make_request({"gen_ai.usage.input_tokens": 7, "note": "cut-here"}, name="chat-name")
    body = request.SerializeToString()
    body = body.replace(b"cut-here", b"cut-her\xc3").replace(b"chat-name", b"chat\xff\xfename"[:9])
    (row,) = normalize(decode(body)).to_pylist()
    assert 7 == row["input_tokens"]
    assert "cut-her\ufffd" == dict(row["attributes"])["note"]
    assert "chat\ufffd\ufffdnam" == row["name"]


def test_equal_bytes_have_equal_hashes_and_a_change_has_another(
    decode: Decode, make_request: MakeRequest
) -> None:
    def content_hash(tokens: int) -> int:
        body = make_request({"gen_ai.usage.input_tokens": tokens}).SerializeToString()
        return int(decode(body).spans.column("content_hash")[0].as_py())

    assert content_hash(1) == content_hash(1)
    assert content_hash(1) != content_hash(2)


def test_the_content_hash_is_xxh3_64_of_the_spans_bytes(
    decode: Decode, make_request: MakeRequest
) -> None:
    # The specification's digest of no bytes: a resend must be known as one by the next release.
    assert 0x2D06800538D394C2 == xxhash.xxh3_64_intdigest(b"")
    request = make_request()
    span = request.resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    decoded = decode(request.SerializeToString())
    assert xxhash.xxh3_64_intdigest(span) == decoded.spans.column("content_hash")[0].as_py()


def test_span_bounds_are_checked_before_allocation(decode: Decode) -> None:
    body = LITELLM.read_bytes()
    small = Limits(max_spans_per_request=2)
    assert {"max_spans_per_request": 1} == decode(body, limits=small).rejected
    with pytest.raises(LimitExceededError):
        split_request(body, limits=small)


def test_attributes_beyond_the_bound_are_not_read(
    decode: Decode, make_request: MakeRequest
) -> None:
    attributes = {f"k{i}": i for i in range(10)} | {"gen_ai.usage.input_tokens": 5}
    decoded = decode(make_request(attributes).SerializeToString())
    (row,) = normalize(decoded, limits=Limits(max_attributes_per_span=3)).to_pylist()
    assert 5 == row["input_tokens"]  # usage is never cut off, wherever it stands
    assert {"k0": "0", "k1": "1", "k2": "2"} == dict(row["attributes"])


def test_shared_columns_follow_their_request(make_request: MakeRequest) -> None:
    bodies = [make_request(resource={"service.name": n}).SerializeToString() for n in ("a", "b")]
    senders = [KEYLESS_SENDER, type(KEYLESS_SENDER)(domain="d2", tenant="t", key_id="k")]
    decoded = decode_requests(
        [Payload(body) for body in bodies],
        senders=senders,
        received_at=[_at(1), _at(2)],
        limits=DEFAULT_LIMITS,
    )
    rows = normalize(decoded).to_pylist()
    assert [("default", "", "a", _at(1)), ("d2", "k", "b", _at(2))] == [
        (r["domain"], r["key_id"], r["service_name"], r["received_at"]) for r in rows
    ]


def _at(second: int) -> Any:
    return pa.scalar(second * 1_000_000, pa.timestamp("us", tz="UTC")).as_py()


# --- JSON


def as_otlp_json(request: ExportTraceServiceRequest) -> bytes:
    """Write a request as the specification's JSON: protobuf's mapping with hex ids."""
    document = MessageToDict(request, use_integers_for_enums=True)
    for resource_spans in document.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            source = {
                s.span_id: s for r in request.resource_spans for c in r.scope_spans for s in c.spans
            }
            for span, original in zip(scope_spans.get("spans", ()), source.values(), strict=False):
                span["traceId"] = original.trace_id.hex()
                span["spanId"] = original.span_id.hex()
                span["parentSpanId"] = original.parent_span_id.hex()
    return json.dumps(document).encode()


def test_json_and_protobuf_normalise_alike(decode: Decode, make_request: MakeRequest) -> None:
    request = make_request(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.usage.input_tokens": 2**53 + 1,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.request.stream": True,
            "feature": "search",
        },
        kind=3,
    )
    left = normalize(decode(request.SerializeToString())).drop_columns(["content_hash"])
    right = normalize(decode(as_otlp_json(request), json=True)).drop_columns(["content_hash"])
    assert left.equals(right)


def test_json_enums_may_be_names_and_numbers_text(decode: Decode) -> None:
    span = {
        "traceId": "00112233445566778899AABBCCDDEEFF",
        "spanId": "0011223344556677",
        "name": "chat",
        "kind": "SPAN_KIND_CLIENT",
        "startTimeUnixNano": "1790000000000000000",
        "endTimeUnixNano": 1790000001000000000,
        "status": {"code": "STATUS_CODE_ERROR"},
        "attributes": [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}}],
        "unknownField": {"a": 1},
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    (row,) = normalize(decode(body, json=True)).to_pylist()
    assert ("client", "error", 12, 1_000_000) == (
        row["kind"],
        row["status"],
        row["input_tokens"],
        row["duration_us"],
    )
    assert 0x0011223344556677 == row["trace_hi"]


@pytest.mark.parametrize("as_in_proto", [True, False])
def test_what_protobufs_own_json_writer_makes_is_read(
    decode: Decode,
    make_request: MakeRequest,
    as_in_proto: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Ids in base64, enums by name, and field names as in the .proto if asked for."""
    request = make_request({"gen_ai.usage.input_tokens": 7, "list": ["a", "b"]}, kind=3)
    body = MessageToJson(request, preserving_proto_field_name=as_in_proto).encode()
    left = normalize(decode(request.SerializeToString())).drop_columns(["content_hash"])
    assert left.equals(normalize(decode(body, json=True)).drop_columns(["content_hash"]))


def test_a_json_value_that_can_not_be_read_loses_only_itself(decode: Decode) -> None:
    values = {
        "gen_ai.operation.name": {"stringValue": "chat"},
        "gen_ai.usage.input_tokens": {"intValue": 12.0},
        "gen_ai.usage.output_tokens": {"intValue": str(2**70)},
        "gen_ai.request.stream": {"boolValue": "yes"},
        "gen_ai.response.id": {"stringValue": 5},
        "gen_ai.request.model": {"stringValue": None},
        "gen_ai.provider.name": "openai",
    }
    span = {
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "kind": "client",
        "startTimeUnixNano": 1.79e18,
        "attributes": [{"key": key, "value": value} for key, value in values.items()],
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    (row,) = normalize(decode(body, json=True)).to_pylist()
    told = ("kind", "input_tokens", "usage_state", "usage_reason", "response_id", "request_model")
    # 2**70 tokens are no number of tokens, and the report says so.
    assert ["client", 12, "impossible", "quantity_out_of_range", None, None] == [
        row[name] for name in told
    ]


@pytest.mark.parametrize("field", ["traceId", "startTimeUnixNano", "attributes", "kind", "status"])
def test_a_json_span_with_a_wrong_type_loses_only_itself(decode: Decode, field: str) -> None:
    good = {"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1", "startTimeUnixNano": "1000000"}
    wrong = {**good, field: {"code": []} if field == "status" else ["x"]}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [wrong, good]}]}]}).encode()
    decoded = decode(body, json=True)
    assert ({"malformed_span": 1}, 1) == (decoded.rejected, decoded.spans.num_rows)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"resourceSpans": 3}', b'{"resourceSpans": [1]}', b"[" * 100_000, b"\xff"],
)
def test_malformed_json_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(PayloadError) as error:
        split_payload(Payload(body, "json"), limits=DEFAULT_LIMITS)
    assert "malformed_payload" == error.value.reason


def test_deeply_nested_json_values_are_not_read(decode: Decode) -> None:
    value: dict[str, Any] = {"stringValue": "deep"}
    for _ in range(200):
        value = {"arrayValue": {"values": [value]}}
    span = {
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "startTimeUnixNano": "1000000",
        "attributes": [{"key": "k", "value": value}],
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    assert 1 == decode(body, json=True).spans.num_rows


# --- hostile bytes


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_bytes_never_escape_as_anything_but_a_rejection(data: st.DataObject) -> None:
    body = bytearray(LITELLM.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    decoded = decode_requests(
        [Payload(bytes(body)), Payload(bytes(body[:cut]))],
        senders=[KEYLESS_SENDER] * 2,
        received_at=[_at(1)] * 2,
        limits=DEFAULT_LIMITS,
    )
    assert decoded.received == decoded.spans.num_rows + sum(decoded.rejected.values())
    assert decoded.spans.num_rows == normalize(decoded).num_rows


@given(st.binary(max_size=200))
def test_random_bytes_are_a_request_or_a_payload_error(body: bytes) -> None:
    try:
        split = split_request(body, limits=DEFAULT_LIMITS)
    except PayloadError:
        return
    assert len(split.spans) == sum(group.count for group in split.groups)


def test_a_span_from_before_what_is_kept_is_rejected_by_name(
    decode: Decode, make_request: MakeRequest
) -> None:
    """C7: what it would join is gone. A microsecond later it is late, and taken."""
    day = 86_400_000_000_000
    arrived = 1_795_176_000 * 1_000_000_000  # 2026-11-20 12:00, as `decode` says
    bodies = [
        make_request(start_time_unix_nano=arrived - 30 * day - early).SerializeToString()
        for early in (0, 1_000)
    ]
    decoded = decode(*bodies, limits=Limits(max_age_days=30))
    assert (2, 1) == (decoded.received, decoded.spans.num_rows)
    assert {"beyond_retention": 1} == decoded.rejected
    assert {(1, "app", "beyond_retention"): 1} == decoded.refused
    assert 2 == decode(*bodies).spans.num_rows
