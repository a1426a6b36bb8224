"""Changing what proxies run: plan, apply, propose, approve, roll out, go back."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
import structlog
from litestar import Controller, Response, get, post, put
from litestar.params import FromPath, JSONBody

from controlplane import telemetry
from controlplane.api import params as p
from controlplane.api.describe import BINARY, RULES, documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.api.policy_views import (
    Comment,
    Difference,
    GenerationView,
    PlanView,
    ProposalList,
    ProposalView,
    RollBackOrder,
    RolloutView,
    is_seen,
    pair_of,
)
from controlplane.api.policy_watch import PolicyWatch
from controlplane.api.routes.policy import SCOPE, scope_of
from controlplane.auth.roles import Scope
from controlplane.core.errors import ConflictError, InvalidInputError, NotFoundError, PolicyError
from controlplane.pipelines.authoring import Authored, json_schema, read_text
from controlplane.pipelines.propose import approve, diff_rules, plan, propose, reject
from controlplane.pipelines.publish import bump_epoch, publish
from controlplane.pipelines.rollout import halt, promote, roll_back
from controlplane.policy.history import Cause, Change, SignedGeneration
from controlplane.policy.rules import PolicyRules

_T = TypeVar("_T")
CREATED: Final = 201
MAX_MESSAGE: Final = 500
MESSAGE = p.Param("message", "Why: kept with the generation")
AT_ONCE = p.Param("rollout", "`at_once` skips the stages", choices=("staged", "at_once"))
FROM = p.Param("from", "Older generation, `epoch.gen`; default the one before")
TO = p.Param("to", "Newer generation, `epoch.gen`; default the newest")
BREAK_GLASS = p.Param("break_glass", "Why nobody else could be asked: the author may then approve")
MAX_PROPOSALS: Final = 200
JSON: Final = "application/json"
log = structlog.stdlib.get_logger()
RULE_TYPES: Final = frozenset({JSON, "application/yaml", "application/x-yaml", "text/yaml"})


class PolicyChangeController(Controller):
    """`/api/v1/policy/…`, what changes it and what it was."""

    path = "/api/v1/policy"
    tags: Sequence[str] | None = ("policy",)

    @get(
        "/rules",
        **needs(Scope.POLICY_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def rules(self, request: ApiRequest, services: Injected) -> PolicyRules:
        """Answer the rules of a scope as they were written; they speak of every tenant."""
        given = p.read(request.query_params.multi_items(), params=(SCOPE,))
        return services.publishing.policies.rules(scope_of(given))

    @put(
        "/rules",
        **needs(Scope.POLICY_WRITE, 409, 413, 422, operator=True),
        operation_class=documented((SCOPE, MESSAGE, AT_ONCE), body=RULES),
    )
    async def put_rules(self, request: ApiRequest, services: Injected) -> GenerationView:
        """Replace the rules of a scope, in JSON or YAML, and publish them with its budgets.

        Where approval is required this is 409: propose them. New rules reach one node, a tenth, all.
        """
        given = p.read(request.query_params.multi_items(), params=(SCOPE, MESSAGE, AT_ONCE))
        if services.require_approval:
            raise ConflictError("this installation requires approval. POST /policy/proposals")
        authored = await _authored(request)

        def act() -> SignedGeneration:
            return publish(
                scope_of(given),
                services.clock.now(),
                tools=services.publishing,
                rules=authored.rules,
                change=_change(request, p.one(given, "message", "") or ""),
                at_once=p.one(given, "rollout") == "at_once",
            )

        return _told(request, await _located(authored, act))

    @post(
        "/plan",
        **needs(Scope.POLICY_READ, 413, 422, operator=True),
        status_code=200,
        operation_class=documented((SCOPE,), body=RULES),
    )
    async def plan_rules(self, request: ApiRequest, services: Injected) -> PlanView:
        """Say what applying rules would change; keeps nothing. 422 names field and line."""
        given = p.read(request.query_params.multi_items(), params=(SCOPE,))
        authored = await _authored(request)
        _same_scope(authored, scope_of(given), asked="scope" in given)
        planned = await _located(
            authored,
            lambda: plan(authored.rules, services.clock.now(), tools=services.publishing),
        )
        return PlanView.of(planned, needs_approval=services.require_approval)

    @get("/schema", **needs(Scope.POLICY_READ), sync_to_thread=True)
    def schema(self, request: ApiRequest) -> dict[str, object]:
        """Answer the JSON Schema of authored rules."""
        p.read(request.query_params.multi_items(), params=())
        return json_schema()

    @get(
        "/keys",
        **needs(Scope.POLICY_PULL, 404),
        sync_to_thread=True,
        operation_class=documented(answer=BINARY),
    )
    def keys(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer the newest set of policy keys, signed by the offline root key; 404: none is used."""
        p.read(request.query_params.multi_items(), params=())
        signed = services.publishing.policies.key_set()
        if signed is None:
            raise NotFoundError("set of policy keys", "newest", "Sign one: policy keys sign")
        return Response(
            signed.body,
            media_type="application/octet-stream",
            headers={"etag": f'"{signed.version}"', "policy-signature": signed.signature},
        )

    @get(
        "/diff",
        **needs(Scope.POLICY_READ, 404, operator=True),
        sync_to_thread=True,
        operation_class=documented((SCOPE, FROM, TO)),
    )
    def diff(self, request: ApiRequest, services: Injected) -> Difference:
        """Compare the rules of two generations."""
        given = p.read(request.query_params.multi_items(), params=(SCOPE, FROM, TO))
        policies, scope = services.publishing.policies, scope_of(given)
        history = policies.history(scope, limit=2)
        if not history:
            raise NotFoundError("policy of the scope", scope)
        to, start = p.one(given, "to"), p.one(given, "from")
        newer = policies.generation(scope, pair_of("to", to)) if to else history[0]
        older = policies.generation(scope, pair_of("from", start)) if start else history[-1]
        if newer is None or older is None:
            raise NotFoundError("generation", str(to if newer is None else start))
        return _difference(older, newer)

    @post("/rollback", **needs(Scope.POLICY_WRITE, 404, 409, 422, operator=True), status_code=200)
    async def rollback(
        self, request: ApiRequest, data: JSONBody[RollBackOrder], services: Injected
    ) -> GenerationView:
        """Publish the rules of an old generation under a new, higher one, to all at once."""
        signed = await asyncio.to_thread(
            roll_back,
            data.scope,
            pair_of("to", data.to),
            services.clock.now(),
            tools=services.publishing,
            change=_change(request, data.message),
        )
        return _told(request, signed)

    @post("/epoch", **needs(Scope.POLICY_WRITE, 409, 422, operator=True), status_code=200)
    async def epoch(
        self, request: ApiRequest, data: JSONBody[Comment], services: Injected
    ) -> GenerationView:
        """Begin an epoch above everything that nodes have applied: after a restored database."""
        signed = await asyncio.to_thread(
            bump_epoch,
            data.scope,
            services.clock.now(),
            tools=services.publishing,
            change=_change(request, data.message),
        )
        return _told(request, signed)

    @get(
        "/rollout",
        **needs(Scope.POLICY_READ, 404),
        sync_to_thread=True,
        operation_class=documented((SCOPE,)),
    )
    def rollout(self, request: ApiRequest, services: Injected) -> RolloutView:
        """Show the last roll-out of a scope: its stage, or how it ended and why."""
        scope = scope_of(p.read(request.query_params.multi_items(), params=(SCOPE,)))
        found = services.publishing.policies.rollout(scope)
        if found is None:
            raise NotFoundError("roll-out of the scope", scope)
        nodes = services.publishing.policies.nodes(scope)
        seen = {node.report.node for node in nodes if is_seen(node, request.user)}
        return RolloutView.of(found, request.user, seen=seen)

    @post(
        "/rollout/halt", **needs(Scope.POLICY_WRITE, 404, 409, 422, operator=True), status_code=200
    )
    async def halt_rollout(
        self, request: ApiRequest, data: JSONBody[Comment], services: Injected
    ) -> GenerationView:
        """End the roll-out by giving everybody the old rules again."""
        signed = await asyncio.to_thread(
            halt,
            data.scope,
            services.clock.now(),
            tools=services.publishing,
            change=_change(request, data.message),
        )
        return _told(request, signed)

    @post("/rollout/promote", **needs(Scope.POLICY_WRITE, 404, 409, operator=True), status_code=200)
    async def promote_rollout(
        self, request: ApiRequest, data: JSONBody[Comment], services: Injected
    ) -> RolloutView:
        """End the roll-out by giving everybody the new rules now; marked as without proof."""
        change = _change(request, data.message)
        ended = await asyncio.to_thread(
            promote, data.scope, tools=services.publishing, change=change
        )
        _wake(request)
        return RolloutView.of(ended, request.user, seen=())

    @get(
        "/proposals",
        **needs(Scope.POLICY_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented((SCOPE, p.LIMIT)),
    )
    def proposals(self, request: ApiRequest, services: Injected) -> ProposalList:
        """List what was proposed for a scope, newest first."""
        given = p.read(request.query_params.multi_items(), params=(SCOPE, p.LIMIT))
        limit = p.whole(given, "limit", default=50, most=MAX_PROPOSALS)
        found = services.publishing.policies.proposals(scope_of(given), limit=limit)
        return ProposalList(tuple(ProposalView.of(each) for each in found))

    @post(
        "/proposals",
        **needs(Scope.POLICY_WRITE, 409, 413, 422, operator=True),
        status_code=CREATED,
        operation_class=documented((MESSAGE,), body=RULES),
    )
    async def make_proposal(self, request: ApiRequest, services: Injected) -> ProposalView:
        """Propose rules for somebody else to approve."""
        given = p.read(request.query_params.multi_items(), params=(MESSAGE,))
        authored = await _authored(request)
        change = _change(request, p.one(given, "message", "") or "")
        proposal = await _located(
            authored,
            lambda: propose(
                authored.rules,
                services.clock.now(),
                tools=services.publishing,
                ids=services.ids,
                change=change,
            ),
        )
        return ProposalView.of(proposal)

    @post(
        "/proposals/{proposal_id:str}/approve",
        **needs(Scope.POLICY_WRITE, 404, 409, 422, operator=True),
        status_code=200,
        operation_class=documented((BREAK_GLASS,)),
    )
    async def approve_proposal(
        self, request: ApiRequest, proposal_id: FromPath[str], services: Injected
    ) -> GenerationView:
        """Publish a proposal of somebody else; one's own in an emergency, which is told aloud."""
        given = p.read(request.query_params.multi_items(), params=(BREAK_GLASS,))
        why = (p.one(given, "break_glass", "") or "").strip()[:MAX_MESSAGE]
        signed = await asyncio.to_thread(
            approve,
            proposal_id,
            services.clock.now(),
            tools=services.publishing,
            by=_change(request, ""),
            break_glass=why,
        )
        if why:
            telemetry.POLICY_BREAK_GLASS.inc()
            log.error(
                "policy_glass_broken",
                proposal=proposal_id,
                by=request.user.id,
                generation=signed.generation.etag(),
                why=why,
            )
        return _told(request, signed)

    @post(
        "/proposals/{proposal_id:str}/reject",
        **needs(Scope.POLICY_WRITE, 404, 409, operator=True),
        status_code=200,
        sync_to_thread=True,
    )
    def reject_proposal(
        self, request: ApiRequest, proposal_id: FromPath[str], services: Injected
    ) -> ProposalView:
        """Turn a proposal down, or withdraw one's own."""
        return ProposalView.of(
            reject(
                proposal_id,
                services.clock.now(),
                policies=services.publishing.policies,
                by=_change(request, ""),
            )
        )


async def _authored(request: ApiRequest) -> Authored:
    """Read rules in either language.

    Raises:
        InvalidInputError: not UTF-8, or neither content type.
        PolicyError: not YAML, or not rules.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in RULE_TYPES:
        raise InvalidInputError("content-type", f"{kind[:64]!r}", "Send application/json or yaml")
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise InvalidInputError("body", "not UTF-8", "Send YAML or JSON in UTF-8") from None
    if kind == JSON:
        try:
            msgspec.json.decode(text)
        except msgspec.DecodeError:
            raise InvalidInputError("body", "not valid JSON", "Send one object") from None
    return await asyncio.to_thread(read_text, text)


async def _located(authored: Authored, act: Callable[[], _T]) -> _T:
    """Run what may refuse the rules, and say on which line they are wrong."""
    try:
        return await asyncio.to_thread(act)
    except PolicyError as wrong:
        raise authored.located(wrong) from None


def _same_scope(authored: Authored, scope: str, *, asked: bool) -> None:
    if asked and authored.rules.scope != scope:
        raise PolicyError("scope", f"{authored.rules.scope!r} is not {scope!r}", "Name one scope")


def _change(request: ApiRequest, message: str) -> Change:
    if len(message) > MAX_MESSAGE:
        raise InvalidInputError("message", f"longer than {MAX_MESSAGE} characters")
    who = request.user
    return Change(author=who.name, author_id=who.id, message=message, cause=Cause.RULES)


def _told(request: ApiRequest, signed: SignedGeneration) -> GenerationView:
    _wake(request)
    return GenerationView.of(signed, request.user)


def _wake(request: ApiRequest) -> None:
    watch: PolicyWatch = request.app.state.policy_watch
    watch.published()


def _difference(older: SignedGeneration, newer: SignedGeneration) -> Difference:
    names = tuple(each.generation.etag().strip('"') for each in (older, newer))
    if older.rules is None or newer.rules is None:
        lost = names[0] if older.rules is None else names[1]
        raise NotFoundError("rules of generation", lost, "They were not kept then")
    return Difference(
        names[0], names[1], diff_rules(older.rules, newer.rules, names=(names[0], names[1]))
    )
