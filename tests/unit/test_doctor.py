"""The doctor finds what is wrong and names the fix."""

import socket
from pathlib import Path

from controlplane.bootstrap.doctor import Check, examine
from controlplane.settings import load


def _checks(folder: Path, **overrides: object) -> dict[str, Check]:
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    free = dict.fromkeys(
        (
            "collector.grpc_port",
            "collector.http_port",
            "collector.metrics_port",
            "api.port",
            "dashboard.port",
        ),
        0,
    )
    settings = load(environ={}, overrides={"data_dir": folder / "data", **free, **given})
    return {check.name: check for check in examine(settings)}


def test_a_sound_machine_has_nothing_to_fix(tmp_path: Path) -> None:
    """Every check that can pass here passes, and none invents work."""
    checks = _checks(tmp_path)
    del checks["disk_write"]  # a busy disk may be slow
    assert [] == [check for check in checks.values() if not check.ok or check.fix]


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    """The most common first failure."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        check = _checks(tmp_path, api__port=taken.getsockname()[1])["api.port"]
    assert not check.ok
    assert "api.port" in check.fix


def test_a_readable_secret_is_found(tmp_path: Path) -> None:
    """Mode 0644 on a key is an error."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "signing.key").write_bytes(b"x")
    (keys / "signing.key").chmod(0o644)
    check = _checks(tmp_path, keys_dir=keys)["secrets"]
    assert not check.ok
    assert "signing.key" in check.fix


def test_exposure_is_said(tmp_path: Path) -> None:
    """Listening beyond loopback is allowed and never silent."""
    assert "api" in _checks(tmp_path, api__host="192.0.2.7")["exposure"].detail
