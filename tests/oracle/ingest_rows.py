"""A plain reading of each span, one row at a time: what `ingest.normalize` must equal.

It walks the official protobuf classes and shares with the code under test only data (the dialects
and their spelling tables), the blob reader and core.tokens.decompose.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import xxhash
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from controlplane.core.tokens import ImpossibleUsageError, ReportedUsage, decompose
from controlplane.ingest.claims import matches_scope
from controlplane.ingest.dialects.dialect import (
    QUANTITY_FIELDS,
    USAGE_FIELDS,
    Blob,
    Dialect,
    Field,
)
from controlplane.ingest.dialects.operations import (
    ECHOED_MODEL,
    INPUT_ONLY,
    canonical_operation,
    is_chunk,
    is_streamed,
    kind_of_operation,
    split_name,
)
from controlplane.ingest.dialects.providers import (
    canonical_provider,
    provider_of_scope,
    split_model_path,
)
from controlplane.ingest.dialects.registry import DIALECTS
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.outcome import (
    canonical_finish_reason,
    error_of_status,
    error_of_text,
    status_of_message,
)
from controlplane.ingest.redact import is_content
from controlplane.ingest.scalars import read_blob
from tests.oracle.ingest_values import (
    as_bool,
    as_count,
    as_int,
    as_micros,
    as_name,
    as_nusd,
    attributes_of,
    first_listed,
)

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


def found_at(members: Any, path: tuple[str, ...]) -> Any:
    value = members
    for name in path:
        if isinstance(value, list) and name == "0":
            value = value[0] if value else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


class Row:
    """One span read under its dialect."""

    def __init__(self, span: Span, scope: str) -> None:
        self.span, self.scope = span, scope
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
        for blob, members in self.blobs:
            if blob.overrides:
                yield from self._in_blob(field, blob, members)
        for key in self.dialect.keys.get(field, ()):
            if key in self.said:
                yield self.said[key]
        for blob, members in self.blobs:
            if not blob.overrides:
                yield from self._in_blob(field, blob, members)

    def _in_blob(self, field: Field, blob: Blob, members: dict[str, Any]) -> Iterator[Any]:
        if not members:
            return
        for wanted, paths in blob.totals:
            parts = [as_int(found_at(members, path)) for path in paths if wanted is field]
            if parts and parts[0] is not None:
                yield sum(part or 0 for part in parts)
        for wanted, path in blob.paths:
            value = found_at(members, path) if wanted is field else None
            if value is not None:
                yield value
        for wanted, name, pattern in blob.searches:
            text = members.get(name) if wanted is field else None
            match = re.search(pattern, text[: 16 * 1024]) if isinstance(text, str) else None
            if match:
                yield match[1]
        for wanted, prefixes in blob.sums:
            named = [v for k, v in members.items() if any(k.startswith(p) for p in prefixes)]
            read = [part for part in map(as_int, named) if part is not None]
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

    def begins(self, prefixes: Any) -> Any:
        """Answer the first prefix of the span's name."""
        return next((p for p in prefixes if self.span.name.startswith(p)), None)

    def micros(self, field: Field) -> int | None:
        for key in self.dialect.keys.get(field, ()):
            unit = 1e3 if key in self.dialect.millisecond_keys else 1e6
            micros: int | None = as_micros(self.said.get(key), unit)
            if micros is not None:
                return micros
        return None


def usage_of(row: Row, *, operation: str | None, failed: bool, streamed: bool) -> dict[str, Any]:
    said = {field: row.first(field, as_int) for field in USAGE_FIELDS}
    totals = {f: v if v is not None and 0 <= v <= 2**40 else None for f, v in said.items()}
    wrong = any(v is not None and totals[f] is None for f, v in said.items())
    cache = (totals[Field.CACHED_INPUT_TOKENS] or 0) + (
        totals[Field.CACHE_CREATION_INPUT_TOKENS] or 0
    )
    whole = totals[Field.INPUT_TOKENS]
    excludes = row.dialect.input_excludes_cache
    copied = row.dialect.stream_usage_is_of
    named = row.dialect.cache_is_extra_of | row.dialect.reasoning_is_extra_of | copied
    provider = provider_of(row) if named else None
    if provider in row.dialect.cache_is_extra_of:
        excludes = True
    if whole is not None and (excludes is True or (excludes is None and cache > whole)):
        totals[Field.INPUT_TOKENS] = whole + cache
    written = totals[Field.OUTPUT_TOKENS]
    excludes_reasoning = (
        row.dialect.output_excludes_reasoning or provider in row.dialect.reasoning_is_extra_of
    )
    if excludes_reasoning and written is not None:
        totals[Field.OUTPUT_TOKENS] = written + (totals[Field.REASONING_TOKENS] or 0)
    for field in (Field.INPUT_TOKENS, Field.OUTPUT_TOKENS):
        if (totals[field] or 0) > 2**40:
            totals[field], wrong = None, True
    counted = {field: row.first(field, as_count) for field in QUANTITY_FIELDS}
    wrong = wrong or any(v is not None and not 0 <= v <= 2**40 for v in counted.values())
    metered = any(v is not None for f, v in counted.items() if f is not Field.WEB_SEARCHES)
    needs = row.dialect.stream_usage_needs
    invented = bool(needs) and streamed and not any(key in row.said for key in needs)
    invented = invented and provider not in copied
    state, reason, buckets = _judge(
        {**said, **{f: v for f, v in counted.items() if metered}},
        totals,
        wrong=wrong,
        invented=invented,
        needs_tokens=not metered,
        needs_output=operation not in INPUT_ONLY and not metered,
        failed=failed,
    )
    columns = {f.value: totals[f] for f in USAGE_FIELDS[:3]}
    columns |= {f.value: totals[f] for f in (Field.OUTPUT_TOKENS, Field.REASONING_TOKENS)}
    columns |= {b: None if buckets is None else buckets.get(b, 0) for b in TOKEN_BUCKETS}
    columns |= {f.value: v if state == "exact" else None for f, v in counted.items()}
    return columns | {"usage_state": state, "usage_reason": reason}


