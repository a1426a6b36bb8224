"""Whatever happens to a store, in any order, it answers what one rebuilt from its spans answers.

Batches on time and late, resends and replays of batches, settlements, roll-ups, re-rates of windows
with several versions, erasures: a machine draws sequences of them, and after each compares every
table with a rebuild, and the ledger with the sum of what was booked.
"""

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from controlplane.core.calendar import Window
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.ingest.subjects import Subject
from controlplane.pipelines.rerate import apply_rerate, post_adjustments, preview_rerate
from controlplane.pipelines.settle import rebuild, settle_tick
from controlplane.pricing.price import price, repin, reprice
from controlplane.pricing.price_book import ListedModel, ListedProvider, Pin, PriceBook
from controlplane.pricing.rates import ALWAYS, PriceRow, Rate, Tier
from controlplane.pricing.rerate import RerateOrder
from controlplane.signals.queries import CallQuery, CostQuery, Granularity
from controlplane.signals.schema import ATTRIBUTED_SCHEMA
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.usage.dimensions import CUBE_DIMENSIONS, MEASURES

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
FIRST = AT - timedelta(days=3)
NOW = AT + timedelta(days=1)
EVER = Window(FIRST - timedelta(days=1), NOW + timedelta(days=300))
TENANTS, USERS = ("a", "b"), ("ann", None)
SUBJECT_KEY = b"k" * 32
FULL = os.environ.get("CONTROLPLANE_TEST_FULL") == "1"
SIZE = settings(max_examples=100 if FULL else 6, stateful_step_count=30 if FULL else 12)


def _listed(nusd: int, models: tuple[str, ...]) -> list[ListedProvider]:
    rates = {
        name: Rate(nusd, 1)
        for name in ("input_uncached", "cache_read", "web_searches", "output_text")
    }
    rows = [
        ListedModel(
            model=name,
            rows=(PriceRow(price_id=f"{nusd}/{name}", validity=ALWAYS, tiers=(Tier(-1, rates),)),),
            spellings=(name,),
        )
        for name in models
    ]
    return [ListedProvider(provider="p", models=rows)]


VERSIONS = [(3, ("m",)), (5, ("m", "fresh")), (2, ("fresh",))]
BOOKS = [PriceBook(f"v{n}", _listed(*said)) for n, said in enumerate(VERSIONS)]


def _span(dice: random.Random, number: int, *, prompts: bool) -> dict[str, Any]:
    """A report that may share ids and traces with others, or be a revision of one."""
    tokens, cached = dice.choice([10, 20]), dice.choice([0, 4])
    ids = [None, f"chatcmpl-{dice.randrange(20):08d}"]
    return {
        "trace_lo": dice.randrange(1, 20),
        "span_id": dice.randrange(1, 90),
        "parent_span_id": dice.randrange(90),
        "content_hash": number,
        "start_time": AT - dice.choice([timedelta(0), timedelta(minutes=1), timedelta(minutes=40),
                                        timedelta(days=1, hours=4), timedelta(days=2, hours=23)]),
        "report_kind": dice.choice(["call", "call", "call", "aggregate"]),
        "layer": dice.choice(["client", "client", "proxy", "engine", "agent"]),
        "key_role": dice.choice(["unknown", "unknown", "proxy", "agent"]),
        "response_id": dice.choice([*ids, f"cmpl-{dice.randrange(9):08d}-0"] if prompts else ids),
        "status": dice.choice(["ok", "ok", "error"]),
        "provider": "p",
        "billing_model": dice.choice(["m", "m", "m", "fresh", "unknown"]),
        "input_tokens": tokens,
        "output_tokens": 5,
        "input_uncached": tokens - cached,
        "cache_read": cached,
        "cached_input_tokens": cached,
        "output_text": 5,
        "web_searches": dice.choice([None, 2]),
        "tenant": dice.choice(TENANTS),
        "team": dice.choice([None, "x", "y"]),
        "user_id": dice.choice(USERS),
    }  # fmt: skip


