"""Try a policy, a budget or prices on recorded calls."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Json, KeyFile, Server, print_json, print_text

app = typer.Typer()

Listed = Annotated[int, typer.Option("--limit", min=0, max=10_000, help="Calls to list.")]


@app.command("replay")
def replay(  # noqa: PLR0913 - one option each
    *,
    start: Annotated[str, typer.Option(help="First instant, RFC 3339.")],
    end: Annotated[str, typer.Option(help="First instant after, RFC 3339.")],
    policy: Annotated[
        Path | None, typer.Option(help="YAML of a scope's rules: routes, caps, throttles, ….")
    ] = None,
    budget: Annotated[
        Path | None, typer.Option(help="YAML list of budgets, with the fields of POST /budgets.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="YAML list of own prices.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only these tenants.")] = None,
    limit: Listed = 1_000,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Say what recorded calls would have cost, who would have been blocked, and how much slower.

    Dry: nothing is changed, and the report states what it assumes.
    """
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.replays import ReplayFiles, run
    from controlplane.bootstrap.text import replayed

    files = ReplayFiles(policy=policy, budget=budget, prices=prices)
    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        report = run(api, files, start=start, end=end, tenants=tuple(tenant or ()), limit=limit)
    print_json(report) if json else print_text(replayed(report))
