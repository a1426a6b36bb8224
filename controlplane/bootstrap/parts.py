"""Single parts, opened for benchmarks that measure one stage at a time."""

from pathlib import Path

from collectors.spool import SqliteSpool
from controlplane.bootstrap.system import UlidIds, secret_file
from controlplane.store.spans.duckdb_store import DuckDbSpanStore


def open_spool(directory: Path) -> SqliteSpool:
    """Open a spool as the collector does."""
    return SqliteSpool(
        directory / "spool.sqlite", key=secret_file(directory / "spool-key"), ids=UlidIds()
    )


def open_span_store(directory: Path) -> DuckDbSpanStore:
    """Open a span store as the hub does."""
    return DuckDbSpanStore(directory / "spans.duckdb")
