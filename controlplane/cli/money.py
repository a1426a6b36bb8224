"""Commands about prices and what was paid."""

from typing import Annotated

import typer

from controlplane.cli.options import Config, DataDir, Json, print_json, print_text

app = typer.Typer()


@app.command()
def rerate(  # noqa: PLR0913 - one option each, as the contract has it
    *,
    start: Annotated[str, typer.Option(help="First call start, RFC 3339.")],
    end: Annotated[str, typer.Option(help="First instant after it, RFC 3339.")],
    price_version: Annotated[int | None, typer.Option(help="Default the newest.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only these; default all.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; else only say.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Price the calls of a window with a version of the price book; says what moves first."""
    from controlplane import settings
    from controlplane.bootstrap.rerates import AskedRerate
    from controlplane.bootstrap.rerates import rerate as run
    from controlplane.bootstrap.text import rerated

    asked = AskedRerate(
        start=start,
        end=end,
        price_version=price_version,
        tenants=tuple(tenant or ()),
        is_to_apply=apply,
    )
    answer = run(settings.load(config, overrides={"data_dir": data_dir}), asked)
    print_json(answer) if json else print_text(rerated(answer))
