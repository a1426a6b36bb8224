"""Payload files -> decoded -> normalised -> attributed -> priced -> counted once -> a report."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.attribution.attribute import attribute
from controlplane.attribution.rules import AttributionRules
from controlplane.core.errors import LimitExceededError, PayloadError
from controlplane.core.money import format_usd
from controlplane.ingest.calls import report_rows, settle
from controlplane.ingest.dialects.registry import DIALECTS
from controlplane.ingest.join_flags import with_join_flags
from controlplane.ingest.limits import DEFAULT_LIMITS, Limits
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests, split_payload
from controlplane.ingest.settlement import EDGE_SCHEMA, Unsettled
from controlplane.pipelines.inspect_metrics import (
    compare_tokens,
    counted_tokens,
    growth_of,
    read_metrics_file,
)
from controlplane.pipelines.payload_files import requests_of
from controlplane.pricing.price import price, reprice
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.hex_ids import span_hex
from controlplane.signals.meanings import Meaning
from controlplane.signals.schema import ATTRIBUTED, SPAN_SCHEMA
from controlplane.signals.sender import KEYLESS_SENDER
from controlplane.signals.signal_ports import PLAUSIBLE_PARTS
from controlplane.signals.vocabulary import CostState, ReportKind, UsageState

_ARRIVAL: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Files have no time of arrival, and nothing that is reported depends on it."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_UNKNOWN_DIALECT: Final = DIALECTS[-1].name
_DIMENSIONS: Final = tuple(f.name for f in ATTRIBUTED if f.name != "attributed_by")


class Suppressed(msgspec.Struct, frozen=True):
    """A report that does not bill, and why."""

    span_id: str
    reason: str


class InspectedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, counted once; what the payload does not hold is None."""

    call_id: str
    provider: str | None
    operation: str | None
    request_model: str | None
    response_model: str | None
    input_tokens: int | None
    cached_input_tokens: int | None
    cache_creation_input_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    is_stream: bool | None
    status: str
    error_type: str | None
    http_status: int | None
    cost_usd: str | None
    cost_state: str
    cost_reason: str | None
    price_id: str | None
    billing_span_id: str
    suppressed: list[Suppressed]
    attribution: dict[str, str | None]


class Finding(msgspec.Struct, frozen=True):
    """Something a person should know; `severity` is error, warning or info."""

    code: str
    severity: str
    span_id: str | None
    message: str


_UNREADABLE: Final = "unreadable_file"
_METRICS: Final = "metrics_file"


class InspectReport(msgspec.Struct, frozen=True):
    """What `controlplane inspect --json` prints; the shape is a contract."""

    spans: int
    calls: list[InspectedCall]
    findings: list[Finding]

    @property
    def readable(self) -> bool:
        """Whether any file could be read."""
        codes = {finding.code for finding in self.findings}
        return self.spans > 0 or _METRICS in codes or _UNREADABLE not in codes


_COPIED: Final = (
    *("call_id", "provider", "operation", "request_model", "response_model", "input_tokens"),
    *("cached_input_tokens", "cache_creation_input_tokens", "output_tokens", "reasoning_tokens"),
    *("is_stream", "status", "error_type", "http_status", "cost_state", "cost_reason", "price_id"),
)


