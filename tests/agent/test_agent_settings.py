import base64
from pathlib import Path

import pytest

from controlplane.agent.settings import load_agent_settings
from controlplane.core.errors import ConfigError

KEY = base64.b64encode(b"k" * 32).decode()
GOOD = {
    "CONTROLPLANE_AGENT_SERVER_URL": "http://127.0.0.1:8080/",
    "CONTROLPLANE_AGENT_API_KEY": "cp_proxy_1_topsecret",
    "CONTROLPLANE_AGENT_POLICY_KEYS": f"k1={KEY}",
}


def test_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'server_url = "http://file"\nscope = "eu"\n[policy_keys]\nk2 = "{KEY}"\n')
    settings = load_agent_settings({**GOOD, "CONTROLPLANE_AGENT_CONFIG": str(file)})
    assert ("http://127.0.0.1:8080", "eu") == (settings.server_url, settings.scope)
    assert {"k1": KEY} == settings.policy_keys
    assert settings.node
    assert (
        "http://file"
        == load_agent_settings({"CONTROLPLANE_AGENT_API_KEY": "k"}, config=file).server_url
    )


def test_the_key_is_not_printed() -> None:
    assert "topsecret" not in repr(load_agent_settings(GOOD))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"CONTROLPLANE_AGENT_SERVER_URL": "localhost"}, "server_url"),
        ({"CONTROLPLANE_AGENT_POLICY_KEYS": ""}, "policy_keys"),
        ({"CONTROLPLANE_AGENT_POLICY_KEYS": "k1=short"}, "policy_keys.k1"),
        ({"CONTROLPLANE_AGENT_SCOOPE": "eu"}, "scoope"),
        (
            {"CONTROLPLANE_AGENT_SYNC_INTERVAL_SECONDS": "-1"},
            "AGENT_SYNC_INTERVAL_SECONDS: Expected `float`",
        ),
        ({"CONTROLPLANE_AGENT_CONFIG": "/nowhere/agent.toml"}, "agent.toml"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, str], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        load_agent_settings({**GOOD, **change})
