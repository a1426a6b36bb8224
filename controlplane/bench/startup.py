"""Seconds from `controlplane up --demo` to the first chart in a real browser, cold and warm.

Cold: an empty data directory, no compiled bytecode (an empty PYTHONPYCACHEPREFIX) and, where the
kernel lets us, an empty page cache: what a person sees right after the installation. Warm: the
same again with bytecode and caches, and the data of the first run.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHART = '[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg'
LIMIT_SECONDS = 120.0


def run() -> dict[str, object]:
    """Measure once cold and once warm; figures are None where no browser was found."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with tempfile.TemporaryDirectory(prefix="controlplane-startup-") as folder:
        root = Path(folder)
        dropped = _drop_page_cache()
        stages = {
            "cold": _once(root, browser, {"PYTHONPYCACHEPREFIX": str(root / "bytecode")}),
            "warm": _once(root, browser, {"PYTHONPYCACHEPREFIX": str(root / "bytecode")}),
        }
    return {
        "stages": stages,
        "whole": {
            f"{name}_first_chart_seconds": s["first_chart_seconds"] for name, s in stages.items()
        },
        "peers": {"phoenix": None, "mlflow": None},
        "load_average": list(os.getloadavg()),
        "config": {"browser": browser, "page_cache_dropped": dropped},
    }


def _once(root: Path, browser: str | None, env: dict[str, str]) -> dict[str, float | None]:
    started = time.monotonic()
    with _system(root, env) as ready:
        printed = time.monotonic() - started
        chart = None
        if browser:
            _wait_for_chart(browser, str(ready["sign_in_url"]))
            chart = time.monotonic() - started
    return {"urls_printed_seconds": printed, "first_chart_seconds": chart}


@contextlib.contextmanager
def _system(root: Path, env: dict[str, str]) -> Iterator[dict[str, object]]:
    ports = {
        f"CONTROLPLANE_{name}": "0"
        for name in (
            "COLLECTOR__GRPC_PORT",
            "COLLECTOR__HTTP_PORT",
            "COLLECTOR__METRICS_PORT",
            "API__PORT",
            "DASHBOARD__PORT",
        )
    }
    command = [sys.executable, "-m", "controlplane", "up", "--demo", "--json"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(root / "data")],
        stdout=subprocess.PIPE,
        env={**os.environ, **ports, **env},
    )
    try:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            msg = f"`controlplane up` ended with status {process.wait()} before it was ready"
            raise RuntimeError(msg)
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_SECONDS)
        if process.stdout:
            process.stdout.close()


def _wait_for_chart(browser: str, url: str) -> None:
    # Imported here: a benchmark's browser driver is no part of the server's installation.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=CHROMIUM_FLAGS)
        page = chromium.new_page()
        page.goto(url)
        page.wait_for_selector(CHART, timeout=LIMIT_SECONDS * 1_000)
        chromium.close()


def _drop_page_cache() -> bool:
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True
