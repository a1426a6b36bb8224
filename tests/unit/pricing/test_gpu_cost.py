"""GPU dollars: exact sums, monotone shares, and how near they are to a simulated engine's truth."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.gpu_cost import (
    Allocation,
    Measured,
    Served,
    TokenWork,
    allocate,
    batches,
    busy_us,
    mean_batch,
    split,
    work_units,
)
from controlplane.pricing.gpu_pool import (
    DatedPrice,
    GpuPool,
    IdlePolicy,
    NodePrice,
    PriceKind,
    Slice,
    bill_nusd,
    check_pools,
)
from tests.oracle import continuous_batching as sim

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
END = START + QUARTER
USD = 1_000_000_000


def _pool(**said: object) -> GpuPool:
    plain: dict[str, object] = {
        "name": "a100",
        "price": NodePrice(kind=PriceKind.ON_DEMAND, hourly_usd="4"),
    }
    return msgspec.convert({**plain, **said}, GpuPool)


def _served(number: int, **said: object) -> Served:
    plain: dict[str, object] = {
        "call_id": f"call_{number:04d}",
        "tenant": "acme",
        "team": None,
        "model": "llama",
        "start": START + timedelta(minutes=1),
        "duration_us": 60_000_000,
        "input_tokens": 1_000,
        "cached_tokens": 0,
        "output_tokens": 100,
    }
    return msgspec.convert({**plain, **said}, Served)


def _allocate(
    pool: GpuPool, *served: Served, busy: float | None = None, start: datetime = START
) -> Allocation:
    measured = {} if busy is None else {"": Measured(busy_ratio=busy)}
    return allocate(pool, {"": served}, start=start, end=start + QUARTER, measured=measured)


@pytest.mark.parametrize(
    ("price", "hourly"),
    [
        (NodePrice(kind=PriceKind.ON_DEMAND, hourly_usd="32.77"), Fraction("32.77")),
        (NodePrice(kind=PriceKind.SPOT, hourly_usd="9.8304"), Fraction("9.8304")),
        (
            # $87,600 for a year in advance is $10 an hour, and $2 as used.
            NodePrice(kind=PriceKind.COMMITTED, upfront_usd="87600", hourly_usd="2"),
            Fraction(12),
        ),
        (
            # $280,320 over 4 years is $8; 10 kW at $0.10 and a PUE of 1.5 are $1.50.
            NodePrice(
                kind=PriceKind.ON_PREM,
                capex_usd="280320",
                power_kw="10",
                usd_per_kwh="0.10",
                pue="1.5",
            ),
            Fraction("9.5"),
        ),
    ],
)
def test_an_hour_of_each_kind_of_price(price: NodePrice, hourly: Fraction) -> None:
    assert hourly * USD == price.hourly_nusd()


@given(
    cents=st.integers(1, 10**7),
    divisor=st.sampled_from([1, 3, 7, 8_760]),
    nodes=st.integers(1, 50),
    hours=st.integers(1, 30),
)
def test_minutes_quarters_and_hours_are_one_bill(
    cents: int, divisor: int, nodes: int, hours: int
) -> None:
    """60 times a rounded minute is not the hour; the cumulative bill is (I9)."""
    price = NodePrice(
        kind=PriceKind.COMMITTED, upfront_usd=str(Decimal(cents) / 100), term_hours=divisor
    )
    pool = _pool(price=price, nodes=nodes)
    end = START + timedelta(hours=hours)
    whole = bill_nusd(pool, START, end)
    for step in (timedelta(minutes=1), QUARTER, timedelta(hours=1)):
        cuts = [START + step * i for i in range((end - START) // step + 1)]
        parts = [bill_nusd(pool, a, b) for a, b in pairwise(cuts)]
        assert whole == sum(parts)
    exact = Fraction(cents, 100) / divisor * nodes * hours * USD
    assert abs(whole - exact) <= 1


REQUESTS = st.lists(
    st.builds(
        lambda **said: _served(0, **said),
        tenant=st.sampled_from(["a", "b", "c"]),
        team=st.sampled_from([None, "t"]),
        start=st.integers(-1_200, 1_200).map(lambda s: START + timedelta(seconds=s)),
        duration_us=st.integers(0, 10**10),
        queue_us=st.integers(0, 10**8),
        input_tokens=st.integers(0, 10**6),
        cached_tokens=st.integers(0, 10**6),
        output_tokens=st.integers(0, 10**5),
    ),
    max_size=12,
).map(lambda found: [msgspec.structs.replace(r, call_id=f"c{i}") for i, r in enumerate(found)])


@given(
    served=REQUESTS,
    cents=st.integers(0, 10**6),
    policy=st.sampled_from(IdlePolicy),
    busy=st.one_of(st.none(), st.floats(-1, 2)),
)
def test_requests_and_idle_are_the_bill(
    served: list[Served], cents: int, policy: IdlePolicy, busy: float | None
) -> None:
    price = NodePrice(kind=PriceKind.SPOT, hourly_usd=str(Decimal(cents) / 100))
    pool = _pool(price=price, idle=policy, owner="o", nodes=3)
    found = _allocate(pool, *served, busy=busy)
    assert bill_nusd(pool, START, END) == found.bill_nusd
    assert found.bill_nusd == sum(share.cost_nusd for share in found.shares)
    assert all(share.cost_nusd >= 0 for share in found.shares)
    again = _allocate(pool, *reversed(served), busy=busy)
    assert found == again


@given(
    shares=st.lists(st.sampled_from(["1/7", "2/7", "1/3", "1/10"]), min_size=1, max_size=3),
    served=REQUESTS,
)
def test_slices_of_a_node_are_its_bill(shares: list[str], served: list[Served]) -> None:
    parts = tuple(Slice(name=f"s{i}", share=share) for i, share in enumerate(shares))
    pool = _pool(slices=parts)
    spread = {f"s{i}": served[i :: len(shares)] for i in range(len(shares))}
    found = allocate(pool, spread, start=START, end=END, measured={"s0": Measured(busy_ratio=0.5)})
    assert found.bill_nusd == USD == sum(share.cost_nusd for share in found.shares)
    for part in parts:
        amount = sum(s.cost_nusd for s in found.shares if s.slice == part.name)
        assert abs(amount - Fraction(part.share) * USD) <= 1


@given(
    parts=st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    total=st.integers(0, 10**12),
    which=st.integers(0, 7),
    more=st.integers(0, 10**9),
)
def test_more_work_never_costs_less(parts: list[int], total: int, which: int, more: int) -> None:
    which %= len(parts)
    before = split(total, parts)
    assert sum(before) == (total if any(parts) else 0)
    raised = [part + more * (i == which) for i, part in enumerate(parts)]
    assert split(total, raised)[which] >= before[which]
    whole = sum(parts)
    if whole:
        assert all(
            abs(b - Fraction(total * p, whole)) < 1 for b, p in zip(before, parts, strict=True)
        )


@given(one=REQUESTS.filter(bool).map(lambda found: found[0]), cut=st.integers(1, 59))
def test_work_over_adjacent_windows_adds_up(one: Served, cut: int) -> None:
    middle = START + timedelta(minutes=cut)
    end = START + timedelta(hours=1)
    weights = TokenWork(prefill=1_000, cached=20, decode=9_999)
    first = work_units(one, weights, start=START, end=middle)
    second = work_units(one, weights, start=middle, end=end)
    assert work_units(one, weights, start=START, end=end) == first + second


def test_a_cached_token_saves_its_prefill() -> None:
    cold, warm = _served(1), _served(2, cached_tokens=1_000)
    found = _allocate(_pool(), cold, warm, busy=1.0)
    costs = {share.call_id: share.cost_nusd for share in found.shares}
    # Two at once: a decoded token is 75 prefilled ones, so 1,000 + 7,500 against 20 + 7,500.
    cold_nusd = round(Fraction(USD * 8_500, 16_020))
    assert [cold_nusd, USD - cold_nusd] == [costs["call_0001"], costs["call_0002"]]


def test_requests_at_once_share_their_decode_steps() -> None:
    both = [_served(1), _served(2)]
    assert 2 == mean_batch(both, start=START, end=END)
    later = _served(3, start=START + timedelta(minutes=5))
    assert 1 == mean_batch([both[0], later], start=START, end=END)
    assert Fraction(3, 2) == mean_batch([*both, later], start=START, end=END)
    assert 1 == mean_batch([], start=START, end=END)


def test_each_request_has_its_own_company() -> None:
    """Of ten minutes the first ran five alone and five among ten: 0.5 x 1 + 0.5 x 0.1 of each step.

    An engine that says twice as many ran says so of each; nobody runs with less than itself.
    """
    half = 300_000_000
    first = _served(0, start=START, duration_us=2 * half)
    others = [
        _served(n, start=START + timedelta(microseconds=half), duration_us=half)
        for n in range(1, 10)
    ]
    unknown = _served(10, start=START, duration_us=0)
    here = [first, *others, unknown]
    mean = Fraction(11, 2)
    assert mean == mean_batch(here, start=START, end=END)
    alone = Fraction(20, 11)
    assert [alone, *[Fraction(10)] * 9, mean] == batches(here, Measured(), start=START, end=END)
    assert [2 * alone, *[Fraction(20)] * 9, 2 * mean] == batches(
        here, Measured(batch=11.0), start=START, end=END
    )
    assert [1, *[Fraction(20, 11)] * 9, 1] == batches(
        here, Measured(batch=1.0), start=START, end=END
    )
    middle = START + timedelta(microseconds=half)
    assert 1 == batches(here, Measured(), start=START, end=middle)[0]
    assert 10 == batches(here, Measured(), start=middle, end=END)[0]
    assert [] == batches([], Measured(batch=3.0), start=START, end=END)


def test_what_was_measured_beats_what_was_in_progress() -> None:
    half = _allocate(_pool(), _served(1, duration_us=450_000_000))
    assert ("low", 0.5) == (half.confidence.value, half.busy_ratio)
    measured = _allocate(_pool(), _served(1, duration_us=450_000_000), busy=0.25)
    assert ("high", 0.25) == (measured.confidence.value, measured.busy_ratio)
    assert [250_000_000, 750_000_000] == [share.cost_nusd for share in measured.shares]


@pytest.mark.parametrize(
    ("policy", "idle"),
    [
        (IdlePolicy.OWN_LINE, {("", True): 600_000_000}),
        (IdlePolicy.OWNER, {("ml", True): 600_000_000}),
        (IdlePolicy.PLATFORM, {("platform", True): 600_000_000}),
        (IdlePolicy.PRO_RATA, {("acme", True): 300_000_000, ("globex", True): 300_000_000}),
    ],
)
def test_who_bears_idle_time(policy: IdlePolicy, idle: dict[tuple[str, bool], int]) -> None:
    pool = _pool(idle=policy, owner="ml")
    found = _allocate(pool, _served(1), _served(2, tenant="globex"), busy=0.4)
    sums: dict[tuple[str, bool], int] = defaultdict(int)
    for share in found.shares:
        sums[share.tenant, share.is_idle] += share.cost_nusd
    used = {("acme", False): 200_000_000, ("globex", False): 200_000_000}
    assert {**used, **idle} == sums


def test_nobody_there_is_all_idle_even_where_a_gpu_was_busy() -> None:
    found = _allocate(_pool(idle=IdlePolicy.PRO_RATA), busy=0.9)
    assert [("", USD, True)] == [(s.tenant, s.cost_nusd, s.is_idle) for s in found.shares]


def test_time_in_the_queue_is_not_busy() -> None:
    waiting = _served(1, duration_us=100_000_000, queue_us=40_000_000)
    other = _served(2, start=START + timedelta(minutes=1, seconds=90), duration_us=30_000_000)
    assert 80_000_000 == busy_us([waiting, other], start=START, end=END)


@pytest.mark.parametrize(
    "pools",
    [
        (_pool(), _pool()),
        (_pool(models=("m",)), _pool(name="b", models=("M",))),
        (_pool(idle=IdlePolicy.OWNER),),
        (_pool(slices=(Slice(name="a", share="2/3"), Slice(name="b", share="1/2"))),),
        (_pool(slices=(Slice(name="a", share="x"),)),),
        (_pool(slices=(Slice(name="a", share="1/0"),)),),
        (_pool(slices=(Slice(name="a", share="0"),)),),
        (_pool(slices=(Slice(name="a", share="8/7"),)),),
        (_pool(price=NodePrice(kind=PriceKind.SPOT, hourly_usd="four")),),
        (_pool(price=NodePrice(kind=PriceKind.SPOT, hourly_usd="-1")),),
        (_pool(price=NodePrice(kind=PriceKind.SPOT, hourly_usd="NaN")),),
    ],
)
def test_pools_that_can_not_be_billed_are_refused(pools: tuple[GpuPool, ...]) -> None:
    with pytest.raises(InvalidInputError):
        check_pools(pools)


def test_pools_that_share_no_model_and_no_more_than_a_node_can_be_billed() -> None:
    check_pools(())
    check_pools(
        (
            _pool(models=("m", "n")),
            _pool(name="b", idle=IdlePolicy.OWNER, owner="search"),
            _pool(name="c", slices=(Slice(name="s", share="2/3", models=("o",)),
                                    Slice(name="t", share="1/3", models=("p",)))),
        )
    )  # fmt: skip


def _simulated(seed: int, *, per_second: float) -> tuple[sim.Engine, list[Served]]:
    engine = sim.run(sim.workload(seed, requests=400, per_second=per_second))
    served = [
        Served(
            call_id=f"c{i:05d}",
            tenant=one.request.tenant,
            team=None,
            model="llama",
            start=START + timedelta(microseconds=one.request.arrival_us),
            duration_us=int(one.ended_us - one.request.arrival_us),
            queue_us=int(one.began_us - one.request.arrival_us),
            input_tokens=one.request.input_tokens,
            cached_tokens=one.request.cached_tokens,
            output_tokens=one.request.output_tokens,
        )
        for i, one in enumerate(engine.done)
    ]
    return engine, served


STATED_ERROR = 0.05
"""Largest relative difference of a tenant's share of the used cost from the simulation's truth."""


@pytest.mark.parametrize("basis", ["traces alone", "measured"])
@pytest.mark.parametrize(("seed", "per_second"), [(1, 4.0), (2, 8.0), (3, 2.0), (4, 1.0), (5, 6.0)])
def test_shares_agree_with_a_simulated_engine(seed: int, per_second: float, basis: str) -> None:
    """The engine's steps are 143 prefilled tokens long, ours 150; contexts and chunks are its own."""
    engine, served = _simulated(seed, per_second=per_second)
    last = max(one.start + timedelta(microseconds=one.duration_us) for one in served)
    cost: dict[str, int] = defaultdict(int)
    bill = 0
    for number in range((last - START) // QUARTER + 1):
        at = START + number * QUARTER
        here = [one for one in served if one.start < at + QUARTER]
        measured = {}
        if basis == "measured":
            ratio = busy_us(here, start=at, end=at + QUARTER) / (
                QUARTER / timedelta(microseconds=1)
            )
            measured = {"": Measured(busy_ratio=ratio, batch=engine.mean_batch)}
        part = allocate(_pool(), {"": here}, start=at, end=at + QUARTER, measured=measured)
        bill += part.bill_nusd
        for share in part.shares:
            cost["idle" if share.is_idle else share.tenant] += share.cost_nusd
    assert bill == sum(cost.values())
    used = sum(value for tenant, value in cost.items() if tenant != "idle")
    assert used == pytest.approx(engine.busy_us / 1e6 * 4 * USD / 3_600, rel=0.01)
    true: dict[str, float] = defaultdict(float)
    for one in engine.done:
        true[one.request.tenant] += one.gpu_us / engine.busy_us
    for tenant, share_of_truth in true.items():
        assert cost[tenant] / used == pytest.approx(share_of_truth, rel=STATED_ERROR)


CHANGED = GpuPool(
    name="a100",
    price=NodePrice(kind=PriceKind.ON_DEMAND, hourly_usd="3.333333333"),
    nodes=2,
    changes=(
        DatedPrice(
            effective_from=date(2026, 11, 20),
            price=NodePrice(kind=PriceKind.SPOT, hourly_usd="1.1"),
            nodes=3,
        ),
        DatedPrice(
            effective_from=date(2026, 11, 21),
            price=NodePrice(kind=PriceKind.ON_DEMAND, hourly_usd="7"),
        ),
    ),
)


def test_a_dated_price_holds_from_its_day_until_the_next() -> None:
    """An hour on each side of both midnights, by hand: 2 x 3.33, 3 x 1.1, 3 x 7."""
    first, second = (datetime(2026, 11, day, tzinfo=UTC) for day in (20, 21))
    hour = timedelta(hours=1)
    assert 6_666_666_666 == bill_nusd(CHANGED, first - hour, first)
    assert 3_300_000_000 == bill_nusd(CHANGED, first, first + hour)
    assert 3_300_000_000 == bill_nusd(CHANGED, second - hour, second)
    assert 21_000_000_000 == bill_nusd(CHANGED, second, second + hour)
    assert 24_300_000_000 == bill_nusd(CHANGED, second - hour, second + hour)
    assert [6_666_666_666, 3_300_000_000, 21_000_000_000] == [
        CHANGED.hourly_nusd(at) for at in (first - hour, first, second)
    ]


@given(st.lists(st.integers(0, 4 * 1_440), min_size=2, max_size=12, unique=True))
def test_bills_across_changes_add_up(minutes: list[int]) -> None:
    """Any cut of a window that crosses both changes sums to the whole (I9)."""
    cuts = [datetime(2026, 11, 19, tzinfo=UTC) + timedelta(minutes=m) for m in sorted(minutes)]
    parts = [bill_nusd(CHANGED, a, b) for a, b in pairwise(cuts)]
    assert bill_nusd(CHANGED, cuts[0], cuts[-1]) == sum(parts)


def test_changes_out_of_order_are_refused() -> None:
    twice = msgspec.structs.replace(CHANGED, changes=CHANGED.changes[::-1])
    with pytest.raises(InvalidInputError, match="not in order"):
        check_pools((twice,))
