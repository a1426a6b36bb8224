"""What the dashboard is told; the only reader of its environment, `CONTROLPLANE_DASHBOARD_*`."""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

PREFIX: Final = "CONTROLPLANE_DASHBOARD_"


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Loopback unless told otherwise; the API is the only thing that the dashboard knows."""

    api_url: str = "http://127.0.0.1:8080"
    otlp_url: str = "http://127.0.0.1:4318"
    """Where producers send to: shown to who has sent nothing yet."""
    host: str = "127.0.0.1"
    port: int = 8501
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    language: str = "en"
    request_timeout_seconds: float = 10.0


def read(environ: Mapping[str, str]) -> DashboardSettings:
    """Read `CONTROLPLANE_DASHBOARD_<FIELD>`; lists are separated by commas.

    Raises:
        ValueError: a variable nobody knows, or a value of the wrong kind; names it.
    """
    fields = {name: f"{PREFIX}{name.upper()}" for name in DashboardSettings.__struct_fields__}
    unknown = {n for n in environ if n.startswith(PREFIX)} - set(fields.values())
    if unknown:
        msg = f"{min(unknown)} is not a setting. Known: {', '.join(sorted(fields.values()))}"
        raise ValueError(msg)
    given: dict[str, object] = {
        name: environ[variable] for name, variable in fields.items() if variable in environ
    }
    if "allowed_hosts" in given:
        given["allowed_hosts"] = tuple(str(given["allowed_hosts"]).split(","))
    try:
        return msgspec.convert(given, DashboardSettings, strict=False)
    except msgspec.ValidationError as wrong:
        field = str(wrong).partition("$.")[2].strip("`")
        msg = f"{fields.get(field, PREFIX)} is wrong: {wrong}"
        raise ValueError(msg) from None


@lru_cache(maxsize=1)
def current() -> DashboardSettings:
    """Answer this process's settings, read once."""
    return read(os.environ)  # noqa: TID251 - the dashboard's own reader; it imports nothing of ours
