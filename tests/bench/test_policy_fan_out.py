"""Everybody gets every generation, and everybody comes back after kill -9; full size times it."""

from collections.abc import Callable

import pytest

from controlplane.api.policy_stream import MAX_PUSHED_BYTES
from controlplane.bench.policy import SIZES, run

PROMISED_MS = {1_000: 100.0, 10_000: 500.0}
"""p99 of publish to received and to applied (design section 14), two quiet cores."""
RECONNECT_SECONDS = 30.0
SMALL = 40


@pytest.mark.slow
def test_policy_reaches_all_and_all_return(
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
) -> None:
    """40 raw subscribers in `make test`, 1,000 and 10,000 in `make prove`; 20 agents among them.

    The small run holds a budget on every model, so that its document is pushed as its change.
    """
    result = run(
        SIZES if full_size else (SMALL,),
        publishes=20 if full_size else 1,
        every_model=not full_size,
    )
    stages = result["stages"]
    assert isinstance(stages, dict)
    is_within_limits = all(
        stages[str(size)][f"{what}_p99_ms"] <= limit
        and stages[str(size)]["reconnect_seconds"] <= RECONNECT_SECONDS
        for size, limit in PROMISED_MS.items()
        if str(size) in stages
        for what in ("received", "applied")
    )
    write_proof("policy_fan_out", {"is_within_limits": is_within_limits, **result})
    for stage in stages.values():
        assert 0 == stage["missing"]
        assert stage["reconnect_seconds"] is not None
        assert (stage["document_bytes"] > MAX_PUSHED_BYTES) is not full_size
    if full_size:
        assert is_within_limits


@pytest.mark.slow
def test_a_thousand_agents_return(
    full_size: bool,  # noqa: FBT001 - a fixture
    write_proof: Callable[..., None],
) -> None:
    """Whole agents that stream, poll and sync: each applies every generation and comes back."""
    agents = 1_000 if full_size else 60
    result = run((1,), publishes=5 if full_size else 1, agents=agents)
    stages = result["stages"]
    assert isinstance(stages, dict)
    stage = stages["1"]
    back = stage["agents_reconnect_seconds"]
    is_within_limits = back is not None and back <= RECONNECT_SECONDS
    write_proof("agents_return", {"is_within_limits": is_within_limits, **result})
    assert 0 == stage["missing"]
    assert back is not None
    if full_size:
        assert is_within_limits
