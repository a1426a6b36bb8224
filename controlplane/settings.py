"""One frozen Settings; the only reader of the environment and the configuration file.

Precedence: command line > environment (`CONTROLPLANE_API__PORT=8080`, `__` between levels) > YAML
file > default. A key nobody knows is an error: a misspelt limit must not silently be the default.
"""

import difflib
import os
from collections.abc import Mapping
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from controlplane.core.errors import ConfigError
from controlplane.core.fiscal import Anchor, FiscalCalendar, NamedBy, Pattern, Weekday

ENV_PREFIX: Final = "CONTROLPLANE_"
CONFIG_ENV: Final = "CONTROLPLANE_CONFIG"
RESERVED_ENV: Final = (
    "CONTROLPLANE_AGENT_",
    "CONTROLPLANE_CLIENT_",
    "CONTROLPLANE_DASHBOARD_API_URL",
    "CONTROLPLANE_DASHBOARD_OTLP_URL",
    "CONTROLPLANE_DASHBOARD_LANGUAGE",
    "CONTROLPLANE_DASHBOARD_ALLOWED_HOSTS",
    "CONTROLPLANE_DASHBOARD_REQUEST_TIMEOUT_SECONDS",
    "CONTROLPLANE_DASHBOARD_HOST",
    "CONTROLPLANE_DASHBOARD_PORT",
    "CONTROLPLANE_DEMO_",
    "CONTROLPLANE_TEST_",
)
"""Variables that other programs of ours read; not settings of the server."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: closed, so that a misspelt key is refused."""


class CollectorSettings(_Section, frozen=True, kw_only=True):
    """The OTLP receivers and the spool behind them."""

    host: str = "127.0.0.1"  # loopback unless told otherwise
    grpc_port: Port = 4317
    http_port: Port = 4318
    metrics_port: Port = 9464  # the collector's own /metrics
    max_compressed_bytes: Positive = 16 * 2**20
    max_decompressed_bytes: Positive = 64 * 2**20
    max_spans_per_request: Positive = 50_000
    max_age_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0  # of a span's start; 0: any
    spool_max_bytes: Positive = 4 * 2**30
    max_connections: Positive = 1_024  # of each receiver
    header_timeout_seconds: Seconds = 10.0
    body_timeout_seconds: Seconds = 60.0
    tls_cert_file: Path | None = None  # PEM; with the key, both receivers speak TLS only
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None  # a client must show a certificate it signed
    scrape_jobs: Path | None = None  # YAML list of endpoints to scrape


class ApiSettings(_Section, frozen=True, kw_only=True):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: Port = 8080
    requests_per_minute: Positive = 6_000  # per principal
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")  # of the Host header


class DashboardSettings(_Section, frozen=True, kw_only=True):
    """The Streamlit server."""

    host: str = "127.0.0.1"
    port: Port = 8501


class BudgetSettings(_Section, frozen=True, kw_only=True):
    """Leases and their settlement."""

    lease_ttl_seconds: Seconds = 60.0
    unenforced_grace_seconds: Seconds = 10.0


class PolicySettings(_Section, frozen=True, kw_only=True):
    """How policies are changed and rolled out."""

    require_approval: bool = False  # somebody else than the author must agree
    staged: bool = True  # new rules go to one node, a tenth, all
    stage_seconds: Seconds = 30.0
    stage_max_seconds: Seconds = 300.0
    stage_min_calls: Positive = 20
    velocity_seconds: Seconds = 2.0  # between looks at who spends too fast
    connects_per_second: Positive = 700  # new streams and polls after a restart


class WatchSettings(_Section, frozen=True, kw_only=True):
    """Detection and where alerts go."""

    interval_seconds: Seconds = 60.0
    alertmanager_url: str | None = None
    webhook_url: str | None = None
    webhook_secret_file: Path | None = None


class ContentRule(_Section, frozen=True, kw_only=True):
    """What an organisation takes out of recorded text: each match becomes `[name]`."""

    name: str
    pattern: str  # RE2