def _judge(  # noqa: PLR0911 - a decision table, in order
    said: Any,
    totals: Any,
    *,
    wrong: bool,
    invented: bool,
    needs_tokens: bool,
    needs_output: bool,
    failed: bool,
) -> Any:
    if all(said[field] is None for field in USAGE_FIELDS) and (failed or needs_tokens):
        return "absent", "failed_without_usage" if failed else "no_usage", None
    if wrong:
        return "impossible", "quantity_out_of_range", None
    if totals[Field.INPUT_TOKENS] is None and needs_tokens:
        return "unknown", "input_not_said", None
    try:
        buckets = decompose(ReportedUsage(**{f.value: v for f, v in totals.items()}))
    except ImpossibleUsageError as error:
        return "impossible", error.reason, None
    if needs_tokens and not totals[Field.INPUT_TOKENS] and not totals[Field.OUTPUT_TOKENS]:
        return (
            ("absent", "failed_without_usage", None) if failed else ("unknown", "zero_usage", None)
        )
    if needs_tokens and not totals[Field.INPUT_TOKENS]:
        return "unknown", "zero_input", None
    if invented:
        return "unknown", "counted_by_producer", None
    if totals[Field.OUTPUT_TOKENS] is None and needs_output:
        return "unknown", "output_not_said", None
    return "exact", None, buckets


def kind_of(row: Row, *, operation: str | None, failed: bool, has_usage: bool) -> str:
    dialect = row.dialect
    if dialect.call_kind is not None and KINDS[row.span.kind] != dialect.call_kind:
        return "none"
    for name, named in dialect.kinds_by_name.items():
        prefix = name.removesuffix("*")
        if row.span.name == name or (prefix != name and row.span.name.startswith(prefix)):
            return named.value
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


def raised_of(span: Span) -> tuple[str | None, str | None]:
    """Answer type and message of the last exception event that has either."""
    for event in reversed(span.events):
        said: dict[str, str] = {}
        for pair in event.attributes if event.name == "exception" else ():
            if pair.value.string_value:
                said.setdefault(pair.key, pair.value.string_value)
        kind, message = said.get("exception.type"), said.get("exception.message")
        if kind or message:
            return kind, message
    return None, None


def known_error(text: str | None) -> str | None:
    kind = error_of_text(text) if text else None
    return None if kind is None or kind == "other" else kind.value


def outcome_of(row: Row) -> dict[str, Any]:
    http = row.first(Field.HTTP_STATUS, as_int)
    http = http if http is not None and 100 <= http <= 599 else None
    raised, raised_message = raised_of(row.span)
    failed = row.span.status.code == 2 or (http or 0) >= 400
    failed = failed or row.name(Field.LEVEL, is_error_level) is not None
    failed = failed or (row.dialect.exception_is_failure and raised is not None)
    said = row.span.status.message or row.text(Field.ERROR_MESSAGE) or raised_message or ""
    if failed and http is None:
        http = status_of_message(said[:512])
    by_status = error_of_status(http) if http else None
    named = row.name(Field.ERROR_TYPE, known_error)
    error = by_status or named or known_error(raised) or known_error(said[:512]) or "other"

    def finish(text: str) -> str | None:
        first = first_listed(text)
        return canonical_finish_reason(first) if first else None

    def tier(text: str) -> str | None:
        said = text.strip().lower()
        return said[:32] if said not in {"auto", "", "none", "null", "gateway_cache"} else None

    cached = row.dialect.layer == "proxy" and row.first(Field.CACHE_HIT, as_bool)

    return {
        "status": "error" if failed else "ok",
        "error_type": str(error) if failed else None,
        "http_status": http,
        "service_tier": "gateway_cache" if cached else row.name(Field.SERVICE_TIER, tier),
        "finish_reason": row.name(Field.FINISH_REASON, finish),
    }


