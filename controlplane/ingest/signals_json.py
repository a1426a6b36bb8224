"""OTLP/JSON metrics and logs, read into the messages that protobuf requests are read into."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from controlplane.core.errors import PayloadError
from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest import otlp_signals_pb2 as sig
from controlplane.ingest.json_scalars import (
    as_bool,
    as_double,
    as_enum,
    as_id,
    as_int64,
    as_uint64,
    member,
    objects_of,
)

_TEMPORALITIES: Final = {
    "AGGREGATION_TEMPORALITY_DELTA": 1,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
}


def metrics_of_json(body: bytes) -> sig.MetricsData:
    """Read a JSON ExportMetricsServiceRequest.

    Raises:
        PayloadError: not JSON, or not of this shape.
    """
    request = _decode(body)
    try:
        return sig.MetricsData(
            resource_metrics=[
                sig.ResourceMetrics(
                    resource=_resource(resource),
                    scope_metrics=[
                        sig.ScopeMetrics(metrics=[_metric(m) for m in objects_of(scope, "metrics")])
                        for scope in objects_of(resource, "scopeMetrics")
                    ],
                )
                for resource in objects_of(request, "resourceMetrics")
            ]
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise _malformed(str(error)) from None


def logs_of_json(body: bytes) -> sig.LogsData:
    """Read a JSON ExportLogsServiceRequest.

    Raises:
        PayloadError: not JSON, or not of this shape.
    """
    request = _decode(body)
    try:
        return sig.LogsData(
            resource_logs=[
                sig.ResourceLogs(
                    resource=_resource(resource),
                    scope_logs=[
                        sig.ScopeLogs(
                            log_records=[_log(r) for r in objects_of(scope, "logRecords")]
                        )
                        for scope in objects_of(resource, "scopeLogs")
                    ],
                )
                for resource in objects_of(request, "resourceLogs")
            ]
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise _malformed(str(error)) from None


def _decode(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(f"it is not JSON ({error})") from None


def _resource(holder: Mapping[str, Any]) -> pb.LooseResource:
    resource = holder.get("resource")
    return pb.LooseResource(attributes=_pairs(resource) if isinstance(resource, dict) else [])


def _pairs(holder: Mapping[str, Any]) -> list[pb.LooseKeyValue]:
    return [
        pb.LooseKeyValue(key=_bytes(pair.get("key")), value=_value(pair.get("value")))
        for pair in objects_of(holder, "attributes")
    ]


def _value(value: object) -> pb.LooseAnyValue:
    if not isinstance(value, dict):
        return pb.LooseAnyValue()
    try:
        for name, read in _SCALARS.items():
            if (scalar := member(value, name)) is not None:
                return read(scalar)
    except (TypeError, ValueError, OverflowError):
        return pb.LooseAnyValue()
    return pb.LooseAnyValue()


_SCALARS: Final[dict[str, Callable[[object], pb.LooseAnyValue]]] = {
    "stringValue": lambda v: pb.LooseAnyValue(string_value=_bytes(v)),
    "boolValue": lambda v: pb.LooseAnyValue(bool_value=as_bool(v)),
    "intValue": lambda v: pb.LooseAnyValue(int_value=as_int64(v)),
    "doubleValue": lambda v: pb.LooseAnyValue(double_value=as_double(v)),
}


def _bytes(text: object) -> bytes:
    if text is None:
        return b""
    if not isinstance(text, str):
        msg = "a text is not a string"
        raise TypeError(msg)
    return text.encode("utf-8", "replace")


def _metric(metric: Mapping[str, Any]) -> sig.Metric:
    made = sig.Metric(name=_bytes(metric.get("name")))
    if (data := metric.get("gauge")) is not None:
        made.gauge.SetInParent()
        made.gauge.data_points.extend(_number(p) for p in objects_of(data, "dataPoints"))
    elif (data := metric.get("sum")) is not None:
        made.sum.data_points.extend(_number(p) for p in objects_of(data, "dataPoints"))
        made.sum.aggregation_temporality = _temporality(data)
        made.sum.is_monotonic = as_bool(member(data, "isMonotonic") or False)
    elif (data := metric.get("histogram")) is not None:
        points = [sig.HistogramPoint(**_summed(p)) for p in objects_of(data, "dataPoints")]
        made.histogram.data_points.extend(points)
        made.histogram.aggregation_temporality = _temporality(data)
    elif (data := member(metric, "exponentialHistogram")) is not None:
        wide = [sig.ExponentialPoint(**_summed(p)) for p in objects_of(data, "dataPoints")]
        made.exponential_histogram.data_points.extend(wide)
        made.exponential_histogram.aggregation_temporality = _temporality(data)
    elif (data := metric.get("summary")) is not None:
        summaries = [sig.SummaryPoint(**_summed(p)) for p in objects_of(data, "dataPoints")]
        made.summary.data_points.extend(summaries)
    return made


def _number(point: Mapping[str, Any]) -> sig.NumberPoint:
    made = sig.NumberPoint(**_placed(point))
    if (whole := member(point, "asInt")) is not None:
        made.as_int = as_int64(whole)
    elif (number := member(point, "asDouble")) is not None:
        made.as_double = as_double(number)
    return made


def _summed(point: Mapping[str, Any]) -> dict[str, Any]:
    total = point.get("sum")
    return {
        **_placed(point),
        "count": as_uint64(point.get("count")),
        "sum": 0.0 if total is None else as_double(total),
    }


def _placed(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "start_time_unix_nano": as_uint64(member(point, "startTimeUnixNano")),
        "time_unix_nano": as_uint64(member(point, "timeUnixNano")),
        "attributes": _pairs(point),
        "flags": as_uint64(point.get("flags")) & 1,
    }


def _temporality(data: Mapping[str, Any]) -> int:
    said = member(data, "aggregationTemporality")
    return as_enum(said, _TEMPORALITIES, prefix="AGGREGATION_TEMPORALITY_")


def _log(record: Mapping[str, Any]) -> sig.LogRecord:
    return sig.LogRecord(
        time_unix_nano=as_uint64(member(record, "timeUnixNano")),
        observed_time_unix_nano=as_uint64(member(record, "observedTimeUnixNano")),
        event_name=_bytes(member(record, "eventName")),
        body=_value(record.get("body")),
        attributes=_pairs(record),
        trace_id=as_id(member(record, "traceId"), 16),
        span_id=as_id(member(record, "spanId"), 8),
    )


def _malformed(problem: str) -> PayloadError:
    return PayloadError(
        "malformed_payload",
        f"not an OTLP/JSON export request: {problem}",
        "Send lowerCamelCase keys and hex ids as the OTLP specification describes",
    )
