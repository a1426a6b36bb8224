"""What would have been, and what was: replays, shadow rules, experiments, savings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
from litestar import Controller, get, post
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.budget_bodies import BudgetIn, Defaults, budget_of
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.routes.policy import SCOPE, scope_of
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.budgets.budget import Budget, check_budget
from controlplane.core.calendar import Window
from controlplane.core.errors import ConfigError, InvalidInputError, NotFoundError
from controlplane.core.money import format_usd
from controlplane.pipelines.experiments import ExperimentReport, analyze
from controlplane.pipelines.publish import carry_canaries, compile_document
from controlplane.pipelines.recorded_calls import PriceCall
from controlplane.pipelines.replay import Proposed, replay
from controlplane.pipelines.replay_report import ReplayReport
from controlplane.pipelines.savings import savings
from controlplane.policy.document import Experiment
from controlplane.policy.rules import PolicyRules, read_rules
from controlplane.policy.velocity import NoQuotas
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import Found, NotFound, PriceBook
from controlplane.pricing.quote import Finder, quote
from controlplane.signals.queries import CallQuery

RULE = p.Param("rule", "Only this experiment")
UNIT_HOURS = p.Param("unit_hours", "How long a unit is observed; default 24", integer=True)
LISTED = p.Param("limit", "Calls to list; default 1,000", integer=True)
MAX_UNIT_HOURS: Final = 24 * 31
MAX_LISTED: Final = 10_000
_REPLAY_HINT: Final = "Give rules, budgets, prices or several of them"


class ReplayOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /api/v1/replay`: what to try, and over which calls."""

    start: datetime
    end: datetime
    tenants: tuple[str, ...] = ()
    rules: dict[str, Any] | None = None
    """As in a policy file; their scope's budgets and prices are compiled in."""
    budgets: tuple[BudgetIn, ...] = ()
    prices: tuple[dict[str, Any], ...] = ()
    """As in a file of own prices."""
    limit: int = 1_000
    """Calls to list."""


