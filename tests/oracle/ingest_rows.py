"""A plain reading of each span, one row at a time: what `ingest.normalize` must equal.

It walks the official protobuf classes and shares with the code under test only data (the dialects
and their spelling tables), the blob reader and core.tokens.decompose.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pyarrow as pa
import xxhash
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from controlplane.core.tokens import ImpossibleUsageError, ReportedUsage, decompose
from controlplane.ingest.claims import matches_scope
from controlplane.ingest.dialects.dialect import USAGE_FIELDS, Blob, Dialect, Field
from controlplane.ingest.dialects.operations import (
    INPUT_ONLY,
    canonical_operation,
    kind_of_operation,
)
from controlplane.ingest.dialects.providers import canonical_provider, split_model_path
from controlplane.ingest.dialects.registry import DIALECTS
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.outcome import canonical_finish_reason, error_of_status, error_of_text
from controlplane.ingest.redact import is_content
from controlplane.ingest.scalars import read_blob

NOISE = (
    *("container.", "host.arch", "host.id", "host.image.", "os.", "process.", "telemetry."),
    *("service.instance.id", "service.name", "webengine."),
)
TOKEN_BUCKETS = [
    *("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio"),
    *("input_image", "input_video", "cache_read_audio", "output_text", "output_reasoning"),
    *("output_audio", "output_image"),
]
KINDS = ["", "internal", "server", "client", "producer", "consumer"]


def plain(value: AnyValue) -> Any:
    """Answer a Python value; None for nothing, an empty text, bytes; a dict for a map."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value or None
    if kind == "array_value":
        items = [(v.WhichOneof("value"), v) for v in value.array_value.values]
        scalar = {"string_value", "bool_value", "int_value", "double_value"}
        return [getattr(v, k) for k, v in items if k in scalar]
    if kind == "kvlist_value":
        return {}
    return None if kind in {None, "bytes_value"} else getattr(value, kind)


def attributes_of(pairs: Any) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for pair in pairs:
        value = plain(pair.value)
        if value is not None:
            said.pop(pair.key, None)  # the last value stands, in the last place
            said[pair.key] = value
    return said


def as_int(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, float) and math.isfinite(value) and value == math.floor(value):
        value = int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return value if is_integer and -(2**63) <= value < 2**63 else None


def as_bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return words.get(value.strip().lower()) if isinstance(value, str) else None


def as_micros(value: Any, unit: float) -> int | None:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|µs|us|ms|s)", value.strip())
        if match:
            scale = {"ns": 1e-3, "µs": 1.0, "us": 1.0, "ms": 1e3, "s": 1e6}[match[2]]
            value, unit = float(match[1]), scale
        elif is_decimal(value.strip()):
            value = float(value)
        else:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    micros = value * unit
    return round(micros) if 0 <= micros < 2**53 else None


def is_decimal(text: str) -> bool:
    number = r"[+-]?([0-9]{1,30}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?"
    return re.fullmatch(number, text) is not None


