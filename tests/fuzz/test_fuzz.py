"""No body that a sender makes up crashes ingest, loses a span's account, or takes memory."""

import hashlib
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.mutate import Fuzzer
from tests.fuzz.target import take

TESTS = Path(__file__).parents[1]
FOUND = TESTS / "corpus_hostile"
SECONDS, FULL_SECONDS = 5, 600
MAX_GROWTH_KIB = 512 * 1024
LARGEST_SEED = 16 * 1024


def seeds() -> list[bytes]:
    """One plain body of every recording that is not large; JSON bodies are of form 4."""
    found: list[bytes] = []
    for root in ("corpus", "recordings"):
        for path in sorted((TESTS / root).rglob("*")):
            if path.suffix not in {".pb", ".json"} or ".metrics." in path.name:
                continue
            body = path.read_bytes()
            if ".expected." not in path.name and len(body) <= LARGEST_SEED:
                found.append((b"\x04" if path.suffix == ".json" else b"\x00") + body)
    return found


@pytest.mark.parametrize("path", sorted(FOUND.glob("*.bin")), ids=lambda path: path.name)
def test_what_was_once_found_stays_fixed(path: Path) -> None:
    take(path.read_bytes())


def fuzz(seconds: float, *, seed: int) -> tuple[Fuzzer, list[str]]:
    """Fuzz for a time; what is found is kept in tests/corpus_hostile and named."""
    fuzzer = Fuzzer(seeds(), take, seed=seed)
    end = time.monotonic() + seconds
    found: dict[str, str] = {}
    for data, error in fuzzer.run(lambda: time.monotonic() >= end):
        kind = f"{type(error).__name__}: {str(error)[:200]}"
        if kind not in found:
            name = f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
            (FOUND / name).write_bytes(data)
            found[kind] = name
    return fuzzer, [f"{name}: {kind}" for kind, name in found.items()]


@pytest.mark.slow
def test_no_made_up_body_crashes_ingest(
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[[str, dict[str, object]], None],
) -> None:
    take(seeds()[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = FULL_SECONDS if full_size else SECONDS
    fuzzer, found = fuzz(seconds, seed=int(time.time()) if full_size else 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    figures: dict[str, object] = {
        "is_within_limits": not found and grown < MAX_GROWTH_KIB,
        "bodies": fuzzer.tried,
        "seconds": seconds,
        "outcomes": len(fuzzer.seen),
        "found": found,
        "peak_growth_mib": grown // 1024,
    }
    write_proof("fuzz", figures)
    assert [] == found
    assert grown < MAX_GROWTH_KIB
