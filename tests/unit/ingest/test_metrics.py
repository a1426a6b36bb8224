"""Metric requests of real SDK classes become rows that say what they mean."""

from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from controlplane.ingest.emitters import Emitter
from controlplane.ingest.metrics import Samples, decode_metrics
from controlplane.ingest.ports import ContentType, Payload, SpoolEntry
from controlplane.signals.families.registry import FAMILIES, known
from controlplane.signals.meanings import Meaning
from controlplane.signals.sender import Sender, TenantMap
from controlplane.signals.vocabulary import KeyRole

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
NANOS = 1_790_000_000_000_000_000
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def _pairs(labels: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in labels.items()]


def _request(*metrics: Metric, **resource: str) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    named = {name.replace("_", "."): text for name, text in resource.items()}
    group.resource.attributes.extend(_pairs({"service.name": "app", **named}))
    group.scope_metrics.add().metrics.extend(metrics)
    return request


def _histogram(name: str, *points: tuple[float, int, dict[str, str]]) -> Metric:
    metric = Metric(name=name)
    metric.histogram.aggregation_temporality = CUMULATIVE
    for total, count, labels in points:
        metric.histogram.data_points.add(
            start_time_unix_nano=NANOS, time_unix_nano=NANOS + 10**9, sum=total, count=count,
            bucket_counts=[count], attributes=_pairs(labels),
        )  # fmt: skip
    return metric


def _counter(name: str, value: float, *, delta: bool = False, **labels: str) -> Metric:
    metric = Metric(name=name)
    metric.sum.aggregation_temporality = DELTA if delta else CUMULATIVE
    metric.sum.is_monotonic = True
    metric.sum.data_points.add(
        time_unix_nano=NANOS, as_double=value, attributes=_pairs(labels)
    )  # fmt: skip
    return metric


def _decode(request: ExportMetricsServiceRequest, *, as_json: bool = False) -> Samples:
    body = MessageToJson(request).encode() if as_json else request.SerializeToString()
    payload = Payload(body, "json" if as_json else "protobuf", "metrics")
    sender = Sender(domain="d", tenant="acme", key_id="k1")
    return decode_metrics([SpoolEntry(payload, sender, AT)])


