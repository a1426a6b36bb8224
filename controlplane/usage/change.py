"""Why cost moved between two windows: terms that sum to the change, to the nano-dollar.

Each group of the chosen dimension is explained by itself; the whole is the sum of its groups.
Inside a group a *kind* is one model of one provider. The terms are levels of one walk from the cost
before to the cost after, each step changing one thing and leaving those not yet taken as they were:

    volume        calls that succeeded, at the old mix
    mix           shares of the kinds among them; a kind that is new or gone is all mix
    recognition   calls whose cost was not known and now is, or the other way round; estimates;
                  corrections of closed periods
    input_size    input tokens a call
    cache         which input tokens were cache reads, cache writes or neither (and other kinds)
    output_size   output and reasoning tokens a call
    other_usage   searches, pages, seconds a call
    price         what a unit of each bucket costs
    retries       what failed attempts cost
    duplicates    calls that repeat another's response id and are still billed
    new, vanished groups that were not there before, or are no more

Levels are exact fractions. A level is rounded to nano-dollars and terms are differences of rounded
levels, so they sum to the change of two integers whatever happens between. What there is nothing to
compare with is never divided by: a bucket that was not used before has the price it has now.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

import msgspec

from controlplane.core.tokens import INPUT_BUCKETS, OUTPUT_BUCKETS
from controlplane.signals.vocabulary import CostState, Status

TERMS: Final = (
    "volume", "mix", "recognition", "input_size", "cache", "output_size", "other_usage", "price",
    "retries", "duplicates", "new", "vanished",
)  # fmt: skip
Key = tuple[str | None, ...]
_NOTHING: Final = Fraction(0)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one window that share everything that tells them apart here.

    `used` and `spent` are by bucket; `spent` sums to the cells' cost. `repeats` are calls that
    repeat another's response id; a cell holds either only such calls or none.
    """

    group: Key
    kind: Key
    status: str
    cost_state: str
    calls: int
    used: Mapping[str, int]
    spent: Mapping[str, int]
    repeats: bool = False
    is_correction: bool = False
    """Cost that was booked in this window about a closed period; no calls."""

    @property
    def cost_nusd(self) -> int:
        """Return what these calls cost."""
        return sum(self.spent.values())


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One group's change; `terms` sums to `after_nusd - before_nusd`.

    Neither amount holds what the unpriced calls cost: nobody knows.
    """

    group: Key
    before_nusd: int
    after_nusd: int
    calls_before: int
    calls_after: int
    unpriced_before: int = 0
    unpriced_after: int = 0
    terms: Mapping[str, int]


class _Kind(msgspec.Struct):
    """Successful calls of one kind in one window; `known` are those whose cost is exact."""

    calls: int = 0
    known: int = 0
    used: dict[str, int] = {}
    spent: dict[str, int] = {}

    def add(self, cell: Cell) -> None:
        self.calls += cell.calls
        if cell.cost_state not in _EXACT:
            return
        self.known += cell.calls
        for into, part in ((self.used, cell.used), (self.spent, cell.spent)):
            for bucket, amount in part.items():
                into[bucket] = into.get(bucket, 0) + amount

    def cost(self, buckets: Iterable[str] | None = None) -> int:
        return sum(self.spent.get(b, 0) for b in (self.spent if buckets is None else buckets))

    def size(self, buckets: Iterable[str]) -> int:
        return sum(self.used.get(bucket, 0) for bucket in buckets)


class _Side(msgspec.Struct):
    """A group in one window."""

    calls: int = 0
    unpriced: int = 0
    total: int = 0
    retries: int = 0
    repeats: int = 0
    estimated: int = 0
    corrections: int = 0
    kinds: dict[Key, _Kind] = {}

    def add(self, cell: Cell) -> None:
        self.calls += cell.calls
        self.unpriced += cell.calls if cell.cost_state == CostState.UNPRICED else 0
        self.total += cell.cost_nusd
        if cell.is_correction:
            self.corrections += cell.cost_nusd
        elif cell.repeats:
            self.repeats += cell.cost_nusd
        elif cell.status == Status.ERROR:
            self.retries += cell.cost_nusd
        else:
            if cell.cost_state == CostState.ESTIMATED:
                self.estimated += cell.cost_nusd
            self.kinds.setdefault(cell.kind, _Kind()).add(cell)

    def succeeded(self) -> int:
        return sum(kind.calls for kind in self.kinds.values())


_EXACT: Final = frozenset({CostState.PRICED.value, CostState.FREE.value})


def explain(before: Iterable[Cell], after: Iterable[Cell]) -> list[Change]:
    """Explain every group that either window has, by size of its change, then by name."""
    sides: dict[Key, tuple[_Side, _Side]] = {}
    for number, cells in enumerate((before, after)):
        for cell in cells:
            sides.setdefault(cell.group, (_Side(), _Side()))[number].add(cell)
    changes = [_explain(group, *pair) for group, pair in sides.items()]
    return sorted(changes, key=_by_size)


def total_of(changes: Sequence[Change]) -> Change:
    """Sum the changes of all groups."""
    return Change(
        group=(),
        before_nusd=sum(change.before_nusd for change in changes),
        after_nusd=sum(change.after_nusd for change in changes),
        calls_before=sum(change.calls_before for change in changes),
        calls_after=sum(change.calls_after for change in changes),
        unpriced_before=sum(change.unpriced_before for change in changes),
        unpriced_after=sum(change.unpriced_after for change in changes),
        terms={term: sum(change.terms[term] for change in changes) for term in TERMS},
    )


def _by_size(change: Change) -> tuple[int, tuple[str, ...]]:
    moved = abs(change.after_nusd - change.before_nusd)
    return -moved, tuple("" if name is None else f"/{name}" for name in change.group)


def _explain(group: Key, old: _Side, new: _Side) -> Change:
    delta = new.total - old.total
    terms = dict.fromkeys(TERMS, 0)
    if not old.calls and not new.calls:
        terms["recognition"] = delta
    elif not old.calls:
        terms["new"] = delta
    elif not new.calls:
        terms["vanished"] = delta
    else:
        terms |= _rounded(_walk(old, new), start=sum(kind.cost() for kind in old.kinds.values()))
        terms["recognition"] += new.estimated - old.estimated
        terms["recognition"] += new.corrections - old.corrections
        terms["retries"] = new.retries - old.retries
        terms["duplicates"] = new.repeats - old.repeats
    return Change(
        group=group,
        before_nusd=old.total,
        after_nusd=new.total,
        calls_before=old.calls,
        calls_after=new.calls,
        unpriced_before=old.unpriced,
        unpriced_after=new.unpriced,
        terms=terms,
    )


def _walk(old: _Side, new: _Side) -> dict[str, Fraction]:
    """Return the exact terms over all kinds of a group."""
    calls_before, calls_after = old.succeeded(), new.succeeded()
    if not calls_before or not calls_after:  # only failures on one side: there is no mix to keep
        costs = [sum(kind.cost() for kind in side.kinds.values()) for side in (old, new)]
        return {"volume": Fraction(costs[1] - costs[0])}
    growth = Fraction(calls_after, calls_before)
    terms: dict[str, Fraction] = {}
    for key in old.kinds.keys() | new.kinds.keys():
        walked = _walk_kind(old.kinds.get(key, _Kind()), new.kinds.get(key, _Kind()), growth)
        for term, amount in walked.items():
            terms[term] = terms.get(term, _NOTHING) + amount
    return terms


def _walk_kind(old: _Kind, new: _Kind, growth: Fraction) -> dict[str, Fraction]:
    before, after = old.cost(), new.cost()
    terms = {"volume": (growth - 1) * before}
    level = growth * before
    if not old.calls:
        return {**terms, "mix": Fraction(after)}
    if not old.known:
        return {**terms, "mix": _NOTHING, "recognition": Fraction(after)}
    mixed = Fraction(new.calls * before, old.calls)
    terms["mix"] = mixed - level
    recognised = Fraction(new.known * before, old.known)
    terms["recognition"] = recognised - mixed
    return {**terms, **_walk_sizes(old, new)}


def _walk_sizes(old: _Kind, new: _Kind) -> dict[str, Fraction]:
    """Walk from the old cost a call, at the new number of calls, to the new cost."""
    if not new.known:
        return {}
    scale = Fraction(new.known, old.known)
    others = [
        bucket
        for bucket in {*old.used, *new.used, *old.spent, *new.spent}
        if bucket not in INPUT_BUCKETS and bucket not in OUTPUT_BUCKETS
    ]
    at_old_prices = {name: _at_old_prices(old, new, name) for name in {*new.used, *new.spent}}

    def level(buckets: Iterable[str]) -> Fraction:
        return sum((at_old_prices.get(name, _NOTHING) for name in buckets), _NOTHING)

    start = {
        name: scale * old.cost(buckets)
        for name, buckets in (("in", INPUT_BUCKETS), ("out", OUTPUT_BUCKETS), ("other", others))
    }
    was, now = old.size(INPUT_BUCKETS), new.size(INPUT_BUCKETS)
    # At the old blend of input prices; without input before there is no blend: all of it is size.
    sized = Fraction(now, was) * old.cost(INPUT_BUCKETS) if was else level(INPUT_BUCKETS)
    return {
        "input_size": sized - start["in"],
        "cache": level(INPUT_BUCKETS) - sized,
        "output_size": level(OUTPUT_BUCKETS) - start["out"],
        "other_usage": level(others) - start["other"],
        "price": new.cost() - level(at_old_prices),
    }


def _at_old_prices(old: _Kind, new: _Kind, bucket: str) -> Fraction:
    """Return what a bucket's usage would have cost at its old price, the new one if it has none."""
    was, now = old.used.get(bucket, 0), new.used.get(bucket, 0)
    if not was or not now:
        return Fraction(new.spent.get(bucket, 0))
    return Fraction(now * old.spent.get(bucket, 0), was)


def _rounded(terms: Mapping[str, Fraction], *, start: int) -> dict[str, int]:
    """Round levels, not terms: the rounded terms sum to the change of two integers exactly."""
    rounded: dict[str, int] = {}
    exact, shown = Fraction(start), start
    for term in TERMS:
        exact += terms.get(term, _NOTHING)
        rounded[term] = round(exact) - shown
        shown += rounded[term]
    return rounded
