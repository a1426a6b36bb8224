"""Runs a target under Atheris in its own environment, and reads what libFuzzer says of the run."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from tests.fuzz.seeds import FOUND, TESTS, seeds_of

PYTHON: Final = TESTS.parent / ".venvs" / "fuzz" / "bin" / "python"
MAX_RSS_MIB: Final = 3072
"""Atheris itself keeps memory of every execution that it traces; what inputs take is seen when what
reached something new is read again without it."""
MAX_SECONDS_AN_INPUT: Final = 20
MAX_INPUT_BYTES: Final = 16 * 1024
GRACE_SECONDS: Final = 300
_END: Final = re.compile(r"cov: (\d+) ft: (\d+)")
_STAT: Final = re.compile(r"stat::(\w+):\s+(\d+)")


class Fuzzed(msgspec.Struct, frozen=True, kw_only=True):
    """One target's run."""

    seconds: int
    executions: int
    edges: int
    features: int
    peak_rss_mib: int
    corpus: Path
    """Every input that reached something new."""
    found: list[str]
    """Inputs that broke it, by their place in tests/corpus_hostile."""


def is_installed() -> bool:
    """Whether there is an Atheris for this interpreter."""
    return PYTHON.exists()


def fuzz(target: str, *, seconds: int, scratch: Path) -> Fuzzed:
    """Fuzz one target for a time, or until it breaks; what broke it is kept."""
    corpus, artifacts = scratch / "corpus", scratch / "found"
    for folder in (corpus, artifacts):
        folder.mkdir(parents=True)
    for seed in seeds_of(target):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    arguments = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MAX_RSS_MIB}",
        f"-timeout={MAX_SECONDS_AN_INPUT}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-artifact_prefix={artifacts}/",
        "-print_final_stats=1",
    ]
    log = scratch / "log"
    with log.open("w") as out:
        done = subprocess.run(
            [str(PYTHON), str(TESTS / "fuzz" / "drive.py"), target, str(corpus), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "RUST_BACKTRACE": "0"},
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
    said = log.read_text(errors="replace")
    ends, stats = _END.findall(said), dict(_STAT.findall(said))
    found = [_keep(target, path) for path in sorted(artifacts.iterdir())]
    if not ends or (done.returncode and not found):
        raise AssertionError(f"{target} did not run: {said[-2000:]}")
    return Fuzzed(
        seconds=seconds,
        executions=int(stats["number_of_executed_units"]),
        edges=int(ends[-1][0]),
        features=int(ends[-1][1]),
        peak_rss_mib=int(stats["peak_rss_mb"]),
        corpus=corpus,
        found=found,
    )


def _keep(target: str, path: Path) -> str:
    kept = FOUND / target / f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.bin"
    kept.parent.mkdir(exist_ok=True)
    shutil.copy(path, kept)
    return str(kept.relative_to(FOUND))
