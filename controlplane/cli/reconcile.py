"""Reconcile the ledger with what providers billed."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Config, DataDir, Json, KeyFile, Server, print_json, print_text

app = typer.Typer()


@app.command()
def reconcile(  # noqa: PLR0913 - one option each
    files: Annotated[list[Path], typer.Argument(help="Bills and usage reports of one provider.")],
    *,
    provider: Annotated[str, typer.Option(help="gen_ai.provider.name, or an alias.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="Whose calls; default every tenant's.")
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="openai, anthropic, litellm, opencost, aws, focus or plain."),
    ] = None,
    mapping: Annotated[
        str | None, typer.Option("--map", help="Columns of a plain table: day=Date,cost=Amount,…")
    ] = None,
    zone: Annotated[str, typer.Option(help="IANA zone of the bill's days.")] = "UTC",
    tolerance_percent: Annotated[
        str, typer.Option(help="Of the bill that may stay unexplained.")
    ] = "0.5",
    tolerance_usd: Annotated[str, typer.Option(help="Or this much, if it is more.")] = "1",
    record: Annotated[bool, typer.Option(help="Keep the report for the dashboard.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Explain the difference between a provider's bill and the ledger; changes nothing.

    A running system has its ledger open: --server asks its API, for bills of 4 MiB packed at most.
    """
    from controlplane import settings
    from controlplane.bootstrap.reconciling import ReconcileOrder
    from controlplane.bootstrap.reconciling import reconcile as run
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.remote_bills import reconcile_remotely
    from controlplane.bootstrap.text import reconciliation

    order = ReconcileOrder(
        provider=provider,
        tenants=tuple(tenant or ()),
        source=file_format,
        mapping=mapping,
        zone=zone,
        tolerance_percent=tolerance_percent,
        tolerance_usd=tolerance_usd,
        record=record,
    )
    if server is None:
        report = run(settings.load(config, overrides={"data_dir": data_dir}), files, order)
    else:
        with RemoteApi.from_environment(server=server, key_file=key_file) as api:
            report = reconcile_remotely(api, files, order)
    print_json(report) if json else print_text(reconciliation(report))
