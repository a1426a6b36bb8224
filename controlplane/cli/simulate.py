"""Seeded simulators that drive the shipped code."""

from typing import Annotated

import msgspec
import typer

from controlplane.cli.options import Json, group, print_json, print_text

app = typer.Typer()
simulate_app = group("Seeded simulators of the shipped code; the seed alone reproduces a run.")
app.add_typer(simulate_app, name="simulate")


@simulate_app.command("budget")
def budget(
    *,
    seed: Annotated[str, typer.Option(help="Whatever you like; equal seeds, equal figures.")],
    schedules: Annotated[int, typer.Option(min=1, help="How many runs.")] = 200,
    workers: Annotated[
        int,
        typer.Option("--workers", "--jobs", min=1, max=64, help="Processes to run them in."),
    ] = 1,
    json: Json = False,
) -> None:
    """Ledger, leases and agents under loss, crashes, skew and an adversary: is the limit kept?"""
    from controlplane.bootstrap.simulation import simulate_budgets
    from controlplane.bootstrap.text import figures

    result = simulate_budgets(seed, schedules, workers=workers)
    print_json(result) if json else print_text(figures(msgspec.to_builtins(result)))
    if result.overspend_nusd:
        raise typer.Exit(1)