class Ledger:
    """Posts each version once, as a database with a unique key would."""

    def __init__(self) -> None:
        self.posted: set[int] = set()
        self.total = 0

    def counts_calls(self) -> bool:
        return True

    def post(self, changes: pa.Table, now: datetime) -> None:
        del now
        rows = changes.select(["version", "sign", "cost_nusd"]).to_pylist()
        fresh = {row["version"] for row in rows} - self.posted
        self.total += sum(r["sign"] * (r["cost_nusd"] or 0) for r in rows if r["version"] in fresh)
        self.posted |= fresh

    restate = post


class StoreMachine(RuleBasedStateMachine):
    """One store, and what it is compared with."""

    rows: Callable[..., pa.Table]
    closed_before: datetime | None = None
    prompts = True

    @initialize()
    def open(self) -> None:
        self.store = DuckDbSpanStore(None, subject_key=SUBJECT_KEY)
        self.ledger = Ledger()
        self.pins: list[Pin] = []
        self.batches: list[pa.Table] = []
        self.now = NOW
        self.made = 0

    def book(self) -> PriceBook:
        """The first version, and the others where a window was re-rated with them."""
        book = PriceBook("v0", _listed(*VERSIONS[0]))
        book.pins = tuple(self.pins)
        return book

    def tick(self) -> None:
        book = self.book()
        through = -1
        while True:
            self.now += timedelta(minutes=20)
            done = settle_tick(
                self.store, now=self.now, ledger=self.ledger,
                reprice=lambda r: reprice(r, book), repin=lambda r: repin(r, book),
            )  # fmt: skip
            if done.through == through:
                break
            through = done.through
        post_adjustments(self.store.rerates, self.ledger, now=self.now)

    @rule(seed=st.integers(0, 2**32), count=st.integers(1, 25))
    def send(self, seed: int, count: int) -> None:
        """Some reports are of now, some of days ago, some revise or repeat earlier ones."""
        dice = random.Random(seed)
        spans = [_span(dice, self.made + n, prompts=self.prompts) for n in range(count)]
        self.made += count
        self.batches.append(self.rows(*spans).select(ATTRIBUTED_SCHEMA.names))
        self.write(len(self.batches) - 1, batch_id=f"b{len(self.batches)}")

    def write(self, number: int, *, batch_id: str) -> None:
        self.store.write(price(self.batches[number], self.book()), batch_id=batch_id)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """A batch again, under its own id (known) or as a resend (duplicates)."""
        number = data.draw(st.integers(0, len(self.batches) - 1))
        again = data.draw(st.sampled_from([f"b{number + 1}", f"again-{self.now:%j%H%M}"]))
        self.write(number, batch_id=again)

    @rule()
    def settle(self) -> None:
        self.tick()

    @rule()
    def roll_up(self) -> None:
        self.store.roll_up(now=self.now + timedelta(minutes=20))

    @rule(
        version=st.sampled_from([1, 2]),
        hours=st.tuples(st.integers(0, 84), st.integers(1, 84)),
        tenants=st.sampled_from([(), ("a",)]),
        part=st.sampled_from([1, 9, 250_000]),
    )
    def re_rate(
        self, version: int, hours: tuple[int, int], tenants: tuple[str, ...], part: int
    ) -> None:
        """Preview, apply, apply again: the diff is what moved, and twice is once."""
        self.tick()
        self.store.rerates.most = part
        start = FIRST + timedelta(hours=hours[0])
        window = Window(start, start + timedelta(hours=hours[1]))
        order = RerateOrder(
            run_id=f"r{self.now:%j%H%M}", window=window, price_version=f"v{version}",
            tenants=tenants, closed_before=self.closed_before,
        )  # fmt: skip
        book = BOOKS[version]
        offered = preview_rerate(self.store.rerates, order, book)
        before = self.booked()
        applied = apply_rerate(self.store.rerates, order, book, now=self.now)
        assert offered.moved_nusd == applied.moved_nusd == self.booked() - before
        self.re_rated(order, book)
        self.pins.append(Pin(window, tenants, lambda: book))
        assert 0 == apply_rerate(self.store.rerates, order, book, now=self.now).calls
        post_adjustments(self.store.rerates, self.ledger, now=self.now)

    def re_rated(self, order: RerateOrder, book: PriceBook) -> None:
        """A re-rate was applied."""

    @rule()
    def erase(self) -> None:
        """The one person there is, everywhere.

        A call whose reports name two people keeps nobody after one is erased, where a rebuild
        would name the other: the machine draws none.
        """
        before = self.booked()
        for tenant in TENANTS:
            person = Subject(tenant, "ann")
            self.store.erase(person, now=self.now, apply=True)
            assert not self.store.erase(person, now=self.now, apply=False).spans
        assert before == self.booked(), "usage and cost stay"

    def booked(self) -> int:
        """Every settled call and correction."""
        (row,) = self.store.costs(CostQuery(tenants=TENANTS, window=EVER)).to_pylist() or [
            {"cost_nusd": 0}
        ]
        return int(row["cost_nusd"])

    @rule()
    def compare(self) -> None:
        """The rebuilt store has the same calls, suppressions, accounts, corrections and cube."""
        self.tick()
        assert self.booked() == self.ledger.total
        book = self.book()
        rebuilt = DuckDbSpanStore(None, subject_key=SUBJECT_KEY)
        rebuild(
            self.store, rebuilt, now=self.now,
            reprice=lambda r: reprice(r, book), repin=lambda r: repin(r, book),
        )  # fmt: skip
        later = self.now + timedelta(hours=2)
        while self.store.roll_up(now=later):
            pass
        assert _answers(self.store) == _answers(rebuilt)
        rebuilt.close()

    @override
    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.compare()
            self.store.close()


