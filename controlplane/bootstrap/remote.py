"""A client of a running API for the commands that change it; errors keep their sentence and place."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from controlplane.core.errors import (
    ConfigError,
    ControlPlaneError,
    InvalidInputError,
    PolicyError,
    UnavailableError,
)
from controlplane.core.json_errors import UNREADABLE

URL_ENV: Final = "CONTROLPLANE_CLIENT_URL"
KEY_ENV: Final = "CONTROLPLANE_CLIENT_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
TIMEOUT_SECONDS: Final = 30.0
_UNPROCESSABLE: Final = 422
_NOT_FOUND: Final = 404
_BAD_REQUEST: Final = 400
_SERVER_ERROR: Final = 500


class _FieldProblem(msgspec.Struct, frozen=True):
    field: str = ""
    problem: str = ""
    fix: str = ""
    line: int | None = None


class _Problem(msgspec.Struct, frozen=True):
    detail: str = ""
    code: str = ""
    errors: tuple[_FieldProblem, ...] = ()


class RefusedRemotelyError(ControlPlaneError):
    """The server said no; the sentence is its own."""

    code = "refused"


class RemoteApi:
    """JSON over HTTP with a key; use it as a context."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    @classmethod
    def from_environment(cls, *, server: str | None, key_file: Path | None) -> Self:
        """Find address and key: options first, then the environment.

        Raises:
            ConfigError: there is no key, or its file can not be read.
        """
        if key_file is not None:
            try:
                key = key_file.read_text(encoding="utf-8").strip()
            except OSError as wrong:
                raise ConfigError(
                    "--key-file", f"{key_file}: {wrong.strerror}", "Name a readable file"
                ) from None
        else:
            key = os.environ.get(KEY_ENV, "")
        if not key:
            raise ConfigError(
                KEY_ENV,
                "is not set",
                "Make a key with `controlplane keys create --kind user --role admin --all-tenants`",
            )
        return cls(server or os.environ.get(URL_ENV, DEFAULT_URL), key)

    def __enter__(self) -> Self:
        """Open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self._client.close()

    def get(self, path: str, **params: str) -> Any:
        """Return the answer's body."""
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: object, **params: str) -> Any:
        """Send JSON and return the answer's body."""
        return self._ask(
            "POST", path, params=params, content=msgspec.json.encode(body), kind="application/json"
        )

    def send_text(self, method: str, path: str, text: str, **params: str) -> Any:
        """Send YAML and return the answer's body."""
        return self._ask(
            method, path, params=params, content=text.encode(), kind="application/yaml"
        )

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        content: bytes = b"",
        kind: str | None = None,
    ) -> Any:
        headers = {"Content-Type": kind} if kind else {}
        try:
            answer = self._client.request(
                method, path, params=dict(params), content=content, headers=headers
            )
        except httpx.HTTPError as wrong:
            where = self._client.base_url
            raise UnavailableError(f"{where} can not be reached: {wrong}. Is it running?") from None
        if answer.is_success:
            return msgspec.json.decode(answer.content) if answer.content else None
        raise _to_error(answer)


def _to_error(answer: httpx.Response) -> ControlPlaneError:
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except UNREADABLE:
        return UnavailableError(f"{answer.request.url.host} answered {answer.status_code}")
    first = problem.errors[0] if problem.errors else None
    if answer.status_code == _UNPROCESSABLE and first:
        return PolicyError(first.field, first.problem, first.fix, line=first.line)
    if answer.status_code == _BAD_REQUEST and first:
        return InvalidInputError(first.field, first.problem, first.fix)
    if answer.status_code == _NOT_FOUND and first:
        return RefusedRemotelyError(problem.detail)
    if answer.status_code >= _SERVER_ERROR:
        return UnavailableError(problem.detail)
    return RefusedRemotelyError(problem.detail)
