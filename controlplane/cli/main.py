"""The commands of design section 13: one function each, no logic; a file a group.

Results go to stdout (with `--json`, one JSON document), logs and errors to stderr. Exit status: 0
done, 1 the command failed, 2 the configuration or the arguments are wrong.
"""

import sys
from typing import Annotated

import typer

from controlplane.cli import (
    bench,
    erase,
    export,
    keys,
    money,
    offline,
    policy,
    reconcile,
    replay,
    run,
    simulate,
)
from controlplane.cli.options import print_text
from controlplane.core.errors import ConfigError, ControlPlaneError, InvalidInputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for commands in (
    run,
    offline,
    export,
    money,
    reconcile,
    keys,
    policy,
    replay,
    simulate,
    erase,
    bench,
):
    app.add_typer(commands.app)


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        from importlib.metadata import version

        print_text(f"controlplane {version('inference-controlplane')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
) -> None:
    """Observability and cost-governance control plane for AI inference."""


def main() -> None:
    """Run the command line; an error is one sentence on stderr."""
    try:
        app()
    except ControlPlaneError as wrong:
        sys.stderr.write(f"controlplane: {wrong}\n")
        sys.exit(2 if isinstance(wrong, ConfigError | InvalidInputError) else 1)
