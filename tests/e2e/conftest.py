"""Real programs for the end-to-end tests: the proxy, an upstream, a control plane."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LITELLM = ROOT / ".venvs" / "litellm" / "bin" / "litellm"
PROXY_KEY = "sk-e2e-0123456789abcdef0123456789abcdef"
START_SECONDS = 180.0

Program = Callable[[Path], dict[str, Any]]
Proxy = Callable[..., str]


@pytest.fixture(scope="session")
def start_program() -> Iterator[Program]:
    """Start one of our test programs; it says where it serves, and ends with the session."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path) -> dict[str, Any]:
        process = subprocess.Popen(
            [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append(process)
        assert process.stdout
        ready: dict[str, Any] = json.loads(process.stdout.readline())
        return ready

    yield start
    for process in running:
        process.communicate(timeout=60)


class System(msgspec.Struct, frozen=True):
    """A whole control plane, started as an operator starts it."""

    api: str
    otlp: str
    policy_keys: dict[str, str]
    operator: str  # bearer of the signed-in operator
    data_dir: Path


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Start the API and the collector through the command line, on free ports."""
    folder = tmp_path_factory.mktemp("system")
    env = {
        **os.environ,
        "CONTROLPLANE_API__PORT": "0",
        "CONTROLPLANE_COLLECTOR__GRPC_PORT": "0",
        "CONTROLPLANE_COLLECTOR__HTTP_PORT": "0",
        "CONTROLPLANE_COLLECTOR__METRICS_PORT": "0",
    }
    running: list[subprocess.Popen[bytes]] = []
    try:
        ready: dict[str, Any] = {}
        for role in ("api", "collector"):
            command = [sys.executable, "-m", "controlplane", "serve", "--role", role]
            command += ["--data-dir", str(folder / "data"), "--supervised"]
            with (folder / f"{role}.log").open("wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env
                )
            running.append(process)
            assert process.stdout
            line = process.stdout.readline()
            assert line, (folder / f"{role}.log").read_text()[-3000:]
            ready |= json.loads(line)
        signed_in = httpx.post(
            f"{ready['api']}/api/v1/session", json={"token": ready["sign_in_token"]}
        )
        yield System(
            api=ready["api"],
            otlp=ready["http"],
            policy_keys=ready["policy_keys"],
            operator=signed_in.raise_for_status().json()["bearer"],
            data_dir=folder / "data",
        )
    finally:
        for process in reversed(running):
            process.communicate(timeout=60)


@pytest.fixture(scope="session")
def upstream(start_program: Program) -> str:
    """URL of the stub upstream."""
    return f"http://127.0.0.1:{start_program(HERE / 'stub_upstream.py')['port']}"


@pytest.fixture(scope="session")
def start_proxy(start_proxy_process: Callable[..., tuple[str, int]]) -> Proxy:
    """Start the real LiteLLM proxy with a configuration; return its URL when it serves."""
    return lambda config, env: start_proxy_process(config, env)[0]


@pytest.fixture(scope="session")
def start_proxy_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., tuple[str, int]]]:
    """Start the real LiteLLM proxy; return its URL when it serves, and its process id."""
    if not LITELLM.exists():
        pytest.skip("no LiteLLM environment: `make .venvs/litellm/.installed` makes it")
    running: list[subprocess.Popen[bytes]] = []

    def start(config: dict[str, Any], env: dict[str, str]) -> tuple[str, int]:
        folder = tmp_path_factory.mktemp("litellm")
        (folder / "config.yaml").write_text(json.dumps(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (folder / "litellm.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    str(LITELLM),
                    *("--config", str(folder / "config.yaml")),
                    *("--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={
                    **{
                        name: value
                        for name, value in os.environ.items()
                        if "PROXY" not in name.upper()
                    },
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                    "LITELLM_MASTER_KEY": PROXY_KEY,
                    **env,
                },
            )
        running.append(process)
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, folder / "litellm.log")
        return url, process.pid

    yield start
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health/readiness", timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    pytest.fail(f"LiteLLM did not start: {log.read_text(errors='replace')[-3000:]}")
