"""What a route needs, and the check that it is there; a route that says nothing is closed."""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias, TypedDict

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import SkipValidation

from controlplane.api.problem import MEDIA_TYPE as PROBLEM_TYPE
from controlplane.api.problem import Problem
from controlplane.api.services import Services
from controlplane.auth.principal import Principal, visible_tenants
from controlplane.auth.roles import Scope
from controlplane.core.errors import ForbiddenError, InvalidInputError

REFUSALS: Final = {
    304: "What the caller has is current",
    400: "A parameter or a field of the body is wrong",
    401: "No, unknown, expired or revoked credential",
    403: "The key lacks the scope or the tenant",
    404: "It does not exist for this caller",
    409: "The state moved under the caller",
    413: "A named limit was hit",
    422: "Rules that do not compile",
    429: "Too many requests; see Retry-After",
    500: "The server failed",
    503: "A dependency can not answer now",
}
NOT_MODIFIED: Final = 304
_ALWAYS: Final = (400, 500)
_WITH_CREDENTIAL: Final = (401, 403, 429, 503)

ApiRequest: TypeAlias = Request[Principal, str, State]
"""A request whose `user` the authentication has set."""
Injected: TypeAlias = NamedDependency[SkipValidation[Services]]
"""The ports, as a handler's `services` argument."""


class Access(TypedDict):
    """The keyword arguments of a route handler that say who may call it."""

    opt: dict[str, Any]
    security: list[dict[str, list[str]]]
    responses: dict[int, ResponseSpec]


def needs(scope: Scope, *refusals: int, long_poll: bool = False, operator: bool = False) -> Access:
    """Open a route to principals that hold `scope`; also its row in the OpenAPI document.

    `refusals` are statuses that it may answer with beyond those of every route. A `long_poll` is
    left out of the latency histogram: it waits on purpose. What an `operator` route answers or
    changes concerns every tenant.
    """
    return {
        "opt": {"scope": scope, "long_poll": long_poll, "operator": operator},
        "security": [{"bearer": [scope.value]}],
        "responses": _documented(*_ALWAYS, *_WITH_CREDENTIAL, *refusals),
    }


def open_to_all(*refusals: int) -> Access:
    """Open a route to callers without a credential: health, sign-in and the API's description."""
    return {
        "opt": {"public": True},
        "security": [{}],
        "responses": _documented(*_ALWAYS, *refusals),
    }


def _documented(*statuses: int) -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(
            data_container=None if status == NOT_MODIFIED else Problem,
            generate_examples=False,
            description=REFUSALS[status],
            media_type=PROBLEM_TYPE,
        )
        for status in sorted(set(statuses))
    }


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
    principal: Principal = connection.user
    principal.require(scope)
    if handler.opt.get("operator") and not principal.all_tenants:
        raise ForbiddenError("access to all tenants")


def refuse_parameters(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Guard of the whole application: a route that documents no parameter is asked with none.

    One that is ignored would answer another question than the caller asked.

    Raises:
        InvalidInputError: it was.
    """
    if is_public(handler) or not isinstance(handler, HTTPRouteHandler):
        return
    if connection.query_params and not getattr(handler.operation_class, "takes_parameters", False):
        name = next(iter(connection.query_params))
        raise InvalidInputError(name, "no such parameter", "Ask without parameters")


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
