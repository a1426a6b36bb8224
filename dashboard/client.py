"""The API over HTTP: problem+json becomes ApiProblem, Arrow becomes a table with its meta."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx
import msgspec
import pyarrow as pa

ARROW: Final = "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"
_META: Final = b"controlplane.meta"  # where an Arrow answer carries what JSON has under `meta`
UNAUTHENTICATED: Final = 401

Params = tuple[tuple[str, str], ...]


class ApiProblem(Exception):  # noqa: N818 - the API's own word for it (RFC 9457)
    """The API refused or did not answer; `detail` is a sentence for the reader.

    `status` is 0 when nothing answered.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        super().__init__(f"{status} {code}: {detail}")


class Table(NamedTuple):
    """Rows in the API's order, and what it says about the whole answer."""

    rows: pa.Table
    meta: dict[str, Any]


class SignedIn(msgspec.Struct, frozen=True):
    """A session of the API."""

    bearer: str
    expires_at: str


class Api:
    """One viewer's access; safe for threads."""

    def __init__(self, http: httpx.Client, bearer: str | None) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {bearer}"} if bearer else {}

    def fetch(self, path: str, params: Params, *, accept: str) -> bytes:
        """GET a path under `/api/v1` and answer its body.

        Raises:
            ApiProblem: refused, or no answer in time.
        """
        try:
            answer = self._http.get(
                f"/api/v1/{path}", params=params, headers={**self._headers, "accept": accept}
            )
        except httpx.TransportError as lost:
            raise ApiProblem(0, "unreachable", type(lost).__name__) from None
        if not answer.is_success:
            raise _problem(answer)
        return answer.content

    def send(self, path: str, body: Mapping[str, object]) -> bytes:
        """POST a JSON object to a path under `/api/v1` and answer the body.

        Raises:
            ApiProblem: refused, or no answer in time: then it may have been done all the same.
        """
        try:
            answer = self._http.post(f"/api/v1/{path}", json=body, headers=self._headers)
        except httpx.TransportError as lost:
            raise ApiProblem(0, "unreachable", type(lost).__name__) from None
        if not answer.is_success:
            raise _problem(answer)
        return answer.content

    def exchange(self, token: str) -> SignedIn:
        """Spend a one-time sign-in token.

        Raises:
            ApiProblem: unknown, spent or expired; or no answer.
        """
        try:
            answer = self._http.post("/api/v1/session", json={"token": token})
        except httpx.TransportError as lost:
            raise ApiProblem(0, "unreachable", type(lost).__name__) from None
        if not answer.is_success:
            raise _problem(answer)
        return msgspec.json.decode(answer.content, type=SignedIn)


def connect(api_url: str, *, timeout_seconds: float) -> httpx.Client:
    """Open a connection pool to the API; proxies of the environment are not used."""
    return httpx.Client(base_url=api_url, timeout=timeout_seconds, trust_env=False)


def read_table(body: bytes) -> Table:
    """Read an Arrow answer."""
    rows = pa.ipc.open_stream(body).read_all()
    described = (rows.schema.metadata or {}).get(_META, b"{}")
    return Table(rows.replace_schema_metadata(None), msgspec.json.decode(described))


def _problem(answer: httpx.Response) -> ApiProblem:
    try:
        told: Any = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        told = {}
    said = told if isinstance(told, dict) else {}
    return ApiProblem(
        answer.status_code,
        str(said.get("code", "unknown")),
        str(said.get("detail", answer.reason_phrase)),
    )


def pairs(params: Sequence[tuple[str, str | None]]) -> Params:
    """Drop what is not set."""
    return tuple((name, value) for name, value in params if value is not None)
