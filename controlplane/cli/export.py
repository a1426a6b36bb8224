"""Signed evidence: written, and checked offline."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Config, DataDir, Json, group, print_json, print_text

app = typer.Typer()
export_app = group("Signed evidence.")
app.add_typer(export_app, name="export")


@export_app.command("traces")
def export_traces(  # noqa: PLR0913 - one option each, as the contract has it
    out: Annotated[Path, typer.Argument(help="Directory to write, made anew.")],
    *,
    start: Annotated[str, typer.Option(help="First instant, RFC 3339.")],
    end: Annotated[str, typer.Option(help="First instant after it, RFC 3339.")],
    tenant: Annotated[str, typer.Option()] = "default",
    format: Annotated[str, typer.Option(help="parquet or csv.")] = "parquet",  # noqa: A002 - the option's name
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write calls and their spans with a signed manifest."""
    from controlplane import settings
    from controlplane.bootstrap.evidence import ExportOrder
    from controlplane.bootstrap.evidence import export_traces as export

    loaded = settings.load(config, overrides={"data_dir": data_dir})
    order = ExportOrder(tenant=tenant, start=start, end=end, file_format=format)
    manifest = export(loaded, out, order)
    if json:
        print_json(manifest)
    else:
        print_text(f"{out}: signed; check it with `controlplane verify {out}`")


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