def inspect_files(
    paths: Sequence[Path],
    *,
    book: PriceBook,
    rules: AttributionRules,
    signal: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> InspectReport:
    """Take files of one run, in any order, through ingest and settlement as one keyless sender.

    Files with `.metrics.` in their name are metrics unless `signal` says otherwise; they are
    decoded, hold no calls, and what they count is compared with the calls. A file that can not be read is a finding, never an error.
    """
    findings: list[Finding] = []
    tables = [SPAN_SCHEMA.empty_table()]
    samples: list[dict[str, Any]] = []
    for path in paths:
        body = _read(path, findings, limits=limits)
        if body is None:
            continue
        if (signal or ("metrics" if ".metrics." in path.name else "traces")) != "traces":
            samples += _samples(path, body, findings)
            continue
        spans = _spans(path, body, findings, limits=limits)
        if spans is not None:
            tables.append(price(attribute(spans, rules, senders={"": KEYLESS_SENDER}), book))
    spans = pa.concat_tables(tables)
    calls, split_calls = _count(spans, book)
    findings += _findings_of_spans(spans)
    findings += _findings_of_calls(calls)
    findings += _findings_of_counters(
        samples, calls, since=pc.min(spans.column("start_time")).as_py()
    )
    if split_calls:
        problem = f"{split_calls} calls had more reports than one call has: ids are mixed up"
        findings.append(Finding("calls_split", "warning", None, problem))
    return InspectReport(spans.num_rows, calls, findings)


def _read(path: Path, findings: list[Finding], *, limits: Limits) -> bytes | None:
    """Read a file, decompressed where it is gzip, up to the bound that a receiver has."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if is_gzip else file
            body = stream.read(limits.max_decompressed_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        findings.append(_about_file(_UNREADABLE, path, why))
        return None
    if len(body) > limits.max_decompressed_bytes:
        over = LimitExceededError("max_decompressed_bytes", limits.max_decompressed_bytes)
        findings.append(_about_file(_UNREADABLE, path, str(over)))
        return None
    return body


def _spans(path: Path, body: bytes, findings: list[Finding], *, limits: Limits) -> pa.Table | None:
    payloads = requests_of(body)
    try:
        for payload in payloads:
            split_payload(payload, limits=limits)
    except (PayloadError, LimitExceededError) as error:
        findings.append(_about_file(_UNREADABLE, path, str(error)))
        return None
    decoded = decode_requests(
        payloads,
        senders=[KEYLESS_SENDER] * len(payloads),
        received_at=[_ARRIVAL] * len(payloads),
        limits=limits,
    )
    for reason, count in decoded.rejected.items():
        findings.append(_about_file(reason, path, f"{count} spans are not stored"))
    if decoded.received and decoded.spans.num_rows == 0:
        findings.append(_about_file(_UNREADABLE, path, "no span of it could be read"))
    return normalize(decoded, limits=limits)


def _samples(path: Path, body: bytes, findings: list[Finding]) -> list[dict[str, Any]]:
    found = read_metrics_file(body)
    for (_, reason), count in found.rejected.items():
        findings.append(_about_file(reason, path, f"{count} points are not stored"))
    rows: list[dict[str, Any]] = found.rows.to_pylist()
    if rows:
        known = sum(bool(row["meaning"]) for row in rows)
        told = f"{len(rows)} points, {known} of a known meaning; metrics hold no calls"
        findings.append(_about_file(_METRICS, path, told, severity="info"))
    else:
        findings.append(_about_file(_UNREADABLE, path, "no point of it could be read"))
    return rows


def _findings_of_counters(
    samples: list[dict[str, Any]], calls: Sequence[InspectedCall], *, since: datetime | None
) -> list[Finding]:
    """Compare what the run's own metrics count with what its calls hold."""
    counted = counted_tokens(growth_of(samples, since=since))
    if not any(counted.values()):
        return []
    called = {
        Meaning.INPUT_TOKENS: sum(call.input_tokens or 0 for call in calls),
        Meaning.OUTPUT_TOKENS: sum(call.output_tokens or 0 for call in calls),
    }
    code, severity, message = compare_tokens(counted, called)
    return [Finding(code, severity, None, message)]


def _about_file(code: str, path: Path, problem: str, *, severity: str = "error") -> Finding:
    return Finding(code, severity, None, f"{path.name}: {problem}")


def _count(spans: pa.Table, book: PriceBook) -> tuple[list[InspectedCall], int]:
    """Settle the spans as a store would that holds nothing else; count calls that were split."""
    grouped = with_join_flags(report_rows(spans))
    edges = spans.select(EDGE_SCHEMA.names)
    settled = settle(Unsettled(0, 0, grouped, edges), reprice=lambda rows: reprice(rows, book))
    suppressed: dict[str, list[Suppressed]] = {}
    for member in settled.suppressed.to_pylist():
        report = Suppressed(span_hex(member["span_id"]), member["reason"])
        suppressed.setdefault(member["call_id"], []).append(report)
    rows = settled.calls.sort_by([("start_time", "ascending"), ("call_id", "ascending")])
    calls = [_call(row, suppressed.get(row["call_id"], [])) for row in rows.to_pylist()]
    return calls, settled.split_calls


def _call(row: dict[str, Any], suppressed: list[Suppressed]) -> InspectedCall:
    cost = row["cost_nusd"]
    return InspectedCall(
        **{name: row[name] for name in _COPIED},
        cost_usd=None if cost is None else format_usd(cost),
        billing_span_id=span_hex(row["span_id"]),
        suppressed=suppressed,
        attribution={name: row[name] for name in _DIMENSIONS},
    )


def _findings_of_spans(spans: pa.Table) -> Iterator[Finding]:
    columns = (
        *("span_id", "name", "scope_name", "dialect", "report_kind", "usage_state"),
        *("usage_reason", "input_tokens", "cost_nusd", "reported_cost_nusd"),
    )
    for row in spans.select(columns).to_pylist():
        span = span_hex(row["span_id"])
        if row["report_kind"] == ReportKind.CALL:
            yield from _findings_of_report(row, span)
        elif row["report_kind"] == ReportKind.AGGREGATE and row["input_tokens"] is not None:
            yield Finding(
                "aggregate_not_billed", "info", span, f"{row['name']!r} repeats other spans' usage"
            )


def _findings_of_report(row: dict[str, Any], span: str) -> Iterator[Finding]:
    if row["dialect"] == _UNKNOWN_DIALECT:
        problem = f"no dialect is known for scope {row['scope_name']!r}: read by common keys"
        yield Finding("unknown_dialect", "warning", span, problem)
    if row["usage_state"] == UsageState.IMPOSSIBLE:
        yield Finding("impossible_usage", "warning", span, row["usage_reason"])
    if row["usage_state"] == UsageState.UNKNOWN:
        yield Finding("unknown_usage", "warning", span, row["usage_reason"])
    ours, theirs = row["cost_nusd"], row["reported_cost_nusd"]
    if ours is not None and theirs is not None and abs(ours - theirs) * PLAUSIBLE_PARTS > abs(ours):
        problem = f"reported {format_usd(theirs)} USD, priced {format_usd(ours)} USD"
        yield Finding("reported_cost_differs", "info", span, problem)


def _findings_of_calls(calls: Sequence[InspectedCall]) -> Iterator[Finding]:
    for call in calls:
        if call.cost_state == CostState.UNPRICED:
            reason = call.cost_reason or "no reason"
            yield Finding("unpriced", "warning", call.billing_span_id, reason)
