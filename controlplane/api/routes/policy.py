"""What proxies run: the signed document, who applied it, and sync."""

import gzip
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from litestar import Controller, Response, get, post
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from controlplane import telemetry
from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import NOT_MODIFIED, ApiRequest, Injected, needs
from controlplane.api.policy_stream import EventStream
from controlplane.api.policy_views import (
    GenerationList,
    GenerationView,
    NodeList,
    NodeView,
    is_seen,
)
from controlplane.api.policy_watch import MAX_WAIT_SECONDS, PolicyWatch, highest_pair
from controlplane.api.publishing import DEFAULT_SCOPE
from controlplane.api.sync_group import SyncGroup
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.pipelines.sync import SyncCall
from controlplane.policy.wire import SyncReply, SyncRequest

SCOPE = p.Param("scope", "Which group of proxies; default `default`", "default")
NODE = p.Param(
    "node", "Who asks: in a staged roll-out the chosen nodes get the new generation first"
)
WORTH_PACKING: Final = 8 * 1024
EVENTS = {"text/event-stream": Schema(type=OpenAPIType.STRING)}
DEFAULT_HISTORY: Final = 20
MAX_HISTORY: Final = 500
WAIT = p.Param("wait", f"Seconds to wait for a newer generation, at most {MAX_WAIT_SECONDS:g}")


class PolicyController(Controller):
    """`/api/v1/policy` and `/api/v1/sync`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("policy",)

    @get(
        "/policy",
        **needs(Scope.POLICY_PULL, 304, 404, 413, long_poll=True),
        operation_class=documented((SCOPE, NODE, WAIT)),
    )
    async def policy(self, request: ApiRequest) -> Response[bytes]:
        """Answer the newest signed document of a scope.

        With `If-None-Match` of the newest generation: wait, then 304. Never older than the caller's
        generation. Verify `Policy-Signature` over the exact bytes before parsing them.
        """
        given = p.read(request.query_params.multi_items(), params=(SCOPE, NODE, WAIT))
        scope = scope_to_pull(request, given)
        watch: PolicyWatch = request.app.state.policy_watch
        policy = await watch.wait(
            scope,
            node=p.one(given, "node", "") or "",
            unless=highest_pair(request.headers.get("if-none-match", "")),
            seconds=_seconds(p.one(given, "wait", "0") or "0"),
        )
        if policy is None:
            return Response(b"", status_code=NOT_MODIFIED)
        headers = {
            "etag": policy.generation.etag(),
            "policy-signature": policy.signature,
            "cache-control": "no-cache",
        }
        body = policy.body
        if len(body) > WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["content-encoding"] = _packed(body), "gzip"
        return Response(body, media_type="application/json", headers=headers)

    @get(
        "/stream",
        **needs(Scope.POLICY_PULL, 413, long_poll=True),
        operation_class=documented((SCOPE, NODE), answer=EVENTS),
    )
    async def stream(self, request: ApiRequest, services: Injected) -> ASGIResponse:
        """Push generations as they are published, as server-sent events.

        `policy`: two data lines, the `Policy-Signature` and the exact document; `changed`: fetch it
        from `/policy`; `patch`: its change from the last, or else fetch it; `ping` every 5 s with the pair in force. `Last-Event-ID` is the pair that the
        caller has. 429 with `Retry-After` when too many connect at once.
        """
        given = p.read(request.query_params.multi_items(), params=(SCOPE, NODE))
        scope = scope_to_pull(request, given)
        request.app.state.connects.take(services.clock.monotonic())
        watch: PolicyWatch = request.app.state.policy_watch
        subscriber = await watch.subscribe(
            scope,
            node=p.one(given, "node", "") or "",
            unless=highest_pair(request.headers.get("last-event-id", "")),
        )
        return EventStream(subscriber)

    @post("/sync", **needs(Scope.SYNC, 409, 413), status_code=200)
    async def take_sync(
        self, request: ApiRequest, data: JSONBody[SyncRequest], services: Injected
    ) -> SyncReply:
        """Acknowledge a generation, settle holds, return and ask for leases, all in one."""
        request.user.require_policy_scope(data.scope)
        now = services.clock.now()
        syncs: SyncGroup = request.app.state.sync_group
        reply = await syncs.sync(SyncCall(request=data, caller=request.user, now=now))
        watch: PolicyWatch = request.app.state.policy_watch
        watch.applied(
            data.scope,
            data.node,
            data.applied,
            sha256=data.applied_sha256,
            ago_seconds=data.applied_ago_seconds,
            now=now,
        )
        if data.nack is not None:
            telemetry.POLICY_NACKS.inc()
        return reply

    @get(
        "/policy/generations",
        **needs(Scope.POLICY_READ),
        sync_to_thread=True,
        operation_class=documented((SCOPE, p.LIMIT)),
    )
    def generations(self, request: ApiRequest, services: Injected) -> GenerationList:
        """List the published generations of a scope, newest first.

        Author, message and sizes are null without access to all tenants.
        """
        given = p.read(request.query_params.multi_items(), params=(SCOPE, p.LIMIT))
        limit = p.whole(given, "limit", default=DEFAULT_HISTORY, most=MAX_HISTORY)
        found = services.publishing.policies.history(scope_of(given), limit=limit)
        return GenerationList(tuple(GenerationView.of(each, request.user) for each in found))

    @get(
        "/policy/nodes",
        **needs(Scope.POLICY_READ),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def nodes(self, request: ApiRequest, services: Injected) -> NodeList:
        """List what each node of a scope says it runs, against the newest generation.

        Nodes whose key acts for tenants of the caller's alone; an operator sees every node.
        """
        scope = scope_of(p.read(request.query_params.multi_items(), params=(SCOPE,)))
        policies = services.publishing.policies
        serving = policies.serving(scope)
        now = services.clock.now()
        return NodeList(
            tuple(
                NodeView.of(each, serving, now=now)
                for each in policies.nodes(scope)
                if is_seen(each, request.user)
            )
        )


def scope_of(given: p.Given) -> str:
    """Return the scope that a request is about."""
    return p.one(given, "scope") or DEFAULT_SCOPE


@lru_cache(maxsize=16)
def _packed(body: bytes) -> bytes:
    """Compress a document once, however many agents fetch it; what is signed is what comes out."""
    return gzip.compress(body, 6, mtime=0)


def scope_to_pull(request: ApiRequest, given: p.Given) -> str:
    """Return the scope asked for.

    Raises:
        ForbiddenError: the key is of other proxies.
    """
    scope = scope_of(given)
    request.user.require_policy_scope(scope)
    return scope


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidInputError("wait", f"{text!r} is not within 0 and {MAX_WAIT_SECONDS:g}")
    return seconds
