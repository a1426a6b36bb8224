"""Costs in the shape of OpenCost's allocations, for programs that read those.

The names are of `AllocationJSON` (opencost/opencost, core/pkg/opencost/allocation_json.go). What we
do not bill apart (CPU, memory, network, load balancers, volumes: all part of a node's price) is 0.
Money is a JSON number with every digit of its nano-dollars: a reader of decimals has the ledger's
amount, one of doubles the nearest double. Nothing is NaN; what is not told is null.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.money import format_usd, split_largest_remainder
from controlplane.usage.dimensions import dimension

UNALLOCATED: Final = "__unallocated__"
IDLE: Final = "__idle__"
NODE: Final = "node"
"""The property that is a GPU pool, and no dimension of calls."""
LABEL: Final = "label:"
PROPERTIES: Final[Mapping[str, str]] = {
    "cluster": "provider",
    "namespace": "tenant",
    "controllerkind": "operation",
    "controller": "model",
    "pod": "feature",
    "container": "model",
    "service": "service",
    "team": "team",
    "environment": "environment",
    "product": "project",
}
"""OpenCost's properties as dimensions of ours; any dimension is also a `label:`."""
DEFAULT: Final = ("cluster", NODE, "namespace", "pod", "container")
"""What OpenCost names an allocation by when no aggregation is asked for."""
_SPELLED: Final = {"controllerkind": "controllerKind"}
_SERVICES: Final = "service"
_LABELLED: Final = frozenset({"team", "environment", "product"})
"""Properties that are labels of an allocation."""
_HOUR_DECIMALS: Final = 9
_SECONDS: Final = 60
_NOUGHT: Final = (
    "cpuCores", "cpuCoreRequestAverage", "cpuCoreLimitAverage", "cpuCoreUsageAverage",
    "cpuCoreHours", "cpuCost", "cpuCostAdjustment", "cpuCostIdle", "cpuEfficiency",
    "gpuCostAdjustment",
    "networkTransferBytes", "networkReceiveBytes", "networkCost", "networkCrossZoneCost",
    "networkCrossRegionCost", "networkInternetCost", "networkCostAdjustment",
    "loadBalancerCost", "loadBalancerCostAdjustment",
    "pvBytes", "pvByteHours", "pvCost", "pvCostAdjustment",
    "ramBytes", "ramByteRequestAverage", "ramByteLimitAverage", "ramByteUsageAverage",
    "ramByteHours", "ramCost", "ramCostAdjustment", "ramCostIdle", "ramEfficiency",
    "sharedCost",
)  # fmt: skip


class Allocation(msgspec.Struct, kw_only=True):
    """What one name cost in a window: API calls apart from GPUs, those by pool."""

    name: str
    keys: dict[str, str]
    """Property asked for -> its value; none of an idle row but its node."""
    window: Window
    external_nusd: int = 0
    gpu_nusd: dict[str, int] = {}
    """By pool; includes `idle_nusd`."""
    idle_nusd: int = 0
    """What it bears of idle time."""

    @property
    def total_nusd(self) -> int:
        """What it costs in all."""
        return self.external_nusd + sum(self.gpu_nusd.values())


class NodeHours(msgspec.Struct, frozen=True):
    """How long a pool's nodes were billed in a window, and for how much."""

    hours: Fraction
    bill_nusd: int


def property_of(text: str) -> str:
    """Return a property as it is aggregated by.

    Raises:
        InvalidInputError: OpenCost has it and we have nothing like it, or nobody has it.
    """
    name = text.strip()
    if name.startswith(LABEL):
        return LABEL + dimension(name.removeprefix(LABEL).strip(), field="aggregate").name
    lowered = name.lower()
    if lowered != NODE and lowered not in PROPERTIES:
        known = ", ".join(sorted((NODE, *PROPERTIES)))
        raise InvalidInputError("aggregate", f"no property {name!r}", f"{known}, label:<dimension>")
    return lowered


def dimension_of(key: str) -> str | None:
    """Return the dimension that a property is; None for the pool."""
    if key.startswith(LABEL):
        return key.removeprefix(LABEL)
    return None if key == NODE else PROPERTIES[key]


def allocations_of(
    rows: Iterable[tuple[Mapping[str, str | None], str | None, int]],
    idle: Mapping[str, int],
    *,
    window: Window,
    include_idle: bool,
    share_idle: bool,
    by_node: bool,
) -> dict[str, Allocation]:
    """Sum rows (property values, GPU pool or None, nano-USD) by name, and place what was idle.

    Idle time is shared in proportion to GPU cost, of its own pool with `by_node`, by largest
    remainder; where nothing ran that it could be shared over it stays a row of its own.
    """
    made: dict[str, Allocation] = {}
    for values, pool, nusd in rows:
        keys = {key: value or UNALLOCATED for key, value in values.items()}
        one = Allocation(name="/".join(keys.values()), keys=keys, window=window)
        if pool is None:
            one.external_nusd = nusd
        else:
            one.gpu_nusd = {pool: nusd}
        put(made, one)
    kept = dict(idle) if include_idle or share_idle else {}
    if share_idle:
        kept = _share(list(made.values()), kept, by_node=by_node)
    for pool, nusd in sorted(kept.items()):
        name = f"{pool}/{IDLE}" if by_node else IDLE
        keys = {NODE: pool} if by_node else {}
        put(made, Allocation(name=name, keys=keys, window=window, gpu_nusd={pool: nusd}))
    return made


