"""Answers of a server that may be of another version than the command that asked.

What it lacks is said here, in one place for all commands: a route that it does not know, a field
that its answer does not have, an answer that is not JSON.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import httpx
import msgspec
from typing_extensions import override

from controlplane.core.errors import ControlPlaneError
from controlplane.core.json_errors import UNREADABLE

HEALTH_SECONDS: Final = 2.0


class _Health(msgspec.Struct, frozen=True):
    version: str = ""


class OtherVersionError(ControlPlaneError):
    """The server does not speak as this command does: `lacks` says what it does not have."""

    code = "other_version"

    def __init__(self, server: str, lacks: str) -> None:
        theirs, ours = _version_of(server), version("inference-controlplane")
        super().__init__(
            f"the server at {server} (version {theirs or 'not told'}) {lacks}, which this command "
            f"(version {ours}) needs. Upgrade the older of the two, or name another --server"
        )


class Asked(msgspec.Struct, frozen=True):
    """Which question an answer belongs to."""

    server: str
    method: str
    path: str

    @override
    def __str__(self) -> str:
        """Say it as API documents do."""
        return f"{self.method} /api/v1/{self.path.lstrip('/')}"


class Answer(dict[str, Any]):
    """An object of an answer; a field that it lacks is the server's version, and no `KeyError`."""

    def __init__(self, fields: Mapping[str, object], asked: Asked, place: str) -> None:
        super().__init__(
            {k: wrapped(v, asked, f"{place}.{k}" if place else k) for k, v in fields.items()}
        )
        self._asked = asked
        self._place = place

    def __missing__(self, name: str) -> Any:
        """Refuse to go on.

        Raises:
            OtherVersionError: always; it names the field.
        """
        field = f"{self._place}.{name}" if self._place else name
        raise OtherVersionError(
            self._asked.server, f"answers {self._asked} without the field `{field}`"
        )


def wrapped(value: object, asked: Asked, place: str = "") -> Any:
    """Return an answer whose objects know where they are from."""
    if isinstance(value, dict):
        return Answer(value, asked, place)
    if isinstance(value, list):
        return [wrapped(each, asked, f"{place}[]") for each in value]
    return value


def _version_of(server: str) -> str:
    """Ask the server which version it is; empty when it does not say."""
    try:
        told = httpx.get(f"{server}/health", timeout=HEALTH_SECONDS, trust_env=False)
        return msgspec.json.decode(told.content, type=_Health).version
    except (httpx.HTTPError, httpx.InvalidURL, *UNREADABLE):
        return ""
