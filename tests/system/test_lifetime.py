"""What `up` starts ends with it, even when nobody can say goodbye; the data is there next time.

That Ctrl-C ends everything within the same time is checked where the shared system is stopped.
"""

import signal
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
