"""The commands of design section 13: one function each, no logic.

Results go to stdout (with `--json`, one JSON document), logs and errors to stderr. Exit status: 0
done, 1 the command failed, 2 the configuration or the arguments are wrong.
"""

import enum
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from controlplane.core.errors import ConfigError, ControlPlaneError, InvalidInputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys_app = typer.Typer(no_args_is_help=True, help="API and ingest keys.")
export_app = typer.Typer(no_args_is_help=True, help="Signed evidence.")
bench_app = typer.Typer(
    no_args_is_help=True, help="Benchmarks; ratios against peers where installed."
)
app.add_typer(keys_app, name="keys")
app.add_typer(export_app, name="export")
app.add_typer(bench_app, name="bench")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class ServeRole(enum.StrEnum):
    """What one process can be."""

    COLLECTOR = "collector"
    API = "api"
    DASHBOARD = "dashboard"


class InspectedSignal(enum.StrEnum):
    """What an inspected file can hold."""

    TRACES = "traces"
    METRICS = "metrics"


ROLE_MODULES = {
    ServeRole.COLLECTOR: "collector",
    ServeRole.API: "hub",
    ServeRole.DASHBOARD: "dashboard",
}


@app.callback()
def root() -> None:
    """Observability and cost-governance control plane for AI inference."""


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

    keep_out("pandas")
    from controlplane.bootstrap.up import run

    run(settings.load(config, overrides={"data_dir": data_dir}), demo=demo, json=json)


@app.command()
def serve(
    role: Annotated[ServeRole, typer.Option(help="Which process to be.")],
    *,
    data_dir: DataDir = None,
    config: Config = None,
    supervised: Annotated[bool, typer.Option(help="End when stdin closes.")] = False,
) -> None:
    """Run one role, as a cluster does; prints a JSON line when it is ready."""
    from importlib import import_module

    from controlplane import settings
    from controlplane.bootstrap.lean_imports import keep_out

    if role is not ServeRole.DASHBOARD:
        # Streamlit installs pandas, and Arrow would import it at its first array: a second of
        # CPU at every start for what no server here uses.
        keep_out("pandas")
    # Only the module of this role: a collector has no use for Streamlit.
    module = import_module(f"controlplane.bootstrap.{ROLE_MODULES[role]}")
    module.run(settings.load(config, overrides={"data_dir": data_dir}), supervised=supervised)


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

    _print(migrate_database(settings.load(config, overrides={"data_dir": data_dir})))


@app.command("check-config")
def check_config(*, config: Config = None, json: Json = False) -> None:
    """Read the configuration as the roles would, and print what it comes to."""
    from controlplane import settings

    loaded = settings.load(config)
    if json:
        _print_json(loaded)
    else:
        _print("The configuration is good. data_dir is " + str(loaded.data_dir))


@app.command()
def doctor(*, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Look at this machine as the system would use it."""
    from controlplane import settings
    from controlplane.bootstrap.doctor import examine

    checks = examine(settings.load(config, overrides={"data_dir": data_dir}))
    if json:
        _print_json({"ok": all(check.ok for check in checks), "checks": checks})
    else:
        for check in checks:
            _print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
            if check.fix:
                _print(f"      {check.fix}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


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
    _print_json(report) if json else _print(inspection(report))
    if not report.readable:
        raise typer.Exit(1)


@app.command()
def price(
    *,
    provider: Annotated[str, typer.Option(help="gen_ai.provider.name, or an alias.")],
    model: Annotated[str, typer.Option()],
    at: Annotated[str, typer.Option(help="When the call was made, RFC 3339.")],
    usage: Annotated[str, typer.Option(help='JSON such as {"input_tokens": 1000}.')],
    config: Config = None,
    json: Json = False,
) -> None:
    """Show the line items and the total of one call."""
    from controlplane import settings
    from controlplane.bootstrap.offline import price_call
    from controlplane.bootstrap.text import priced

    answer = price_call(settings.load(config), provider=provider, model=model, at=at, usage=usage)
    _print_json(answer) if json else _print(priced(answer))


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
        _print_json(manifest)
    else:
        _print(f"{out}: signed; check it with `controlplane verify {out}`")


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
    _print_json(result) if json else _print(verification(result))
    if not result.ok:
        raise typer.Exit(1)


@keys_app.command("create")
def keys_create(  # noqa: PLR0913 - one option each
    *,
    kind: Annotated[str, typer.Option(help="ingest, proxy, user or service.")],
    role: Annotated[str, typer.Option(help="A role name, see the API documentation.")],
    tenant: Annotated[str, typer.Option()] = "default",
    all_tenants: Annotated[bool, typer.Option(help="Acts for every tenant.")] = False,
    tenant_attribute: Annotated[
        str | None,
        typer.Option(help="Proxy and engine keys: span attribute that names the tenant."),
    ] = None,
    expires_days: Annotated[int, typer.Option(min=1, max=3650)] = 365,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Make a key; its text is shown this once."""
    from controlplane import settings
    from controlplane.bootstrap.metadata import KeyRequest
    from controlplane.bootstrap.metadata import create_key as create

    asked = KeyRequest(
        kind=kind,
        role=role,
        tenant=tenant,
        all_tenants=all_tenants,
        tenant_attribute=tenant_attribute,
        expires_days=expires_days,
    )
    made = create(settings.load(config, overrides={"data_dir": data_dir}), asked)
    if json:
        _print_json(made)
    else:
        _print(made.text)
        for kid, public in made.policy_keys.items() if kind == "proxy" else ():
            _print(f"CONTROLPLANE_AGENT_POLICY_KEYS={kid}={public}")


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
    _print_json(result) if json else _print(figures(result))


@bench_app.command("startup")
def bench_startup(*, json: Json = False) -> None:
    """Seconds from `up --demo` to the first chart in a browser, cold and warm."""
    from controlplane.bench.startup import run
    from controlplane.bootstrap.text import figures

    result = run()
    _print_json(result) if json else _print(figures(result))


def main() -> None:
    """Run the command line; an error is one sentence on stderr."""
    try:
        app()
    except ControlPlaneError as wrong:
        sys.stderr.write(f"controlplane: {wrong}\n")
        sys.exit(2 if isinstance(wrong, ConfigError | InvalidInputError) else 1)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_json(value: object) -> None:
    document = msgspec.json.encode(value, enc_hook=str)
    _print(msgspec.json.format(document, indent=2).decode())
