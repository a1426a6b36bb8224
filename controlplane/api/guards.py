"""What a route needs, and the check that it is there; a route that says nothing is closed."""

from collections.abc import Iterable
from typing import Any, TypeAlias, TypedDict

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import SkipValidation

from controlplane.api.services import Services
from controlplane.auth.principal import Principal, visible_tenants
from controlplane.auth.roles import Scope
from controlplane.core.errors import ForbiddenError

ApiRequest: TypeAlias = Request[Principal, str, State]
"""A request whose `user` the authentication has set."""
Injected: TypeAlias = NamedDependency[SkipValidation[Services]]
"""The ports, as a handler's `services` argument."""


class Access(TypedDict):
    """The keyword arguments of a route handler that say who may call it."""

    opt: dict[str, Any]
    security: list[dict[str, list[str]]]


def needs(scope: Scope, *, long_poll: bool = False) -> Access:
    """Open a route to principals that hold `scope`; also its row in the OpenAPI document.

    A `long_poll` is left out of the latency histogram: it waits on purpose.
    """
    return {
        "opt": {"scope": scope, "long_poll": long_poll},
        "security": [{"bearer": [scope.value]}],
    }


def open_to_all() -> Access:
    """Open a route to callers without a credential: health, sign-in and the API's description."""
    return {"opt": {"public": True}, "security": [{}]}


def is_public(handler: BaseRouteHandler) -> bool:
    """Whether the route says that it needs no credential."""
    return handler.opt.get("public") is True


def require_scope(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Guard of the whole application.

    Raises:
        ForbiddenError: the principal lacks the route's scope, or the route declares none.
    """
    if is_public(handler):
        return
    scope = handler.opt.get("scope")
    if not isinstance(scope, Scope):
        raise ForbiddenError("a scope that this route does not declare")
    connection.user.require(scope)


def tenants_of(
    request: ApiRequest, services: Services, *, wanted: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the tenants a query is restricted to; every handler with tenant data goes through it.

    Blocking for an operator (reads the tenant list): call it from a worker thread.

    Raises:
        ForbiddenError: a wanted tenant is not the caller's.
    """
    principal = request.user
    known = services.reader.tenants() if principal.all_tenants else ()
    return visible_tenants(principal, known={*known, *wanted}, wanted=wanted)
