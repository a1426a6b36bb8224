"""Idle time of GPU pools that no call carries: a cost of the ledger that belongs to no request."""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from controlplane.core.calendar import Window
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pricing.gpu_cost import IDLE_TENANT


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
