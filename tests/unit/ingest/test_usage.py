import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.tokens import ImpossibleUsageError, ReportedUsage, decompose
from controlplane.ingest.dialects.dialect import USAGE_FIELDS, Field
from controlplane.ingest.reading import Read
from controlplane.ingest.usage import TOKEN_BUCKETS, Semantics, decompose_columns

quantities = st.one_of(
    st.none(),
    st.integers(0, 60),
    st.sampled_from([-1, 0, 2**40 - 1, 2**40, 2**40 + 1, 2**63 - 1, -(2**63)]),
)
reports = st.lists(st.tuples(*[quantities for _ in USAGE_FIELDS]), min_size=1, max_size=30)


def columns_of(rows: list[tuple[int | None, ...]]) -> dict[Field, Read]:
    return {
        field: (
            np.array([row[i] or 0 for row in rows], dtype=np.int64),
            np.array([row[i] is not None for row in rows], dtype=np.bool_),
        )
        for i, field in enumerate(USAGE_FIELDS)
    }


def semantics(rows: int, **flags: bool) -> Semantics:
    names = Semantics.__struct_fields__
    return Semantics(**{name: np.full(rows, flags.get(name, False)) for name in names})


def split_or_reason(reported: ReportedUsage) -> dict[str, int] | str:
    try:
        return decompose(reported)
    except ImpossibleUsageError as error:
        return error.reason


@given(reports)
def test_is_the_twin_of_decompose(rows: list[tuple[int | None, ...]]) -> None:
    usage = decompose_columns(columns_of(rows), semantics(len(rows)), quantities={})
    for i, row in enumerate(rows):
        reported = ReportedUsage(**dict(zip([f.value for f in USAGE_FIELDS], row, strict=True)))
        reason = usage.reason[i].as_py()
        expected = split_or_reason(reported)
        if isinstance(expected, str):
            assert not usage.exact[i]
            # A part without its whole is "not said" before it is "impossible".
            assert reason in {expected, "input_not_said"}
            continue
        assert usage.state[i].as_py() != "impossible"
        if usage.exact[i]:
            buckets = {name: int(usage.buckets[name][i]) for name in TOKEN_BUCKETS}
            assert expected == {name: n for name, n in buckets.items() if n}
            assert (reported.input_tokens or 0) + (reported.output_tokens or 0) == sum(
                buckets.values()
            )
        else:
            assert reason in {
                "no_usage",
                "input_not_said",
                "zero_usage",
                "zero_input",
                "output_not_said",
            }


def verdict(*flagged: str, **said: int) -> tuple[str, str | None]:
    row = tuple(said.get(field.value) for field in USAGE_FIELDS)
    flags = semantics(1, **dict.fromkeys(flagged, True))
    usage = decompose_columns(columns_of([row]), flags, quantities={})
    return usage.state[0].as_py(), usage.reason[0].as_py()


def test_names_each_state() -> None:
    assert ("absent", "no_usage") == verdict()
    assert ("absent", "failed_without_usage") == verdict("failed")
    assert ("absent", "failed_without_usage") == verdict("failed", input_tokens=0, output_tokens=0)
    assert ("unknown", "zero_usage") == verdict(input_tokens=0, output_tokens=0)
    assert ("unknown", "zero_input") == verdict(input_tokens=0, output_tokens=72)
    assert ("exact", None) == verdict("metered", input_tokens=0, output_tokens=72)
    assert ("unknown", "output_not_said") == verdict(input_tokens=5)
    assert ("exact", None) == verdict("input_only", input_tokens=5)
    assert ("exact", None) == verdict("metered")
    assert ("unknown", "counted_by_producer") == verdict(
        "invented", input_tokens=4, output_tokens=9
    )
    assert ("exact", None) == verdict(input_tokens=5, output_tokens=0)
    assert ("unknown", "input_not_said") == verdict(output_tokens=5)
    assert ("impossible", "quantity_out_of_range") == verdict(input_tokens=2**63 - 1)
    assert ("impossible", "part_exceeds_whole") == verdict(
        input_tokens=5, cached_input_tokens=6, output_tokens=1
    )


def test_a_quantity_out_of_range_is_impossible() -> None:
    row = (10, *[None] * 3, 2, *[None] * (len(USAGE_FIELDS) - 5))
    seconds = {Field.AUDIO_SECONDS: (np.array([2**40 + 1]), np.array([True]))}
    usage = decompose_columns(columns_of([row]), semantics(1), quantities=seconds)
    assert ["quantity_out_of_range"] == usage.reason.to_pylist()


def test_cached_audio_is_taken_out_of_both_its_wholes() -> None:
    said = ReportedUsage(
        input_tokens=100,
        cached_input_tokens=40,
        input_audio_tokens=30,
        cache_read_audio_tokens=20,
        output_tokens=5,
    )
    # 100 = 20 cached text + 20 cached audio + 10 audio + 50 text.
    assert {
        "input_uncached": 50,
        "cache_read": 20,
        "cache_read_audio": 20,
        "input_audio": 10,
        "output_text": 5,
    } == decompose(said)
    assert "part_exceeds_whole" == split_or_reason(
        ReportedUsage(input_tokens=9, cached_input_tokens=1, cache_read_audio_tokens=2)
    )


def test_a_hostile_count_leaves_its_neighbours_alone() -> None:
    hostile = (2**63 - 1,) + (2**62,) * (len(USAGE_FIELDS) - 1)
    sane = (10, 4, None, None, 2, *[None] * (len(USAGE_FIELDS) - 5))
    usage = decompose_columns(columns_of([hostile, sane]), semantics(2), quantities={})
    assert ["impossible", "exact"] == usage.state.to_pylist()
    assert (6, 4, 2) == tuple(
        int(usage.buckets[b][1]) for b in ("input_uncached", "cache_read", "output_text")
    )
    assert not usage.totals[Field.INPUT_TOKENS][1][0]


def test_excluded_cache_is_added_and_a_guard_adds_only_what_does_not_fit() -> None:
    row = (432, 576, 129, None, 61, *[None] * (len(USAGE_FIELDS) - 5))
    fits = (705, 576, 129, None, 61, *[None] * (len(USAGE_FIELDS) - 5))
    always = decompose_columns(columns_of([row]), semantics(1, adds_cache=True), quantities={})
    assert 1137 == always.totals[Field.INPUT_TOKENS][0][0]
    guarded = decompose_columns(
        columns_of([row, fits]), semantics(2, may_add_cache=True), quantities={}
    )
    assert [1137, 705] == guarded.totals[Field.INPUT_TOKENS][0].tolist()
