"""Row-by-row references, which are plain modules beside the tests that hold the code to them."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Reference = Callable[[ExportTraceServiceRequest], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def ingest_reference() -> Reference:
    """The normaliser that `ingest.normalize` must equal, one row at a time."""
    _load("ingest_values")
    reference: Reference = _load("ingest_rows").reference
    return reference


def _load(name: str) -> ModuleType:
    """Import a module beside the tests by its full name, so that others may import it too."""
    full_name = f"tests.oracle.{name}"
    spec = spec_from_file_location(full_name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[full_name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_load("settle_rows")
_load("worlds")
