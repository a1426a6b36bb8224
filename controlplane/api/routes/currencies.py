"""Costs in another currency, each day at its own dated rate."""

from collections.abc import Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd
from controlplane.pricing.currency import ExchangeRate, RateTable, check_rate, read_rates_csv
from controlplane.signals.queries import CostQuery, Granularity
from controlplane.usage.dimensions import BY_NAME, dimension

CURRENCY = p.Param("currency", "ISO 4217 code that has rates", "EUR")
GROUP_BY = p.Param("group_by", "One dimension: also answer its groups", "team")
MAX_RATES = 10_000


class RateIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD for one unit of a currency on a day."""

    currency: str
    day: date
    usd_per_unit: str


class RatesIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates and where they are from: `rates`, or `csv` with `currency,day,usd_per_unit` lines."""

    source: str
    rates: tuple[RateIn, ...] = ()
    csv: str | None = None


class RateList(msgspec.Struct, frozen=True):
    """Rates of a currency, oldest record first; of a day the last one holds."""

    rates: list[ExchangeRate]


class CurrencyList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/currencies`: codes that have rates."""

    rows: tuple[str, ...]


class ConvertedDay(msgspec.Struct, frozen=True, kw_only=True):
    """One day's cost with the rate it was converted at; no rate, no amount."""

    day: date
    cost_usd: str
    amount: str | None
    usd_per_unit: str | None
    rate_day: date | None
    rate_source: str | None


class ConvertedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group's cost; groups sum to the days in both currencies."""

    group: str | None
    cost_usd: str
    amount: str


class ConvertedCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Days of a window in another currency; `amount` sums the days that have a rate."""

    start: datetime
    end: datetime
    zone: str
    currency: str
    cost_usd: str
    amount: str
    days_without_rate: int
    days: list[ConvertedDay]
    groups: list[ConvertedGroup]
    """The dearest first; none without `group_by`."""


class CurrencyController(Controller):
    """`/api/v1/currencies`."""

    path = "/api/v1/currencies"
    tags: Sequence[str] | None = ("costs",)

    @get("/", **needs(Scope.COSTS_READ), sync_to_thread=True)
    def currencies(self, services: Injected) -> CurrencyList:
        """List the currencies that have rates."""
        return CurrencyList(tuple(services.exchange_rates.currencies()))

    @get(
        "/rates",
        **needs(Scope.COSTS_READ),
        sync_to_thread=True,
        operation_class=documented((CURRENCY,)),
    )
    def rates(self, request: ApiRequest, services: Injected) -> RateList:
        """List the dated rates of a currency."""
        given = p.read(request.query_params.multi_items(), params=(CURRENCY,))
        return RateList(services.exchange_rates.of(_currency(given)))

    @post("/rates", **needs(Scope.PRICES_WRITE, operator=True), sync_to_thread=True)
    def add(self, data: JSONBody[RatesIn], services: Injected) -> RateList:
        """Append dated rates; a later record of a day replaces the earlier one, which stays."""
        now = services.clock.now()
        if not data.source or bool(data.rates) == (data.csv is not None):
            raise InvalidInputError("rates", "not rates or csv, with a source")
        if len(data.rates) > MAX_RATES:
            raise InvalidInputError("rates", f"not 1 to {MAX_RATES} with a source")
        if data.csv is not None:
            rates = read_rates_csv(data.csv, source=data.source, now=now)
            services.exchange_rates.add(rates)
            return RateList(rates)
        rates = [
            ExchangeRate(
                currency=one.currency,
                day=one.day,
                usd_per_unit=one.usd_per_unit,
                source=data.source,
                recorded_at=now,
            )
            for one in data.rates
        ]
        for rate in rates:
            check_rate(rate)
        services.exchange_rates.add(rates)
        return RateList(rates)

    @get(
        "/costs",
        **needs(Scope.COSTS_READ),
        sync_to_thread=True,
        operation_class=documented((CURRENCY, GROUP_BY, *p.WINDOW), filtered=True),
    )
    def costs(self, request: ApiRequest, services: Injected) -> ConvertedCosts:
        """Answer days of cost in another currency, each with the rate that made it."""
        params = (CURRENCY, GROUP_BY, *p.WINDOW)
        given = p.read(request.query_params.multi_items(), params=params, dimensions=tuple(BY_NAME))
        currency, zone = _currency(given), p.zone(given, services.zone)
        now = services.clock.now()
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        by = p.one(given, "group_by")
        query = CostQuery(
            tenants=tenants_of(request, services, wanted=given.get("tenant", ())),
            window=window,
            granularity=Granularity.DAY,
            group_by=(dimension(by).name,) if by else (),
            filters=p.filters(given),
            zone=zone,
        )
        cells: dict[date, list[tuple[str | None, int]]] = {}
        for row in services.reader.costs(query).to_pylist():
            day = row["bucket_start"].astimezone(ZoneInfo(zone)).date()
            cells.setdefault(day, []).append((row[by] if by else None, row["cost_nusd"]))
        table = RateTable(services.exchange_rates.of(currency))
        days = [_day(day, sum(nusd for _, nusd in some), table) for day, some in cells.items()]
        amounts = [table.convert(sum(n for _, n in some), day) for day, some in cells.items()]
        return ConvertedCosts(
            start=window.start,
            end=window.end,
            zone=zone,
            currency=currency,
            cost_usd=format_usd(sum(nusd for some in cells.values() for _, nusd in some)),
            amount=format_usd(sum(made.amount_nano for made in amounts if made)),
            days_without_rate=amounts.count(None),
            days=days,
            groups=_groups(cells, table) if by else [],
        )


def _day(day: date, nusd: int, table: RateTable) -> ConvertedDay:
    made = table.convert(nusd, day)
    return ConvertedDay(
        day=day,
        cost_usd=format_usd(nusd),
        amount=format_usd(made.amount_nano) if made else None,
        usd_per_unit=made.rate.usd_per_unit if made else None,
        rate_day=made.rate.day if made else None,
        rate_source=made.rate.source if made else None,
    )


def _groups(
    cells: dict[date, list[tuple[str | None, int]]], table: RateTable
) -> list[ConvertedGroup]:
    """Split what each day converts to over its groups, to the billionth."""
    sums: dict[str | None, tuple[int, int]] = {}
    for day, some in cells.items():
        parts = table.convert_parts([nusd for _, nusd in some], day) or [0] * len(some)
        for (group, nusd), amount in zip(some, parts, strict=True):
            cost, converted = sums.get(group, (0, 0))
            sums[group] = (cost + nusd, converted + amount)
    ordered = sorted(sums.items(), key=lambda one: (-one[1][0], one[0] is None, one[0] or ""))
    return [
        ConvertedGroup(group=group, cost_usd=format_usd(cost), amount=format_usd(amount))
        for group, (cost, amount) in ordered
    ]


def _currency(given: p.Given) -> str:
    code = p.one(given, "currency")
    if not code:
        raise InvalidInputError("currency", "missing", "As in currency=EUR")
    return code.upper()
