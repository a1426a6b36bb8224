"""What prompt caches saved, and what it cost to fill them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import pyarrow as pa
from litestar import Controller, Response, get

from controlplane.api import params as p
from controlplane.api.describe import TABLE, documented
from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.api.routes.costs import cost_query
from controlplane.api.tables import respond, rfc3339
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError, LimitExceededError
from controlplane.core.money import divide_half_even, format_usd
from controlplane.signals.queries import MAX_CHART_ROWS, CallQuery, CostQuery
from controlplane.usage.cache_savings import FORMULA, CacheFigures, cache_savings, total_of
from controlplane.usage.dimensions import BY_NAME, dimension

MAX_WIDTH: Final = timedelta(days=93)
MAX_GROUP_BY: Final = 3
PARAMS: Final = (
    *p.WINDOW,
    p.Param("group_by", f"At most {MAX_GROUP_BY} dimensions; default model", repeats=True),
)
_COUNTS: Final = (
    *("calls", "hit_calls", "input_tokens", "read_tokens", "write_tokens", "unknown_calls"),
    *("unknown_tokens", "calls_without_usage", "gateway_answers"),
)


class CacheController(Controller):
    """`/api/v1/costs/cache`."""

    path = "/api/v1/costs/cache"
    tags: Sequence[str] | None = ("costs",)

    @get(
        "/",
        **needs(Scope.COSTS_READ, 413),
        sync_to_thread=True,
        operation_class=documented(PARAMS, filtered=True, answer=TABLE),
    )
    def cache(self, request: ApiRequest, services: Injected) -> Response[bytes]:
        """Answer hit rates, read saving, write premium and net saving, by dimensions and in all.

        Each call counts at the rates of the price that made its cost. `net_saving` = `read_saving`
        - `write_premium`, below zero where a cache is filled and not read. Calls that used the
        cache at a price that lacks a rate are `unknown_calls` and in no sum; of a row where
        nothing else used it the money is null. Hit rates are of calls with known input.
        """
        given = p.read(request.query_params.multi_items(), params=PARAMS, dimensions=tuple(BY_NAME))
        tenants = tenants_of(request, services, wanted=given.get("tenant", ()))
        query = cost_query(given, tenants=tenants, now=services.clock.now(), services=services)
        by = {name: dimension(name).columns for name in query.group_by or ("model",)}
        _check(query, by)
        calls = CallQuery(tenants=tenants, window=query.window, filters=query.filters)
        book = services.prices.current()
        groups = cache_savings(services.reader.call_batches(calls), book, by=by)
        if len(groups) > MAX_CHART_ROWS:
            raise LimitExceededError("rows of a cache answer", MAX_CHART_ROWS, len(groups))
        meta = {
            "start": rfc3339(query.window.start),
            "end": rfc3339(query.window.end),
            "zone": query.zone,
            "tenants": list(tenants),
            "group_by": list(by),
            "currency": "USD",
            "price_book_version": book.version,
            "formula": list(FORMULA),
            "totals": _total(total_of(groups)),
        }
        return respond(request, _table(groups, tuple(by)), meta=meta)


def _check(query: CostQuery, by: dict[str, tuple[str, ...]]) -> None:
    if query.window.end - query.window.start > MAX_WIDTH:
        raise InvalidInputError("start", f"more than {MAX_WIDTH.days} days before end")
    for name, columns in by.items():
        if not columns:
            raise InvalidInputError("group_by", f"calls have no {name}", "Use another dimension")


def _money(one: CacheFigures) -> dict[str, int | None]:
    amounts = {
        "read_saving": one.read_saving_nusd,
        "write_premium": one.write_premium_nusd,
        "net_saving": one.net_nusd,
    }
    return {name: nusd if one.is_known else None for name, nusd in amounts.items()}


def _hit_ratios(one: CacheFigures) -> dict[str, float | None]:
    return {
        "hit_ratio_tokens": _ratio(one.read_tokens, one.input_tokens),
        "hit_ratio_calls": _ratio(one.hit_calls, one.calls),
    }


def _ratio(part: int, whole: int) -> float | None:
    """Divide to four decimals for display; None of nothing."""
    return divide_half_even(part * 10_000, whole) / 10_000 if whole else None


def _total(one: CacheFigures) -> dict[str, Any]:
    money = _money(one).items()
    return {
        **{name: getattr(one, name) for name in _COUNTS},
        **_hit_ratios(one),
        **{f"{name}_usd": None if nusd is None else format_usd(nusd) for name, nusd in money},
        **{f"{name}_nusd": None if nusd is None else str(nusd) for name, nusd in money},
    }


def _table(groups: list[CacheFigures], names: tuple[str, ...]) -> pa.Table:
    rows = [
        {
            **dict(zip(names, one.key, strict=True)),
            **{name: getattr(one, name) for name in _COUNTS},
            **_hit_ratios(one),
            **{f"{name}_nusd": nusd for name, nusd in _money(one).items()},
        }
        for one in groups
    ]
    fields: list[tuple[str, pa.DataType]] = [
        *((name, pa.string()) for name in names),
        *((name, pa.int64()) for name in _COUNTS),
        *((name, pa.float64()) for name in ("hit_ratio_tokens", "hit_ratio_calls")),
        *((f"{name}_nusd", pa.int64()) for name in ("read_saving", "write_premium", "net_saving")),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