class ClosingMachine(StoreMachine):
    """The same while periods are closed, beside a twin that closes none and is sent the same.

    Closed calls stay to the byte, and with the corrections both cost and used the same, bucket by
    bucket and whoever's it is: late reports name other owners. Requests that several
    spans report are left out: they are priced when they are added up, and what a closed one cost
    before its window was re-rated is in no span that a rebuild could read.
    """

    prompts = False

    @override
    @initialize()
    def open(self) -> None:
        super().open()
        self.twin = DuckDbSpanStore(None, subject_key=SUBJECT_KEY)
        self.frozen: list[dict[str, Any]] = []

    @rule(hours=st.sampled_from([1, 48, 69, 71]))
    def close(self, hours: int) -> None:
        """Also with batches that are not settled yet: they are still in time."""
        self.closed_before = self.store.close_before(
            FIRST + timedelta(hours=hours), zone="UTC", now=self.now
        )
        self.tick()
        self.frozen = self.closed_calls()

    def closed_calls(self) -> list[dict[str, Any]]:
        if self.closed_before is None:
            return []
        window = Window(EVER.start, self.closed_before)
        found = self.store.calls(CallQuery(tenants=TENANTS, window=window, limit=1_000))
        return [{**row, "user_id": None} for row in found.to_pylist()]

    @override
    def write(self, number: int, *, batch_id: str) -> None:
        super().write(number, batch_id=batch_id)
        self.twin.write(price(self.batches[number], self.book()), batch_id=batch_id)

    @override
    def re_rated(self, order: RerateOrder, book: PriceBook) -> None:
        self.settle_twin()
        again = RerateOrder(
            run_id=order.run_id, window=order.window, price_version=order.price_version,
            tenants=order.tenants,
        )  # fmt: skip
        apply_rerate(self.twin.rerates, again, book, now=self.now)

    def settle_twin(self) -> None:
        book, through = self.book(), -1
        while True:
            done = settle_tick(
                self.twin, now=self.now, ledger=None, reprice=lambda r: reprice(r, book)
            )
            if done.through == through:
                return
            through = done.through

    @override
    @rule()
    def compare(self) -> None:
        super().compare()
        self.settle_twin()
        assert self.frozen == self.closed_calls()
        assert _sums(self.twin) == _sums(self.store)
        for dimension in ("tenant", "team", "model"):
            assert _sums_by(self.twin, dimension) == _sums_by(self.store, dimension)

    @override
    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "twin"):
            self.twin.close()


