"""Closed quarters of an hour: calls and samples -> each pool's bill split -> stored."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa
import xxhash

from controlplane.core.calendar import Window
from controlplane.pricing.gpu_cost import Allocation, Measured, Served, Share, allocate
from controlplane.pricing.gpu_pool import GpuPool, Slice
from controlplane.pricing.gpu_ports import BucketBill, GpuStore
from controlplane.signals.gpu import CALL_COST_SCHEMA, SHARE_SCHEMA
from controlplane.signals.meanings import Meaning
from controlplane.signals.ports import SpanWriter
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.signals.signal_ports import SignalReader
from controlplane.signals.vocabulary import CostState, PriceProvenance
from controlplane.usage.completeness import plain_model

BUCKET: Final = timedelta(minutes=15)
SETTLED_AFTER: Final = timedelta(minutes=2)
"""How long after its end a bucket is first worked out."""
WATCHED: Final = timedelta(hours=2)
"""Later calls and samples of a bucket change it for so long; `rebuild` does after that."""
BASIS: Final = "gpu"
"""Cost reason of a call whose cost is its part of a pool's bill."""
GPU_PRICE: Final = f"{BASIS}:"
"""Begins the price of such a call; the pool's name follows."""
_LAST_HASH: Final = 2**64 - 1
_MEAN: Final = "mean"
_BUSY: Final = (Meaning.GPU_ACTIVE_RATIO, Meaning.GPU_UTILIZATION_RATIO)


class GpuTools(msgspec.Struct, frozen=True, kw_only=True):
    """What GPU cost is worked out from, and where it goes."""

    store: GpuStore
    signals: SignalReader
    pools: Callable[[], Sequence[GpuPool]]
    writer: SpanWriter


def gpu_round(tools: GpuTools, *, now: datetime) -> int:
    """Work out what has changed of the buckets that are watched; return how many were written."""
    last = _floor(now - SETTLED_AFTER)
    return rebuild(tools, Window(last - WATCHED, last), now=now)


def rebuild(tools: GpuTools, window: Window, *, now: datetime) -> int:
    """Work out every whole bucket of a window; one that nothing changed of is left as it is."""
    pools = tools.pools()
    written = 0
    bucket = _floor(window.start)
    while pools and bucket + BUCKET <= window.end:
        written += _bucket(tools, pools, bucket, now=now)
        bucket += BUCKET
    return written


def _bucket(tools: GpuTools, pools: Sequence[GpuPool], bucket: datetime, *, now: datetime) -> int:
    window = Window(bucket, bucket + BUCKET)
    calls = tools.store.served_calls(window).to_pylist()
    gauges = tools.signals.gauges(tools.store.sample_tenants(), window).to_pylist()
    written = 0
    for pool in pools:
        served = _served(pool, pools, calls)
        measured = {part.name: _measured(pool, part, gauges) for part in pool.parts()}
        mark = _fingerprint(pool, served, measured)
        if mark == tools.store.fingerprint(pool.name, bucket):
            continue
        found = allocate(pool, served, start=window.start, end=window.end, measured=measured)
        bill = BucketBill(
            pool=pool.name,
            bucket=bucket,
            bill_nusd=found.bill_nusd,
            busy_ratio=found.busy_ratio,
            confidence=found.confidence.value,
            fingerprint=mark,
            computed_at=now,
        )
        tools.store.replace(bill, _lines(found), _calls(found))
        written += 1
    bill_calls(tools, window)
    return written


def bill_calls(tools: GpuTools, bucket: Window) -> int:
    """Say on the billing report of each call what it costs; return how many were revised.

    A revision is a report like any other: settlement, the cube, budgets and exports follow it, and
    a rebuild from stored spans answers the same. It differs from what it revises in its price and
    in its content hash, by which it is the last word.
    """
    found = tools.store.unbilled_reports(bucket)
    rows = [row for row in found.to_pylist() if row["content_hash"] < _LAST_HASH]
    if not rows:
        return 0
    revised = [_revised(row) for row in rows]
    spans = pa.Table.from_pylist(revised, schema=SPAN_SCHEMA)
    said = [[row["trace_lo"], row["span_id"], row["content_hash"]] for row in revised]
    mark = xxhash.xxh3_64_hexdigest(msgspec.msgpack.encode(said))
    tools.writer.write(spans, batch_id=f"gpu:{bucket.start.isoformat()}:{mark}")
    return len(revised)


