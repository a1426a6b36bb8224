"""Commands that need no running system: look into payload files, price a call."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Config, DataDir, Json, print_json, print_text

app = typer.Typer()


class InspectedSignal(enum.StrEnum):
    """What an inspected file can hold."""

    TRACES = "traces"
    METRICS = "metrics"


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(help="OTLP payloads of one run, in any order.")],
    *,
    signal: Annotated[
        InspectedSignal | None, typer.Option(help="What the files hold; else told by their names.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Decode OTLP payload files as ingest would, and show the calls counted once and priced."""
    from controlplane import settings
    from controlplane.bootstrap.offline import inspect_files
    from controlplane.bootstrap.text import inspection

    report = inspect_files(settings.load(config), files, signal=signal)
    print_json(report) if json else print_text(inspection(report))
    if not report.readable:
        raise typer.Exit(1)


@app.command()
def price(  # noqa: PLR0913 - one option each, as the contract has it
    *,
    provider: Annotated[str, typer.Option(help="gen_ai.provider.name, or an alias.")],
    model: Annotated[str, typer.Option()],
    at: Annotated[str, typer.Option(help="When the call was made, RFC 3339.")],
    usage: Annotated[str, typer.Option(help='JSON such as {"input_tokens": 1000}.')],
    service_tier: Annotated[str, typer.Option(help="batch, flex, priority, …")] = "",
    price_version: Annotated[
        int | None, typer.Option(help="As the book was then; default now.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show the line items and the total of one call."""
    from controlplane import settings
    from controlplane.bootstrap.offline import CallToPrice, price_call
    from controlplane.bootstrap.text import priced

    call = CallToPrice(
        provider=provider,
        model=model,
        at=at,
        usage=usage,
        service_tier=service_tier,
        price_version=price_version,
    )
    answer = price_call(settings.load(config, overrides={"data_dir": data_dir}), call)
    print_json(answer) if json else print_text(priced(answer))
