"""What a pool's bill comes to per request, and what nobody used.

The bill of a bucket is split over the node's slices, each slice's part into used and idle by how
long it was busy, and the used part over the requests by their work in the bucket. Every split is
by largest remainder, so that requests plus idle are the bill to the nano-dollar.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Final

import msgspec

from controlplane.core.instants import MICROSECOND
from controlplane.core.money import split_largest_remainder
from controlplane.pricing.gpu_pool import GpuPool, IdlePolicy, Slice, Weights, bill_nusd

IDLE_TENANT: Final = ""
"""The tenant of an idle line that nobody bears."""
_FINE_BITS: Final = 20
"""Of a part of a microsecond."""
_PRECISE: Final = 1_000
"""The largest denominator of a number of requests."""


class Confidence(StrEnum):
    """What the split rests on."""

    HIGH = "high"
    """GPUs or engines said how busy they were."""
    LOW = "low"
    """Busy is when any request was in progress, as traces say."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a pool served, as its call says."""

    call_id: str
    tenant: str
    team: str | None
    model: str
    start: datetime
    duration_us: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    queue_us: int = 0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What engines and GPUs of a slice said of a bucket."""

    busy_ratio: float | None = None
    batch: float | None = None
    """Mean number of running requests."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bucket's bill: a request's, or what was idle."""

    slice: str
    call_id: str | None
    tenant: str
    team: str | None
    model: str | None
    cost_nusd: int
    is_idle: bool


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket's bill and its lines; `sum(cost_nusd) = bill_nusd`."""

    pool: str
    start: datetime
    bill_nusd: int
    busy_ratio: float
    confidence: Confidence
    shares: tuple[Share, ...]


def split(total: int, parts: Sequence[int]) -> list[int]:
    """Split an amount in proportion by largest remainder; equal remainders go to the first.

    All parts zero: nobody gets anything. Otherwise the answer sums to `total`.
    """
    return split_largest_remainder(total, list(parts)) if any(parts) else [0] * len(parts)


def allocate(
    pool: GpuPool,
    served: Mapping[str, Sequence[Served]],
    *,
    start: datetime,
    end: datetime,
    measured: Mapping[str, Measured],
) -> Allocation:
    """Split a pool's bill of `[start, end)`, whole minutes.

    Args:
        pool: what is billed.
        served: requests by slice name ('' is the whole node), any order.
        start: first instant.
        end: first instant after.
        measured: what engines and GPUs said, by slice; what is not there is taken from the
            requests: busy is when any was in progress.
    """
    bill = bill_nusd(pool, start, end)
    parts = pool.parts()
    shares: list[Share] = []
    used_total = 0
    for part, amount in zip((*parts, None), _over_slices(bill, parts), strict=True):
        if part is None:
            if amount:
                shares += _idle(pool, "", amount, lines=())
            continue
        here = sorted(served.get(part.name, ()), key=lambda one: one.call_id)
        said = measured.get(part.name, Measured())
        ratio = _busy_ratio(said.busy_ratio, here, start=start, end=end)
        works = [
            work_units(one, token_work(pool.weights, batch), start=start, end=end)
            for one, batch in zip(here, batches(here, said, start=start, end=end), strict=True)
        ]
        used = amount * ratio.numerator // ratio.denominator if any(works) else 0
        used_total += used
        lines = [
            _of(one, part.name, cost)
            for one, cost, work in zip(here, split(used, works), works, strict=True)
            if work
        ]
        shares += [*lines, *_idle(pool, part.name, amount - used, lines=lines)]
    return Allocation(
        pool=pool.name,
        start=start,
        bill_nusd=bill,
        busy_ratio=used_total / bill if bill else 0.0,
        confidence=_confidence(parts, measured),
        shares=tuple(shares),
    )


class TokenWork(msgspec.Struct, frozen=True, kw_only=True):
    """Work of one token of each kind, in one bucket and slice."""

    prefill: int
    cached: int
    decode: int