class ContentSettings(_Section, frozen=True, kw_only=True):
    """Whether and how prompts and completions are recorded."""

    capture: bool = False  # nothing is kept unless told so
    built_in_redaction: bool = True  # e-mail, phone, card, IBAN, keys and tokens
    rules: tuple[ContentRule, ...] = ()  # after the built-in ones
    max_chars: Annotated[int, msgspec.Meta(ge=1, le=2**20)] = 16_384  # of one attribute
    max_texts_per_span: Annotated[int, msgspec.Meta(ge=1, le=512)] = 64
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=3_650)] = 7  # 0 forgets all there is


class GatewayAddress(_Section, frozen=True, kw_only=True):
    """One address of a gateway of the organisation's own, as its clients call it."""

    address: Annotated[str, msgspec.Meta(min_length=1)]  # host, host:port or URL
    service: str = ""  # service.name of the gateway's own spans; those without count as one


class FiscalSettings(_Section, frozen=True, kw_only=True):
    """The organisation's months, quarters and years."""

    pattern: Pattern = Pattern.MONTHS
    year_start_month: Annotated[int, msgspec.Meta(ge=1, le=12)] = 1
    month_start_day: Annotated[int, msgspec.Meta(ge=1, le=28)] = 1
    anchor: Anchor = Anchor.NEAREST  # of a year of weeks to the first day of the year
    named_by: NamedBy = NamedBy.END


