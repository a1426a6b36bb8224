"""Configuration: precedence, and one bad file per way to be wrong."""

from pathlib import Path

import pytest
import yaml

from controlplane.bootstrap.up import role_environment
from controlplane.core.errors import ConfigError
from controlplane.settings import is_loopback, load

BAD = sorted((Path(__file__).parent / "settings" / "bad").glob("*.yaml"))


def test_defaults_listen_on_loopback_only() -> None:
    """Nothing is reachable from another machine unless somebody says so."""
    settings = load(environ={})
    hosts = {settings.collector.host, settings.api.host, settings.dashboard.host}
    assert {"127.0.0.1"} == hosts
    assert settings.keyless_allowed


def test_keys_never_lie_inside_the_data_directory() -> None:
    """A backup of the data must not carry the keys."""
    settings = load(environ={}, overrides={"data_dir": "x/data"})
    assert not settings.secrets_dir.is_relative_to(settings.data_dir)


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    """Precedence, from strongest to weakest."""
    file = tmp_path / "c.yaml"
    file.write_text("api: {port: 1, host: 127.0.0.2}\nzone: Asia/Kolkata\n")
    env = {"CONTROLPLANE_API__PORT": "2", "CONTROLPLANE_ZONE": "Europe/Madrid", "HOME": "/x"}
    settings = load(file, environ=env, overrides={"api.port": 3, "api.host": None})
    assert (3, "127.0.0.2", "Europe/Madrid") == (
        settings.api.port,
        settings.api.host,
        settings.zone,
    )


def test_config_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    """CONTROLPLANE_CONFIG is the file when no option names one."""
    file = tmp_path / "c.yaml"
    file.write_text("log_level: error\n")
    assert load(environ={"CONTROLPLANE_CONFIG": str(file)}).log_level == "error"


def test_agent_and_dashboard_variables_are_not_server_settings() -> None:
    """Other programs' prefixes do not stop the server."""
    env = {"CONTROLPLANE_AGENT_URL": "x", "CONTROLPLANE_DASHBOARD_API_URL": "y"}
    assert load(environ=env) == load(environ={})


def test_a_key_is_required_when_the_collector_is_reachable() -> None:
    """Only loopback may send without a key."""
    settings = load(environ={}, overrides={"collector.host": "192.0.2.1"})
    assert not settings.keyless_allowed


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("x", False)],
)
def test_loopback(host: str, *, expected: bool) -> None:
    """Only addresses of this machine count."""
    assert expected is is_loopback(host)


@pytest.mark.parametrize("file", BAD, ids=lambda f: f.stem)
def test_bad_file_is_refused_with_its_key_and_fix(file: Path) -> None:
    """The first comment line of each file holds the key the message must name."""
    key, words = file.read_text().splitlines()[0].removeprefix("# ").split(": ", 1)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert key == caught.value.key
    assert words in str(caught.value)


def test_missing_file_is_refused() -> None:
    """A named file that can not be read is not the same as no file."""
    with pytest.raises(ConfigError, match=r"config: .*absent\.yaml"):
        load(Path("absent.yaml"), environ={})


def test_environment_below_a_plain_value_is_refused(tmp_path: Path) -> None:
    """A section can not also be a value."""
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"api": 1}))
    with pytest.raises(ConfigError, match=r"api is not a section"):
        load(file, environ={"CONTROLPLANE_API__PORT": "2"})


def test_settings_survive_the_environment_of_a_child(tmp_path: Path) -> None:
    """`up` hands every setting on; a role reads exactly what its parent read."""
    told = {"data_dir": tmp_path / "d", "api.port": 0, "api.host": "[::1]", "zone": "Asia/Tokyo"}
    settings = load(environ={}, overrides={**told, "api.allowed_hosts": ["[::1]", "a.example"]})
    assert settings == load(environ=role_environment(settings))