def token_work(weights: Weights, batch: Fraction) -> TokenWork:
    """Share a decode step over the requests that took it together."""
    decode = max(weights.decode_step * batch.denominator // max(batch.numerator, 1), 1)
    return TokenWork(
        prefill=weights.prefill, cached=weights.cached, decode=min(decode, weights.decode_step)
    )


def mean_batch(served: Sequence[Served], *, start: datetime, end: datetime) -> Fraction:
    """Answer how many requests were in progress on average while any was."""
    active = sum(
        _elapsed(_began(one), _length(one), end) - _elapsed(_began(one), _length(one), start)
        for one in served
    )
    return max(Fraction(active, max(busy_us(served, start=start, end=end), 1)), Fraction(1))


def batches(
    served: Sequence[Served], said: Measured, *, start: datetime, end: datetime
) -> list[Fraction]:
    """Answer with how many requests each shared its decode steps, itself among them.

    A step is shared by those that run then, so it is the harmonic mean over the time of a request:
    one that ran half alone and half among ten bore 0.55 of each, where the mean of both says 0.18. An
    engine that says how many ran saw requests that no trace has, or had some of ours in its queue: all
    are scaled to what it says.
    """
    mean = mean_batch(served, start=start, end=end)
    scale = Fraction(1)
    if said.batch is not None and said.batch >= 1:
        scale = Fraction(said.batch).limit_denominator(_PRECISE) / mean
    spans = [_inside(one, start=start, end=end) for one in served]
    borne = _borne_until(spans)
    found = []
    for first, last in spans:
        own = mean
        if last > first:
            steps = max(borne[last] - borne[first], 1)
            own = Fraction((last - first) << _FINE_BITS, steps).limit_denominator(_PRECISE)
        found.append(max(own * scale, Fraction(1)))
    return found


def _inside(one: Served, *, start: datetime, end: datetime) -> tuple[int, int]:
    """Return when a request ran, in microseconds of the bucket."""
    began = (_began(one) - start) // MICROSECOND
    last = min(began + _length(one), (end - start) // MICROSECOND)
    return max(began, 0), max(last, began, 0)


def _borne_until(spans: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Answer, at each beginning and end, one request's part of all steps so far."""
    changes: dict[int, int] = defaultdict(int)
    for first, last in spans:
        changes[first] += 1
        changes[last] -= 1
    borne, running, total, before = dict[int, int](), 0, 0, 0
    for at in sorted(changes):
        if running:
            total += ((at - before) << _FINE_BITS) // running
        borne[at] = total
        running += changes[at]
        before = at
    return borne


def work_units(one: Served, token: TokenWork, *, start: datetime, end: datetime) -> int:
    """Answer a request's work inside `[start, end)`; over adjacent windows it adds up.

    Work is spread evenly over the time from leaving the queue to the end.
    """
    total = (
        token.prefill * max(one.input_tokens - one.cached_tokens, 0)
        + token.cached * one.cached_tokens
        + token.decode * one.output_tokens
    )
    if not total:
        return 0
    began, length = _began(one), _length(one)
    if not length:
        return total if start <= began < end else 0
    return total * _elapsed(began, length, end) // length - (
        total * _elapsed(began, length, start) // length
    )


def _began(one: Served) -> datetime:
    return one.start + timedelta(microseconds=min(max(one.queue_us, 0), max(one.duration_us, 0)))


def _length(one: Served) -> int:
    return max(one.duration_us - max(one.queue_us, 0), 0)


def _elapsed(began: datetime, length_us: int, at: datetime) -> int:
    """Answer the microseconds of a request that lie before an instant."""
    return min(max((at - began) // MICROSECOND, 0), length_us)


def _confidence(parts: tuple[Slice, ...], measured: Mapping[str, Measured]) -> Confidence:
    known = all(measured.get(part.name, Measured()).busy_ratio is not None for part in parts)
    return Confidence.HIGH if known else Confidence.LOW


def _over_slices(bill: int, parts: tuple[Slice, ...]) -> list[int]:
    """Split the bill over slices; the last amount is of what no slice has."""
    shares = [part.part() for part in parts]
    shares.append(1 - sum(shares, Fraction()))
    scale = 1
    for share in shares:
        scale = scale * share.denominator
    return split(bill, [int(share * scale) for share in shares])


def _busy_ratio(
    measured: float | None, served: Sequence[Served], *, start: datetime, end: datetime
) -> Fraction:
    if measured is not None:
        return Fraction(min(max(measured, 0.0), 1.0)).limit_denominator(1_000_000)
    return Fraction(busy_us(served, start=start, end=end), (end - start) // MICROSECOND)


def busy_us(served: Sequence[Served], *, start: datetime, end: datetime) -> int:
    """Answer for how long any request was out of its queue and in progress."""
    spans = sorted(
        (
            max(_began(one), start),
            min(one.start + timedelta(microseconds=one.duration_us), end),
        )
        for one in served
    )
    total, until = 0, start
    for began, ended in spans:
        if ended > max(began, until):
            total += (ended - max(began, until)) // MICROSECOND
            until = ended
    return total


def _of(one: Served, slice_name: str, cost: int) -> Share:
    return Share(
        slice=slice_name,
        call_id=one.call_id,
        tenant=one.tenant,
        team=one.team,
        model=one.model,
        cost_nusd=cost,
        is_idle=False,
    )


def _idle(pool: GpuPool, slice_name: str, amount: int, *, lines: Sequence[Share]) -> list[Share]:
    """Write what was idle in the name of who bears it."""
    if not amount:
        return []
    if pool.idle is IdlePolicy.PRO_RATA and any(line.cost_nusd for line in lines):
        spread = split(amount, [line.cost_nusd for line in lines])
        return [
            msgspec.structs.replace(line, cost_nusd=cost, is_idle=True)
            for line, cost in zip(lines, spread, strict=True)
            if cost
        ]
    bearer = {
        IdlePolicy.OWN_LINE: IDLE_TENANT,
        IdlePolicy.PRO_RATA: IDLE_TENANT,
        IdlePolicy.OWNER: pool.owner or IDLE_TENANT,
        IdlePolicy.PLATFORM: pool.platform,
    }[pool.idle]
    return [
        Share(
            slice=slice_name,
            call_id=None,
            tenant=bearer,
            team=None,
            model=None,
            cost_nusd=amount,
            is_idle=True,
        )
    ]
