"""API and ingest keys."""

import sys
from typing import Annotated

import typer

from controlplane.cli.options import Config, DataDir, Json, group, print_json, print_text

app = typer.Typer()
keys_app = group("API and ingest keys.")
app.add_typer(keys_app, name="keys")


@keys_app.command("create")
def keys_create(  # noqa: PLR0913 - one option each
    *,
    kind: Annotated[str, typer.Option(help="ingest, proxy, user or service.")],
    role: Annotated[str, typer.Option(help="What it may do; the roles are above.")],
    tenant: Annotated[str, typer.Option()] = "default",
    all_tenants: Annotated[bool, typer.Option(help="Acts for every tenant.")] = False,
    tenant_attribute: Annotated[
        str | None,
        typer.Option(help="Proxy and engine keys: span attribute that names the tenant."),
    ] = None,
    policy_scope: Annotated[
        list[str] | None,
        typer.Option(help="Proxy keys: whose policy it may pull; `*` is any. Default: default."),
    ] = None,
    dimension: Annotated[
        list[str] | None,
        typer.Option(help="Keys that ingest: `team=search`, said of all that comes under it."),
    ] = None,
    expires_days: Annotated[int, typer.Option(min=1, max=3650)] = 365,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Make a key; its text is shown this once.

    Roles: admin, finance, engineering_lead, on_call, auditor, viewer; of machines proxy, collector.
    """
    from controlplane import settings
    from controlplane.bootstrap.metadata import KeyRequest
    from controlplane.bootstrap.metadata import create_key as create

    asked = KeyRequest(
        kind=kind,
        role=role,
        tenant=tenant,
        all_tenants=all_tenants,
        tenant_attribute=tenant_attribute,
        policy_scopes=tuple(policy_scope or ("default",)),
        expires_days=expires_days,
        dimensions={one.partition("=")[0]: one.partition("=")[2] for one in dimension or ()},
    )
    loaded = settings.load(config, overrides={"data_dir": data_dir})
    made = create(loaded, asked)
    # A key of another directory than the running system's is refused there: say whose it is.
    sys.stderr.write(f"A key of {loaded.data_dir}; it is shown this once.\n")
    if json:
        print_json(made)
    else:
        print_text(made.text)
        for kid, public in made.policy_keys.items() if kind == "proxy" else ():
            print_text(f"CONTROLPLANE_AGENT_POLICY_KEYS={kid}={public}")
