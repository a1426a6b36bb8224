"""OTLP metrics → rows of SAMPLE_SCHEMA: what was measured, by whom, and what it means."""

from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

import msgspec
import pyarrow as pa
import xxhash
from google.protobuf.message import DecodeError

from controlplane.core.errors import PayloadError
from controlplane.core.instants import from_nanos
from controlplane.ingest import otlp_signals_pb2 as sig
from controlplane.ingest.emitters import Emitter, emitter_of
from controlplane.ingest.loose import texts_of, utf8
from controlplane.ingest.ports import Payload, SpoolEntry
from controlplane.ingest.signals_json import metrics_of_json
from controlplane.signals.families.registry import Known, known, plain
from controlplane.signals.samples import SAMPLE_SCHEMA, SampleKind, Temporality

SERVICE_INSTANCE: Final = "service.instance.id"
KEPT_LABELS: Final = frozenset(
    plain(name)
    for name in (
        *("gen_ai.token.type", "gen_ai.token.modality", "error.type", "server.address"),
        *("engine", "finished_reason", "tp_rank", "dp_rank", "device", "namespace", "pod"),
        *("GPU_I_PROFILE", "GPU_I_ID", "requested_model", "team", "team_alias", "feature"),
        *("customer", "environment", "tenant"),
    )
)
"""Other labels are part of a series' identity and not kept: they hold people's ids and prompts."""
MAX_LABEL_CHARS: Final = 128
_PROVIDER: Final = ("gen_ai_provider_name", "gen_ai_system")
_OPERATION: Final = ("gen_ai_operation_name",)
_HOST: Final = ("hostname", "Hostname", "host_name", "node", "k8s_node_name")
_GPU: Final = ("UUID", "uuid", "gpu_uuid", "gpu")
_POOL: Final = ("pool", "gpu_pool")
_MODEL: Final = ("gen_ai_response_model", "gen_ai_request_model", "model_name", "model")
_NO_VALUE: Final = 1  # DataPointFlags.NO_RECORDED_VALUE
_TEMPORALITIES: Final = {1: Temporality.DELTA, 2: Temporality.CUMULATIVE}
_Shape = tuple[SampleKind, Temporality]


class Samples(msgspec.Struct, frozen=True):
    """A batch of metric requests as rows, and what of it is not kept, by emitter and reason."""

    rows: pa.Table
    received: Counter[Emitter]
    rejected: Counter[tuple[Emitter, str]]
    """Points not in `rows`, by emitter and reason."""


def parse_metrics(payload: Payload) -> "sig.MetricsData":
    """Read a metrics request of either encoding.

    Raises:
        PayloadError: not such a request.
    """
    if payload.content_type == "json":
        return metrics_of_json(payload.body)
    try:
        return sig.MetricsData.FromString(payload.body)
    except DecodeError as error:
        raise PayloadError(
            "malformed_payload",
            "it is cut short or not an ExportMetricsServiceRequest",
            "Send a whole Export…ServiceRequest, or application/json if it is JSON",
        ) from error


def flaws_of_metrics(data: "sig.MetricsData") -> tuple[int, Counter[str]]:
    """Count the points, and those that can not be kept by reason: the check before the ack."""
    flaws: Counter[str] = Counter()
    count = 0
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for _, point in _points(metric):
                    count += 1
                    if flaw := _flaw(point):
                        flaws[flaw] += 1
    return count, flaws


def decode_metrics(entries: list[SpoolEntry]) -> Samples:
    """Decode the metric requests of a batch; what is malformed loses itself alone."""
    rows: list[dict[str, Any]] = []
    received: Counter[Emitter] = Counter()
    rejected: Counter[tuple[Emitter, str]] = Counter()
    for entry in entries:
        try:
            data = parse_metrics(entry.payload)
        except PayloadError as error:
            emitter = emitter_of(entry.sender, {})
            received[emitter] += 1
            rejected[emitter, error.reason] += 1
            continue
        for resource in data.resource_metrics:
            source = _Source(entry, texts_of(resource.resource.attributes))
            for name, shape, point in _of_resource(resource):
                texts = texts_of(point.attributes)
                emitter = emitter_of(entry.sender, texts, source.said)
                received[emitter] += 1
                if flaw := _flaw(point):
                    rejected[emitter, flaw] += 1
                else:
                    rows.append(source.row(name, shape, point, texts=texts, emitter=emitter))
    return Samples(pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA), received, rejected)