def _revised(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in SPAN_SCHEMA.names},
        "content_hash": row["content_hash"] + 1,
        "cost_nusd": row["gpu_nusd"],
        "cost_state": CostState.ESTIMATED.value,
        "cost_reason": BASIS,
        "price_id": f"{GPU_PRICE}{row['pool']}",
        "price_provenance": PriceProvenance.OVERRIDE.value,
    }


def _served(
    pool: GpuPool, pools: Sequence[GpuPool], calls: Iterable[Mapping[str, Any]]
) -> dict[str, list[Served]]:
    """Choose a pool's calls by model; a pool without models takes what no other names."""
    of_model = {
        plain_model(model): (other.name, part.name)
        for other in pools
        for part in other.parts()
        for model in part.models
    }
    rest = next((p for p in pools if not any(part.models for part in p.parts())), None)
    found: dict[str, list[Served]] = defaultdict(list)
    for row in calls:
        names = [plain_model(row[n]) for n in ("model", "request_model") if row[n]]
        home = next((of_model[name] for name in names if name in of_model), None)
        if home is None and rest is not None:
            home = (rest.name, rest.parts()[0].name)
        if home is not None and home[0] == pool.name:
            found[home[1]].append(_to_served(row))
    return found


def _to_served(row: Mapping[str, Any]) -> Served:
    return Served(
        call_id=row["call_id"],
        tenant=row["tenant"],
        team=row["team"],
        model=row["model"],
        start=row["start_time"],
        duration_us=row["duration_us"],
        input_tokens=row["input_tokens"],
        cached_tokens=row["cached_tokens"],
        output_tokens=row["output_tokens"],
        queue_us=row["queue_us"],
    )


def _measured(pool: GpuPool, part: Slice, gauges: Iterable[Mapping[str, Any]]) -> Measured:
    """Read what was said of a slice: GPUs name the pool, engines the pool or the model.

    A GPU's counters are of the whole device, so they say nothing of a slice of one.
    """
    models = {plain_model(model) for model in part.models}
    busy: dict[str, list[float]] = defaultdict(list)
    running: list[float] = []
    for row in gauges:
        of_pool = row["pool"] == pool.name
        of_model = row["model"] is not None and plain_model(row["model"]) in models
        if row["meaning"] in _BUSY and of_pool and not pool.slices:
            busy[row["meaning"]].append(row[_MEAN])
        if row["meaning"] == Meaning.RUNNING_REQUESTS and (
            of_model or (of_pool and not pool.slices)
        ):
            running.append(row[_MEAN])
    ratios = next((busy[meaning] for meaning in _BUSY if busy[meaning]), None)
    return Measured(
        busy_ratio=sum(ratios) / len(ratios) if ratios else None,
        batch=sum(running) / len(running) if running else None,
    )


def _fingerprint(
    pool: GpuPool, served: Mapping[str, list[Served]], measured: Mapping[str, Measured]
) -> int:
    said = [pool, sorted(served.items()), sorted(measured.items())]
    return xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(msgspec.to_builtins(said)))


def _lines(found: Allocation) -> pa.Table:
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    for share in found.shares:
        key = (share.slice, share.tenant, share.team, share.model, share.is_idle)
        sums[key][0] += share.call_id is not None and not share.is_idle
        sums[key][1] += share.cost_nusd
    names = ("slice", "tenant", "team", "model", "is_idle")
    rows = [
        {
            "pool": found.pool,
            "bucket": found.start,
            **dict(zip(names, key, strict=True)),
            "calls": calls,
            "cost_nusd": cost,
        }
        for key, (calls, cost) in sums.items()
    ]
    return pa.Table.from_pylist(rows, schema=SHARE_SCHEMA)


def _calls(found: Allocation) -> pa.Table:
    lines: dict[str, dict[str, Any]] = {}
    for share in found.shares:
        if share.call_id is not None:
            line = lines.setdefault(share.call_id, _line(found, share))
            line["idle_nusd" if share.is_idle else "cost_nusd"] += share.cost_nusd
    return pa.Table.from_pylist(list(lines.values()), schema=CALL_COST_SCHEMA)


def _line(found: Allocation, share: Share) -> dict[str, Any]:
    return {
        "pool": found.pool,
        "bucket": found.start,
        "call_id": share.call_id,
        "tenant": share.tenant,
        "cost_nusd": 0,
        "idle_nusd": 0,
    }


def _floor(at: datetime) -> datetime:
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
