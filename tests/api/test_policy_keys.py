"""Key sets from the command line to an agent, over a real API."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from controlplane.agent.keyring import AgentKeys
from controlplane.agent.settings import AgentSettings
from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.cli.main import app as cli
from controlplane.core.errors import PolicyError
from controlplane.policy.bundle import Signer
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.policies import PolicyRepository


def command(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, ["policy", "keys", *arguments, "--json"])
    assert code == done.exit_code, done.exception
    return json.loads(done.stdout) if not code else str(done.exception)


def test_keys_are_exchanged_without_touching_an_agent(
    api: Any, keys: Any, policies: Any, tmp_path: Path
) -> None:
    """Prepared, signed by the root, taken over HTTP, switched, revoked; kept over a restart."""
    at = ("--data-dir", str(tmp_path / "data"))
    root = tmp_path / "root.key"
    pinned = command("root", str(root))["policy_root"]
    assert "is there" in command("root", str(root), code=1)
    first = command("show", *at)
    assert first["current"] == command("prepare", *at)["current"]
    following = command("show", *at)["next"]
    assert "in no signed set" in command("switch", *at, code=1)
    signed = command("sign", "--root", str(root), *at)
    assert (1, {*first["current"], *following}) == (signed["version"], set(signed["listed"]))

    proxy = keys.add("acme", scopes=ROLE_SCOPES[Role.PROXY])
    with api.client(proxy) as client:
        assert 404 == client.get("/api/v1/policy/keys").status_code
    _copy(tmp_path / "data", policies)
    settings = AgentSettings(
        server_url=api.url,
        api_key=proxy,
        policy_keys=first["current"],
        policy_root=pinned,
        state_dir=tmp_path / "agent",
    )
    ring = AgentKeys(settings)
    assert _refresh(ring, api.url, proxy)
    assert not _refresh(ring, api.url, proxy)
    fresh = Signer((tmp_path / "data-keys" / "signing-key.next").read_bytes())
    ring.verify(b"x", fresh.sign(b"x"))

    assert following == command("switch", *at)["current"]
    (old,) = first["current"]
    assert (2, [old]) == tuple(
        command("sign", "--root", str(root), "--revoke", old, *at)[k]
        for k in ("version", "revoked")
    )
    _copy(tmp_path / "data", policies)
    assert _refresh(ring, api.url, proxy)
    again = AgentKeys(settings)  # pins the old key still, and remembers that it is revoked
    again.verify(b"x", fresh.sign(b"x"))
    with pytest.raises(PolicyError, match="not pinned"):
        again.verify(b"x", f"ed25519;kid={old};sig={'A' * 86}==")


def _copy(data: Path, policies: Any) -> None:
    """Give the API's database the newest set, as the same database would."""
    engine = open_engine(f"sqlite:///{data / 'metadata.sqlite'}")
    newest = PolicyRepository(engine).key_set()
    engine.dispose()
    assert newest is not None
    policies.add_key_set(newest)


def _refresh(ring: AgentKeys, url: str, key: str) -> bool:
    async def ask() -> bool:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            return await ring.refresh(client)

    return asyncio.run(ask())
