"""What recorded calls would have cost with another model, tier, cache or context."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
import msgspec.yaml
from litestar import Controller, post
from litestar.params import JSONBody

from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.params import MAX_FILTER_VALUES, UNATTRIBUTED
from controlplane.api.routes.replay import same_model
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import divide_half_even, format_usd
from controlplane.pipelines.what_if import LatencyChange, compare
from controlplane.policy.draft import switch_draft
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.what_if import Scenario, WhatIfGroup, check_scenario, merged
from controlplane.signals.queries import CallQuery
from controlplane.usage.dimensions import dimension

MAX_DAYS = 93
TOP_FEATURES = 10
ASSUMPTION = (
    "the same calls with the same usage: another model's answers may be longer or shorter; latency is"
    " that of calls which either model really served, and those were not the same"
)


class WhatIfIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window of recorded calls, and what would have been different."""

    start: datetime
    end: datetime
    scenario: Scenario
    tenants: tuple[str, ...] = ()
    model: str | None = None
    """Only calls of this model."""
    team: str | None = None
    """Only calls of this team."""
    filters: dict[str, tuple[str, ...]] = {}
    """Only calls with one of these values of each dimension, as `filter.*` of cost answers."""


class WhatIfRow(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one tenant and model."""

    tenant: str
    model: str | None
    calls: int
    not_compared: int
    old_usd: str
    new_usd: str
    moved_usd: str


class WhatIfFeature(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one feature; null is unattributed."""

    feature: str | None
    calls: int
    not_compared: int
    old_usd: str
    new_usd: str
    moved_usd: str


class WhatIfView(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison, with the formula that made it."""

    start: datetime
    end: datetime
    scenario: Scenario
    formula: list[str]
    assumption: str
    price_book_version: str
    calls: int
    not_compared: int
    old_usd: str
    new_usd: str
    moved_usd: str
    compared_ratio: float | None
    """The part of the calls that both sums are of: how far they can be trusted."""
    rows: list[WhatIfRow]
    features: list[WhatIfFeature]
    """Those whose cost moves most."""
    latency: tuple[LatencyChange, ...]
    """What is recorded of the calls that would move, and of the other model, tenant by tenant."""
    latency_reason: str | None
    """Why nothing is said of latency."""
    policy_draft: str | None
    """Rules in shadow that would switch these calls to the model, as YAML; null where none can."""


class WhatIfController(Controller):
    """`/api/v1/what-if`."""

    path = "/api/v1/what-if"
    tags: Sequence[str] | None = ("prices",)

    @post("/", **needs(Scope.COSTS_READ, 413), status_code=200, sync_to_thread=True)
    def compare(
        self, request: ApiRequest, data: JSONBody[WhatIfIn], services: Injected
    ) -> WhatIfView:
        """Price recorded calls as they would have been; nothing is changed."""
        check_scenario(data.scenario)
        window = _window(data)
        tenants = tenants_of(request, services, wanted=data.tenants)
        book = services.prices.current()
        filters = _filters(data)
        query = CallQuery(tenants=tenants, window=window, filters=filters)
        found = compare(
            services.reader,
            book,
            query,
            scenario=data.scenario,
            is_same=same_model(services.prices),
        )
        groups = found.groups
        old, new = (sum(getattr(g, name) for g in groups) for name in ("old_nusd", "new_nusd"))
        calls, left_out = (
            sum(getattr(g, name) for g in groups) for name in ("calls", "not_compared")
        )
        return WhatIfView(
            start=window.start,
            end=window.end,
            scenario=data.scenario,
            formula=data.scenario.formula(),
            assumption=ASSUMPTION,
            price_book_version=book.version,
            calls=calls,
            not_compared=left_out,
            old_usd=format_usd(old),
            new_usd=format_usd(new),
            moved_usd=format_usd(new - old),
            compared_ratio=_ratio(calls, calls + left_out),
            rows=[_row(group) for group in merged(groups, ("tenant", "model"))],
            features=_features(groups),
            latency=found.latency,
            latency_reason=found.latency_reason,
            policy_draft=_draft(data, filters, book),
        )


def _filters(data: WhatIfIn) -> dict[str, tuple[str | None, ...]]:
    """Return what is asked, in both forms; of a dimension in both, the list is meant."""
    asked = {"model": data.model, "team": data.team}
    filters: dict[str, tuple[str | None, ...]] = {
        name: (value,) for name, value in asked.items() if value is not None
    }
    for name, values in data.filters.items():
        dimension(name, field="filters")
        if not 0 < len(values) <= MAX_FILTER_VALUES:
            raise InvalidInputError("filters", f"{len(values)} values of {name}", "Give 1 to 100")
        filters[name] = tuple(None if value == UNATTRIBUTED else value for value in values)
    return filters


def _ratio(part: int, whole: int) -> float | None:
    return divide_half_even(part * 10_000, whole) / 10_000 if whole else None


def _draft(
    data: WhatIfIn, filters: dict[str, tuple[str | None, ...]], book: PriceBook
) -> str | None:
    model = data.scenario.model
    provider = data.scenario.provider or (book.maker_of(model) if model else None)
    if not model or not provider:
        return None
    match = {**filters, **({"tenant": data.tenants} if data.tenants else {})}
    draft = switch_draft(provider, model, match)
    return None if draft is None else msgspec.yaml.encode(draft).decode()


def _features(groups: Iterable[WhatIfGroup]) -> list[WhatIfFeature]:
    found = merged(groups, ("feature",))
    found.sort(key=lambda one: (-abs(one.new_nusd - one.old_nusd), one.feature or ""))
    return [
        WhatIfFeature(
            feature=one.feature,
            calls=one.calls,
            not_compared=one.not_compared,
            old_usd=format_usd(one.old_nusd),
            new_usd=format_usd(one.new_nusd),
            moved_usd=format_usd(one.new_nusd - one.old_nusd),
        )
        for one in found[:TOP_FEATURES]
    ]


def _window(data: WhatIfIn) -> Window:
    for name in ("start", "end"):
        if getattr(data, name).tzinfo is None:
            raise InvalidInputError(name, "has no offset", "Write RFC 3339 with one")
    if data.start >= data.end:
        raise InvalidInputError("end", "not after start", "Windows are [start, end)")
    if (data.end - data.start).days > MAX_DAYS:
        raise InvalidInputError("start", f"more than {MAX_DAYS} days before end")
    return Window(data.start.astimezone(UTC), data.end.astimezone(UTC))


def _row(group: WhatIfGroup) -> WhatIfRow:
    return WhatIfRow(
        tenant=group.tenant,
        model=group.model,
        calls=group.calls,
        not_compared=group.not_compared,
        old_usd=format_usd(group.old_nusd),
        new_usd=format_usd(group.new_nusd),
        moved_usd=format_usd(group.new_nusd - group.old_nusd),
    )
