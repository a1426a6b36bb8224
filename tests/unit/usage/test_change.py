"""Why cost moved: worked by hand, and additive whatever moved."""

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.usage.cells import split_cost
from controlplane.usage.change import TERMS, Cell, Change, explain, total_of

GROUP = ("search",)
KIND = ("openai", "gpt-4o")
OTHER = ("openai", "gpt-4o-mini")


def cell(kind: tuple[str, str] = KIND, **said: Any) -> Cell:
    """100 calls: 1,000 input tokens at 2 and 100 output tokens at 10 nano-USD each."""
    facts: dict[str, Any] = {
        "group": GROUP, "kind": kind, "status": "ok", "cost_state": "priced", "calls": 100,
        "used": {"input_uncached": 100_000, "output_text": 10_000},
        "spent": {"input_uncached": 200_000, "output_text": 100_000},
        **said,
    }  # fmt: skip
    return Cell(**facts)


def moved(before: list[Cell], after: list[Cell]) -> dict[str, int]:
    """Return the terms that are not zero."""
    (change,) = explain(before, after)
    assert change.after_nusd - change.before_nusd == sum(change.terms.values())
    return {term: amount for term, amount in change.terms.items() if amount}


def test_twice_the_calls_is_volume() -> None:
    """300,000 before."""
    doubled = cell(
        calls=200,
        used={"input_uncached": 200_000, "output_text": 20_000},
        spent={"input_uncached": 400_000, "output_text": 200_000},
    )
    assert {"volume": 300_000} == moved([cell()], [doubled])


def test_a_dearer_price_is_price() -> None:
    """Output from 10 to 12: 2 x 10,000."""
    dearer = cell(spent={"input_uncached": 200_000, "output_text": 120_000})
    assert {"price": 20_000} == moved([cell()], [dearer])


def test_longer_prompts_and_answers_are_sizes() -> None:
    """50,000 tokens more in at 2, 1,000 fewer out at 10."""
    longer = cell(
        used={"input_uncached": 150_000, "output_text": 9_000},
        spent={"input_uncached": 300_000, "output_text": 90_000},
    )
    assert {"input_size": 100_000, "output_size": -10_000} == moved([cell()], [longer])


def test_cache_reads_are_cache() -> None:
    """40,000 of the 100,000 tokens now cost 0.5: they were never read before, so at today's price."""
    cached = cell(
        used={"input_uncached": 60_000, "cache_read": 40_000, "output_text": 10_000},
        spent={"input_uncached": 120_000, "cache_read": 20_000, "output_text": 100_000},
    )
    assert {"cache": 20_000 - 80_000} == moved([cell()], [cached])


def test_the_cheaper_model_is_mix() -> None:
    """Half the calls moved to a model at 300 a call: 50 x (300 - 3,000)."""
    half = cell(
        calls=50,
        used={"input_uncached": 50_000, "output_text": 5_000},
        spent={"input_uncached": 100_000, "output_text": 50_000},
    )
    mini = cell(OTHER, calls=50, used={"input_uncached": 50_000}, spent={"input_uncached": 15_000})
    assert {"mix": 15_000 - 150_000} == moved([cell()], [half, mini])


def test_calls_that_get_a_price_are_recognition() -> None:
    """Nothing was done differently: the price became known."""
    unpriced = cell(cost_state="unpriced", used={"input_uncached": 100_000}, spent={})
    assert {"recognition": 300_000} == moved([unpriced], [cell()])
    half = [
        cell(
            calls=50,
            used={"input_uncached": 50_000, "output_text": 5_000},
            spent={"input_uncached": 100_000, "output_text": 50_000},
        ),
        cell(cost_state="unpriced", calls=50, used={"input_uncached": 50_000}, spent={}),
    ]
    assert {"recognition": -150_000} == moved([cell()], half)
    estimated = cell(cost_state="estimated", spent={"input_uncached": 290_000})
    exact_now = moved([estimated], [cell()])
    assert {"recognition": 10_000} == exact_now


def test_failed_attempts_and_repeats_are_terms_of_their_own() -> None:
    """They are in no other term."""
    failed = cell(status="error", calls=7, used={"input_uncached": 7}, spent={"input_uncached": 14})
    again = cell(repeats=True, calls=3, used={"input_uncached": 9}, spent={"input_uncached": 18})
    assert {"retries": 14, "duplicates": 18} == moved([cell()], [cell(), failed, again])
    assert {"retries": -14} == moved([cell(), failed], [cell()])


