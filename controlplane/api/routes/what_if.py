"""What recorded calls would have cost with another model, tier, cache or context."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
from litestar import Controller, post
from litestar.params import JSONBody

from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope
from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd
from controlplane.pricing.what_if import Scenario, WhatIfGroup, check_scenario, what_if
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery

MAX_DAYS = 93
ASSUMPTION = "the same calls with the same usage: another model's answers may be longer or shorter"


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


class WhatIfRow(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one tenant and model."""

    tenant: str
    model: str | None
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
    rows: list[WhatIfRow]


class WhatIfController(Controller):
    """`/api/v1/what-if`."""

    path = "/api/v1/what-if"
    tags: Sequence[str] | None = ("prices",)

    @post("/", **needs(Scope.COSTS_READ), status_code=200, sync_to_thread=True)
    def compare(
        self, request: ApiRequest, data: JSONBody[WhatIfIn], services: Injected
    ) -> WhatIfView:
        """Price recorded calls as they would have been; nothing is changed."""
        check_scenario(data.scenario)
        window = _window(data)
        tenants = tenants_of(request, services, wanted=data.tenants)
        book = services.prices.current()
        groups = what_if(
            _calls(services.reader, data, tenants=tenants, window=window), data.scenario, book
        )
        old, new = (sum(getattr(g, name) for g in groups) for name in ("old_nusd", "new_nusd"))
        return WhatIfView(
            start=window.start,
            end=window.end,
            scenario=data.scenario,
            formula=data.scenario.formula(),
            assumption=ASSUMPTION,
            price_book_version=book.version,
            calls=sum(group.calls for group in groups),
            not_compared=sum(group.not_compared for group in groups),
            old_usd=format_usd(old),
            new_usd=format_usd(new),
            moved_usd=format_usd(new - old),
            rows=[_row(group) for group in groups],
        )


def _calls(
    reader: SpanReader, data: WhatIfIn, *, tenants: tuple[str, ...], window: Window
) -> Iterator[pa.Table]:
    asked = {"model": data.model, "team": data.team}
    filters: dict[str, tuple[str | None, ...]] = {
        name: (value,) for name, value in asked.items() if value is not None
    }
    query = CallQuery(tenants=tenants, window=window, filters=filters)
    return reader.call_batches(query)


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
