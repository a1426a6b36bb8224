"""Calls whose producer nobody has described: read by common keys, kept, counted, and told."""

from typing import Any

import pyarrow as pa

from controlplane.ingest.columns import kernels
from controlplane.ingest.dialects.generic import GENERIC
from controlplane.signals.vocabulary import ReportKind


def unknown_dialects(spans: pa.Table) -> dict[str, int]:
    """Count reports of calls that no known dialect was found for, by instrumentation scope."""
    unknown: Any = kernels.and_(
        kernels.equal(spans.column("dialect"), GENERIC.name),
        kernels.equal(spans.column("report_kind"), ReportKind.CALL.value),
    )
    if not kernels.any(unknown).as_py():
        return {}
    scopes: Any = spans.column("scope_name").filter(unknown)
    return {one["values"]: one["counts"] for one in scopes.value_counts().to_pylist()}