def test_a_correction_of_a_closed_period_is_recognition() -> None:
    """No calls and no volume; of a group without calls too."""
    booked = cell(is_correction=True, status="", calls=0, used={}, spent={"call": -7}, kind=OTHER)
    assert {"recognition": -7} == moved([cell()], [cell(), booked])
    assert {"recognition": 7} == moved([cell(), booked], [cell()])
    assert {"recognition": -7} == moved([], [booked])
    assert {"volume": 300_000, "recognition": -7} == moved(
        [cell()], [cell(calls=200, used={"input_uncached": 200_000, "output_text": 20_000},
                        spent={"input_uncached": 400_000, "output_text": 200_000}), booked]
    )  # fmt: skip


def test_groups_that_come_and_go_are_new_and_vanished() -> None:
    """Nothing is divided by what was not there."""
    ours, theirs = cell(), cell(group=(None,))
    changes = {change.group: change for change in explain([ours], [theirs])}
    assert -300_000 == changes[GROUP].terms["vanished"]
    assert 300_000 == changes[None,].terms["new"]
    assert 0 == sum(total_of(list(changes.values())).terms.values())


def test_a_group_whose_calls_all_failed_has_no_mix_to_keep() -> None:
    """From failures only to successes only."""
    failed = cell(status="error", spent={"input_uncached": 5})
    assert {"volume": 300_000, "retries": -5} == moved([failed], [cell()])


BUCKETS = ("input_uncached", "cache_read", "output_text", "web_searches", "call")


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    if draw(st.integers(0, 4)) == 0:
        return cell(
            group=(draw(st.sampled_from(["a", "b", None])),), is_correction=True, calls=0, used={},
            spent={"call": draw(st.integers(-(2**50), 2**50))},
        )  # fmt: skip
    state = draw(st.sampled_from(["priced", "free", "unpriced", "estimated"]))
    used = draw(st.dictionaries(st.sampled_from(BUCKETS), st.integers(1, 2**40), max_size=4))
    known = state in {"priced", "estimated"}
    spent = {name: draw(st.integers(0, 2**50)) if known else 0 for name in used}
    return cell(
        group=(draw(st.sampled_from(["a", "b", None])),),
        kind=draw(st.sampled_from([KIND, OTHER])),
        status=draw(st.sampled_from(["ok", "ok", "error"])),
        cost_state=state,
        calls=draw(st.integers(1, 2**30)),
        used=used,
        spent={name: amount for name, amount in spent.items() if amount},
        repeats=draw(st.booleans()) and draw(st.booleans()),
    )


@given(st.lists(cells(), max_size=6), st.lists(cells(), max_size=6))
def test_terms_sum_to_the_change_whatever_moved(before: list[Cell], after: list[Cell]) -> None:
    """Per group and in all, to the nano-dollar; and back again is the opposite change."""
    changes = explain(before, after)
    for change in changes:
        assert set(TERMS) == set(change.terms)
        assert change.after_nusd - change.before_nusd == sum(change.terms.values())
    total = total_of(changes)
    spent = [sum(one.cost_nusd for one in side) for side in (before, after)]
    assert (spent[0], spent[1], spent[1] - spent[0]) == (
        total.before_nusd,
        total.after_nusd,
        sum(total.terms.values()),
    )


@given(st.lists(cells(), max_size=6), st.randoms(use_true_random=False))
def test_nothing_moved_is_no_change_in_any_order(before: list[Cell], dice: Any) -> None:
    """The order of cells says nothing."""
    shuffled = list(before)
    dice.shuffle(shuffled)
    for change in explain(before, shuffled):
        assert set(change.terms.values()) <= {0}


@given(
    st.integers(0, 2**62),
    st.dictionaries(st.sampled_from(BUCKETS), st.integers(1, 2**40), max_size=4),
    st.dictionaries(st.sampled_from(BUCKETS), st.fractions(0, 100, max_denominator=1000)),
)
def test_a_cost_splits_over_buckets_exactly(
    cost: int, used: dict[str, int], rates: dict[str, Fraction]
) -> None:
    """With and without rates, with and without usage."""
    assert cost == sum(split_cost(cost, used, rates).values())


def test_a_split_follows_the_rates() -> None:
    """1,000 x 2.5 and 10 x 10: 2,500 and 100."""
    rates = {"input_uncached": Fraction(5, 2), "output_text": Fraction(10)}
    used = {"input_uncached": 1_000, "output_text": 10}
    assert {"input_uncached": 2_500, "output_text": 100} == split_cost(2_600, used, rates)
    assert {"input_uncached": 990, "output_text": 10} == split_cost(1_000, used, {})


def test_groups_are_told_by_size_of_their_change() -> None:
    """The largest first, whatever its sign."""

    def of(group: str, cost: int) -> Cell:
        return cell(group=(group,), spent={"input_uncached": cost})

    changes: list[Change] = explain([of("a", 10), of("b", 100)], [of("a", 15), of("b", 60)])
    assert [("b",), ("a",)] == [change.group for change in changes]
