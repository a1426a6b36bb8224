"""Reads a dialect's fields as columns: the first key that holds a readable value wins.

The fast path of each type is a few numpy operations per key; values of an unexpected type go
through `scalars`, one by one. Blobs come last, for what no key said.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.blobs import BlobValues
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, Floats, Int32s, Int64s, take_or_null
from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.limits import Limits
from controlplane.ingest.names import Names
from controlplane.ingest.scalars import (
    as_flag,
    as_integer,
    as_micros,
    as_nusd,
    as_quantity,
    as_text,
    unquoted,
)
from controlplane.ingest.texts import texts_at

Read = tuple[Int64s, Bools]
"""Values, and which of them were said; what stands elsewhere is 0."""

_MICROS_PER_SECOND: Final = 1e6
_MICROS_PER_MILLI: Final = 1e3
_MAX_MICROS: Final = 2.0**53
_NUSD_PER_USD: Final = 1e9
_EXACT_NUSD: Final = 2.0**40  # below it a double times 1e9 is off by less than 0.001


class FieldReader:
    """The fields of a batch of spans, read under each span's own dialect."""

    def __init__(
        self, attributes: AttributeTable, claims: Claims, blobs: BlobValues, *, limits: Limits
    ) -> None:
        self._attributes = attributes
        self._claims = claims
        self._blobs = blobs
        self._limits = limits
        self._rows = attributes.rows

    def integers(self, field: Field) -> Read:
        """Read a field of integers."""
        return self._numbers(field, self._as_integers, as_integer)

    def flags(self, field: Field) -> Read:
        """Read a field of bools, as 0 and 1."""
        return self._numbers(field, self._as_flags, as_flag)

    def quantities(self, field: Field) -> Read:
        """Read a field of billed quantities, each rounded half-even to a whole."""
        return self._numbers(field, self._as_quantities, as_quantity)

    def micros(self, field: Field) -> Read:
        """Read a field of durations as microseconds, rounded half-even."""
        read = _nothing(self._rows)
        for dialect, key, rows in self._keys(field):
            unit = _MICROS_PER_MILLI if key in dialect.millisecond_keys else _MICROS_PER_SECOND
            self._fill(read, key, rows=rows, convert=partial(self._as_micros, unit=unit))
        return read

    def nusd(self, field: Field) -> Read:
        """Read a field of amounts in USD as nano-USD, rounded half-even once."""
        return self._numbers(field, self._as_nusd, as_nusd)

    def texts(self, field: Field) -> Column:
        """Read a field of texts without looking at them; NULL where not said."""
        found = np.full(self._rows, ABSENT, dtype=np.int32)
        for _, key, rows in self._keys(field):
            at = self._attributes.at(key)
            usable = (found == ABSENT) & rows & (at != ABSENT)
            usable[usable] = self._attributes.is_text[at[usable]]
            np.copyto(found, at, where=usable)
        texts = take_or_null(self._attributes.texts, found)
        return self._with_blob_texts(texts, field)

    def _with_blob_texts(self, texts: Column, field: Field) -> Column:
        over, under = self._blobs.over(field), self._blobs.of(field)
        if not over and not under:
            return texts
        listed: list[str | None] = texts.to_pylist()
        for row, value in under:
            if listed[row] is None and isinstance(value, str):
                listed[row] = value or None
        for row, value in reversed(over):  # backwards: the most trusted one is written last
            if isinstance(value, str) and value:
                listed[row] = value
        return pa.array(listed, pa.string())

    def names(self, field: Field, mapped: Callable[[str], str | None]) -> Names:
        """Read a field of few distinct texts, each through `mapped`; None is not said."""
        names = Names(self._rows)
        _put_values(names, self._blobs.over(field), mapped)
        for dialect, key, rows in self._keys(field):
            at = self._attributes.at(key)
            usable = names.missing() & rows & (at != ABSENT)
            names.put(usable, self._texts_at(at[usable], dialect), mapped=mapped)
        _put_values(names, self._blobs.of(field), mapped)
        return names

    def _keys(self, field: Field) -> Iterator[tuple[Dialect, str, Bools]]:
        for dialect, rows in self._claims.present:
            for key in dialect.keys.get(field, ()):
                if self._attributes.has(key):
                    yield dialect, key, rows

    def _numbers(
        self,
        field: Field,
        convert: Callable[[Int32s], Read],
        convert_one: Callable[[object], int | None],
    ) -> Read:
        read = _nothing(self._rows)
        _put_numbers(read, self._blobs.over(field), convert_one)
        for _, key, rows in self._keys(field):
            self._fill(read, key, rows=rows, convert=convert)
        _put_numbers(read, self._blobs.of(field), convert_one)
        return read

    def _fill(
        self, read: Read, key: str, *, rows: Bools, convert: Callable[[Int32s], Read]
    ) -> None:
        values, said = read
        at = self._attributes.at(key)
        usable = np.flatnonzero(~said & rows & (at != ABSENT))
        if len(usable):
            found, readable = convert(at[usable])
            values[usable] = np.where(readable, found, 0)
            said[usable] = readable

    def _as_integers(self, at: Int32s) -> Read:
        readable = self._attributes.is_integer[at]
        return self._rest(
            at, self._attributes.integers[at], readable=readable, convert_one=as_integer
        )

    def _as_quantities(self, at: Int32s) -> Read:
        readable = self._attributes.is_integer[at]
        return self._rest(
            at, self._attributes.integers[at], readable=readable, convert_one=as_quantity
        )

    def _as_flags(self, at: Int32s) -> Read:
        readable = self._attributes.is_flag[at]
        return self._rest(at, self._attributes.flags[at], readable=readable, convert_one=as_flag)

    def _as_micros(self, at: Int32s, *, unit: float) -> Read:
        readable = self._attributes.is_double[at]
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is no duration
            micros, in_range = _bounded(self._attributes.doubles[at] * unit, readable)
        rounded = np.rint(micros).astype(np.int64)
        return self._rest(
            at, rounded, readable=in_range, convert_one=partial(as_micros, micros_per_unit=unit)
        )

    def _as_nusd(self, at: Int32s) -> Read:
        """Round the easy amounts at once; those near a tie or large go through decimals."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is no amount
            amounts = self._attributes.doubles[at] * _NUSD_PER_USD
        with np.errstate(invalid="ignore"):
            easy = self._attributes.is_double[at] & (np.abs(amounts) < _EXACT_NUSD)
            easy &= np.abs(np.abs(amounts - np.floor(amounts)) - 0.5) > 0.01  # noqa: PLR2004 - ten times the error
        rounded = np.rint(np.where(easy, amounts, 0)).astype(np.int64)
        return self._rest(at, rounded, readable=easy, convert_one=as_nusd)

    def _rest(
        self,
        at: Int32s,
        values: npt.NDArray[Any],
        *,
        readable: Bools,
        convert_one: Callable[[object], int | None],
    ) -> Read:
        """Convert one by one what the column operation did not."""
        values, readable = np.array(values, dtype=np.int64), readable.copy()
        odd = np.flatnonzero(~readable)
        for row, value in zip(odd.tolist(), self._attributes.values_at(at[odd]), strict=True):
            number = convert_one(value)
            if number is not None:
                values[row], readable[row] = number, True
        return values, readable

    def _texts_at(self, at: Int32s, dialect: Dialect) -> Column:
        texts = texts_at(self._attributes, at, max_chars=self._limits.max_blob_bytes)
        if not dialect.json_quoted:
            return texts
        encoded = texts.dictionary_encode()
        plain = [unquoted(text) for text in encoded.dictionary.to_pylist()]
        return pa.array(plain, pa.string()).take(encoded.indices)


def _put_values(
    names: Names, values: list[tuple[int, object]], mapped: Callable[[str], str | None]
) -> None:
    for row, value in values:
        text = as_text(value)
        if text is not None:
            names.put_one(row, mapped(text))


def _put_numbers(
    read: Read, values: list[tuple[int, object]], convert_one: Callable[[object], int | None]
) -> None:
    for row, value in values:
        number = convert_one(value)
        if number is not None and not read[1][row]:
            read[0][row], read[1][row] = number, True


def _nothing(rows: int) -> Read:
    return np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.bool_)


def _bounded(micros: Floats, readable: Bools) -> tuple[Floats, Bools]:
    with np.errstate(invalid="ignore"):
        in_range = readable & (micros >= 0) & (micros < _MAX_MICROS)
    return np.where(in_range, micros, 0), np.asarray(in_range, dtype=np.bool_)
