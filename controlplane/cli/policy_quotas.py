"""Keys and users that spent too fast and are held back: who they are, and the end of it by hand."""

from typing import Annotated
from urllib.parse import quote

import typer

from controlplane.cli.options import (
    Json,
    KeyFile,
    PolicyScope,
    Server,
    group,
    print_json,
    print_text,
)

policy_quotas_app = group("Quotas that `velocity` limits began: who is held back, and its end.")


@policy_quotas_app.command("list")
def quotas_list(
    *,
    scope: PolicyScope = "default",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """List who spent too fast and is held back, the dearest first."""
    from controlplane.bootstrap.remote import RemoteApi

    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        found = api.get("/policy/quotas", scope=scope)
    if json:
        print_json(found)
        return
    if not found["rows"]:
        print_text(f"Nobody is held back in {scope!r}.")
    for row in found["rows"]:
        print_text(
            f"{row['id']}  {row['tenant']}  {row['name']}  ${row['spent_usd']} of "
            f"${row['limit_usd']} in {row['window_seconds']} s  until {row['until']}"
        )


@policy_quotas_app.command("end")
def quotas_end(
    quota: Annotated[str, typer.Argument(help="Id of the quota, as the list has it.")],
    *,
    scope: PolicyScope = "default",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """End a quota now; for the length of its window its key or user gets no other."""
    from controlplane.bootstrap.remote import RemoteApi

    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        api.delete(f"/policy/quotas/{quote(quota, safe='')}", scope=scope)
    print_json({"ended": quota, "scope": scope}) if json else print_text(f"{scope}: ended {quota}")
