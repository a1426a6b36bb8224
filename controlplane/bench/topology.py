"""The embedded system as `controlplane up` runs it, less the dashboard: hub and collector."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from controlplane.bootstrap.supervisor import Supervisor
from controlplane.core.errors import UnavailableError

DRAIN_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1
_PORTS: Final = (
    "COLLECTOR__GRPC_PORT",
    "COLLECTOR__HTTP_PORT",
    "COLLECTOR__METRICS_PORT",
    "API__PORT",
)


class RunningSystem(msgspec.Struct, frozen=True):
    """Where it listens, and its processes by role."""

    traces_url: str
    metrics_url: str
    pids: dict[str, int]

    def wait_until_stored(self) -> None:
        """Return when the spool is empty: everything acknowledged is in the store.

        Raises:
            UnavailableError: that did not happen within DRAIN_SECONDS.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.metric("controlplane_spool_entries") > 0:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the spool did not drain within {DRAIN_SECONDS} s")
            time.sleep(_POLL_SECONDS)

    def metric(self, name: str) -> float:
        """Return a sample of the collector's own metrics, summed over labels."""
        page = httpx.get(self.metrics_url).raise_for_status().text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name
        )


@contextlib.contextmanager
def running_system() -> Iterator[RunningSystem]:
    """Start both roles on free ports over an empty data directory, and remove it after."""
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        root = Path(folder)
        env = {f"CONTROLPLANE_{name}": "0" for name in _PORTS}
        env["CONTROLPLANE_DATA_DIR"] = str(root / "data")
        supervisor = Supervisor(root / "log")
        try:
            hub = supervisor.start("hub", ["serve", "--role", "api", "--supervised"], env)
            hub.wait_ready()
            collector = supervisor.start(
                "collector", ["serve", "--role", "collector", "--supervised"], env
            )
            ready = collector.wait_ready()
            yield RunningSystem(
                traces_url=f"{ready['http']}/v1/traces",
                metrics_url=str(ready["metrics"]),
                pids={"hub": hub.process.pid, "collector": collector.process.pid},
            )
        finally:
            supervisor.stop()
