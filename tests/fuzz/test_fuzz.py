"""No input that a sender makes up crashes us, loses a span's account, or takes memory."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import asdict

from tests.fuzz import libfuzzer
from tests.fuzz.mutate import Fuzzer
from tests.fuzz.seeds import FOUND, found_by, seeds_of
from tests.fuzz.targets import TARGETS

SECONDS: Final = {
    # Of a full run. Decoding, JSON, framing and dialects are what senders reach.
    "framing": 150,
    "protobuf": 150,
    "json": 90,
    "dialects": 150,
    "signals": 60,
    "policy": 60,
    "exposition": 30,
    "proxied": 30,
    "scores": 20,
}
SHORT_SECONDS: Final = 0.6
"""Of a representative run, for each target."""
MAX_GROWTH_KIB: Final = 512 * 1024
_KEPT: Final = [(target, path) for target in TARGETS for path in found_by(target)]


def test_every_finding_is_of_a_target() -> None:
    places = {place.name for place in FOUND.iterdir() if place.is_dir()}
    assert places <= TARGETS.keys()
    assert TARGETS.keys() == SECONDS.keys()


@pytest.mark.parametrize(("target", "path"), _KEPT, ids=lambda value: getattr(value, "name", value))
def test_what_was_once_found_stays_fixed(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_made_up_input_breaks_a_target(target: str) -> None:
    seeds = seeds_of(target)
    for seed in seeds[:: max(len(seeds) // 16, 1)]:
        TARGETS[target](seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzzer = Fuzzer(seeds, TARGETS[target], seed=1)
    end = time.monotonic() + SHORT_SECONDS
    found = list(fuzzer.run(lambda: time.monotonic() >= end))
    assert [] == found
    assert fuzzer.tried > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_minutes_under_atheris(
    full_size: bool,  # noqa: FBT001 - a fixture
    tmp_path: Path,
    write_proof: Callable[[str, dict[str, object]], None],
) -> None:
    if not full_size:
        pytest.skip("a representative run needs no Atheris: see the test above")
    if not libfuzzer.is_installed():
        pytest.skip(
            "no Atheris here: `make .venvs/fuzz/.installed` (it has wheels for few Pythons)"
        )
    runs = {
        target: libfuzzer.fuzz(target, seconds=seconds, scratch=tmp_path / target)
        for target, seconds in SECONDS.items()
    }
    found = [name for run in runs.values() for name in run.found]
    growth = {target: _growth_kib(target, run.corpus) for target, run in runs.items()}
    figures: dict[str, object] = {
        "is_within_limits": not found and max(growth.values()) < MAX_GROWTH_KIB,
        "seconds": sum(run.seconds for run in runs.values()),
        "executions": sum(run.executions for run in runs.values()),
        "found": found,
        "peak_rss_mib": max(run.peak_rss_mib for run in runs.values()),
        "max_rss_mib": libfuzzer.MAX_RSS_MIB,
        "growth_without_atheris_kib": growth,
        "targets": {
            target: {name: said for name, said in asdict(run).items() if name != "corpus"}
            for target, run in runs.items()
        },
    }
    write_proof("fuzz", figures)
    assert [] == found
    assert max(growth.values()) < MAX_GROWTH_KIB


def _growth_kib(target: str, corpus: Path) -> int:
    """Read a target's corpus here, without Atheris; return by how much our peak memory rose."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in corpus.iterdir():
        TARGETS[target](path.read_bytes())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
