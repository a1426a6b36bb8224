"""`controlplane up`: the embedded system as three supervised processes, with or without a demo."""

import json as json_text
import signal
import sys
import threading
from types import FrameType

import msgspec

from controlplane.bootstrap.one_owner import own
from controlplane.bootstrap.places import LOGS_DIR, SPANS_FILE, UP_LOCK
from controlplane.bootstrap.supervisor import Role, Supervisor
from controlplane.core.errors import ConfigError
from controlplane.settings import Settings, is_loopback

POLL_SECONDS = 0.5


_MAKE_KEY = "controlplane keys create --kind user --role admin --all-tenants"


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything listens, and the link that signs one browser in, once."""

    otlp_grpc: str
    otlp_http: str
    api: str
    dashboard: str
    sign_in_url: str
    metrics: str
    data_dir: str


def run(settings: Settings, *, demo: bool, json: bool) -> None:
    """Start everything, say where it is, and stop it all on SIGINT or SIGTERM.

    Raises:
        ConfigError: a host is not loopback: that needs keys and TLS, so `serve` and not `up`.
        UnavailableError: another `up` runs on the same data.
        RoleFailedError: a role did not start; its log has the reason.
    """
    for name, host in (("api", settings.api.host), ("dashboard", settings.dashboard.host)):
        if not is_loopback(host):
            raise ConfigError(f"{name}.host", f"{host} is not loopback", "Use `serve` for that")
    # Before anything of the other is touched: its logs would be cut, its spool opened twice.
    own(settings.data_dir / UP_LOCK, by="`controlplane up`")
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    is_new = not (settings.data_dir / SPANS_FILE).exists()
    supervisor = Supervisor(settings.data_dir / LOGS_DIR)
    try:
        addresses = _start(settings, supervisor)
        _say(addresses, demo=demo, json=json)
        if demo:
            _start_demo(settings, supervisor, addresses, history=is_new)
        _supervise(supervisor, stopping)
    finally:
        supervisor.stop()


def _start(settings: Settings, supervisor: Supervisor) -> Addresses:
    env = role_environment(settings)
    hub = supervisor.start("api", ["serve", "--role", "api", "--supervised"], env)
    collector = supervisor.start("collector", ["serve", "--role", "collector", "--supervised"], env)
    if settings.api.port:
        dashboard = _start_dashboard(
            supervisor, env, f"http://{settings.api.host}:{settings.api.port}"
        )
        api = hub.wait_ready()
    else:
        api = hub.wait_ready()
        dashboard = _start_dashboard(supervisor, env, str(api["api"]))
    otlp, ui = collector.wait_ready(), dashboard.wait_ready()
    return Addresses(
        otlp_grpc=str(otlp["grpc"]),
        otlp_http=str(otlp["http"]),
        metrics=str(otlp["metrics"]),
        api=str(api["api"]),
        dashboard=str(ui["dashboard"]),
        sign_in_url=f"{ui['dashboard']}/sign-in?token={api['sign_in_token']}",
        data_dir=str(settings.data_dir),
    )


def _start_demo(
    settings: Settings, supervisor: Supervisor, addresses: Addresses, *, history: bool
) -> None:
    # Imported when the roles are up: databases and generators would hold up their start.
    from controlplane.bootstrap.demo import environment  # noqa: PLC0415 - said above
    from controlplane.bootstrap.demo_order import make_order  # noqa: PLC0415 - said above

    order = make_order(settings, otlp=addresses.otlp_http, api=addresses.api, history=history)
    supervisor.start("demo", ["demo"], environment(order))


def _start_dashboard(supervisor: Supervisor, env: dict[str, str], api_url: str) -> Role:
    told = {**env, "CONTROLPLANE_DASHBOARD_API_URL": api_url}
    return supervisor.start("dashboard", ["serve", "--role", "dashboard", "--supervised"], told)


def role_environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which a role reads exactly these settings."""
    return dict(_flat("CONTROLPLANE", msgspec.to_builtins(settings, enc_hook=str)))


def _flat(prefix: str, node: object) -> list[tuple[str, str]]:
    if not isinstance(node, dict):
        text = msgspec.json.encode(node).decode() if isinstance(node, list | tuple) else str(node)
        return [] if node is None else [(prefix, text)]
    separator = "_" if prefix == "CONTROLPLANE" else "__"
    return [
        pair
        for key, value in node.items()
        for pair in _flat(f"{prefix}{separator}{key.upper()}", value)
    ]


def _supervise(supervisor: Supervisor, stopping: threading.Event) -> None:
    while not stopping.wait(POLL_SECONDS):
        for role in supervisor.roles:
            if role.name == "demo" and role.ready:
                told = role.take_ready()
                sys.stderr.write(f"Demo        {told['spans']} spans sent in {told['seconds']} s\n")
        ended = supervisor.ended()
        if ended is not None:
            sys.stderr.write(f"controlplane: {ended.name} ended by itself; see {ended.log}\n")
            if ended.name != "demo":
                return
            supervisor.roles.remove(ended)


def _say(addresses: Addresses, *, demo: bool, json: bool) -> None:
    if json:
        told = json_text.dumps(msgspec.to_builtins(addresses))
    else:
        told = "\n".join(
            [
                f"Dashboard   {addresses.sign_in_url}",
                f"API         {addresses.api}/api/v1",
                f"OTLP        http {addresses.otlp_http}   grpc {addresses.otlp_grpc}",
                f"Data        {addresses.data_dir}",
                *(["Demo        ninety days of history are on their way"] if demo else []),
                "",
                f"Send your own: OTEL_EXPORTER_OTLP_ENDPOINT={addresses.otlp_http}",
                f"A key for the API: {_MAKE_KEY} --data-dir {addresses.data_dir}",
                "The dashboard link works once. Ctrl-C stops everything.",
            ]
        )
    sys.stdout.write(told + "\n")
    sys.stdout.flush()
