"""Benchmarks, beside peers where they are installed."""

from typing import Annotated

import typer

from controlplane.cli.options import Json, group, print_json, print_text

app = typer.Typer()
bench_app = group("Benchmarks; ratios against peers where installed.")
app.add_typer(bench_app, name="bench")


@bench_app.command("ingest")
def bench_ingest(
    *,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Load per measurement.")] = 10.0,
    json: Json = False,
) -> None:
    """Spans per CPU-second of every stage and of the whole, beside Rotel and Phoenix."""
    from controlplane.bench.ingest import run
    from controlplane.bootstrap.text import figures

    result = run(seconds=seconds)
    print_json(result) if json else print_text(figures(result))


@bench_app.command("startup")
def bench_startup(*, json: Json = False) -> None:
    """Seconds from `up --demo` to the first chart in a browser, cold and warm."""
    from controlplane.bench.startup import run
    from controlplane.bootstrap.text import figures

    result = run()
    print_json(result) if json else print_text(figures(result))


@bench_app.command("admission")
def bench_admission(
    *,
    calls: Annotated[int, typer.Option(min=1_000, max=1_000_000, help="Per stage.")] = 20_000,
    json: Json = False,
) -> None:
    """Processor time of admitting, settling and refusing one call, with no network."""
    from controlplane.bench.admission import run
    from controlplane.bootstrap.text import figures

    result = run(calls=calls)
    print_json(result) if json else print_text(figures(result))


@bench_app.command("policy")
def bench_policy(
    *,
    subscribers: Annotated[
        list[int] | None, typer.Option(min=1, help="Sizes. Default: 1000 and 10000.")
    ] = None,
    publishes: Annotated[int, typer.Option(min=1, max=1_000)] = 10,
    agents: Annotated[int, typer.Option(min=1, max=5_000, help="Whole agents beside them.")] = 20,
    every_model: Annotated[
        bool, typer.Option("--every-model", help="With a hard budget that needs every rate.")
    ] = False,
    json: Json = False,
) -> None:
    """Publish to received and applied at 1,000 and 10,000 subscribers, and their reconnection."""
    from controlplane.bench.policy import SIZES, run
    from controlplane.bootstrap.text import figures

    sizes = tuple(subscribers) if subscribers else SIZES
    result = run(sizes, publishes=publishes, agents=agents, every_model=every_model)
    print_json(result) if json else print_text(figures(result))


@bench_app.command("price")
def bench_price(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Of pricing.")] = 5.0,
    calls: Annotated[
        int, typer.Option(min=1_000, max=50_000_000, help="Re-rated; the claim is 10,000,000.")
    ] = 1_000_000,
    json: Json = False,
) -> None:
    """Calls priced per CPU-second, and a re-rate of many calls in a real store."""
    from controlplane.bench.price import run
    from controlplane.bootstrap.text import figures

    result = run(seconds=seconds, calls=calls)
    print_json(result) if json else print_text(figures(result))