def is_error_level(text: str) -> str | None:
    return "error" if text.strip().lower() == "error" else None


def streamed_of(row: Row, *, has_first_token: bool) -> bool | None:
    dialect = row.dialect
    marked = has_first_token or row.begins(dialect.stream_names) is not None
    marked = marked or any(key in row.said for key in dialect.stream_keys)
    marked = marked or row.name(Field.OPERATION, lambda t: is_streamed(t) or None) is not None
    marked = marked or row.name(Field.STREAM_MARK, lambda t: is_chunk(t) or None) is not None
    said: bool | None = row.first(Field.IS_STREAM, as_bool)
    return True if marked else said


def operation_of(row: Row) -> str | None:
    found = row.name(Field.OPERATION, canonical_operation)
    prefix = row.begins(row.dialect.operations_by_name)
    if found is None and prefix is not None:
        found = row.dialect.operations_by_name[prefix]
    if found is None and row.dialect.operation_in_name:
        parts = split_name(row.span.name)
        found = parts[0] if parts else None
    return str(found) if found is not None else None


def models_of(row: Row, *, operation: str | None, failed: bool) -> dict[str, Any]:
    dialect = row.dialect
    deployed = row.name(Field.DEPLOYED_MODEL, lambda text: text)
    head, path = split_model_path(deployed) if deployed else (None, None)
    answered = row.name(Field.RESPONSE_MODEL, lambda text: text.strip() or None)
    requested = row.name(Field.REQUEST_MODEL, lambda text: text.strip() or None)
    if requested is None and dialect.operation_in_name:
        parts = split_name(row.span.name)
        requested = parts[1] if parts else None
    if path is not None:
        if answered is not None and answered in {row.text(Field.MODEL_ALIAS), requested}:
            answered = path
        requested = path
    call_id, response_id = row.text(Field.GATEWAY_CALL_ID), row.text(Field.RESPONSE_ID)
    response_id = None if response_id == call_id else response_id
    if failed:
        requested = requested or answered
        if response_id is None and answered == requested:
            answered = None
    elif answered is None and (dialect.echoes_model or operation in ECHOED_MODEL):
        answered = requested
    return {
        "provider": provider_of(row) or head,
        "request_model": requested,
        "response_model": answered,
        "billing_model": path or answered or requested,
        "response_id": response_id,
        "gateway_call_id": call_id,
        "gateway": None,
        "clock_ahead_us": None,
    }


def provider_of(row: Row) -> str | None:
    found = row.name(Field.PROVIDER, canonical_provider) or row.dialect.provider
    prefix = row.begins(row.dialect.providers_by_name)
    if found is None and prefix is not None:
        found = row.dialect.providers_by_name[prefix]
    if found is None and row.dialect.provider_in_scope:
        found = provider_of_scope(row.scope)
    return str(found) if found is not None else None


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
    operation, outcome = operation_of(row), outcome_of(row)
    failed = outcome["status"] == "error"
    models = models_of(row, operation=operation, failed=failed)
    start = (span.start_time_unix_nano or span.end_time_unix_nano) // 1000
    first_token = first_token_of(row, start)
    streamed = streamed_of(row, has_first_token=first_token is not None)
    usage = usage_of(row, operation=operation, failed=failed, streamed=bool(streamed))
    has_usage = usage["input_tokens"] is not None or usage["output_tokens"] is not None
    kind = kind_of(row, operation=operation, failed=failed, has_usage=has_usage)
    if kind != "call":
        models |= {"response_model": None, "response_id": None, "billing_model": None}
    ttft = row.micros(Field.TTFT)
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
        "is_stream": streamed,
        "ttft_us": first_token if ttft is None else ttft,
        "queue_us": row.micros(Field.QUEUE),
        "prefill_us": row.micros(Field.PREFILL),
        "decode_us": decode_of(row, usage["output_tokens"]),
        "inter_token_us": inter_token_of(row, usage["output_tokens"]),
        "reported_cost_nusd": row.first(Field.REPORTED_COST, as_nusd),
        "attributes": tail_of(row, resource),
    }


def first_token_of(row: Row, start: int) -> int | None:
    for event in row.span.events:
        after = event.time_unix_nano // 1000 - start
        if event.name in row.dialect.first_token_events and after >= 0:
            return int(after)
    return None


def decode_of(row: Row, output_tokens: int | None) -> int | None:
    said, between = row.micros(Field.DECODE), row.micros(Field.INTER_TOKEN)
    gaps = (output_tokens or 0) - 1
    if said is None and between is not None and gaps > 0 and between < 2**53 // gaps:
        return between * gaps
    return said


def inter_token_of(row: Row, output_tokens: int | None) -> int | None:
    decode, said = row.micros(Field.DECODE), row.micros(Field.INTER_TOKEN)
    if said is None and decode is not None and output_tokens is not None and output_tokens > 1:
        return round(Fraction(decode, output_tokens - 1))
    return said