def as_nusd(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.strip() if isinstance(value, str) else repr(value)
    if not is_decimal(text):
        return None
    nusd = round(Decimal(text) * 10**9)
    return nusd if abs(nusd) < 2**63 else None


def as_name(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(pa.scalar(value).cast(pa.string()))
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else None


def first_listed(text: str) -> str | None:
    if not text.startswith("["):
        return text
    try:
        items = json.loads(text)
    except ValueError:
        return None
    return items[0] if items and isinstance(items[0], str) else None


class Row:
    """One span read under its dialect."""

    def __init__(self, span: Span, scope: str) -> None:
        self.span = span
        self.said = attributes_of(span.attributes)
        self.dialect = self._claimed(scope)
        self.blobs = [(blob, self._blob(blob)) for blob in self.dialect.blobs]

    def _claimed(self, scope: str) -> Dialect:
        for dialect in DIALECTS:
            if matches_scope(scope, dialect) and (
                dialect.requires is None or dialect.requires in self.said
            ):
                return dialect
        for dialect in DIALECTS:
            if dialect.markers and any(key.startswith(dialect.markers) for key in self.said):
                return dialect
        return DIALECTS[-1]

    def _blob(self, blob: Blob) -> dict[str, Any]:
        text = self.said.get(blob.key)
        limits = DEFAULT_LIMITS
        if not isinstance(text, str):
            return {}
        return read_blob(
            text, blob.encoding, max_bytes=limits.max_blob_bytes, max_nesting=limits.max_nesting
        )

    def values(self, field: Field) -> Iterator[Any]:
        for key in self.dialect.keys.get(field, ()):
            if key in self.said:
                yield self.said[key]
        for blob, members in self.blobs:
            yield from self._in_blob(field, blob, members)

    def _in_blob(self, field: Field, blob: Blob, members: dict[str, Any]) -> Iterator[Any]:
        for wanted, path in blob.paths:
            value: Any = members if wanted is field else None
            for name in path:
                if isinstance(value, list) and name == "0":
                    value = value[0] if value else None
                else:
                    value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                yield value
        for wanted, prefix in blob.sums:
            parts = [as_int(v) for k, v in members.items() if k.startswith(prefix)]
            read = [part for part in parts if part is not None]
            if wanted is field and read:
                yield sum(read)

    def first(self, field: Field, read: Any) -> Any:
        found = (read(value) for value in self.values(field))
        return next((value for value in found if value is not None), None)

    def text(self, field: Field) -> Any:
        return self.first(field, lambda v: v if isinstance(v, str) and v else None)

    def name(self, field: Field, mapped: Any) -> Any:
        def read(value: Any) -> Any:
            text = as_name(value)
            if text is None or (isinstance(value, dict | list) and not text):
                return None
            if self.dialect.json_quoted and text.startswith('"'):
                with suppress(ValueError):
                    text = json.loads(text)
            return mapped(text) if isinstance(text, str) and text else None

        return self.first(field, read)

    def micros(self, field: Field) -> int | None:
        for key in self.dialect.keys.get(field, ()):
            unit = 1e3 if key in self.dialect.millisecond_keys else 1e6
            micros = as_micros(self.said.get(key), unit)
            if micros is not None:
                return micros
        return None


def usage_of(row: Row, *, operation: str | None, failed: bool) -> dict[str, Any]:
    said = {field: row.first(field, as_int) for field in USAGE_FIELDS}
    totals = {f: v if v is not None and 0 <= v <= 2**40 else None for f, v in said.items()}
    wrong = any(v is not None and totals[f] is None for f, v in said.items())
    cache = (totals[Field.CACHED_INPUT_TOKENS] or 0) + (
        totals[Field.CACHE_CREATION_INPUT_TOKENS] or 0
    )
    whole = totals[Field.INPUT_TOKENS]
    excludes = row.dialect.input_excludes_cache
    if whole is not None and (excludes is True or (excludes is None and cache > whole)):
        totals[Field.INPUT_TOKENS] = whole + cache
    written = totals[Field.OUTPUT_TOKENS]
    if row.dialect.output_excludes_reasoning and written is not None:
        totals[Field.OUTPUT_TOKENS] = written + (totals[Field.REASONING_TOKENS] or 0)
    for field in (Field.INPUT_TOKENS, Field.OUTPUT_TOKENS):
        if (totals[field] or 0) > 2**40:
            totals[field], wrong = None, True
    state, reason, buckets = _judge(said, totals, wrong, operation, failed)
    columns = {f.value: totals[f] for f in USAGE_FIELDS[:3]}
    columns |= {f.value: totals[f] for f in (Field.OUTPUT_TOKENS, Field.REASONING_TOKENS)}
    columns |= {b: None if buckets is None else buckets.get(b, 0) for b in TOKEN_BUCKETS}
    return columns | {"usage_state": state, "usage_reason": reason}


def _judge(said: Any, totals: Any, wrong: bool, operation: Any, failed: bool) -> Any:  # noqa: FBT001, PLR0911 - a decision table, in order
    if all(value is None for value in said.values()):
        return "absent", "failed_without_usage" if failed else "no_usage", None
    if wrong:
        return "impossible", "quantity_out_of_range", None
    if totals[Field.INPUT_TOKENS] is None:
        return "unknown", "input_not_said", None
    try:
        buckets = decompose(ReportedUsage(**{f.value: v for f, v in totals.items()}))
    except ImpossibleUsageError as error:
        return "impossible", error.reason, None
    if not totals[Field.INPUT_TOKENS] and not totals[Field.OUTPUT_TOKENS]:
        return (
            ("absent", "failed_without_usage", None) if failed else ("unknown", "zero_usage", None)
        )
    if totals[Field.OUTPUT_TOKENS] is None and operation not in INPUT_ONLY:
        return "unknown", "output_not_said", None
    return "exact", None, buckets


def kind_of(row: Row, *, operation: str | None, failed: bool, has_usage: bool) -> str:
    dialect = row.dialect
    if row.span.name in dialect.kinds_by_name:
        return dialect.kinds_by_name[row.span.name].value
    for key, kind in dialect.kinds_by_key.items():
        if key in row.said:
            return kind.value
    known = kind_of_operation(operation) if operation is not None else None
    bare = dialect.call_needs and not any(key in row.said for key in dialect.call_needs)
    if bare and known == "call" and not failed:
        return "none"
    if known is not None:
        return known.value
    return dialect.kind_of_usage.value if has_usage else "none"


def exception_type(span: Span) -> str | None:
    for event in reversed(span.events):
        for pair in event.attributes if event.name == "exception" else ():
            if pair.key == "exception.type" and pair.value.string_value:
                return str(pair.value.string_value)
    return None


def outcome_of(row: Row) -> dict[str, Any]:
    http = row.first(Field.HTTP_STATUS, as_int)
    http = http if http is not None and 100 <= http <= 599 else None
    raised = exception_type(row.span)
    failed = row.span.status.code == 2 or (http or 0) >= 400
    failed = failed or (row.dialect.exception_is_failure and raised is not None)
    named = row.name(Field.ERROR_TYPE, error_of_text)
    by_status = error_of_status(http) if http else None
    error = by_status or named or (error_of_text(raised) if raised else None) or "other"

    def finish(text: str) -> str | None:
        first = first_listed(text)
        return canonical_finish_reason(first) if first else None

    def tier(text: str) -> str | None:
        said = text.strip().lower()
        return said[:32] if said not in {"auto", "", "none", "null"} else None

    return {
        "status": "error" if failed else "ok",
        "error_type": str(error) if failed else None,
        "http_status": http,
        "service_tier": row.name(Field.SERVICE_TIER, tier),
        "finish_reason": row.name(Field.FINISH_REASON, finish),
        "is_stream": row.first(Field.IS_STREAM, as_bool),
    }


def models_of(row: Row) -> dict[str, Any]:
    deployed = row.name(Field.DEPLOYED_MODEL, lambda text: text)
    head, path = split_model_path(deployed) if deployed else (None, None)
    answered = row.name(Field.RESPONSE_MODEL, lambda text: text.strip() or None)
    if path is not None and answered is not None and answered == row.text(Field.MODEL_ALIAS):
        answered = path
    requested = row.name(Field.REQUEST_MODEL, lambda text: text.strip() or None)
    provider = row.name(Field.PROVIDER, canonical_provider) or row.dialect.provider or head
    call_id, response_id = row.text(Field.GATEWAY_CALL_ID), row.text(Field.RESPONSE_ID)
    return {
        "provider": provider,
        "request_model": requested,
        "response_model": answered,
        "billing_model": path or answered or requested,
        "response_id": None if response_id == call_id else response_id,
        "gateway_call_id": call_id,
    }


def tail_of(row: Row, resource: dict[str, Any]) -> dict[str, str]:
    limit = DEFAULT_LIMITS.max_tail_value_chars
    read = {key for keys in row.dialect.keys.values() for key in keys}
    read |= {blob.key for blob in row.dialect.blobs}
    own = {k: as_name(v) for k, v in row.said.items() if k not in read and not is_content(k)}
    tail = dict(list(own.items())[: DEFAULT_LIMITS.max_tail_attributes])
    for blob, members in row.blobs:
        for name in members if blob.tail == ("*",) else blob.tail:
            value = members.get(name)
            listed = isinstance(value, list) and all(isinstance(v, str) for v in value)
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False) if listed else None
            if isinstance(value, str | int | float):
                text = value if isinstance(value, str) else json.dumps(value)
            key = f"{blob.key}.{name}"
            if text and text != "[]" and not is_content(key) and key not in own:
                tail[key] = text
    for key, value in resource.items():
        if not key.startswith(NOISE) and not is_content(key) and key not in own:
            tail[key] = as_name(value)
    return {key: text[:limit] for key, text in tail.items() if text is not None}


def reference(request: ExportTraceServiceRequest) -> list[dict[str, Any]]:
    return [
        _normalized(span, scope_spans.scope.name, attributes_of(resource_spans.resource.attributes))
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _normalized(span: Span, scope: str, resource: dict[str, Any]) -> dict[str, Any]:
    row = Row(span, scope)
    operation = row.name(Field.OPERATION, canonical_operation)
    outcome, models = outcome_of(row), models_of(row)
    failed = outcome["status"] == "error"
    usage = usage_of(row, operation=operation, failed=failed)
    has_usage = usage["input_tokens"] is not None or usage["output_tokens"] is not None
    kind = kind_of(row, operation=operation, failed=failed, has_usage=has_usage)
    if kind != "call":
        models |= {"response_model": None, "response_id": None, "billing_model": None}
    start = (span.start_time_unix_nano or span.end_time_unix_nano) // 1000
    ttft = row.micros(Field.TTFT)
    for event in span.events:
        after = event.time_unix_nano // 1000 - start
        if ttft is None and event.name in row.dialect.first_token_events and after >= 0:
            ttft = after
    return {
        "trace_hi": int.from_bytes(span.trace_id[:8], "big"),
        "trace_lo": int.from_bytes(span.trace_id[8:], "big"),
        "span_id": int.from_bytes(span.span_id, "big"),
        "parent_span_id": int.from_bytes(span.parent_span_id, "big"),
        "start_time": start,
        "duration_us": max(span.end_time_unix_nano // 1000 - start, 0),
        "content_hash": xxhash.xxh3_64_intdigest(span.SerializeToString()),
        "name": span.name,
        "kind": KINDS[span.kind],
        "scope_name": scope,
        "service_name": (as_name(resource.get("service.name")) or "")[
            : DEFAULT_LIMITS.max_tail_value_chars
        ],
        "dialect": row.dialect.name,
        "layer": row.dialect.layer.value,
        "operation": operation,
        "report_kind": kind,
        **models,
        **outcome,
        **usage,
        "ttft_us": ttft,
        "queue_us": row.micros(Field.QUEUE),
        "prefill_us": row.micros(Field.PREFILL),
        "decode_us": row.micros(Field.DECODE),
        "reported_cost_nusd": row.first(Field.REPORTED_COST, as_nusd),
        "attributes": tail_of(row, resource),
    }
