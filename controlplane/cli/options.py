"""Options that commands share, and how they print."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of settings.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where everything is kept; `check-config` says where."),
]
Server = Annotated[
    str | None,
    typer.Option("--server", help="URL of the API. Default: CONTROLPLANE_CLIENT_URL or loopback."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File with the API key. Default: CONTROLPLANE_CLIENT_KEY."),
]
PolicyScope = Annotated[str, typer.Option("--scope", help="Which group of proxies.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def group(help_text: str) -> typer.Typer:
    """Return an empty group of commands."""
    return typer.Typer(no_args_is_help=True, help=help_text)


def print_text(text: str) -> None:
    """Print to stdout, where results go."""
    sys.stdout.write(text + "\n")


def print_json(value: object) -> None:
    """Print one JSON document to stdout."""
    document = msgspec.json.encode(value, enc_hook=str)
    print_text(msgspec.json.format(document, indent=2).decode())
