"""What to scrape: jobs as they are configured, targets as they are found."""

from typing import Annotated, Final, Literal

import msgspec

from controlplane.core.ids import DEFAULT_TENANT

Engine = Literal["vllm", "sglang", "tgi", "triton", "dcgm", "litellm", "gen_ai"]
_MIN_INTERVAL: Final = 0.05
"""A test scrapes often; nothing else has a reason to."""
Seconds = Annotated[float, msgspec.Meta(ge=_MIN_INTERVAL)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class DnsNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names whose records are targets; SRV records bring their ports, A and AAAA need `port`."""

    names: tuple[str, ...]
    type: Literal["SRV", "A", "AAAA"] = "SRV"
    port: Port | None = None
    server: str | None = None
    """`host:port` of the name server; the system's otherwise."""


class ScrapeJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of endpoint of one tenant; the same words as in a Prometheus configuration."""

    job: str
    engine: Engine
    targets: tuple[str, ...] = ()
    """`host:port`."""
    files: tuple[str, ...] = ()
    """Files in Prometheus' file_sd format, JSON or YAML; read again when they change."""
    dns: DnsNames | None = None
    labels: dict[str, str] = {}
    """Said of every series; `pool`, `model` and `hostname` are understood."""
    tenant: str = DEFAULT_TENANT
    scheme: Literal["http", "https"] = "http"
    path: str = "/metrics"
    ca_file: str | None = None
    bearer_token_file: str | None = None
    interval_seconds: Seconds = 15.0
    timeout_seconds: Seconds = 10.0
    refresh_seconds: Seconds = 30.0
    """How often files and DNS are looked at."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 * 2**20
    max_samples: Annotated[int, msgspec.Meta(ge=1)] = 50_000


class Target(msgspec.Struct, frozen=True):
    """One endpoint."""

    address: str
    labels: tuple[tuple[str, str], ...] = ()