class Settings(_Section, frozen=True, kw_only=True):
    """Everything a role is told; relative paths are relative to the working directory."""

    data_dir: Path = Path("~/.local/share/controlplane")
    keys_dir: Path | None = None  # default: `<data_dir>-keys`, beside and never inside the data
    database_url: str | None = None  # metadata; default: SQLite in the data directory
    zone: str = "UTC"  # reporting time zone, an IANA name
    week_start: Weekday = Weekday.MONDAY
    fiscal_calendar: FiscalSettings = FiscalSettings()
    log_level: Annotated[str, msgspec.Meta(pattern="^(debug|info|warning|error)$")] = "info"
    price_overrides: Path | None = None  # YAML list of the organisation's own prices
    contracts: Path | None = None  # YAML list of what was agreed with providers
    closed_before: date | None = None  # first day of the oldest open period; earlier ones stay
    attribution_rules: Path | None = None  # YAML list of rules put before the built-in ones
    gpu_pools: Path | None = None  # YAML list of GPU node pools and what they cost
    business_metrics: tuple[str, ...] = ("business.*",)  # names of OTLP metrics
    gateways: tuple[GatewayAddress, ...] = ()  # whose calls may come without ids or traces
    settle_interval_seconds: Seconds = 0.5
    collector: CollectorSettings = CollectorSettings()
    api: ApiSettings = ApiSettings()
    dashboard: DashboardSettings = DashboardSettings()
    budgets: BudgetSettings = BudgetSettings()
    policy: PolicySettings = PolicySettings()
    watch: WatchSettings = WatchSettings()
    content: ContentSettings = ContentSettings()

    @property
    def calendar(self) -> FiscalCalendar:
        """How days fall into weeks, months, quarters and years."""
        told = self.fiscal_calendar
        return FiscalCalendar(
            pattern=told.pattern,
            year_start_month=told.year_start_month,
            month_start_day=told.month_start_day,
            anchor=told.anchor,
            named_by=told.named_by,
            week_start=self.week_start,
        )

    @property
    def metadata_url(self) -> str:
        """SQLAlchemy URL of the metadata database."""
        return self.database_url or f"sqlite:///{self.data_dir / 'metadata.sqlite'}"

    @property
    def secrets_dir(self) -> Path:
        """Directory of signing and encryption keys."""
        return self.keys_dir or self.data_dir.with_name(self.data_dir.name + "-keys")

    @property
    def keyless_allowed(self) -> bool:
        """Whether a sender without a key is the `default` tenant: only on loopback."""
        return is_loopback(self.collector.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def load(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read, merge and check every setting.

    Args:
        config: YAML file; `CONTROLPLANE_CONFIG` names it otherwise.
        environ: the process environment unless given.
        overrides: from the command line, keyed by dotted name; None values are not set.

    Raises:
        ConfigError: names the first wrong key and what to write instead.
    """
    env = os.environ if environ is None else environ
    named = env.get(CONFIG_ENV)
    path = config or (Path(named) if named else None)
    tree = _read_yaml(path) if path else {}
    for name, text in _from_environment(env):
        _put(tree, name, text)
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(tree, name, value)
    _refuse_unknown(tree, Settings, ())
    try:
        settings = msgspec.convert(tree, Settings, strict=False, dec_hook=_to_path)
    except msgspec.ValidationError as wrong:
        problem, _, where = str(wrong).partition(" - at `$")
        key = where.strip("`.") or "settings"
        raise ConfigError(key, problem, "Write a value of that kind") from None
    return _checked(settings)


def _to_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    msg = f"Expected `{kind.__name__}`, got `{type(value).__name__}`"
    raise TypeError(msg)


def _checked(settings: Settings) -> Settings:
    try:
        ZoneInfo(settings.zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(
            "zone", f"{settings.zone!r} is not an IANA zone", 'Write a name like "Europe/Madrid"'
        ) from None
    for key, path in (
        ("price_overrides", settings.price_overrides),
        ("contracts", settings.contracts),
        ("attribution_rules", settings.attribution_rules),
        ("gpu_pools", settings.gpu_pools),
        ("collector.tls_cert_file", settings.collector.tls_cert_file),
        ("collector.tls_key_file", settings.collector.tls_key_file),
        ("collector.tls_client_ca_file", settings.collector.tls_client_ca_file),
        ("collector.scrape_jobs", settings.collector.scrape_jobs),
        ("watch.webhook_secret_file", settings.watch.webhook_secret_file),
    ):
        if path is not None and not path.is_file():
            raise ConfigError(key, f"{path} is not a file", "Create it or remove the setting")
    told = settings.collector
    if (told.tls_cert_file is None) != (told.tls_key_file is None):
        raise ConfigError(
            "collector.tls_key_file", "is needed with tls_cert_file", "Set both or neither"
        )
    if told.tls_client_ca_file and not told.tls_cert_file:
        raise ConfigError(
            "collector.tls_client_ca_file", "has no tls_cert_file", "Set the server's own first"
        )
    data_dir = settings.data_dir.expanduser().absolute()
    keys_dir = settings.keys_dir.expanduser().absolute() if settings.keys_dir else None
    if keys_dir and keys_dir.is_relative_to(data_dir):
        raise ConfigError(
            "keys_dir", "lies inside data_dir", "Keep keys apart from the data they protect"
        )
    if settings.watch.webhook_url and not settings.watch.webhook_secret_file:
        raise ConfigError(
            "watch.webhook_secret_file",
            "is needed to sign what goes to webhook_url",
            "Name a file that holds the shared secret",
        )
    return msgspec.structs.replace(settings, data_dir=data_dir, keys_dir=keys_dir)


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise ConfigError("config", f"{path}: {wrong.strerror}", "Name a readable file") from None
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError("config", f"{path}{line} is not YAML", "Mend the syntax") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("config", f"{path} is not a mapping", "Write `key: value` lines")
    return tree


def _from_environment(env: Mapping[str, str]) -> list[tuple[str, object]]:
    return [
        (name.removeprefix(ENV_PREFIX).lower().replace("__", "."), _listed(text))
        for name, text in sorted(env.items())
        if name.startswith(ENV_PREFIX) and name != CONFIG_ENV and not name.startswith(RESERVED_ENV)
    ]


def _listed(text: str) -> object:
    """Read a JSON list of texts; anything else is itself, `[::1]` too."""
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        return text


def _put(tree: dict[str, object], name: str, value: object) -> None:
    *parents, leaf = name.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(name, f"{parent} is not a section", "Remove the value above it")
        node = child
    node[leaf] = value


def _refuse_unknown(node: object, kind: type, path: tuple[str, ...]) -> None:
    if not isinstance(node, dict):
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in node.items():
        dotted = ".".join((*path, str(key)))
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            known = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(fields))}"
            raise ConfigError(dotted, "is not a setting", known)
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, _Section):
            _refuse_unknown(value, inner, (*path, str(key)))
