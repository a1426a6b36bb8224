"""What an agent is told: the only reader of the environment and of the agent's file.

Precedence: `CONTROLPLANE_AGENT_<NAME>` in the environment > the TOML file that
`CONTROLPLANE_AGENT_CONFIG` names > default. A key nobody knows is an error.
"""

import base64
import binascii
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec

from controlplane.core.errors import ConfigError

ENV_PREFIX: Final = "CONTROLPLANE_AGENT_"
CONFIG_ENV: Final = "CONTROLPLANE_AGENT_CONFIG"
ED25519_KEY_BYTES: Final = 32

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an agent is told; `policy_keys` are pinned: kid → 32 raw bytes as base64."""

    server_url: str
    api_key: str
    policy_keys: dict[str, str]
    scope: str = "default"
    node: str = ""  # default: the host's name
    state_dir: Path = Path("~/.local/state/controlplane-agent")
    sync_interval_seconds: Seconds = 0.5
    poll_wait_seconds: Seconds = 25.0
    request_timeout_seconds: Seconds = 5.0
    admission_wait_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.25
    first_policy_wait_seconds: Seconds = 5.0
    max_call_seconds: Seconds = 900.0  # a hold older than this is settled as unknown
    socket: Path | None = None
    """Where `controlplane agent` serves its workers, and where they find it."""
    envoy_address: str = ""
    """Where `controlplane agent` serves Envoy: host:port, or unix:path; empty: not at all."""
    envoy_cluster: str = "default"
    """Envoy's cluster for requests that no route rule chooses for."""
    envoy_provider: str = ""
    """`gen_ai.provider.name` behind Envoy, where the host's name does not tell it."""
    policy_root: dict[str, str] = {}
    """The offline key that signs sets of policy keys, pinned as they are; empty: only those pinned."""
    without_policy: Annotated[str, msgspec.Meta(pattern="^(deny|allow)$")] = "deny"

    def __repr__(self) -> str:
        # The key must not reach a log through a traceback.
        return f"AgentSettings(server_url={self.server_url!r}, scope={self.scope!r})"


_NEEDED: Final = {
    "server_url": "Write the API's address, like http://127.0.0.1:8080",
    "api_key": "Make one with `controlplane keys create --kind proxy --role proxy`",
    "policy_keys": "`controlplane keys create --kind proxy --role proxy` prints it",
}


def load_agent_settings(
    environ: Mapping[str, str] | None = None, *, config: Path | None = None
) -> AgentSettings:
    """Read, merge and check every setting of the agent.

    Raises:
        ConfigError: names the first wrong key and what to write instead.
    """
    env = os.environ if environ is None else environ  # noqa: TID251 - the agent's one reader
    path = config or (Path(env[CONFIG_ENV]) if CONFIG_ENV in env else None)
    tree = _read_toml(path) if path else {}
    for name, text in env.items():
        if name.startswith(ENV_PREFIX) and name != CONFIG_ENV:
            key = name.removeprefix(ENV_PREFIX).lower()
            tree[key] = _pairs(text) if key in {"policy_keys", "policy_root"} else text
    try:
        settings = msgspec.convert(tree, AgentSettings, strict=False, dec_hook=_to_path)
    except msgspec.ValidationError as wrong:
        raise _refused(str(wrong)) from None
    return _checked(settings)


def _refused(wrong: str) -> ConfigError:
    """Say which variable is missing or wrong; msgspec names the field in backticks."""
    if missing := re.match(r"Object missing required field `(\w+)`", wrong):
        variable = f"{ENV_PREFIX}{missing[1].upper()}"
        return ConfigError(variable, "is not set", _NEEDED.get(missing[1], _fix()))
    if found := re.search(r"(.*) - at `\$\.(\w+)", wrong):
        return ConfigError(
            f"{ENV_PREFIX}{found[2].upper()}", found[1], "Write a value of that kind"
        )
    return ConfigError(f"agent: {wrong}", "is not accepted", _fix())


def _fix() -> str:
    return f"Known: {', '.join(f'{ENV_PREFIX}{name.upper()}' for name in AgentSettings.__struct_fields__)}"


def _checked(settings: AgentSettings) -> AgentSettings:
    if not settings.server_url.startswith(("http://", "https://")):
        raise ConfigError("agent.server_url", "is not a URL", "Write http(s)://host:port")
    if not settings.policy_keys:
        raise ConfigError("agent.policy_keys", "is empty", "Pin the server's key: kid=<base64>")
    for kid, text in (settings.policy_keys | settings.policy_root).items():
        try:
            size = len(base64.b64decode(text, validate=True))
        except binascii.Error:
            size = 0
        if size != ED25519_KEY_BYTES:
            raise ConfigError(
                f"agent.policy_keys.{kid}", "is not an Ed25519 key", "Write 32 bytes as base64"
            )
    return msgspec.structs.replace(
        settings,
        server_url=settings.server_url.rstrip("/"),
        node=settings.node or socket.gethostname(),
        state_dir=settings.state_dir.expanduser().absolute(),
        socket=settings.socket.expanduser().absolute() if settings.socket else None,
    )


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {kid.strip(): key.strip() for kid, _, key in pairs}


def _to_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    msg = f"Expected `{kind.__name__}`"
    raise TypeError(msg)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise ConfigError(CONFIG_ENV, f"{path}: {wrong.strerror}", "Name a readable file") from None
    except tomllib.TOMLDecodeError as wrong:
        raise ConfigError(CONFIG_ENV, f"{path}: {wrong}", "Mend the TOML") from None
