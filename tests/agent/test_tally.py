"""What an agent says of the calls it refused: all of it, until the server has it, and not for ever."""

from datetime import UTC, datetime, timedelta

from controlplane.agent.refusal import Refusal
from controlplane.agent.tally import MAX_KINDS, Tally

NOW = datetime(2026, 11, 20, 10, 59, tzinfo=UTC)
DENIED = Refusal(code="policy_denied", reason="no", rule="r")


def _counts(tally: Tally) -> list[tuple[int, int]]:
    return [(one.hour.hour, one.calls) for one in tally.unsaid()]


def test_a_count_is_said_until_it_is_acknowledged_as_it_is() -> None:
    tally = Tally()
    tally.refuse(DENIED, tenant="acme", now=NOW)
    said = tally.unsaid()
    tally.refuse(DENIED, tenant="acme", now=NOW)  # meanwhile
    tally.said(said)
    assert [(10, 2)] == _counts(tally)
    tally.said(tally.unsaid())
    assert [] == _counts(tally)
    tally.refuse(DENIED, tenant="acme", now=NOW)
    assert [(10, 3)] == _counts(tally)  # goes on within its hour


def test_hours_are_apart_and_the_last_is_forgotten_when_said() -> None:
    tally = Tally()
    tally.refuse(DENIED, tenant="acme", now=NOW)
    tally.refuse(DENIED, tenant="acme", now=NOW + timedelta(minutes=1))
    assert [(10, 1), (11, 1)] == _counts(tally)
    tally.said(tally.unsaid())
    tally.refuse(DENIED, tenant="acme", now=NOW + timedelta(minutes=2))
    assert [(11, 2)] == _counts(tally)


def test_tenants_without_end_do_not_fill_the_memory() -> None:
    tally = Tally()
    for number in range(MAX_KINDS + 5):
        tally.refuse(DENIED, tenant=f"t{number}", now=NOW)
    assert MAX_KINDS == len(tally.unsaid())
    assert MAX_KINDS + 5 == tally.counts().refused


def test_quota_that_began_by_itself_is_no_harm_of_the_rules() -> None:
    """Or a flood on the node that tries new rules would turn them back; it is told all the same."""
    tally = Tally()
    flood = Refusal(code="rate_limited", reason="too fast", rule="velocity.wallet.a1")
    tally.refuse(flood, tenant="acme", now=NOW)
    tally.refuse(DENIED, tenant="acme", now=NOW)
    assert 1 == tally.counts().refused
    assert ["r", "velocity.wallet.a1"] == sorted(one.rule for one in tally.unsaid())