def _of_resource(
    resource: "sig.ResourceMetrics",
) -> "Iterator[tuple[str, _Shape, Any]]":
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            name = utf8(metric.name)
            for shape, point in _points(metric):
                yield name, shape, point


def _points(metric: "sig.Metric") -> Iterator[tuple[_Shape, Any]]:
    kind = metric.WhichOneof("data")
    shape = (SampleKind.GAUGE, Temporality.NONE)
    data: Any = getattr(metric, kind) if kind else None
    if kind == "summary":
        shape = (SampleKind.HISTOGRAM, Temporality.CUMULATIVE)
    elif kind == "sum" and data.is_monotonic:
        shape = (SampleKind.COUNTER, _temporality(data))
    elif kind in {"histogram", "exponential_histogram"}:
        shape = (SampleKind.HISTOGRAM, _temporality(data))
    yield from ((shape, point) for point in (data.data_points if kind else ()))


def _temporality(data: Any) -> Temporality:
    return _TEMPORALITIES.get(data.aggregation_temporality, Temporality.CUMULATIVE)


def _flaw(point: Any) -> str:
    if not point.time_unix_nano:
        return "missing_time"
    if point.flags & _NO_VALUE:
        return "no_recorded_value"
    return "" if isfinite(_value(point)) else "not_a_number"


def _value(point: Any) -> float:
    if isinstance(point, sig.NumberPoint):
        return float(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double)
    return float(point.sum)


class _Source:
    """One resource of one request: what its points have in common."""

    def __init__(self, entry: SpoolEntry, resource: dict[str, str]) -> None:
        self.said = resource
        self._resource = {plain(name): text for name, text in resource.items()}
        self._host = _first(self._resource, _HOST)
        self._instance = resource.get(SERVICE_INSTANCE) or self._host or ""
        self._sender = entry.sender
        self._received_at = entry.received_at

    def row(
        self, name: str, shape: _Shape, point: Any, *, texts: dict[str, str], emitter: Emitter
    ) -> dict[str, Any]:
        """Build the row of a point without flaws; `texts` are its attributes."""
        labels = {plain(key): text for key, text in texts.items()}
        said = known(name)
        meaning = said.meaning(labels) if said else None
        start = point.start_time_unix_nano
        return {
            "domain": self._sender.domain,
            "tenant": emitter.tenant,
            "key_id": emitter.key_id,
            "emitter": emitter.service_name,
            "instance": self._instance,
            "metric": name,
            "meaning": meaning.value if meaning else "",
            "kind": shape[0].value,
            "temporality": shape[1].value,
            "series_hash": self._series(emitter, name, labels),
            **self._places(labels, said),
            "labels": _kept(labels),
            "start_time": from_nanos(start) if start else None,
            "time": from_nanos(point.time_unix_nano),
            "value": _value(point) * (said.scale if said else 1.0),
            "count": None if isinstance(point, sig.NumberPoint) else min(point.count, 2**62),
            "received_at": self._received_at,
        }

    def _places(self, labels: dict[str, str], said: Known | None) -> dict[str, str | None]:
        every = {**self._resource, **labels}
        return {
            "model": _first(every, said.model_labels if said else ()) or _first(every, _MODEL),
            "provider": _first(labels, _PROVIDER),
            "operation": _first(labels, _OPERATION),
            "host": _first(labels, _HOST) or self._host,
            "gpu": _first(labels, _GPU),
            "pool": _first(every, _POOL),
        }

    def _series(self, emitter: Emitter, name: str, labels: dict[str, str]) -> int:
        sender = (emitter.tenant, emitter.key_id, emitter.service_name, self._instance)
        said = [*sender, name, sorted(labels.items())]
        return xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(said))


def _first(labels: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((labels[name][:MAX_LABEL_CHARS] for name in names if labels.get(name)), None)


def _kept(labels: dict[str, str]) -> str:
    kept = {k: v[:MAX_LABEL_CHARS] for k, v in sorted(labels.items()) if k in KEPT_LABELS}
    return msgspec.json.encode(kept).decode()
