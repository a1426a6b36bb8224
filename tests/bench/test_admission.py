"""`controlplane bench admission` in the small: its shape, and that it measures what it says."""

import platform
from collections.abc import Callable

import pytest

from controlplane.bench.admission import run
from controlplane.bench.allocations import read_counter

PRINTED = """
\x1b[01;32mMemory usage summary:\x1b[0;0m heap total: 9575476, heap peak: 1777875, stack peak: 69984
\x1b[04;34m         total calls   total memory   failed calls\x1b[0m
\x1b[00;34m malloc|\x1b[0m     166208        8006800              0\x1b[00;00m
\x1b[00;34mrealloc|\x1b[0m      31194        1360403              0\x1b[00;00m  (nomove:10540, dec:410, free:0)
\x1b[00;34m calloc|\x1b[0m       1906         208273              0\x1b[00;00m
\x1b[00;34m   free|\x1b[0m     179492        9481875
"""
"""What the counter of glibc 2.36 printed for a program of Python."""


PROMISED_MS = 0.3
"""p99 of one admission (design section 14), in processor time: others may have the cores."""


@pytest.mark.slow
def test_admission_is_local_and_a_refusal_is_the_cheapest_answer(
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
) -> None:
    """2,000 calls in `make test`, 20,000 in `make prove`; only those are held to the target."""
    result = run(calls=20_000 if full_size else 2_000)
    is_within_limits = result["whole"]["admission_p99_ms"] <= PROMISED_MS
    write_proof("admission", {"is_within_limits": is_within_limits, **result})
    assert {"stages", "whole", "peers", "load_average", "config"} == result.keys()
    assert {"read", "admit", "settle", "deny"} == result["stages"].keys()
    whole = result["whole"]
    assert 0 == whole["network_calls"]
    assert result["stages"]["deny"]["p50_ms"] < result["stages"]["admit"]["p50_ms"]
    # hold and settle are both written to the journal
    assert whole["journal_bytes_per_call"] > 200
    parts = sum(result["stages"][name]["p50_ms"] for name in ("read", "admit", "settle"))
    assert 0.5 * parts < whole["p50_ms"] < 3 * parts
    found = [result["stages"][name]["allocations_per_op"] for name in ("deny", "admit")]
    assert found[1] == whole["allocations_per_decision"]
    if platform.libc_ver()[0] == "glibc":
        assert 0 < found[0] < found[1] < whole["allocations_per_op"]
    else:
        assert [None, None] == found
    if full_size:
        assert is_within_limits


@pytest.mark.parametrize(
    ("printed", "calls"),
    [
        (PRINTED, 166_208 + 31_194 + 1_906),
        ("ERROR: ld.so: object 'libmemusage.so' from LD_PRELOAD cannot be preloaded", None),
    ],
)
def test_counted_is_what_takes_memory(printed: str, calls: int | None) -> None:
    """Frees are none, and no counter is no zero."""
    assert calls == read_counter(printed)
