"""`controlplane agent` as a program."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from controlplane.agent.settings import AgentSettings


def test_the_program_applies_acknowledges_and_stops(
    control_plane: Any, make_settings: Callable[..., AgentSettings]
) -> None:
    control_plane.publish()
    settings = make_settings(control_plane)
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane", "agent"],
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "CONTROLPLANE_AGENT_SERVER_URL": settings.server_url,
            "CONTROLPLANE_AGENT_API_KEY": "cp_proxy_1_topsecret",
            "CONTROLPLANE_AGENT_STATE_DIR": str(settings.state_dir),
            "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                f"{kid}={key}" for kid, key in settings.policy_keys.items()
            ),
        },
    )
    _until_applied(control_plane, 1)
    control_plane.publish(surprise=1)  # signed, and not understood
    deadline = time.monotonic() + 60
    while not _nacks(control_plane) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert 0 == process.returncode
    (nack, *_) = _nacks(control_plane)
    assert {"epoch": 1, "gen": 2} == nack["generation"]
    assert "surprise" in nack["reason"]
    assert b"topsecret" not in log
    assert [] == list(settings.state_dir.glob("journal-*"))
    assert 1 == len(list(settings.state_dir.glob("policy-*")))


def _until_applied(control_plane: Any, gen: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = [request["applied"] for request in control_plane.state()["requests"]]
        if {"epoch": 1, "gen": gen} in said:
            return
        time.sleep(0.05)
    raise AssertionError(gen)


def _nacks(control_plane: Any) -> list[dict[str, Any]]:
    requests = control_plane.state()["requests"]
    return [request["nack"] for request in requests if request["nack"]]