def test_token_usage_is_named_by_its_type_and_parts_are_parts() -> None:
    """Envoy's extra types overlap `input` and `output`: 100 + 20 are the tokens, not 190."""
    labels = {"gen_ai.request.model": "gpt-4o", "gen_ai.provider.name": "openai"}
    types = {"input": 100, "output": 20, "cached_input": 60, "reasoning": 10}
    points = [(float(n), 1, {**labels, "gen_ai.token.type": kind}) for kind, n in types.items()]
    rows = _decode(_request(_histogram("gen_ai.client.token.usage", *points))).rows.to_pylist()
    said = {row["meaning"]: row["value"] for row in rows}
    assert {
        "input_tokens": 100.0,
        "output_tokens": 20.0,
        "cached_input_tokens": 60.0,
        "reasoning_tokens": 10.0,
    } == said
    assert {("gpt-4o", "openai", "histogram", "cumulative", 1, "acme", "app")} == {
        tuple(
            row[c]
            for c in ("model", "provider", "kind", "temporality", "count", "tenant", "emitter")
        )
        for row in rows
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_both_encodings_give_the_same_rows(as_json: bool) -> None:  # noqa: FBT001 - a parameter
    request = _request(
        _counter("gen_ai.client.inference.usage.input_tokens", 7, delta=True),
        _histogram("gen_ai.client.operation.duration", (1.5, 2, {"gen_ai.request.model": "m"})),
        service_instance_id="pod-1",
    )
    gauge = (
        request.resource_metrics[0].scope_metrics[0].metrics.add(name="vllm:num_requests_running")
    )
    gauge.gauge.data_points.add(time_unix_nano=NANOS, as_int=3)
    told = [
        tuple(row[c] for c in ("meaning", "kind", "temporality", "value", "count", "instance"))
        for row in _decode(request, as_json=as_json).rows.to_pylist()
    ]
    assert [
        ("input_tokens", "counter", "delta", 7.0, None, "pod-1"),
        ("operation_seconds", "histogram", "cumulative", 1.5, 2, "pod-1"),
        ("running_requests", "gauge", "", 3.0, None, "pod-1"),
    ] == told


def test_units_become_the_meanings() -> None:
    metrics = (
        _counter("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5_000),
        _counter("nv_inference_queue_duration_us", 2_000_000),
    )
    rows = _decode(_request(*metrics)).rows.to_pylist()
    assert [("gpu_energy_joules", 5.0), ("queue_seconds", 2.0)] == [
        (row["meaning"], row["value"]) for row in rows
    ]


def test_a_series_is_told_apart_by_labels_that_are_not_kept() -> None:
    metrics = (_counter("c", 1, user_email="a@x"), _counter("c", 1, user_email="b@x"))
    rows = _decode(_request(*metrics)).rows.to_pylist()
    assert 2 == len({row["series_hash"] for row in rows})
    assert {"{}"} == {row["labels"] for row in rows}
    assert "a@x" not in str(rows)


@pytest.mark.parametrize("role", [KeyRole.PROXY, KeyRole.ENGINE, KeyRole.CLIENT])
def test_tenants_behind_one_key_have_series_of_their_own(role: KeyRole) -> None:
    """The resource or the point names the tenant where the key maps it; the rest is alike."""
    sender = Sender(tenant="acme", key_id="k1", key_role=role,
                    tenant_map=TenantMap("org.id", {"o1": "north", "o2": "south"}))  # fmt: skip
    requests = [
        _request(_counter("vllm:prompt_tokens_total", 5), org_id="o1"),
        _request(_counter("vllm:prompt_tokens_total", 7), org_id="o2"),
        _request(_counter("vllm:prompt_tokens_total", 9), org_id="o9"),
        _request(_histogram("vllm:prompt_tokens_total", (11, 1, {"org.id": "o2"})), org_id="o1"),
    ]
    rows = decode_metrics([
        SpoolEntry(Payload(one.SerializeToString(), "protobuf", "metrics"), sender, AT)
        for one in requests
    ]).rows.to_pylist()  # fmt: skip
    told = [(row["tenant"], row["value"]) for row in rows]
    if role is KeyRole.CLIENT:
        assert [("acme", value) for value in (5.0, 7.0, 9.0, 11.0)] == told
        return
    assert [("north", 5.0), ("south", 7.0), ("acme", 9.0), ("south", 11.0)] == told
    assert 3 == len({row["series_hash"] for row in rows[:3]})
    assert rows[1]["series_hash"] != rows[3]["series_hash"]


def test_what_can_not_be_kept_is_counted_by_reason() -> None:
    request = _request(_counter("c", float("inf")), _counter("c", 1))
    request.resource_metrics[0].scope_metrics[0].metrics[1].sum.data_points[0].time_unix_nano = 0
    decoded = _decode(request)
    assert 0 == decoded.rows.num_rows
    app = Emitter("acme", "k1", "app")
    assert {app: 2} == decoded.received
    assert {(app, "not_a_number"): 1, (app, "missing_time"): 1} == decoded.rejected


def test_a_label_that_is_not_text_costs_nothing_but_its_characters() -> None:
    body = _request(_counter("c", 1, model="caf\u00e9")).SerializeToString()
    payload = Payload(body.replace("\u00e9".encode(), b"\xff\xfe"), "protobuf", "metrics")
    decoded = decode_metrics([SpoolEntry(payload, Sender(), AT)])
    assert ["caf\ufffd\ufffd"] == decoded.rows.column("model").to_pylist()


@pytest.mark.parametrize(
    ("exposed", "meaning"),
    [
        ("vllm:prompt_tokens_total", Meaning.INPUT_TOKENS),
        ("vllm_prompt_tokens_total", Meaning.INPUT_TOKENS),
        ("sglang:generation_tokens_total", Meaning.OUTPUT_TOKENS),
        ("gen_ai_client_operation_duration", Meaning.OPERATION_SECONDS),
    ],
)
def test_a_name_that_a_collector_respelled_is_known(exposed: str, meaning: Meaning) -> None:
    found = known(exposed)
    assert found is not None
    assert meaning is found.meaning({})


def test_no_two_families_claim_one_series() -> None:
    named = [series.name for family in FAMILIES for series in family.series]
    assert len(named) == len(set(named))


def test_metrics_in_protobufs_own_json_are_read() -> None:
    """Field names as in the .proto, enums by name; a label that can not be read is not said."""
    request = _request(_counter("gen_ai.client.inference.usage.input_tokens", 7, delta=True))
    body = MessageToJson(request, preserving_proto_field_name=True)
    body = body.replace(
        '"attributes": [', '"attributes": [{"key": "x", "value": {"intValue": []}},'
    )
    entry = SpoolEntry(Payload(body.encode(), "json", "metrics"), Sender(), AT)
    (row,) = decode_metrics([entry]).rows.to_pylist()
    assert ("counter", "delta", 7.0) == tuple(row[n] for n in ("kind", "temporality", "value"))


def test_hostile_bodies_are_refused_alone() -> None:
    good = SpoolEntry(
        Payload(_request(_counter("c", 1)).SerializeToString(), "protobuf", "metrics"), Sender(), AT
    )
    bodies: tuple[tuple[bytes, ContentType], ...] = (
        (b"\xff\xff", "protobuf"),
        (b"[]", "json"),
        (b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":7}]}]}]}', "json"),
    )
    bad = [SpoolEntry(Payload(body, kind, "metrics"), Sender(), AT) for body, kind in bodies]
    decoded = decode_metrics([bad[0], good, *bad[1:]])
    assert 1 == decoded.rows.num_rows
    assert 3 == decoded.rejected.total()
