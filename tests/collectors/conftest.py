"""A real spool in a temporary directory, real receivers on free ports, requests by the book."""

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.group_commit import FailPoint, no_fail_point
from collectors.otlp.collector import OtlpCollector
from collectors.spool import DEFAULT_MAX_BYTES, SqliteSpool
from controlplane.bootstrap.system import SystemClock, UlidIds
from controlplane.core.errors import AuthenticationError, ForbiddenError
from controlplane.ingest.limits import Limits
from controlplane.ingest.ports import KeyResolver, Spool
from controlplane.signals.sender import KEYLESS_SENDER, Sender
from controlplane.signals.vocabulary import KeyRole
from controlplane.telemetry import REGISTRY

GOOD_KEY = "Bearer cp_ingest_k1_good"


class ListedKeys:
    """One good key, one expired, one of the wrong kind; no key is the loopback default."""

    def resolve(self, authorization: str | None, *, now: datetime) -> Sender:
        assert now.tzinfo is not None
        if not authorization:
            return KEYLESS_SENDER
        if authorization == GOOD_KEY:
            return Sender(domain="d1", tenant="acme", key_id="k1", key_role=KeyRole.PROXY)
        if authorization == "Bearer cp_user_k3_good":
            raise ForbiddenError("an ingest key")
        raise AuthenticationError("expired_key", "Make a new key with `controlplane key create`")


@pytest.fixture
def keys() -> KeyResolver:
    return ListedKeys()


@pytest.fixture
def good_key() -> str:
    return GOOD_KEY


@pytest.fixture
def spool_key() -> bytes:
    return secrets.token_bytes(32)


@pytest.fixture
def open_spool(tmp_path: Path, spool_key: bytes) -> Iterator[Callable[..., SqliteSpool]]:
    """Open the spool of this test, as often as asked; what is still open is closed."""
    opened: list[SqliteSpool] = []

    def make(
        *,
        key: bytes = spool_key,
        max_bytes: int = DEFAULT_MAX_BYTES,
        fail_point: FailPoint = no_fail_point,
    ) -> SqliteSpool:
        path = tmp_path / "spool" / "spool.sqlite"
        spool = SqliteSpool(
            path, key=key, ids=UlidIds(), max_bytes=max_bytes, fail_point=fail_point
        )
        opened.append(spool)
        return spool

    yield make
    for spool in opened:
        spool.close()


@pytest.fixture
def start_collector(keys: KeyResolver) -> Iterator[Callable[..., OtlpCollector]]:
    """Start receivers on free ports in front of a spool; they are stopped with the test."""
    started: list[OtlpCollector] = []

    def start(spool: Spool, *, limits: Limits | None = None) -> OtlpCollector:
        collector = OtlpCollector(
            keys=keys,
            spool=spool,
            clock=SystemClock(),
            limits=limits or Limits(),
            grpc_port=0,
            http_port=0,
        )
        started.append(collector)
        collector.start()
        return collector

    yield start
    for collector in started:
        collector.stop()


@pytest.fixture
def request_of() -> Callable[..., bytes]:
    """Make an export request of so many spans with the official message classes."""

    def make(spans: int, *, text: str = "chat") -> bytes:
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for _ in range(spans):
            span = scope.spans.add()
            span.trace_id = secrets.token_bytes(16)
            span.span_id = secrets.token_bytes(8)
            span.name = text
            span.start_time_unix_nano = 1_700_000_000_000_000_000
            span.end_time_unix_nano = 1_700_000_001_000_000_000
        return request.SerializeToString()

    return make


@pytest.fixture
def refused() -> Callable[[str], float]:
    """How many refusals have been counted under a reason."""

    def read(reason: str) -> float:
        name = "controlplane_ingest_rejected_total"
        return REGISTRY.get_sample_value(name, {"reason": reason}) or 0.0

    return read
