"""The same load into other programs, where they are installed (`make setup-peers`)."""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from controlplane.bench.processes import cpu_seconds, free_port, running, wait_for_port
from controlplane.bench.sender import Sent

ENVIRONMENT: Final = Path(".venvs/phoenix")
PHOENIX_REQUESTS_PER_SECOND: Final = 1.0
PHOENIX_LIMIT_SECONDS: Final = 60.0

Send = Callable[..., Sent]
Figures = dict[str, float]


def measure_rotel(send: Send, *, encoding: str) -> Figures | None:
    """Rotel decodes and drops (its blackhole exporter); None where it is not installed."""
    program = next(ENVIRONMENT.glob("lib/python*/site-packages/rotel/rotel-agent"), None)
    if program is None:
        return None
    http, grpc = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        command = [
            str(program),
            "start",
            "--exporter=blackhole",
            f"--otlp-http-endpoint=127.0.0.1:{http}",
            f"--otlp-grpc-endpoint=127.0.0.1:{grpc}",
            f"--pid-file={folder}/pid",
            f"--log-file={folder}/rotel.log",
        ]
        with running(command, env={}, log=Path(folder) / "output.log") as process:
            if not wait_for_port(http, process):
                return None
            url = f"http://127.0.0.1:{http}/v1/traces"
            send(url, encoding=encoding, seconds=1.0)
            before = cpu_seconds([process.pid])
            sent = send(url, encoding=encoding)
            cpu = cpu_seconds([process.pid]) - before
    return {
        "spans_per_cpu_second": sent.spans / cpu,
        "spans_per_second": sent.spans / sent.seconds,
        "ack_p99_ms": sent.ack_p99_ms,
        "refused_requests": sent.refused,
    }


def measure_phoenix(send: Send) -> Figures | None:
    """Phoenix until its database holds the spans; None where it is not installed."""
    program = ENVIRONMENT / "bin" / "phoenix"
    if not program.exists():
        return None
    http, grpc = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        env = {
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(http),
            "PHOENIX_GRPC_PORT": str(grpc),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        command = [str(program), "serve"]
        with running(command, env=env, log=Path(folder) / "output.log") as process:
            if not wait_for_port(http, process):
                return None
            before, started = cpu_seconds([process.pid]), time.monotonic()
            sent = send(
                f"http://127.0.0.1:{http}/v1/traces",
                encoding="identity",
                rate=PHOENIX_REQUESTS_PER_SECOND,
                seconds=4.0,
            )
            stored = _wait_for_rows(Path(folder) / "phoenix.db", sent.spans)
            took = time.monotonic() - started
            cpu = cpu_seconds([process.pid]) - before
    sys.stderr.write(f"phoenix: {stored} of {sent.spans} spans in its database\n")
    if not stored:
        return None
    return {
        "spans_per_cpu_second": stored / cpu,
        "durable_spans_per_second": stored / took,
        "ack_p99_ms": sent.ack_p99_ms,
        "acknowledged_spans": sent.spans,
        "stored_spans": stored,
    }


def _wait_for_rows(database: Path, wanted: int) -> int:
    deadline = time.monotonic() + PHOENIX_LIMIT_SECONDS
    rows = 0
    while rows < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT count(*) FROM spans").fetchone()[0]
    return rows