class ReplayController(Controller):
    """`/api/v1/replay`, `/shadow`, `/experiments` and `/savings`."""

    path = "/api/v1"
    tags: Sequence[str] | None = ("policy",)

    @post("/replay", **needs(Scope.CALLS_READ, 413, 422), status_code=200, sync_to_thread=True)
    def replay_calls(
        self, request: ApiRequest, data: JSONBody[ReplayOrder], services: Injected
    ) -> dict[str, Any]:
        """Run proposed rules, budgets or prices over recorded calls; changes nothing.

        Money is in strings of nano-USD; `listed` names the calls that would have been others.
        """
        window = _window(data.start, data.end)
        tenants = tenants_of(request, services, wanted=data.tenants)
        if data.rules is None and not data.budgets and not data.prices:
            raise InvalidInputError("rules", "and budgets and prices are all absent", _REPLAY_HINT)
        rules = read_rules(data.rules) if data.rules is not None else None
        budgets = tuple(_budget(each, services, number=i) for i, each in enumerate(data.budgets))
        report = _play(
            request,
            services,
            CallQuery(tenants=tenants, window=window),
            rules=rules,
            budgets=budgets,
            prices=data.prices,
        )
        return _told(report, limit=data.limit)

    @get(
        "/shadow",
        **needs(Scope.CALLS_READ, 404, 413, 422, operator=True),
        sync_to_thread=True,
        operation_class=documented((*p.WINDOW, SCOPE, LISTED)),
    )
    def shadow(self, request: ApiRequest, services: Injected) -> dict[str, Any]:
        """Say what a scope's shadow rules would have done to the calls that went through."""
        given = p.read(request.query_params.multi_items(), params=(*p.WINDOW, SCOPE, LISTED))
        rules = services.publishing.policies.rules(scope_of(given))
        shadowed = tuple(rule for rule in rules.rules if rule.shadow)
        if not shadowed:
            raise NotFoundError("shadow rule of the scope", scope_of(given), "Set shadow: true")
        zone = p.zone(given, services.zone)
        report = _play(
            request,
            services,
            CallQuery(
                tenants=tenants_of(request, services, wanted=given.get("tenant", ())),
                window=p.window(given, now=services.clock.now(), in_zone=zone),
            ),
            rules=msgspec.structs.replace(rules, rules=shadowed),
        )
        return _told(report, limit=p.whole(given, "limit", default=1_000, most=MAX_LISTED))

    @get(
        "/experiments",
        **needs(Scope.CALLS_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented((*p.WINDOW, SCOPE, RULE, UNIT_HOURS)),
    )
    def experiments(
        self, request: ApiRequest, services: Injected
    ) -> dict[str, tuple[ExperimentReport, ...]]:
        """Compare the arms of a scope's experiments; the intervals hold however often one looks."""
        given = p.read(
            request.query_params.multi_items(), params=(*p.WINDOW, SCOPE, RULE, UNIT_HOURS)
        )
        now, zone = services.clock.now(), p.zone(given, services.zone)
        window = p.window(given, now=now, in_zone=zone)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        hours = p.whole(given, "unit_hours", default=24, most=MAX_UNIT_HOURS)
        wanted = p.one(given, "rule")
        rules = services.publishing.policies.rules(scope_of(given))
        return {
            "rows": tuple(
                analyze(
                    _calls(services, tenants, window),
                    rule,
                    now=min(now, window.end),
                    scores_of=lambda traces, named: services.signals.trace_events(
                        tenants, traces, named
                    ),
                    unit_hours=hours,
                )
                for rule in rules.rules
                if isinstance(rule, Experiment) and wanted in {None, rule.id}
            )
        }

    @get(
        "/savings",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(p.WINDOW),
    )
    def routing_savings(self, request: ApiRequest, services: Injected) -> dict[str, Any]:
        """Say what calls saved that were served by another model than they asked for.

        States its counterfactual and assumptions; money is in strings of nano-USD.
        """
        given = p.read(request.query_params.multi_items(), params=p.WINDOW)
        zone = p.zone(given, services.zone)
        window = p.window(given, now=services.clock.now(), in_zone=zone)
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        report = savings(
            _calls(services, tenants, window),
            price=pricer(services.prices),
            is_same=same_model(services.prices),
        )
        answer: dict[str, Any] = _money_as_text(msgspec.to_builtins(report))
        return answer


class ProposedBook:
    """Proposed prices first, those in force after."""

    def __init__(self, prices: Sequence[Mapping[str, Any]], base: Finder) -> None:
        """Take own prices as their file has them.

        Raises:
            InvalidInputError: names the price that can not be meant.
        """
        try:
            own = compile_overrides([dict(each) for each in prices])
        except ConfigError as wrong:
            raise InvalidInputError("prices", wrong.problem, wrong.fix) from None
        self._own = PriceBook("proposed", [], overrides=own)
        self._base = base

    def find(self, provider: str | None, model: str | None) -> Found:
        """Return a model's rows, or why there are none."""
        found = self._own.find(provider, model)
        return self._base.find(provider, model) if isinstance(found, NotFound) else found


def pricer(book: Finder) -> PriceCall:
    """Return what prices a replayed call."""

    def price(
        *,
        provider: str | None,
        model: str,
        at: datetime,
        usage: Mapping[str, int],
        service_tier: str,
    ) -> int | None:
        answer = quote(
            book, provider=provider, model=model, at=at, usage=usage, service_tier=service_tier
        )
        return answer.total_nusd

    return price


def same_model(book: Finder) -> Callable[[str | None, str, str], bool]:
    """Return what tells whether two names of a provider are one model of the price list."""

    def is_same(provider: str | None, one: str, other: str) -> bool:
        found = book.find(provider, one), book.find(provider, other)
        first, second = (
            None if isinstance(each, NotFound) else (each.provider, each.model) for each in found
        )
        return first is not None and first == second

    return is_same


def _play(
    request: ApiRequest,
    services: Services,
    asked: CallQuery,
    *,
    rules: PolicyRules | None = None,
    budgets: tuple[Budget, ...] = (),
    prices: Sequence[Mapping[str, Any]] = (),
) -> ReplayReport:
    document = None
    if rules is not None:
        whole = msgspec.structs.replace(
            rules,
            rules=tuple(msgspec.structs.replace(rule, shadow=False) for rule in rules.rules),
        )
        document = compile_document(
            carry_canaries(whole, PolicyRules()),
            services.clock.now(),
            # What began by itself lately says nothing about the calls of then.
            tools=msgspec.structs.replace(services.publishing, quotas=NoQuotas()),
            budgets=services.budgets.active() if request.user.all_tenants else (),
        )
    proposed = Proposed(
        document=document,
        deployments=rules.deployments if rules else {},
        budgets=budgets,
        price=pricer(ProposedBook(prices, services.prices)) if prices else None,
    )
    return replay(
        lambda: services.reader.call_batches(asked), proposed, price=pricer(services.prices)
    )


def _calls(services: Services, tenants: tuple[str, ...], window: Window) -> Iterator[pa.Table]:
    return services.reader.call_batches(CallQuery(tenants=tenants, window=window))


def _window(start: datetime, end: datetime) -> Window:
    for name, at in (("start", start), ("end", end)):
        if at.tzinfo is None:
            raise InvalidInputError(name, "has no offset", "Write RFC 3339 with one")
    if start >= end:
        raise InvalidInputError("end", "not after start", "Windows are [start, end)")
    return Window(start, end)


def _budget(said: BudgetIn, services: Services, *, number: int) -> Budget:
    budget = budget_of(
        said,
        budget_id=f"proposed-{number}",
        now=services.clock.now(),
        defaults=Defaults(services.zone, services.calendar),
    )
    check_budget(budget)
    return budget


def _told(report: ReplayReport, *, limit: int) -> dict[str, Any]:
    if not 0 <= limit <= MAX_LISTED:
        raise InvalidInputError("limit", f"is not 0 to {MAX_LISTED}")
    kept = report.listed[:limit]
    left_out = report.not_listed + len(report.listed) - len(kept)
    shown = msgspec.structs.replace(report, listed=kept, not_listed=left_out)
    answer: dict[str, Any] = _money_as_text(msgspec.to_builtins(shown))
    return answer


def _money_as_text(tree: Any) -> Any:
    """Write money as everywhere in the API: `*_nusd` as strings, and `*_usd` beside them."""
    if isinstance(tree, list | tuple):
        return [_money_as_text(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    told: dict[str, Any] = {}
    for key, value in tree.items():
        if key.endswith("_nusd") and isinstance(value, int):
            told[key] = str(value)
            told[f"{key.removesuffix('_nusd')}_usd"] = format_usd(value)
        else:
            told[key] = _money_as_text(value)
    return told
