"""Row-by-row references, which are plain modules beside the tests that hold the code to them."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.oracle.ingest_rows import reference

Reference = Callable[[ExportTraceServiceRequest], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def ingest_reference() -> Reference:
    """The normaliser that `ingest.normalize` must equal, one row at a time."""
    return reference
