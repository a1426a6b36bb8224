"""Signed evidence: written, and checked offline."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from controlplane.cli.options import (
    Config,
    DataDir,
    Json,
    KeyFile,
    Server,
    group,
    print_json,
    print_text,
)
from controlplane.core.calendar import Period

app = typer.Typer()
export_app = group("Signed evidence.")
app.add_typer(export_app, name="export")

Out = Annotated[Path, typer.Argument(help="Directory to write, made anew.")]
Start = Annotated[str, typer.Option(help="First instant, RFC 3339.")]
End = Annotated[str, typer.Option(help="First instant after it, RFC 3339.")]
Tenant = Annotated[str, typer.Option()]
Format = Annotated[str, typer.Option("--format", help="parquet or csv.")]


@export_app.command("traces")
def export_traces(  # noqa: PLR0913 - one option each, as the contract has it
    out: Out,
    *,
    start: Start,
    end: End,
    tenant: Tenant = "default",
    file_format: Format = "parquet",
    data_dir: DataDir = None,
    config: Config = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Write one row a call, named by its trace and billing span: the rows of `export calls`."""
    asked = _order(kind="traces", tenant=tenant, start=start, end=end, file_format=file_format)
    _export(out, asked, at=_At(config, data_dir, server, key_file), json=json)


@export_app.command("calls")
def export_calls(  # noqa: PLR0913 - one option each, as the contract has it
    out: Out,
    *,
    start: Start,
    end: End,
    tenant: Tenant = "default",
    file_format: Format = "parquet",
    data_dir: DataDir = None,
    config: Config = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Write one row a call, its cost and how it was found, with a signed manifest."""
    asked = _order(kind="calls", tenant=tenant, start=start, end=end, file_format=file_format)
    _export(out, asked, at=_At(config, data_dir, server, key_file), json=json)


@export_app.command("focus")
def export_focus(  # noqa: PLR0913 - one option each, as the contract has it
    out: Out,
    *,
    start: Start,
    end: End,
    tenant: Tenant = "default",
    file_format: Format = "parquet",
    charge_period: Annotated[
        Period, typer.Option(help="hour or day, in the reporting zone.")
    ] = Period.DAY,
    currency: Annotated[str, typer.Option(help="BillingCurrency, if it has rates.")] = "USD",
    data_dir: DataDir = None,
    config: Config = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Write charges as FOCUS 1.2: a row a meter and price, with a signed manifest."""
    asked = _order(
        kind="focus",
        tenant=tenant,
        start=start,
        end=end,
        file_format=file_format,
        charge_period=charge_period,
        currency=currency.upper(),
    )
    _export(out, asked, at=_At(config, data_dir, server, key_file), json=json)


@export_app.command("statement")
def export_statement(  # noqa: PLR0913 - one option each, as the contract has it
    out: Out,
    *,
    start: Start,
    end: End,
    tenant: Tenant = "default",
    by: Annotated[
        str, typer.Option(help="team, project, feature, customer, api_key, environment or region.")
    ] = "team",
    owner: Annotated[str | None, typer.Option(help="Only this team's, customer's, …")] = None,
    shared: Annotated[
        str, typer.Option(help="Cost without an owner: none, proportional, even or fixed.")
    ] = "none",
    share: Annotated[
        list[str] | None,
        typer.Option(help="With fixed: an owner's weight, as in search=3; once an owner."),
    ] = None,
    idle: Annotated[
        str,
        typer.Option(
            help="Idle GPU time that the tenant bears: none, proportional (to its pool's calls), even or fixed."
        ),
    ] = "none",
    idle_share: Annotated[
        list[str] | None, typer.Option(help="With idle fixed: as share; once an owner.")
    ] = None,
    currency: Annotated[str, typer.Option(help="Billing currency, if it has rates.")] = "USD",
    data_dir: DataDir = None,
    config: Config = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Write showback statements as PDF and CSV, one per owner, with a signed manifest."""
    asked = _order(
        kind="statement",
        tenant=tenant,
        start=start,
        end=end,
        file_format="csv",
        by=by,
        owner=owner,
        shared_rule=shared,
        shares=share or [],
        idle_rule=idle,
        idle_shares=idle_share or [],
        currency=currency.upper(),
    )
    _export(out, asked, at=_At(config, data_dir, server, key_file), json=json)


def _order(**said: object) -> dict[str, object]:
    return said


class _At(NamedTuple):
    """Where the numbers are: a data directory, or a running system's API."""

    config: Path | None
    data_dir: Path | None
    server: str | None
    key_file: Path | None


def _export(out: Path, asked: dict[str, object], *, at: _At, json: bool) -> None:
    import msgspec

    from controlplane import settings
    from controlplane.bootstrap.evidence import ExportOrder, export
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.remote_exports import export_remotely
    from controlplane.bootstrap.text import exported

    order = msgspec.convert(asked, ExportOrder)
    if at.server is None:
        loaded = settings.load(at.config, overrides={"data_dir": at.data_dir})
        manifest = export(loaded, out, order)
    else:
        with RemoteApi.from_environment(server=at.server, key_file=at.key_file) as api:
            manifest = export_remotely(api, out, order)
    if json:
        print_json(manifest)
    else:
        print_text(exported(out, manifest))


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="An export's directory.")],
    *,
    public_key: Annotated[
        Path | None, typer.Option(help="The signer's key, got another way.")
    ] = None,
    json: Json = False,
) -> None:
    """Check an export offline: bytes, rows, totals and signature."""
    from controlplane.bootstrap.evidence import verify as check
    from controlplane.bootstrap.text import verification

    result = check(directory, public_key=public_key)
    print_json(result) if json else print_text(verification(result))
    if not result.ok:
        raise typer.Exit(1)
