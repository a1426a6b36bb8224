"""Commands that start, prepare and check the system."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.options import Config, DataDir, Json, print_json, print_text

app = typer.Typer()


class ServeRole(enum.StrEnum):
    """What one process can be."""

    COLLECTOR = "collector"
    API = "api"
    DASHBOARD = "dashboard"


ROLE_MODULES = {
    ServeRole.COLLECTOR: "collector",
    ServeRole.API: "hub",
    ServeRole.DASHBOARD: "dashboard",
}


@app.command()
def up(
    *,
    data_dir: DataDir = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Ninety days of history, live calls.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Start everything on loopback; Ctrl-C stops it."""
    from controlplane import settings
    from controlplane.bootstrap.lean_imports import keep_out

    loaded = settings.load(config, overrides={"data_dir": data_dir})
    keep_out("pandas")
    from controlplane.bootstrap.up import run

    run(loaded, demo=demo, json=json)


@app.command()
def serve(
    role: Annotated[
        ServeRole,
        typer.Option(metavar="ROLE", help="Which process to be: collector, api, dashboard."),
    ],
    *,
    data_dir: DataDir = None,
    config: Config = None,
    supervised: Annotated[bool, typer.Option(help="End when stdin closes.")] = False,
) -> None:
    """Run one role, as a cluster does; prints a JSON line when it is ready."""
    from importlib import import_module

    from controlplane import settings
    from controlplane.bootstrap.allocators import keep_freed_memory
    from controlplane.bootstrap.lean_imports import keep_out

    # First: a wrong line is said at once, and not after the libraries of a whole role.
    loaded = settings.load(config, overrides={"data_dir": data_dir})
    if role is not ServeRole.DASHBOARD:
        # Streamlit installs pandas, and Arrow would import it at its first array: a second of
        # CPU at every start for what no server here uses.
        keep_out("pandas")
        keep_freed_memory()
    # Only the module of this role: a collector has no use for Streamlit.
    module = import_module(f"controlplane.bootstrap.{ROLE_MODULES[role]}")
    module.run(loaded, supervised=supervised)


@app.command(hidden=True)
def demo() -> None:
    """Follow a demonstration order from the environment; `up --demo` starts it."""
    from controlplane.bootstrap.demo import run

    run()


@app.command()
def agent(
    *,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file.")] = None,
) -> None:
    """Pull policy and keep leases for the proxies of this machine."""
    from controlplane.agent.main import run

    run(config)


@app.command()
def migrate(*, data_dir: DataDir = None, config: Config = None) -> None:
    """Bring the metadata database to this version's schema."""
    from controlplane import settings
    from controlplane.bootstrap.metadata import migrate_database

    print_text(migrate_database(settings.load(config, overrides={"data_dir": data_dir})))


@app.command("check-config")
def check_config(*, config: Config = None, json: Json = False) -> None:
    """Read the configuration and its files as the roles would, and print what it comes to."""
    from controlplane import settings
    from controlplane.bootstrap.check_files import check_files

    loaded = settings.load(config)
    check_files(loaded)
    if json:
        print_json(loaded)
    else:
        print_text("The configuration is good. data_dir is " + str(loaded.data_dir))


@app.command()
def doctor(*, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Look at this machine as the system would use it."""
    from controlplane import settings
    from controlplane.bootstrap.doctor import examine

    checks = examine(settings.load(config, overrides={"data_dir": data_dir}))
    if json:
        print_json({"ok": all(check.ok for check in checks), "checks": checks})
    else:
        for check in checks:
            print_text(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
            if check.fix:
                print_text(f"      {check.fix}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
