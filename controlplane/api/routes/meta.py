"""Who the caller is, what runs, and sign-in."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.params import JSONBody

from controlplane.api.authenticate import Gate
from controlplane.api.guards import ApiRequest, Injected, needs, open_to_all, tenants_of
from controlplane.api.ranges import PRESETS
from controlplane.api.sessions import SESSION_PREFIX, SignedIn
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.usage.dimensions import BY_NAME

MAX_TOKEN_CHARACTERS: Final = 256


class Version(msgspec.Struct, frozen=True):
    """What runs, and the closed sets that a client offers for choice."""

    version: str
    api: str
    zone: str
    dimensions: tuple[str, ...]
    ranges: tuple[str, ...]


class Me(msgspec.Struct, frozen=True):
    """The caller as we see it."""

    id: str
    kind: str
    name: str
    scopes: tuple[str, ...]
    tenants: tuple[str, ...]
    all_tenants: bool
    expires_at: datetime | None


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one-time token of a sign-in link."""

    token: str


class MetaController(Controller):
    """`/api/v1/version`, `/api/v1/me`, `/api/v1/session`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("meta",)

    @get("/openapi.json", **open_to_all(), include_in_schema=False)
    async def openapi(self, request: ApiRequest) -> Response[bytes]:
        """Answer the OpenAPI document of this API."""
        schema = request.app.openapi_schema.to_schema()
        return Response(msgspec.json.encode(schema), media_type="application/vnd.oai.openapi+json")

    @get("/version", **open_to_all())
    async def version(self, services: Injected) -> Version:
        """Answer the version and the closed sets of this installation."""
        return Version(services.version, "v1", services.zone, tuple(BY_NAME), PRESETS)

    @get("/me", **needs(Scope.ME), sync_to_thread=True)
    def me(self, request: ApiRequest, services: Injected) -> Me:
        """Answer the caller's scopes and tenants."""
        who = request.user
        return Me(
            id=who.id,
            kind=who.kind.value,
            name=who.name,
            scopes=tuple(sorted(scope.value for scope in who.scopes)),
            tenants=tenants_of(request, services),
            all_tenants=who.all_tenants,
            expires_at=who.expires_at,
        )

    @post("/session", **open_to_all(401, 413, 429), status_code=201)
    async def sign_in(self, request: ApiRequest, data: JSONBody[SignIn]) -> SignedIn:
        """Exchange the one-time token of a sign-in link for a session bearer (at most 12 h)."""
        if not 0 < len(data.token) <= MAX_TOKEN_CHARACTERS:
            raise InvalidInputError("token", "empty or too long", "Use the printed sign-in link")
        address = request.client.host if request.client else "unknown"
        gate: Gate = request.app.state.gate
        return gate.exchange(data.token, address=address)

    @delete("/session", **needs(Scope.ME))
    async def sign_out(self, request: ApiRequest, services: Injected) -> None:
        """End the session that this request is made with; a key is left alone."""
        bearer = request.headers.get("authorization", "").partition(" ")[2].strip()
        if bearer.startswith(SESSION_PREFIX):
            services.sessions.sign_out(bearer)
