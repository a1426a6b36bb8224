"""A client of a running API for the commands that ask or change it; errors keep their sentence and place.

The server may be of another version than the command: `answers` says what it then lacks.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec

from controlplane.bootstrap.answers import Asked, OtherVersionError, wrapped
from controlplane.core.errors import (
    ConfigError,
    ControlPlaneError,
    InvalidInputError,
    PolicyError,
    UnavailableError,
)
from controlplane.core.json_errors import UNREADABLE

T = TypeVar("T")

URL_ENV: Final = "CONTROLPLANE_CLIENT_URL"
KEY_ENV: Final = "CONTROLPLANE_CLIENT_KEY"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
TIMEOUT_SECONDS: Final = 30.0
WORK_SECONDS: Final = 600.0
"""For what takes the server its time: a bill to compare, a file to bring."""
MAKE_KEY: Final = (
    "Make a key with `controlplane keys create --kind user --role admin --all-tenants`"
)
_UNPROCESSABLE: Final = 422
_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
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
        self._server = url.rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ConfigError("--server", f"{url!r} is no URL", f"Write it as {DEFAULT_URL}")
        try:
            self._client = httpx.Client(
                base_url=f"{self._server}/api/v1",
                headers={"Authorization": f"Bearer {key}"},
                timeout=TIMEOUT_SECONDS,
                trust_env=False,
            )
        except httpx.InvalidURL as wrong:
            fix = f"Write it as {DEFAULT_URL}"
            raise ConfigError("--server", f"{url!r} is no URL: {wrong}", fix) from None
        except UnicodeEncodeError:
            raise ConfigError(KEY_ENV, "is no API key", MAKE_KEY) from None

    @classmethod
    def from_environment(cls, *, server: str | None, key_file: Path | None) -> Self:
        """Find address and key: options first, then the environment.

        Raises:
            ConfigError: there is no key, its file can not be read, or the address is none.
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
                MAKE_KEY,
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

    def get_as(self, path: str, kind: type[T]) -> T:
        """Return the answer's body as a type of ours.

        Raises:
            OtherVersionError: it is not of that type.
        """
        return self._as(Asked(self._server, "GET", path), self.get(path), kind)

    def post_as(self, path: str, body: object, kind: type[T]) -> T:
        """Send JSON and return the answer's body as a type of ours.

        Raises:
            OtherVersionError: it is not of that type.
        """
        return self._as(Asked(self._server, "POST", path), self.post(path, body), kind)

    def delete(self, path: str, **params: str) -> None:
        """End what a path names."""
        self._ask("DELETE", path, params=params)

    def send_as(self, path: str, body: bytes, kind: type[T], **params: str | Sequence[str]) -> T:
        """Send bytes, wait for what is made of them, and return the answer as a type of ours.

        Raises:
            OtherVersionError: it is not of that type.
        """
        answer = self._ask(
            "POST",
            path,
            params=params,
            content=body,
            kind="application/octet-stream",
            timeout=WORK_SECONDS,
        )
        return self._as(Asked(self._server, "POST", path), answer, kind)

    def fetch(self, path: str, to: Path) -> None:
        """Write an answer's bytes to a file as they come."""
        try:
            with self._client.stream("GET", path, timeout=WORK_SECONDS) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _to_error(answer, Asked(self._server, "GET", path))
                with to.open("wb") as file:
                    for part in answer.iter_bytes():
                        file.write(part)
        except httpx.HTTPError as wrong:
            raise self._unreachable(wrong) from None

    def _unreachable(self, wrong: httpx.HTTPError) -> UnavailableError:
        where = self._client.base_url
        return UnavailableError(f"{where} can not be reached: {wrong}. Is it running?")

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
        params: Mapping[str, str | Sequence[str]],
        content: bytes = b"",
        kind: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:
        headers = {"Content-Type": kind} if kind else {}
        try:
            answer = self._client.request(
                method, path, params=dict(params), content=content, headers=headers, timeout=timeout
            )
        except httpx.HTTPError as wrong:
            raise self._unreachable(wrong) from None
        asked = Asked(self._server, method, path)
        if not answer.is_success:
            raise _to_error(answer, asked)
        if not answer.content:
            return None
        try:
            return wrapped(msgspec.json.decode(answer.content), asked)
        except UNREADABLE:
            raise OtherVersionError(self._server, f"does not answer {asked} in JSON") from None

    @staticmethod
    def _as(asked: Asked, answer: object, kind: type[T]) -> T:
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as wrong:
            raise OtherVersionError(asked.server, f"answers {asked} otherwise: {wrong}") from None


def _to_error(answer: httpx.Response, asked: Asked) -> ControlPlaneError:
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except UNREADABLE:
        said = f"{asked.server} answers {asked} with {answer.status_code}, and not as this API does"
        return UnavailableError(f"{said}. Check the address, and what stands before it")
    if _is_no_route(answer.status_code, problem):
        return OtherVersionError(asked.server, f"does not know {asked}")
    first = problem.errors[0] if problem.errors else None
    if answer.status_code == _UNPROCESSABLE and first:
        return PolicyError(first.field, first.problem, first.fix, line=first.line)
    if answer.status_code == _BAD_REQUEST and first:
        return InvalidInputError(first.field, first.problem, first.fix)
    is_down = answer.status_code >= _SERVER_ERROR
    return (UnavailableError if is_down else RefusedRemotelyError)(problem.detail)


def _is_no_route(status: int, problem: _Problem) -> bool:
    """Tell a route that is not there from a thing that is not there: the latter names its kind."""
    return status == _NOT_ALLOWED or (status == _NOT_FOUND and not problem.errors)
