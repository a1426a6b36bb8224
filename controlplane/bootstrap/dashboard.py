"""The dashboard role: Streamlit in this process, told through its own environment."""

import contextlib
import os
import signal
import socket
import threading
import time
from urllib.error import URLError
from urllib.request import urlopen

from controlplane import log
from controlplane.bootstrap.supervisor import READY_SECONDS, say_ready
from controlplane.settings import Settings
from dashboard import __main__ as program

API_URL = "CONTROLPLANE_DASHBOARD_API_URL"
OTLP_URL = "CONTROLPLANE_DASHBOARD_OTLP_URL"
SECTION = "CONTROLPLANE_DASHBOARD__"


def run(settings: Settings, *, supervised: bool) -> None:
    """Serve until stopped; the API's address is the setting unless the environment says another."""
    log.configure(level=settings.log_level)
    port = settings.dashboard.port or free_port(settings.dashboard.host)
    url = f"http://{settings.dashboard.host}:{port}"
    # The server's own settings of this section have names that the dashboard would refuse.
    for name in [name for name in os.environ if name.startswith(SECTION)]:
        del os.environ[name]
    os.environ.setdefault(API_URL, f"http://{settings.api.host}:{settings.api.port}")
    os.environ.setdefault(
        OTLP_URL, f"http://{settings.collector.host}:{settings.collector.http_port}"
    )
    os.environ["CONTROLPLANE_DASHBOARD_HOST"] = settings.dashboard.host
    os.environ["CONTROLPLANE_DASHBOARD_PORT"] = str(port)
    if supervised:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    threading.Thread(target=_say_when_ready, args=(url,), daemon=True).start()
    program.main()


def free_port(host: str) -> int:
    """Return a port that nobody listens on now; Streamlit can not be asked which one it took."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _say_when_ready(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(URLError, OSError), urlopen(f"{url}/health", timeout=1):  # noqa: S310 - our own loopback address
            say_ready(dashboard=url)
            return
        time.sleep(0.05)


def _stop_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
