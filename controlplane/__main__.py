"""`python -m controlplane` and the `controlplane` console script.

`agent` runs from the base install, which has none of what the other commands are made of.
"""

import argparse
import sys
from pathlib import Path

from controlplane.core.errors import ConfigError, ControlPlaneError, InvalidInputError

MAIN_PARTS = frozenset(
    {"typer", "rich", "structlog", "duckdb", "pyarrow", "sqlalchemy", "litestar"}
)
"""Of the `server` extra: without one of them it is not installed."""


def main() -> None:
    """Run the command line; an error is one sentence on stderr."""
    try:
        from controlplane.cli.main import main as whole  # noqa: PLC0415 - not in the base install
    except ModuleNotFoundError as missing:
        if missing.name not in MAIN_PARTS:
            raise
        _agent_alone(sys.argv[1:])
    else:
        whole()


def _agent_alone(arguments: list[str]) -> None:
    from controlplane.agent.main import run  # noqa: PLC0415 - the whole command line needs it not

    parser = argparse.ArgumentParser(
        "controlplane",
        description="The node agent. Every other command needs `inference-controlplane[server]`.",
    )
    commands = parser.add_subparsers(metavar="agent", required=True)
    agent = commands.add_parser("agent", help="keep policy and leases current on this machine")
    agent.add_argument(
        "-c", "--config", type=Path, help="a TOML file; the environment goes before it"
    )
    try:
        run(parser.parse_args(arguments).config)
    except ControlPlaneError as wrong:
        sys.stderr.write(f"controlplane: {wrong}\n")
        sys.exit(2 if isinstance(wrong, ConfigError | InvalidInputError) else 1)


if __name__ == "__main__":
    main()
