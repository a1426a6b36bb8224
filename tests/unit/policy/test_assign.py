"""Shares by hash."""

from collections import Counter
from hashlib import sha256

import pytest

from controlplane.policy.assign import BUCKETS, assign, bucket, share_hits


def test_bucket_is_a_documented_function_of_rule_and_value() -> None:
    """Others must be able to work it out again: SHA-256 of id, NUL, value; eight bytes, mod 10,000."""
    expected = int(sha256(b"rule\x00alice").hexdigest()[:16], 16) % 10_000
    assert expected == bucket("rule", "alice")
    assert bucket("rule", "alice") != bucket("other", "alice")


def test_shares_follow_the_weights() -> None:
    """Within what chance allows over 20,000 values: four standard deviations."""
    weights = {"a": 1, "b": 2, "c": 0, "d": 7}
    seen = Counter(assign("r", f"u{n}", weights) for n in range(20_000))
    assert 0 == seen["c"]
    for name, weight in weights.items():
        share = weight / 10
        assert abs(seen[name] / 20_000 - share) <= 4 * (share * (1 - share) / 20_000) ** 0.5


def test_whole_and_nothing() -> None:
    """No value is left out at 100 %, none is in at 0 %."""
    assert all(share_hits("r", str(n), 100) for n in range(BUCKETS // 10))
    assert not any(share_hits("r", str(n), 0) for n in range(BUCKETS // 10))


def test_weights_that_give_nobody_a_share_are_refused() -> None:
    """There is no answer."""
    with pytest.raises(ValueError, match="no weight"):
        assign("r", "u", {"a": 0})
