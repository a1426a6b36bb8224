"""Stable 64- and 128-bit names of spans, computed a column at a time.

The mixer is SplitMix64's finalizer (Steele, Lea, Flood 2014): fixed by its three constants, so a
name made by one release is found by the next, which no library's hash function promises.
"""

from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_CALL_PREFIX: Final = "call_"


def mix(state: Hashes, value: Hashes) -> Hashes:
    """Fold `value` into `state`, both modulo 2^64."""
    z = (state ^ value) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def identity_hash(spans: pa.Table, *, seed: int = 0) -> Hashes:
    """Hash (domain, trace, span, start_time) of every row."""
    state = np.full(spans.num_rows, seed, dtype=np.uint64)
    for name in ("trace_hi", "trace_lo", "span_id"):
        state = mix(state, uint64_values(spans.column(name)))
    state = mix(state, start_micros(spans).view(np.uint64))
    return mix(state, _text_hashes(spans.column("domain")))


def content_identity_hash(spans: pa.Table) -> Hashes:
    """Hash the identity and the content: equal for a resend, other for a revision."""
    return mix(identity_hash(spans), uint64_values(spans.column("content_hash")))


def call_halves(spans: pa.Table) -> tuple[Hashes, Hashes]:
    """Compute the 128 bits that name the call each row is home of."""
    return identity_hash(spans), identity_hash(spans, seed=1)


def call_ids(spans: pa.Table) -> "pa.Array[Any]":
    """Name the call that each row is home of: `call_` and 32 hex digits of its identity."""
    text = np.column_stack(call_halves(spans)).astype(">u8").tobytes().hex()
    names = [_CALL_PREFIX + text[at : at + 32] for at in range(0, len(text), 32)]
    return pa.array(names, pa.string())


def uint64_values(column: "pa.ChunkedArray[Any]") -> Hashes:
    """Read a column of unsigned integers without NULLs."""
    return np.asarray(column.to_numpy(), dtype=np.uint64)


def start_micros(spans: pa.Table) -> npt.NDArray[np.int64]:
    """Read start_time as microseconds since 1970."""
    return np.asarray(spans.column("start_time").cast(pa.int64()).to_numpy(), dtype=np.int64)


def _text_hashes(column: "pa.ChunkedArray[Any]") -> Hashes:
    """Hash text by its distinct values, which are few."""
    distinct = column.unique()
    values = np.array([_text_hash(str(text)) for text in distinct.to_pylist()], dtype=np.uint64)
    rows = pc.index_in(column, distinct).to_numpy()
    return np.asarray(values[rows], dtype=np.uint64)


def _text_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
