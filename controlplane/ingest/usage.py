"""Token totals to exclusive buckets, a column at a time: the twin of core.tokens.decompose."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from controlplane.core.tokens import BUCKETS, INPUT_BUCKETS, MAX_QUANTITY, OUTPUT_BUCKETS, Unit
from controlplane.ingest.columns import Bools, Column, Int64s
from controlplane.ingest.dialects.dialect import USAGE_FIELDS, Field
from controlplane.ingest.reading import Read
from controlplane.signals.vocabulary import UsageState

TOKEN_BUCKETS: Final = tuple(b.name for b in BUCKETS if b.unit is Unit.TOKEN)
_PART_OF_BUCKET: Final = {
    "cache_read": Field.CACHED_INPUT_TOKENS,
    "cache_write_1h": Field.CACHE_CREATION_1H_TOKENS,
    "input_audio": Field.INPUT_AUDIO_TOKENS,
    "input_image": Field.INPUT_IMAGE_TOKENS,
    "input_video": Field.INPUT_VIDEO_TOKENS,
    "output_reasoning": Field.REASONING_TOKENS,
    "output_audio": Field.OUTPUT_AUDIO_TOKENS,
    "output_image": Field.OUTPUT_IMAGE_TOKENS,
}


_DIFFERENCES: Final = (
    *("input_uncached", "cache_read", "cache_write_5m", "input_audio", "output_text"),
)
"""Buckets that are what is left of a whole; one below zero has a part that exceeds it."""


class Semantics(msgspec.Struct, frozen=True, kw_only=True):
    """Per row, what its dialect means by its totals, and what the span is otherwise."""

    adds_cache: Bools
    """Input excludes cache reads and writes."""
    may_add_cache: Bools
    """It excludes them if they are larger than it."""
    adds_reasoning: Bools
    input_only: Bools
    """The operation has no output."""
    failed: Bools
    invented: Bools
    """The producer counted the tokens itself."""
    metered: Bools
    """Something else than tokens is billed, and how much of it is said."""


class UsageColumns(msgspec.Struct, frozen=True):
    """Totals that include their parts, exclusive token buckets, and how far both can be used."""

    totals: dict[Field, Read]
    """A total outside the range is not said."""
    buckets: dict[str, Int64s]
    """Token buckets; they count only where `exact`."""
    exact: Bools
    state: Column
    reason: Column
    """NULL where the state is exact."""


def decompose_columns(
    said: Mapping[Field, Read], semantics: Semantics, *, quantities: Mapping[Field, Read]
) -> UsageColumns:
    """Make totals inclusive, split them, and name what can not be used.

    The reasons, the first that holds: `no_usage` or `failed_without_usage` (absent),
    `quantity_out_of_range` (impossible), `input_not_said` (unknown), `part_exceeds_whole`
    (impossible), `zero_usage` (unknown; absent on a failure), `zero_input` (unknown: an
    answer has a prompt), `counted_by_producer` (unknown), `output_not_said` (unknown). What is billed by something else needs no tokens.
    """
    totals, out_of_range = _inclusive(said, semantics)
    for values, flags in quantities.values():
        out_of_range |= flags & ((values < 0) | (values > MAX_QUANTITY))
    numbers = {field: values for field, (values, _) in totals.items()}
    buckets = _split(numbers)
    exceeds = np.logical_or.reduce([buckets[name] < 0 for name in _DIFFERENCES])
    nothing_said = ~np.logical_or.reduce([flags for _, flags in said.values()])
    zero = (numbers[Field.INPUT_TOKENS] == 0) & (numbers[Field.OUTPUT_TOKENS] == 0)
    zero &= ~semantics.metered
    input_said, output_said = totals[Field.INPUT_TOKENS][1], totals[Field.OUTPUT_TOKENS][1]
    verdicts: list[tuple[Bools, UsageState, str]] = [
        (nothing_said & semantics.failed, UsageState.ABSENT, "failed_without_usage"),
        (nothing_said & ~semantics.metered, UsageState.ABSENT, "no_usage"),
        (out_of_range, UsageState.IMPOSSIBLE, "quantity_out_of_range"),
        (~input_said & ~semantics.metered, UsageState.UNKNOWN, "input_not_said"),
        (exceeds, UsageState.IMPOSSIBLE, "part_exceeds_whole"),
        (zero & semantics.failed, UsageState.ABSENT, "failed_without_usage"),
        (zero, UsageState.UNKNOWN, "zero_usage"),
        (
            (numbers[Field.INPUT_TOKENS] == 0) & ~semantics.metered,
            UsageState.UNKNOWN,
            "zero_input",
        ),
        (semantics.invented, UsageState.UNKNOWN, "counted_by_producer"),
        (
            ~output_said & ~semantics.input_only & ~semantics.metered,
            UsageState.UNKNOWN,
            "output_not_said",
        ),
    ]
    code = np.select(
        [condition for condition, _, _ in verdicts], [*range(len(verdicts))], len(verdicts)
    )
    states = pa.array([*(state.value for _, state, _ in verdicts), UsageState.EXACT.value])
    reasons = pa.array([*(reason for _, _, reason in verdicts), None], pa.string())
    rows = pa.array(code)
    return UsageColumns(
        totals, buckets, code == len(verdicts), states.take(rows), reasons.take(rows)
    )


def _inclusive(said: Mapping[Field, Read], semantics: Semantics) -> tuple[dict[Field, Read], Bools]:
    """Drop totals out of range, then add the parts that a dialect leaves out of its wholes."""
    totals: dict[Field, Read] = {}
    out_of_range = np.zeros(len(semantics.failed), dtype=np.bool_)
    for field in USAGE_FIELDS:
        values, flags = said[field]
        bad = flags & ((values < 0) | (values > MAX_QUANTITY))
        out_of_range |= bad
        totals[field] = np.where(bad, 0, values), flags & ~bad
    cache = totals[Field.CACHED_INPUT_TOKENS][0] + totals[Field.CACHE_CREATION_INPUT_TOKENS][0]
    whole = totals[Field.INPUT_TOKENS][0]
    _add(
        totals,
        Field.INPUT_TOKENS,
        cache,
        where=semantics.adds_cache | (semantics.may_add_cache & (cache > whole)),
    )
    reasoning = totals[Field.REASONING_TOKENS][0]
    _add(totals, Field.OUTPUT_TOKENS, reasoning, where=semantics.adds_reasoning)
    for field in (Field.INPUT_TOKENS, Field.OUTPUT_TOKENS):
        values, flags = totals[field]
        bad = values > MAX_QUANTITY
        out_of_range |= bad
        totals[field] = np.where(bad, 0, values), flags & ~bad
    return totals, out_of_range


def _add(totals: dict[Field, Read], field: Field, parts: Int64s, *, where: Bools) -> None:
    values, flags = totals[field]
    totals[field] = values + np.where(where & flags, parts, 0), flags


def _split(numbers: Mapping[Field, Int64s]) -> dict[str, Int64s]:
    parts = {bucket: numbers[field] for bucket, field in _PART_OF_BUCKET.items()}
    created = numbers[Field.CACHE_CREATION_INPUT_TOKENS]
    heard_again = numbers[Field.CACHE_READ_AUDIO_TOKENS]
    parts["cache_read"] = parts["cache_read"] - heard_again
    parts["input_audio"] = parts["input_audio"] - heard_again
    parts["cache_read_audio"] = heard_again
    parts["cache_write_5m"] = created - parts["cache_write_1h"]
    inside = sum(parts[name] for name in INPUT_BUCKETS if name in parts)
    parts["input_uncached"] = numbers[Field.INPUT_TOKENS] - inside
    written = sum(parts[name] for name in OUTPUT_BUCKETS if name in parts)
    parts["output_text"] = numbers[Field.OUTPUT_TOKENS] - written
    zeros = np.zeros_like(created)
    return {name: parts.get(name, zeros) for name in TOKEN_BUCKETS}
