"""The keys that sign policies, on the machine that has them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.options import Config, DataDir, Json, group, print_json, print_text

policy_keys_app = group("Signing keys: a root key offline, two live keys while they are exchanged.")


@policy_keys_app.command("root")
def keys_root(
    file: Annotated[Path, typer.Argument(help="Where to write it; keep it away from servers.")],
    *,
    json: Json = False,
) -> None:
    """Make the offline root key, and print what agents pin."""
    from controlplane.bootstrap.policy_keys import make_root

    pinned = make_root(file)
    if json:
        print_json({"policy_root": pinned})
        return
    for kid, public in pinned.items():
        print_text(f"CONTROLPLANE_AGENT_POLICY_ROOT={kid}={public}")


@policy_keys_app.command("show")
def keys_show(*, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Show which keys sign, and which the newest set lists."""
    from controlplane import settings
    from controlplane.bootstrap.policy_keys import show

    _print(show(settings.load(config, overrides={"data_dir": data_dir})), json=json)


@policy_keys_app.command("prepare")
def keys_prepare(*, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Make the next signing key."""
    from controlplane import settings
    from controlplane.bootstrap.policy_keys import prepare

    _print(prepare(settings.load(config, overrides={"data_dir": data_dir})), json=json)


@policy_keys_app.command("sign")
def keys_sign(
    *,
    root: Annotated[Path, typer.Option(help="File of the root key.")],
    revoke: Annotated[list[str] | None, typer.Option(help="Kids never to trust again.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Sign the set of live keys with the root key; agents take it within a minute."""
    from controlplane import settings
    from controlplane.bootstrap.policy_keys import sign

    loaded = settings.load(config, overrides={"data_dir": data_dir})
    _print(sign(loaded, root, revoke or []), json=json)


@policy_keys_app.command("switch")
def keys_switch(*, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Sign with the next key; restart the API after it."""
    from controlplane import settings
    from controlplane.bootstrap.policy_keys import switch

    _print(switch(settings.load(config, overrides={"data_dir": data_dir})), json=json)


def _print(now: Any, *, json: bool) -> None:
    if json:
        print_json(now)
        return
    for name, keys in (("current", now.current), ("next", now.next)):
        for kid in keys:
            where = "listed" if kid in now.listed else "not in the signed set"
            print_text(f"{name}  {kid}  {where}")
    print_text(f"key set {now.version or '-'}; revoked: {', '.join(now.revoked) or 'none'}")
