"""Attribute lists of many spans, turned so that one key's values can be read as a column.

Keys are dictionary-encoded and the attributes grouped by key once; a column is then one scatter.
An attribute with an empty text or no value says nothing and is treated as absent (LiteLLM writes
'' for unset). Where a span repeats a key, its last value stands.
"""

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from controlplane.ingest.columns import (
    Bools,
    Column,
    Int32s,
    Int64s,
    bool_values,
    byte_lengths,
    contiguous,
    raw_numbers,
    valid_mask,
)

ABSENT: Final = -1
_SMALL: Final = 2**15  # numpy sorts 16-bit integers by radix, ten times faster than by comparison


class AttributeTable:
    """The attributes of `rows` spans (or resources), read by key.

    A position is the index of an attribute in the flattened lists; ABSENT where a row has none.
    Of a row's attributes the first `max_per_row` are read, and wherever it stands a key of `always`.
    """

    def __init__(
        self, lists: Column, *, max_per_row: int, always: Collection[str] = frozenset()
    ) -> None:
        lists = contiguous(lists)
        flat = lists.flatten()
        self.rows: int = len(lists)
        lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
        self.row_of: Int32s = np.repeat(np.arange(self.rows, dtype=np.int32), lengths)
        keys = flat.field("key").dictionary_encode()
        self.names: list[str] = keys.dictionary.to_pylist()
        self.code_of: Int32s = np.asarray(keys.indices.to_numpy(), dtype=np.int32)
        self._read_values(flat.field("value"))
        within = self.live
        if lengths.max(initial=0) > max_per_row:
            needed = np.array([name in always for name in self.names], dtype=np.bool_)
            within = self._first(max_per_row, lengths) | needed[self.code_of]
        self._group(np.flatnonzero(within & self.live))

    def _read_values(self, values: Column) -> None:
        texts, flags, integers, doubles, arrays, maps, _ = values.flatten()
        self.texts, self.arrays, self.maps = texts, arrays, maps
        self.is_text: Bools = byte_lengths(texts) > 0
        self.is_flag, self.flags = valid_mask(flags), bool_values(flags)
        self.is_integer, self.integers = valid_mask(integers), raw_numbers(integers)
        self.is_double, self.doubles = valid_mask(doubles), raw_numbers(doubles)
        self.is_array, self.is_map = valid_mask(arrays), valid_mask(maps)
        scalar = self.is_text | self.is_flag | self.is_integer | self.is_double
        self.live: Bools = scalar | self.is_array | self.is_map

    def _first(self, count: int, lengths: Int64s) -> Bools:
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.asarray(np.arange(len(starts)) - starts < count, dtype=np.bool_)

    def _group(self, positions: npt.NDArray[np.intp]) -> None:
        """Sort live positions by key, rows ascending within a key; find the superseded ones."""
        codes = self.code_of[positions]
        narrow = codes.astype(np.int16) if len(self.names) < _SMALL else codes
        self._by_key: npt.NDArray[Any] = positions[np.argsort(narrow, kind="stable")]
        counts = np.bincount(codes, minlength=len(self.names))
        self._ends: Int64s = np.cumsum(counts)
        self._code_by_name = {name: code for code, name in enumerate(self.names) if counts[code]}
        self._at: dict[str, Int32s] = {}
        self.live = np.zeros(len(self.code_of), dtype=np.bool_)
        self.live[positions] = True
        rows, sorted_codes = self.row_of[self._by_key], self.code_of[self._by_key]
        repeated = (rows[1:] == rows[:-1]) & (sorted_codes[1:] == sorted_codes[:-1])
        self.live[self._by_key[:-1][repeated]] = False

    def has(self, name: str) -> bool:
        """Whether any row has the key with a value."""
        return name in self._code_by_name

    def named(self) -> list[str]:
        """Answer every key that some row has with a value."""
        return list(self._code_by_name)

    def at(self, name: str) -> Int32s:
        """Answer the position of each row's value of a key; do not write to it."""
        known = self._at.get(name)
        if known is None:
            known = np.full(self.rows, ABSENT, dtype=np.int32)
            code = self._code_by_name.get(name)
            if code is not None:
                start = int(self._ends[code - 1]) if code else 0
                positions = self._by_key[start : int(self._ends[code])]
                known[self.row_of[positions]] = positions
            self._at[name] = known
        return known

    def values_at(self, positions: Int32s) -> list[object]:
        """Answer the Python values at positions that are not ABSENT; arrays stay encoded."""
        return [self._value(position) for position in positions.tolist()]

    def _value(self, at: int) -> object:
        if self.is_text[at]:
            return self.texts[at].as_py()
        if self.is_integer[at]:
            return int(self.integers[at])
        if self.is_double[at]:
            return float(self.doubles[at])
        if self.is_flag[at]:
            return bool(self.flags[at])
        return self.arrays[at].as_py() if self.is_array[at] else None
