"""Forget a person."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Json, print_json, print_text

app = typer.Typer()


@app.command()
def erase(
    *,
    user: Annotated[str, typer.Option(help="The user, as calls name them.")],
    tenant: Annotated[str, typer.Option(help="Whose user: others' are not touched.")] = "default",
    apply: Annotated[bool, typer.Option("--apply", help="Do it; else only count.")] = False,
    server: Annotated[
        str | None,
        typer.Option(help="URL of the API. Default: CONTROLPLANE_CLIENT_URL or loopback."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Default: CONTROLPLANE_CLIENT_KEY.")
    ] = None,
    json: Json = False,
) -> None:
    """Take a user out of every span and call; usage and cost stay. Dry run by default."""
    from controlplane.bootstrap.erasing import erase as ask
    from controlplane.bootstrap.remote import RemoteApi

    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        answer = ask(api, tenant=tenant, user=user, apply=apply)
    if json:
        print_json(answer)
        return
    done = "erased from" if answer.applied else "would be erased from (dry run)"
    print_text(f"{user} of tenant {tenant} {done} {answer.spans} spans of {answer.traces} traces")
