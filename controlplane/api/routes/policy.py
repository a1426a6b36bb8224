"""What proxies run: the signed document, who applied it, and sync."""

from collections.abc import Sequence

from litestar import Controller, Response, get, post
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import NOT_MODIFIED, ApiRequest, Injected, needs
from controlplane.api.policy_watch import MAX_WAIT_SECONDS, PolicyWatch
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.policy.wire import MAX_SYNC_ITEMS, SyncReply, SyncRequest

SCOPE = p.Param("scope", "Which group of proxies; default `default`", "default")
WAIT = p.Param("wait", f"Seconds to wait for a newer generation, at most {MAX_WAIT_SECONDS:g}")


class PolicyController(Controller):
    """`/api/v1/policy` and `/api/v1/sync`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("policy",)

    @get(
        "/policy",
        **needs(Scope.POLICY_PULL, 304, 404, 413, long_poll=True),
        operation_class=documented((SCOPE, WAIT)),
    )
    async def policy(self, request: ApiRequest) -> Response[bytes]:
        """Answer the newest signed document of a scope.

        With `If-None-Match` of the newest generation: wait, then 304. Verify `Policy-Signature`
        over the exact bytes before parsing them.
        """
        given = p.read(request.query_params.multi_items(), params=(SCOPE, WAIT))
        watch: PolicyWatch = request.app.state.policy_watch
        policy = await watch.wait(
            p.one(given, "scope", "default") or "default",
            unless=etags(request.headers.get("if-none-match", "")),
            seconds=_seconds(p.one(given, "wait", "0") or "0"),
        )
        if policy is None:
            return Response(b"", status_code=NOT_MODIFIED)
        return Response(
            policy.body,
            media_type="application/json",
            headers={
                "etag": policy.generation.etag(),
                "policy-signature": policy.signature,
                "cache-control": "no-cache",
            },
        )

    @post("/sync", **needs(Scope.SYNC, 409, 413), status_code=200, sync_to_thread=True)
    def sync(
        self, request: ApiRequest, data: JSONBody[SyncRequest], services: Injected
    ) -> SyncReply:
        """Acknowledge a generation, settle holds, return and ask for leases, all in one."""
        for name in ("settle", "want", "returns", "open_holds_nusd"):
            if len(getattr(data, name)) > MAX_SYNC_ITEMS:
                raise LimitExceededError(
                    f"{name} of a sync", MAX_SYNC_ITEMS, len(getattr(data, name))
                )
        return services.sync(data, request.user, services.clock.now())


def etags(header: str) -> frozenset[str]:
    """Read an If-None-Match header; weak tags compare like strong ones here."""
    return frozenset(tag.strip().removeprefix("W/") for tag in header.split(",") if tag.strip())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidInputError("wait", f"{text!r} is not within 0 and {MAX_WAIT_SECONDS:g}")
    return seconds
