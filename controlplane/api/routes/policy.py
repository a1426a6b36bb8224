"""What proxies run: the signed document, who applied it, and sync."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from litestar import Controller, Response, get, post, put
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import RULES, documented
from controlplane.api.guards import NOT_MODIFIED, ApiRequest, Injected, needs
from controlplane.api.policy_views import GenerationList, GenerationView, NodeList, NodeView
from controlplane.api.policy_watch import MAX_WAIT_SECONDS, PolicyWatch
from controlplane.api.publishing import DEFAULT_SCOPE
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.pipelines.publish import publish, read_yaml_rules
from controlplane.pipelines.sync import sync
from controlplane.policy.rules import PolicyRules, read_rules
from controlplane.policy.wire import SyncReply, SyncRequest

SCOPE = p.Param("scope", "Which group of proxies; default `default`", "default")
DEFAULT_HISTORY: Final = 20
MAX_HISTORY: Final = 500
YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
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
            _scope(given),
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
    def take_sync(
        self, request: ApiRequest, data: JSONBody[SyncRequest], services: Injected
    ) -> SyncReply:
        """Acknowledge a generation, settle holds, return and ask for leases, all in one."""
        return sync(data, request.user, services.clock.now(), tools=services.sync)

    @get(
        "/policy/generations",
        **needs(Scope.POLICY_READ),
        sync_to_thread=True,
        operation_class=documented((SCOPE, p.LIMIT)),
    )
    def generations(self, request: ApiRequest, services: Injected) -> GenerationList:
        """List the published generations of a scope, newest first."""
        given = p.read(request.query_params.multi_items(), params=(SCOPE, p.LIMIT))
        limit = p.whole(given, "limit", default=DEFAULT_HISTORY, most=MAX_HISTORY)
        found = services.publishing.policies.history(_scope(given), limit=limit)
        return GenerationList(tuple(GenerationView.of(each) for each in found))

    @get(
        "/policy/nodes",
        **needs(Scope.POLICY_READ),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def nodes(self, request: ApiRequest, services: Injected) -> NodeList:
        """List what each node of a scope says it runs, against the newest generation."""
        scope = _scope(p.read(request.query_params.multi_items(), params=(SCOPE,)))
        policies = services.publishing.policies
        newest = policies.newest(scope)
        now = services.clock.now()
        return NodeList(tuple(NodeView.of(each, newest, now=now) for each in policies.nodes(scope)))

    @get(
        "/policy/rules",
        **needs(Scope.POLICY_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def rules(self, request: ApiRequest, services: Injected) -> PolicyRules:
        """Answer the rules of a scope as they were written; they speak of every tenant."""
        given = p.read(request.query_params.multi_items(), params=(SCOPE,))
        return services.publishing.policies.rules(_scope(given))

    @put(
        "/policy/rules",
        **needs(Scope.POLICY_WRITE, 409, 413, 422, operator=True),
        operation_class=documented((SCOPE,), body=RULES),
    )
    async def put_rules(self, request: ApiRequest, services: Injected) -> GenerationView:
        """Replace the rules of a scope, in JSON or YAML, and publish them with its budgets."""
        scope = _scope(p.read(request.query_params.multi_items(), params=(SCOPE,)))
        rules = _read_rules(await request.body(), request.headers.get("content-type", ""))
        signed = await asyncio.to_thread(
            publish, scope, services.clock.now(), tools=services.publishing, rules=rules
        )
        watch: PolicyWatch = request.app.state.policy_watch
        watch.published()
        return GenerationView.of(signed)


def _scope(given: p.Given) -> str:
    return p.one(given, "scope") or DEFAULT_SCOPE


def _read_rules(body: bytes, content_type: str) -> PolicyRules:
    """Read rules in either language.

    Raises:
        InvalidInputError: not UTF-8, not JSON, or neither content type.
        PolicyError: not YAML, or not rules.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in YAML_TYPES:
        try:
            return read_yaml_rules(body.decode())
        except UnicodeDecodeError:
            raise InvalidInputError("body", "not UTF-8", "Send YAML in UTF-8") from None
    if kind != "application/json":
        raise InvalidInputError("content-type", f"{kind[:64]!r}", "Send application/json or yaml")
    try:
        return read_rules(msgspec.json.decode(body))
    except msgspec.DecodeError:
        raise InvalidInputError("body", "not valid JSON in UTF-8", "Send one object") from None


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
