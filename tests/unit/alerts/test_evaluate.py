"""Alert states over time, as scripts: rounds in, states and messages out."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.alerts.alert import Alert, AlertState, Finding, clean_labels, fingerprint
from controlplane.alerts.evaluate import CLEAR_ROUNDS, evaluate

START = datetime(2026, 3, 1, tzinfo=UTC)


def _finding(team: str = "search", *, note: str = "", once: bool = False) -> Finding:
    return Finding(
        labels={"alertname": "CostAnomaly", "team": team}, annotations={"n": note}, once=once
    )


def _play(script: str, *, once: bool = False) -> tuple[list[Alert], list[str]]:
    """Run one finding over rounds: `x` seen, `.` not seen; return the end and what was told."""
    alerts: list[Alert] = []
    told: list[str] = []
    for number, mark in enumerate(script):
        findings = [_finding(note=str(number), once=once)] if mark == "x" else []
        done = evaluate(alerts, findings, now=START + timedelta(minutes=number))
        alerts = done.alerts
        told += [f"{number}:{alert.state}" for alert in done.changed]
    return alerts, told


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("xxxxx", ["0:firing"]),
        ("xx..xx..x", ["0:firing"]),  # flapping shorter than the clear time is one incident
        ("xx...", ["0:firing", "4:resolved"]),
        ("x...x", ["0:firing", "3:resolved", "4:firing"]),
        (".....", []),
    ],
)
def test_each_change_is_told_once(script: str, expected: list[str]) -> None:
    """Repeats are silent; a resolve waits for CLEAR_ROUNDS calm rounds."""
    assert 3 == CLEAR_ROUNDS
    assert expected == _play(script)[1]


def test_a_threshold_is_told_once_per_label_set_even_after_it_vanishes() -> None:
    """A budget threshold fires once per period: its period is a label."""
    assert ["0:firing"] == _play("x....x....x", once=True)[1]


def test_annotations_follow_the_newest_round_and_the_start_stays() -> None:
    """Identity and start are stable; the numbers are current."""
    alerts, _ = _play("xxx")
    assert {"n": "2"} == alerts[0].annotations
    assert START == alerts[0].starts_at


def test_what_may_be_unseen_for_want_of_data_stays_as_it_is() -> None:
    """Its calm rounds are not counted; heard again, it needs all of them."""
    alerts, _ = _play("xx..")
    for minute in range(10, 20):
        at = START + timedelta(minutes=minute)
        alerts = evaluate(alerts, [], now=at, is_unheard=lambda _: True).alerts
    assert AlertState.FIRING is alerts[0].state
    assert 2 == alerts[0].clear_rounds
    done = evaluate(alerts, [], now=START + timedelta(minutes=20))
    assert [AlertState.RESOLVED] == [alert.state for alert in done.changed]


def test_replaying_a_round_gives_the_same_answer() -> None:
    """Evaluation is pure: a crash between evaluate and save loses nothing."""
    before, _ = _play("xx.")
    at = START + timedelta(hours=1)
    assert evaluate(before, [_finding()], now=at) == evaluate(before, [_finding()], now=at)


def test_findings_of_two_teams_are_two_alerts() -> None:
    """Identity is the label set."""
    done = evaluate([], [_finding("a"), _finding("b")], now=START)
    assert ["a", "b"] == [alert.labels["team"] for alert in done.changed]


def test_empty_labels_do_not_change_identity() -> None:
    """Alertmanager drops empty values; so do we, before it can surprise us."""
    assert fingerprint({"a": "1"}) == fingerprint({"a": "1", "b": ""})


@pytest.mark.parametrize("labels", [{}, {"a": ""}, {"not-a-name": "x"}])
def test_labels_alertmanager_would_refuse_are_refused(labels: dict[str, str]) -> None:
    """Found here, not in a rejected batch."""
    with pytest.raises(ValueError, match="label"):
        clean_labels(labels)


def test_states_are_alertmanagers_words() -> None:
    """The field's standard terms."""
    assert ["pending", "firing", "resolved"] == [state.value for state in AlertState]
