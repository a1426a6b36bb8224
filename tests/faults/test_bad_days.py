"""A disk that is full for a while, a directory that can not be written, a clock that jumps."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.both_sides import BothSides, assert_exact, judge
from tests.faults.faults import CLOCK_JUMPS, DISK_FULL
from tests.faults.lives import Collector, MakeRequest, Sender, finish

SECONDS = {"before": 1.0, "during": 2.0, "after": 60.0}
ENOUGH_SPANS = 1_000

Senders = Callable[[MakeRequest], list[Sender]]


def _live(
    directory: Path, threads: list[Sender], *, faults: dict[str, str], until: Callable[[], bool]
) -> str:
    """One life with faults, ended in order when `until` says so; return its log."""
    collector = Collector(directory, store="settling", may_die_at_once=False, faults=faults)
    for sender in threads:
        sender.ports = collector.ports
        sender.start()
    deadline = time.monotonic() + sum(SECONDS.values())
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)
    for sender in threads:
        sender.stop.set()
    for sender in threads:
        sender.join(60)
    collector.end(240)
    return collector.log.read_text()


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path: Path, senders: Senders) -> None:
    """What is refused meanwhile is sent again; afterwards the same process takes it."""
    threads = senders(BothSides())
    full_from, full_to = SECONDS["before"], SECONDS["before"] + SECONDS["during"]
    serves_since: list[float] = []  # first asked when the process serves: it counts from there, too
    at_the_end: list[int] = []

    def acked_again() -> bool:
        serves_since.append(time.monotonic())
        acked = sum(len(sender.acked) for sender in threads)
        if serves_since[-1] - serves_since[0] < full_to + 4.0:
            return False
        at_the_end.append(acked)
        return acked > at_the_end[0]

    said = _live(
        tmp_path,
        threads,
        faults={DISK_FULL: f"{full_from},{SECONDS['during']}"},
        until=acked_again,
    )
    assert "refused" in said or "can not be" in said or "span store" in said, "the disk was full"
    assert at_the_end[-1] > at_the_end[0], said[-3_000:]
    acked = finish(tmp_path, threads, store="settling")
    assert_exact(judge(tmp_path, acked))


@pytest.mark.slow
def test_a_clock_that_jumps_by_hours_loses_and_doubles_nothing(
    tmp_path: Path, senders: Senders
) -> None:
    threads = senders(BothSides())
    _live(
        tmp_path,
        threads,
        faults={CLOCK_JUMPS: "0.3"},
        until=lambda: sum(len(sender.acked) for sender in threads) > ENOUGH_SPANS,
    )
    acked = finish(tmp_path, threads, store="settling")
    assert_exact(judge(tmp_path, acked))


@pytest.fixture
def as_a_mere_owner() -> list[str]:
    """What to run a program under so that a directory's permissions hold for it; nothing if not root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root writes everywhere, and setpriv (util-linux) is not here to give that up")
    return [setpriv, "--inh-caps=-dac_override", "--bounding-set=-dac_override"]


def test_a_directory_that_can_not_be_written_is_said_and_nothing_is_acknowledged(
    tmp_path: Path, as_a_mere_owner: list[str]
) -> None:
    """At the second start: the first made the files."""
    data = tmp_path / "data"
    data.mkdir()
    assert 0 == Collector(data, store="settling").end()
    folders = [data, *(path for path in data.iterdir() if path.is_dir())]
    files = [path for path in data.rglob("*") if path.is_file() and path.name != "collector.log"]
    for path in files:
        path.chmod(0o400)
    for path in folders:
        path.chmod(0o500)
    try:
        refused = r"ConfigError: data_dir: .*spool\.sqlite can not be written"
        with pytest.raises(AssertionError, match=refused):
            Collector(data, store="settling", may_die_at_once=False, under=as_a_mere_owner)
    finally:
        for path in folders:
            path.chmod(0o700)
        for path in files:
            path.chmod(0o600)
    assert 0 == Collector(data, store="settling").end()
