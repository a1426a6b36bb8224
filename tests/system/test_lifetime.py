"""What `up` starts ends with it, even when nobody can say goodbye; the data is there next time.

That Ctrl-C ends everything within the same time is checked where the shared system is stopped.
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

STOP_SECONDS = 15.0
CALLS = 20


def test_killed_system_leaves_no_process_and_comes_back_with_its_data(
    tmp_path: Path, start_program: Any, system_over: Any, chat: Any
) -> None:
    killed = start_program(tmp_path, "up", "--json")
    try:
        assert 4 == len(killed.family)  # itself, the hub, the collector, the dashboard
        system = system_over(tmp_path, killed)
        for _ in range(CALLS):
            assert 200 == system.send(chat("kept", input_tokens=9).body).status_code
        took = killed.end(signal.SIGKILL)
    finally:
        left = killed.clear_away()
    assert [] == left
    assert took < STOP_SECONDS

    again = start_program(tmp_path, "up", "--json")
    try:
        system_over(tmp_path, again).wait_for("kept", calls=CALLS)
        took = again.end(signal.SIGTERM)
    finally:
        left = again.clear_away()
    assert [] == left
    assert took < STOP_SECONDS
    assert 0 == again.process.returncode


def test_a_second_start_on_the_same_data_harms_nothing(
    tmp_path: Path, start_program: Any, system_over: Any, chat: Any
) -> None:
    """Two collectors on one spool once set aside what they had acknowledged."""
    first = start_program(tmp_path, "up", "--json")
    try:
        logs = (tmp_path / "data/logs/api.log").stat().st_ino
        command = [sys.executable, "-m", "controlplane"]
        place = ["--data-dir", str(tmp_path / "data")]
        for arguments in (["up", "--json", *place], ["serve", "--role", "collector", *place]):
            second = subprocess.run(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert (1, "") == (second.returncode, second.stdout)
            assert "choose another data_dir" in second.stderr
            assert 1 == len(second.stderr.splitlines())
        assert logs == (tmp_path / "data/logs/api.log").stat().st_ino
        system = system_over(tmp_path, first)
        assert 200 == system.send(chat("kept", input_tokens=9).body).status_code
        system.wait_for("kept", calls=1)
        first.end(signal.SIGTERM)
    finally:
        left = first.clear_away()
    assert [] == left