def _share(rows: Sequence[Allocation], idle: Mapping[str, int], *, by_node: bool) -> dict[str, int]:
    """Add each pool's idle cost to those that ran; return what nobody could bear."""
    left: dict[str, int] = {}
    for pool, nusd in idle.items():
        weights = [
            max(
                row.gpu_nusd.get(pool, 0)
                if by_node
                else sum(row.gpu_nusd.values()) - row.idle_nusd,
                0,
            )
            for row in rows
        ]
        if not any(weights):
            left[pool] = nusd
            continue
        for row, part in zip(rows, split_largest_remainder(nusd, weights), strict=True):
            if part:
                row.gpu_nusd = {**row.gpu_nusd, pool: row.gpu_nusd.get(pool, 0) + part}
                row.idle_nusd += part
    return left


def put(made: dict[str, Allocation], one: Allocation) -> None:
    """Add an allocation to those of its name; of two with other properties the same ones stay."""
    was = made.get(one.name)
    if was is None:
        made[one.name] = one
        return
    was.external_nusd += one.external_nusd
    was.idle_nusd += one.idle_nusd
    for pool, nusd in one.gpu_nusd.items():
        was.gpu_nusd = {**was.gpu_nusd, pool: was.gpu_nusd.get(pool, 0) + nusd}
    was.keys = {key: value for key, value in was.keys.items() if one.keys.get(key) == value}


def accumulated(sets: Sequence[Mapping[str, Allocation]], window: Window) -> dict[str, Allocation]:
    """Sum sets of consecutive windows into one."""
    made: dict[str, Allocation] = {}
    for one in (row for rows in sets for row in rows.values()):
        put(made, msgspec.structs.replace(one, window=window))
    return made


def to_wire(
    sets: Sequence[tuple[Mapping[str, Allocation], Mapping[str, NodeHours] | None]],
    *,
    warning: str | None = None,
) -> bytes:
    """Write OpenCost's envelope: a map of allocations for each window, and the pools' hours in it.

    Without hours (whoever sees some tenants only is not told what an hour costs) those are null.
    """
    document: dict[str, Any] = {
        "code": 200,
        "status": "success",
        "data": [{name: _wire(one, hours) for name, one in rows.items()} for rows, hours in sets],
    }
    if warning:
        document["warning"] = warning
    return msgspec.json.encode(document)


def _wire(one: Allocation, pools: Mapping[str, NodeHours] | None) -> dict[str, Any]:
    start, end = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (one.window.start, one.window.end))
    gpu = sum(one.gpu_nusd.values())
    hours = None if pools is None else _gpu_hours(one, pools)
    minutes = (one.window.end - one.window.start).total_seconds() / _SECONDS
    worked = gpu > 0 and not one.name.endswith(IDLE)
    busy = round(float(Fraction(gpu - one.idle_nusd, gpu)), 6) if worked else 0
    return {
        "name": one.name,
        "properties": _properties(one.keys),
        "window": {"start": start, "end": end},
        "start": start,
        "end": end,
        "minutes": int(minutes),
        **dict.fromkeys(_NOUGHT, 0),
        "gpuCount": None if hours is None else _decimal(hours * _SECONDS / int(minutes)),
        "gpuHours": None if hours is None else _decimal(hours),
        "gpuCost": _money(gpu),
        "gpuCostIdle": _money(one.idle_nusd),
        "gpuEfficiency": busy,
        "externalCost": _money(one.external_nusd),
        "totalCost": _money(one.total_nusd),
        "totalEfficiency": busy,
        "pvs": None,
        "lbAllocations": None,
        "gpuAllocation": None,
    }


def _properties(keys: Mapping[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for key, value in keys.items():
        if value == UNALLOCATED:
            continue
        if key.startswith(LABEL):
            labels[key.removeprefix(LABEL)] = value
        elif key in _LABELLED:
            labels[key] = value
        elif key == _SERVICES:
            told["services"] = [value]
        else:
            told[_SPELLED.get(key, key)] = value
    return {**told, "labels": labels} if labels else told


def _gpu_hours(one: Allocation, pools: Mapping[str, NodeHours]) -> Fraction:
    """Return a part of each pool's node hours, as its cost is a part of the bill."""
    return sum(
        (
            pools[pool].hours * Fraction(nusd, pools[pool].bill_nusd)
            for pool, nusd in one.gpu_nusd.items()
            if pool in pools and pools[pool].bill_nusd
        ),
        Fraction(),
    )


def _decimal(value: Fraction) -> msgspec.Raw:
    return msgspec.Raw(format_usd(round(value * 10**_HOUR_DECIMALS)).encode())


def _money(nusd: int) -> msgspec.Raw:
    return msgspec.Raw(format_usd(nusd).encode())
