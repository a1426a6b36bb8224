"""Commands about prices and what was paid."""

import enum
from pathlib import Path
from typing import Annotated

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

app = typer.Typer()
prices_app = group("The price book.")
app.add_typer(prices_app, name="prices")
rates_app = group("Exchange rates.")
app.add_typer(rates_app, name="rates")


class ImportedFormat(enum.StrEnum):
    """What a price file can be."""

    LITELLM = "litellm"
    CSV = "csv"
    GENAI_PRICES = "genai-prices"


@prices_app.command("import")
def import_prices(  # noqa: PLR0913 - one option each
    file: Annotated[
        Path | None, typer.Argument(help="Default: the data set that came with the program.")
    ] = None,
    *,
    format: Annotated[ImportedFormat, typer.Option(help="What the file is.")],  # noqa: A002 - the option's name
    apply: Annotated[bool, typer.Option("--apply", help="Record it; else only say.")] = False,
    effective: Annotated[
        str | None, typer.Option(help="First UTC day of prices without a date; default today.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Calls to compare; default 30 days.")] = None,
    end: Annotated[str | None, typer.Option(help="Default now.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Say what a price list changes and what that moves of stored calls; --apply records it."""
    from controlplane import settings
    from controlplane.bootstrap.offline import parse_instant
    from controlplane.bootstrap.price_imports import AskedImport
    from controlplane.bootstrap.price_imports import import_prices as run
    from controlplane.bootstrap.text import imported
    from controlplane.pipelines.import_prices import PriceFormat

    asked = AskedImport(
        file=file,
        format=PriceFormat(format.value),
        is_to_apply=apply,
        effective=parse_instant(effective, "effective").date() if effective else None,
        start=start,
        end=end,
    )
    answer = run(settings.load(config, overrides={"data_dir": data_dir}), asked)
    print_json(answer) if json else print_text(imported(answer))


@rates_app.command("import")
def import_rates(
    file: Annotated[Path, typer.Argument(help="CSV: currency,day,usd_per_unit.")],
    *,
    source: Annotated[str, typer.Option(help="Where the rates are from, e.g. ecb.")],
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Append dated rates: USD for one unit on a UTC day; the last record of a day holds."""
    from controlplane import settings
    from controlplane.bootstrap.exchange_rates import import_rates as run

    answer = run(settings.load(config, overrides={"data_dir": data_dir}), file, source=source)
    print_json(answer) if json else print_text(
        f"{answer.rates} rates of {', '.join(answer.currencies)} recorded"
    )


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
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Price the calls of a window with a version of the price book; says what moves first.

    Beside a running system on this machine nothing more is needed; --server asks another's API.
    """
    from controlplane import settings
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.rerates import AskedRerate, rerate_remotely
    from controlplane.bootstrap.rerates import rerate as run
    from controlplane.bootstrap.text import rerated

    asked = AskedRerate(
        start=start,
        end=end,
        price_version=price_version,
        tenants=tuple(tenant or ()),
        is_to_apply=apply,
    )
    if server is None:
        answer = run(settings.load(config, overrides={"data_dir": data_dir}), asked)
    else:
        with RemoteApi.from_environment(server=server, key_file=key_file) as api:
            answer = rerate_remotely(api, asked)
    print_json(answer) if json else print_text(rerated(answer))


@app.command()
def whatif(  # noqa: PLR0913 - one option each
    *,
    start: Annotated[str, typer.Option(help="First call start, RFC 3339.")],
    end: Annotated[str, typer.Option(help="First instant after it, RFC 3339.")],
    switch_model: Annotated[str | None, typer.Option(help="MODEL or PROVIDER/MODEL.")] = None,
    service_tier: Annotated[str | None, typer.Option(help="batch, flex, …")] = None,
    cache_permille: Annotated[
        int | None, typer.Option(help="Thousandths of text input read from the cache.")
    ] = None,
    max_input_tokens: Annotated[int | None, typer.Option(help="Cut longer inputs.")] = None,
    tokens_permille: Annotated[
        int | None, typer.Option(help="Thousandths as many text tokens: another tokenizer.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only calls of this model.")] = None,
    team: Annotated[str | None, typer.Option(help="Only calls of this team.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only these tenants.")] = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Price recorded calls as they would have been, and show the formula; nothing is changed."""
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.text import compared

    provider, slash, name = (switch_model or "").partition("/")
    scenario = {
        "provider": provider if slash else None,
        "model": (name if slash else provider) or None,
        "service_tier": service_tier,
        "cache_permille": cache_permille,
        "max_input_tokens": max_input_tokens,
        "tokens_permille": tokens_permille,
    }
    asked = {"start": start, "end": end, "scenario": scenario, "model": model, "team": team}
    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        answer = api.post("/what-if", {**asked, "tenants": tuple(tenant or ())})
    print_json(answer) if json else print_text(compared(answer))
