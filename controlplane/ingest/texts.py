"""Attribute values of any type as text columns."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.ingest.attributes import AttributeTable
from controlplane.ingest.columns import Column, byte_lengths, kernels
from controlplane.ingest.scalars import array_json

Positions = npt.NDArray[Any]

_BYTES_A_CHAR: Final = 64


def texts_at(table: AttributeTable, positions: Positions, *, max_chars: int) -> Column:
    """Write the values at positions as text of at most `max_chars`.

    Numbers and flags are written by Arrow (the shortest text that reads back), arrays of scalars
    as JSON. NULL for a map, and for an array that can not be read or is far longer than its text
    may be.
    """
    textual = table.is_text[positions]
    if textual.all():
        return _truncated(table.texts.take(pa.array(positions)), max_chars=max_chars)
    number, real, flag = (
        mask[positions] & ~textual for mask in (table.is_integer, table.is_double, table.is_flag)
    )
    listed = ~(textual | number | real | flag)
    pieces = [
        table.texts.take(pa.array(positions[textual])),
        pa.array(table.integers[positions[number]]).cast(pa.string()),
        pa.array(table.doubles[positions[real]]).cast(pa.string()),
        pa.array(table.flags[positions[flag]]).cast(pa.string()),
        _array_texts(table.arrays.take(pa.array(positions[listed])), max_chars=max_chars),
    ]
    order = np.concatenate([np.flatnonzero(m) for m in (textual, number, real, flag, listed)])
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    whole: Column = pa.concat_arrays(pieces)
    return _truncated(whole.take(pa.array(back)), max_chars=max_chars)


def _array_texts(arrays: Column, *, max_chars: int) -> Column:
    """Write each distinct array once: finish reasons and tags repeat."""
    encoded = arrays.dictionary_encode()
    # Its text is cut like any other; only one that is not worth decoding for that is left out.
    longest = _BYTES_A_CHAR * max_chars
    texts = [array_json(value, max_bytes=longest) for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _truncated(texts: Column, *, max_chars: int) -> Column:
    if byte_lengths(texts).max(initial=0) <= max_chars:
        return texts
    return kernels.utf8_slice_codeunits(texts, 0, max_chars)
