"""Idle time of GPU pools that no call carries: a cost of the ledger that belongs to no request."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec

from controlplane.core.calendar import Window
from controlplane.exports.statement_currency import Cell
from controlplane.exports.statement_lines import IdleCost
from controlplane.pipelines.gpu_cost import GPU_PRICE, GpuTools
from controlplane.pricing.currency import RateTable
from controlplane.pricing.gpu_cost import IDLE_TENANT
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery


class IdleLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool's slice cost in a quarter of an hour while nobody used it."""

    pool: str
    slice: str
    bucket: datetime
    cost_nusd: int


def idle_lines(
    tools: GpuTools, tenants: tuple[str, ...], window: Window, *, everyone: bool = False
) -> Iterator[IdleLine]:
    """Yield the idle lines that tenants bear, in order; with `everyone` also what nobody bears.

    What nobody bears is the pool's platform's, whoever else sees it. Who bears idle time and sent
    nothing is among everyone. Idle time that is spread over calls (`pro_rata`) is in their cost
    already and is no line here.
    """
    platforms = {pool.name: pool.platform for pool in tools.pools()}
    who = with_bearers(tools, tenants, window) if everyone else tenants
    shares = tools.store.shares(who, window, with_idle=True, by_bucket=True)
    for row in shares.to_pylist():
        nobodys = row["tenant"] == IDLE_TENANT
        is_theirs = not nobodys or everyone or platforms.get(row["pool"]) in tenants
        if row["is_idle"] and row["model"] is None and is_theirs:
            yield IdleLine(
                pool=row["pool"],
                slice=row["slice"],
                bucket=row["bucket"],
                cost_nusd=row["cost_nusd"],
            )


def with_bearers(tools: GpuTools, tenants: tuple[str, ...], window: Window) -> tuple[str, ...]:
    """Add those who bear idle time of a window and may have no call of their own."""
    return tuple(sorted({*tenants, *tools.store.bearers(window)}))


def idle_costs(
    lines: Iterator[IdleLine],
    *,
    zone: str,
    rates: RateTable,
    users: Mapping[str, Mapping[str, int]],
) -> list[IdleCost]:
    """Sum idle lines by pool and slice, by local day; each day is converted once, as FOCUS does.

    A day without a rate comes to nothing here: who asked for a currency is refused it elsewhere.
    """
    tz = ZoneInfo(zone)
    sums: dict[tuple[str, str], dict[date, tuple[int, int]]] = {}
    for line in lines:
        days = sums.setdefault((line.pool, line.slice), {})
        day = line.bucket.astimezone(tz).date()
        quarters, nusd = days.get(day, (0, 0))
        days[day] = (quarters + 1, nusd + line.cost_nusd)
    return [
        IdleCost(
            pool=pool,
            slice=part,
            cells=tuple(
                Cell(day, quarters, 0, cost_nusd=nusd, amount_nano=_converted(nusd, day, rates))
                for day, (quarters, nusd) in sorted(days.items())
            ),
            users=users.get(pool, {}),
        )
        for (pool, part), days in sorted(sums.items())
    ]


def _converted(nusd: int, day: date, rates: RateTable) -> int:
    made = rates.convert(nusd, day)
    return made.amount_nano if made else 0


def pool_users(reader: SpanReader, query: CostQuery, *, by: str) -> dict[str, dict[str, int]]:
    """Return by pool what each owner's calls cost on it: calls that carry their part of its bill."""
    asked = msgspec.structs.replace(query, group_by=(by, "price_id"))
    found: dict[str, dict[str, int]] = {}
    for row in reader.costs(asked).to_pylist():
        price = row["price_id"] or ""
        if price.startswith(GPU_PRICE) and row[by] is not None:
            users = found.setdefault(price.removeprefix(GPU_PRICE), {})
            users[row[by]] = users.get(row[by], 0) + row["cost_nusd"]
    return found
