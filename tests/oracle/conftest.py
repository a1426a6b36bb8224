"""Row-by-row references, which are plain modules beside the tests that hold the code to them."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Reference = Callable[[ExportTraceServiceRequest], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def ingest_reference() -> Reference:
    """The normaliser that `ingest.normalize` must equal, one row at a time."""
    spec = spec_from_file_location("ingest_rows", Path(__file__).parent / "ingest_rows.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    reference: Reference = module.reference
    return reference