def _sums(store: DuckDbSpanStore) -> list[int]:
    (row,) = store.costs(CostQuery(tenants=TENANTS, window=EVER)).to_pylist() or [{}]
    names = ("cost_nusd", "input_tokens", "cached_input_tokens", "output_tokens")
    return [row.get(name, 0) for name in names]


def _sums_by(store: DuckDbSpanStore, dimension: str) -> list[tuple[str, list[int]]]:
    """Cost and every bucket by the value of a dimension; what comes to nothing left out."""
    names = ("cost_nusd", "input_tokens", "cached_input_tokens", "output_tokens", *BUCKET_NAMES)
    query = CostQuery(tenants=TENANTS, window=EVER, group_by=(dimension,), buckets=BUCKET_NAMES)
    rows = [(str(r[dimension]), [r[n] for n in names]) for r in store.costs(query).to_pylist()]
    return sorted(row for row in rows if any(row[1]))


def _answers(store: DuckDbSpanStore) -> list[Any]:
    table = store.calls(CallQuery(tenants=TENANTS, window=EVER, limit=1_000))
    calls = [{**row, "version": 0} for row in table.to_pylist()]
    keys = tuple(dimension.name for dimension in CUBE_DIMENSIONS)
    cube = [
        store.costs(
            CostQuery(tenants=TENANTS, window=EVER, granularity=granularity, group_by=group_by)
        )
        for granularity, group_by in (
            (Granularity.QUARTER_HOUR, keys), (Granularity.DAY, ("team",)), (Granularity.TOTAL, ()),
        )
    ]  # fmt: skip
    names = sorted({*keys, "bucket_start"})
    return [
        calls,
        [
            sorted(
                ([str(row.get(n)) for n in names], [row[m] for m in MEASURES])
                for row in rows.to_pylist()
            )
            for rows in cube
        ],
        store.suppressed([call["call_id"] for call in calls]).to_pylist(),
        store.accounting(TENANTS).to_pylist(),
        store.corrections(TENANTS, EVER).to_pylist(),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("machine", [StoreMachine, ClosingMachine])
def test_every_sequence_leaves_what_a_rebuild_makes(
    machine: type[StoreMachine], span_rows: Callable[..., pa.Table]
) -> None:
    class WithRows(machine):  # type: ignore[misc, valid-type]  # a class chosen by the parameter
        rows = staticmethod(span_rows)

    run_state_machine_as_test(WithRows, settings=SIZE)


def test_a_re_rate_of_one_tenant_books_nothing_again_of_anothers_late_call(
    span_rows: Callable[..., pa.Table],
) -> None:
    """A late report gave a closed call its price; that is booked once, whoever is re-rated."""
    machine = ClosingMachine()
    machine.open()
    closed = {"start_time": AT - timedelta(hours=28), "trace_lo": 7, "provider": "p", "tenant": "b"}
    used = {"input_uncached": 10, "input_tokens": 10, "output_tokens": 5, "output_text": 5}
    of_client = {"span_id": 1, "billing_model": "unknown", "response_id": "chatcmpl-00000001"}
    of_proxy = {**of_client, "span_id": 2, "billing_model": "m", "layer": "proxy"}
    for number, said in enumerate((of_client, of_proxy)):
        rows = span_rows({**closed, **used, **said, "content_hash": number})
        machine.batches.append(rows.select(ATTRIBUTED_SCHEMA.names))
        machine.write(number, batch_id=f"b{number}")
        machine.tick()
        if number == 0:
            assert 0 == machine.booked()
            machine.close(hours=71)
    assert 45 == machine.booked()  # fifteen tokens at 3 nano-USD, booked late
    machine.re_rate(version=2, hours=(15, 64), tenants=("a",), part=9)
    assert 45 == machine.booked()
    machine.teardown()
