"""A real Alertmanager takes what we send, keeps it alive, and resolves it."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from controlplane.alerts.alert import Alert, AlertState
from controlplane.alerts.ports import Notification, Verdict
from controlplane.notify.alertmanager import AlertmanagerReceiver

CONFIG = "route: {receiver: none}\nreceivers: [{name: none}]\n"


def _until(check: Callable[[], bool], seconds: float = 60) -> bool:
    """Poll a real process; the only kind of waiting a test may do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.1)
    return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("no Alertmanager: install the system package prometheus-alertmanager")
    folder: Path = tmp_path_factory.mktemp("alertmanager")
    (folder / "config.yml").write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'config.yml'}",
            f"--storage.path={folder}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert _until(lambda: _answers(url))
        yield url
        process.terminate()


def _alert(name: str, state: AlertState = AlertState.FIRING, *, labels: object = None) -> Alert:
    now = datetime.now(UTC)
    return Alert(
        fingerprint=name,
        labels={"alertname": name, "tenant": "acme"} if labels is None else labels,  # type: ignore[arg-type]  # a wrong label set is the point of one test
        annotations={"summary": "spend"},
        state=state,
        since=now,
        starts_at=now - timedelta(minutes=1),
        ends_at=now if state is AlertState.RESOLVED else None,
    )


def _active(url: str) -> set[str]:
    alerts = httpx.get(f"{url}/api/v2/alerts").json()
    return {alert["labels"]["alertname"] for alert in alerts}


def _send(url: str, *alerts: Alert) -> Verdict:
    message = Notification(id="m", receiver="am", at=datetime.now(UTC), alerts=alerts)
    with httpx.Client() as client:
        receiver = AlertmanagerReceiver(url, resend_seconds=60, client=client)
        return receiver.deliver(message, now=datetime.now(UTC)).verdict


def test_fires_stays_alive_and_resolves(alertmanager: str) -> None:
    """The alert is active for four resend intervals, and gone at once when it resolves."""
    assert Verdict.DELIVERED is _send(alertmanager, _alert("Fires"))
    assert _until(lambda: "Fires" in _active(alertmanager))
    (alert,) = [
        a
        for a in httpx.get(f"{alertmanager}/api/v2/alerts").json()
        if a["labels"]["alertname"] == "Fires"
    ]
    left = datetime.fromisoformat(alert["endsAt"]) - datetime.now(UTC)
    assert timedelta(minutes=3) < left <= timedelta(minutes=4)
    assert Verdict.DELIVERED is _send(alertmanager, _alert("Fires", AlertState.RESOLVED))
    assert _until(lambda: "Fires" not in _active(alertmanager))


def test_one_refused_alert_is_named_and_the_others_arrive(alertmanager: str) -> None:
    """Alertmanager answers 400 for the batch; the culprit is found by halving, never retried."""
    good = [_alert(f"Good{i}") for i in range(5)]
    bad = msgspec.structs.replace(good[0], labels={"not a name": "x"})
    assert Verdict.DEAD is _send(alertmanager, *good[:3], bad, *good[3:])
    assert _until(lambda: {f"Good{i}" for i in range(5)} <= _active(alertmanager))


def test_an_alertmanager_that_is_down_is_tried_again() -> None:
    """No answer is not an exception and not the end."""
    assert Verdict.RETRY is _send("http://127.0.0.1:9", _alert("Down"))
