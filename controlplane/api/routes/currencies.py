"""Costs in another currency, each day at its own dated rate."""

from collections.abc import Sequence
from datetime import date, datetime

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd
from controlplane.pipelines.converted_costs import Amount, ConvertedSums, convert_costs
from controlplane.pricing.currency import ExchangeRate, RateTable, check_rate, read_rates_csv
from controlplane.signals.queries import CostQuery
from controlplane.usage.dimensions import BY_NAME, dimension

CURRENCY = p.Param("currency", "ISO 4217 code that has rates", "EUR")
GROUP_BY = p.Param("group_by", "One dimension: also answer its groups", "team")
MAX_TOP = 20
TOP = p.Param("top", f"Also days of so many dearest groups and of the rest, up to {MAX_TOP}", "8")
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
    """One day's cost with the rate it was converted at; no rate, no amount; null is unknown."""

    day: date
    cost_usd: str | None
    amount: str | None
    usd_per_unit: str | None
    rate_day: date | None
    rate_source: str | None


class ConvertedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group's cost; groups sum to the days in both currencies; null is unknown, never zero."""

    group: str | None
    cost_usd: str | None
    amount: str | None


class ConvertedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A day of one of the dearest groups, or of all others together; points sum to the groups."""

    day: date
    group: str | None
    is_other: bool
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
    series: list[ConvertedPoint]
    """In order of days; none without `top`. Days without a rate or a known cost are left out."""


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
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented((CURRENCY, GROUP_BY, TOP, *p.WINDOW), filtered=True),
    )
    def costs(self, request: ApiRequest, services: Injected) -> ConvertedCosts:
        """Answer days of cost in another currency, each with the rate that made it.

        What an owner's cost at one price was on a day is converted once; days, groups and series sum
        those, as statements and FOCUS exports do.
        """
        params = (CURRENCY, GROUP_BY, TOP, *p.WINDOW)
        given = p.read(request.query_params.multi_items(), params=params, dimensions=tuple(BY_NAME))
        currency, zone = _currency(given), p.zone(given, services.zone)
        now = services.clock.now()
        window = p.window(given, now=now, in_zone=zone, calendar=services.calendar)
        by = p.one(given, "group_by")
        query = CostQuery(
            tenants=tenants_of(request, services, wanted=given.get("tenant", ())),
            window=window,
            filters=p.filters(given),
            zone=zone,
        )
        table = RateTable(services.exchange_rates.of(currency))
        sums = convert_costs(services.reader, query, table, by=dimension(by).name if by else None)
        days = [_day(day, sums.days[day], table) for day in sorted(sums.days)]
        top = p.whole(given, "top", default=0, most=MAX_TOP)
        return ConvertedCosts(
            start=window.start,
            end=window.end,
            zone=zone,
            currency=currency,
            cost_usd=format_usd(sum(one.nusd for one in sums.days.values())),
            amount=format_usd(sum(one.nano for one in sums.days.values())),
            days_without_rate=sum(one.amount is None for one in days),
            days=days,
            groups=_groups(sums) if by else [],
            series=_series(sums, table, top=top) if by and top else [],
        )


def _day(day: date, sums: Amount, table: RateTable) -> ConvertedDay:
    rate = table.on(day)
    return ConvertedDay(
        day=day,
        cost_usd=_usd(sums),
        amount=_amount(sums),
        usd_per_unit=rate.usd_per_unit if rate else None,
        rate_day=rate.day if rate else None,
        rate_source=rate.source if rate else None,
    )


def _usd(sums: Amount) -> str | None:
    return format_usd(sums.nusd) if sums.is_known else None


def _amount(sums: Amount) -> str | None:
    return format_usd(sums.nano) if sums.is_known and sums.is_rated else None


def _groups(sums: ConvertedSums) -> list[ConvertedGroup]:
    return [
        ConvertedGroup(
            group=name, cost_usd=_usd(sums.groups[name]), amount=_amount(sums.groups[name])
        )
        for name in sums.ordered()
    ]


def _series(sums: ConvertedSums, table: RateTable, *, top: int) -> list[ConvertedPoint]:
    dearest = sums.ordered()[:top]
    points: dict[tuple[date, bool, str | None], Amount] = {}
    for (day, name), amount in sums.cells.items():
        if table.on(day) is not None and amount.is_known:
            is_other = name not in dearest
            key = (day, is_other, None if is_other else name)
            points.setdefault(key, Amount()).join(amount)
    return [
        ConvertedPoint(
            day=day,
            group=name,
            is_other=is_other,
            cost_usd=format_usd(points[day, is_other, name].nusd),
            amount=format_usd(points[day, is_other, name].nano),
        )
        for day, is_other, name in sorted(
            points, key=lambda key: (key[0], key[1], key[2] is None, key[2] or "")
        )
    ]


def _currency(given: p.Given) -> str:
    code = p.one(given, "currency")
    if not code:
        raise InvalidInputError("currency", "missing", "As in currency=EUR")
    return code.upper()
