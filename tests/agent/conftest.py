"""An agent under a fake clock, and a real server that speaks the wire."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.agent.settings import AgentSettings

HERE = Path(__file__).parent
# A call waits for its lease longer than a busy machine takes: tests of who is refused, not when.
PATIENT = {"admission_wait_seconds": 5.0, "first_policy_wait_seconds": 30.0}
WINDOW = {"window_start": "2026-01-01T00:00:00Z", "window_end": "2036-01-01T00:00:00Z"}


class ControlPlane(msgspec.Struct):
    """Where the fake server is and what it signs with."""

    url: str
    keys: dict[str, str]

    def publish(self, **changes: Any) -> None:
        """Publish a document with one hard budget of a dollar for tenant a."""
        document = {
            "dimension_map": {"tenant": "user"},
            "budgets": [self.budget()],
            "rate_card": {"m": {"input_nusd": 1_000_000_000, "output_nusd": 10_000_000_000}},
        } | changes
        httpx.put(f"{self.url}/_rules", content=json.dumps(document)).raise_for_status()

    @staticmethod
    def budget(**changes: Any) -> dict[str, Any]:
        """Return a budget clause as JSON."""
        clause = {"id": "b1", "name": "team a", "owner": "ana", "match": {"tenant": ["a"]}}
        return {**clause, "limit_nusd": 1_000_000_000, **WINDOW, **changes}

    def refused(self) -> set[tuple[str, str, str, int]]:
        """Return the refusals told so far: budget, rule, reason and calls."""
        told = [one for said in self.state()["requests"] for one in said["refused"]]
        return {(one["budget_id"], one["rule"], one["code"], one["calls"]) for one in told}

    def state(self) -> dict[str, Any]:
        """Return the ledger and every sync request so far."""
        state: dict[str, Any] = httpx.get(f"{self.url}/_state").json()
        return state

    def fail_syncs(self, count: int) -> None:
        """Lose the answers of the next syncs."""
        httpx.put(f"{self.url}/_faults", json={"fail_syncs": count}).raise_for_status()


@contextlib.contextmanager
def running_control_plane() -> Iterator[ControlPlane]:
    """Run the fake server as a program of its own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_control_plane.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    ready = json.loads(process.stdout.readline())
    yield ControlPlane(f"http://127.0.0.1:{ready['port']}", ready["keys"])
    process.communicate(timeout=60)


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with running_control_plane() as plane:
        yield plane


@pytest.fixture(scope="module")
def shared_control_plane() -> Iterator[ControlPlane]:
    """One for the tests of a module that publish what they need."""
    with running_control_plane() as plane:
        yield plane


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., AgentSettings]:
    """Build settings for an agent of its own state directory."""

    def make(control_plane: ControlPlane, **changes: Any) -> AgentSettings:
        return AgentSettings(
            server_url=control_plane.url,
            api_key="cp_proxy_test_test",
            policy_keys=control_plane.keys,
            node="test",
            state_dir=tmp_path / "state",
            **{"sync_interval_seconds": 0.1, **PATIENT, **changes},
        )

    return make
