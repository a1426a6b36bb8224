"""Shares of a window that is small enough to be counted by hand."""

from datetime import UTC, datetime
from typing import Any

from controlplane.usage.completeness import Account
from controlplane.usage.data_quality import Shares, measure_shares

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


def _team(team: str | None, **counts: int) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("calls", "cost_nusd", "input_tokens", "output_tokens", "unpriced_tokens"), 0
    )
    return {"team": team, **nothing, **counts}


def _account(**counts: int) -> Account:
    nothing = dict.fromkeys(("received", "stored", "duplicates", "rejected", "late", "ahead"), 0)
    return Account(
        tenant="a", key_id="k", service_name="s", signal="traces", rejected_by_reason={},
        last_received=NOW, is_silent=False, **{**nothing, **counts},
    )  # fmt: skip


def test_each_share_is_of_its_own_whole() -> None:
    teams = [
        _team("search", calls=6, cost_nusd=300, input_tokens=70, output_tokens=10),
        _team(None, calls=2, cost_nusd=100, input_tokens=15, output_tokens=5, unpriced_tokens=20),
    ]
    accounts = [
        _account(received=50, stored=40, rejected=10, late=3, ahead=1),
        _account(received=10, stored=10, late=2),
    ]
    assert measure_shares(teams, duplicates=24, accounts=accounts) == Shares(
        unpriced_tokens=20 / 100,
        unattributed_cost=100 / 400,
        duplicate_reports=24 / 32,
        late=5 / 50,
        ahead=1 / 50,
        rejected=10 / 60,
    )


def test_parts_of_nothing_are_unknown_and_not_zero() -> None:
    assert set(_values(measure_shares([], duplicates=0, accounts=[]))) == {None}
    priced = _team(None, calls=1, input_tokens=5, unpriced_tokens=5)
    shares = measure_shares([priced], duplicates=0, accounts=[])
    assert (1.0, None, 0.0) == (
        shares.unpriced_tokens,
        shares.unattributed_cost,  # nothing is known of the cost
        shares.duplicate_reports,
    )


def _values(shares: Shares) -> list[float | None]:
    return [getattr(shares, name) for name in shares.__struct_fields__]
