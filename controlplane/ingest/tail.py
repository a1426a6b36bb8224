"""The attributes map: what has no column and is not content, from span, blobs and resource.

Where two sources have the same key, the span's own value stands, then a blob's, then the
resource's. Values are text: a number, flag or list as JSON writes it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, Int32s, Int64s
from controlplane.ingest.limits import Limits
from controlplane.ingest.redact import is_content
from controlplane.ingest.texts import texts_at

_RESOURCE_NOISE: Final = (
    "container.",
    "host.arch",
    "host.id",
    "host.image.",
    "os.",
    "process.",
    "service.instance.id",
    "service.name",  # a column of its own
    "telemetry.",
    "webengine.",
)
"""Prefixes of resource attributes that describe the emitting process, not who pays."""


class _Entries(msgspec.Struct, frozen=True):
    """Map entries of many rows; rows need not ascend."""

    rows: Int64s
    names: Sequence[str]
    codes: Int32s
    texts: Column


def tail_map(
    spans: AttributeTable,
    claims: Claims,
    *,
    blob_tail: Sequence[tuple[int, str, str]],
    resources: AttributeTable,
    resource_of: Int32s,
    limits: Limits,
) -> Column:
    """Answer the attributes map of each span."""
    kept = _kept(spans, claims)
    sources = [
        _of_spans(spans, kept, limits=limits),
        _of_blobs(blob_tail, spans=spans, kept=kept),
        _of_resources(resources, resource_of, spans=spans, kept=kept, limits=limits),
    ]
    return _assemble(spans.rows, sources)


def _kept(spans: AttributeTable, claims: Claims) -> Bools:
    """Tell which attributes no column of their span's dialect was read from."""
    public = np.array([not is_content(name) for name in spans.names], dtype=np.bool_)
    kept = spans.live.copy()
    for dialect, rows in claims.present:
        read = {key for keys in dialect.keys.values() for key in keys}
        read |= {blob.key for blob in dialect.blobs}
        unread = public & np.array([name not in read for name in spans.names], dtype=np.bool_)
        if len(unread) == 0:
            continue
        if len(claims.present) == 1:
            return kept & unread[spans.code_of]
        kept &= unread[spans.code_of] | ~rows[spans.row_of]
    return kept


def _of_spans(spans: AttributeTable, kept: Bools, *, limits: Limits) -> _Entries:
    positions = np.flatnonzero(kept)
    rows = spans.row_of[positions].astype(np.int64)
    counts = np.bincount(rows, minlength=spans.rows)
    if counts.max(initial=0) > limits.max_tail_attributes:
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_needed = np.array(
            [name in limits.needed_attributes for name in spans.names], dtype=np.bool_
        )
        within = rank < limits.max_tail_attributes
        positions = positions[within | is_needed[spans.code_of[positions]]]
        rows = spans.row_of[positions].astype(np.int64)
    codes = spans.code_of[positions]
    return _readable(
        _Entries(
            rows,
            spans.names,
            codes,
            texts_at(spans, positions, max_chars=limits.max_tail_value_chars),
        )
    )


def _of_blobs(
    blob_tail: Sequence[tuple[int, str, str]], *, spans: AttributeTable, kept: Bools
) -> _Entries:
    entries = [
        entry for entry in blob_tail if not _is_kept(spans, kept, name=entry[1], row=entry[0])
    ]
    index = {name: i for i, name in enumerate(dict.fromkeys(name for _, name, _ in entries))}
    return _Entries(
        np.array([row for row, _, _ in entries], dtype=np.int64),
        list(index),
        np.array([index[name] for _, name, _ in entries], dtype=np.int32),
        pa.array([text for _, _, text in entries], pa.string()),
    )


def _is_kept(spans: AttributeTable, kept: Bools, *, name: str, row: int) -> bool:
    at = int(spans.at(name)[row]) if spans.has(name) else ABSENT
    return at != ABSENT and bool(kept[at])


def _of_resources(
    resources: AttributeTable,
    resource_of: Int32s,
    *,
    spans: AttributeTable,
    kept: Bools,
    limits: Limits,
) -> _Entries:
    """Repeat each resource's entries for its spans, but for keys that a span has itself."""
    wanted = np.array([_is_wanted(name) for name in resources.names], dtype=np.bool_)
    live = resources.live & wanted[resources.code_of] if len(wanted) else resources.live
    positions = np.flatnonzero(live)
    counts = np.bincount(resources.row_of[positions], minlength=resources.rows)
    starts = np.cumsum(counts) - counts
    per_span = counts[resource_of]
    rows = np.repeat(np.arange(spans.rows, dtype=np.int64), per_span)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(per_span) - per_span, per_span)
    picked = positions[starts[resource_of[rows]] + within]
    own = np.zeros(len(rows), dtype=np.bool_)
    for code, name in enumerate(resources.names):
        if wanted[code] and spans.has(name):
            at = spans.at(name)
            overridden = np.where(at == ABSENT, False, kept[at])  # noqa: FBT003 - numpy's choice by condition
            own |= overridden[rows] & (resources.code_of[picked] == code)
    rows, picked = rows[~own], picked[~own]
    distinct = texts_at(resources, positions, max_chars=limits.max_tail_value_chars)
    place = np.zeros(len(resources.live), dtype=np.int64)
    place[positions] = np.arange(len(positions))
    texts = distinct.take(pa.array(place[picked]))
    return _readable(_Entries(rows, resources.names, resources.code_of[picked], texts))


def _is_wanted(name: str) -> bool:
    return not name.startswith(_RESOURCE_NOISE) and not is_content(name)


def _readable(entries: _Entries) -> _Entries:
    """Leave out values that have no text (maps, and arrays that can not be read)."""
    if entries.texts.null_count == 0:
        return entries
    valid = np.asarray(entries.texts.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    texts = entries.texts.filter(pa.array(valid))
    return _Entries(entries.rows[valid], entries.names, entries.codes[valid], texts)


def _assemble(rows: int, sources: Sequence[_Entries]) -> Column:
    """Interleave the sources by row, each in its order, and build the map."""
    used = [entries for entries in sources if len(entries.rows)]
    if not used:
        none = pa.array([], pa.string())
        return _map(np.zeros(rows + 1, dtype=np.int32), none, none)
    names: list[str] = []
    codes = []
    for entries in used:
        codes.append(entries.codes + len(names))
        names += entries.names
    all_rows = np.concatenate([entries.rows for entries in used])
    order = np.argsort(all_rows, kind="stable")
    keys: Column = pa.array(names, pa.string())
    texts: Column = pa.concat_arrays([entries.texts for entries in used])
    offsets = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(all_rows, minlength=rows), out=offsets[1:])
    return _map(
        offsets, keys.take(pa.array(np.concatenate(codes)[order])), texts.take(pa.array(order))
    )


def _map(offsets: Int32s, keys: Column, texts: Column) -> Column:
    of_offsets: Column = pa.array(offsets)
    return pa.MapArray.from_arrays(of_offsets, keys, texts)
