"""A column of few distinct texts while it is being put together from several keys."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from controlplane.ingest.attributes import ABSENT
from controlplane.ingest.columns import Bools, Column, Int32s, kernels, take_or_null


class Names:
    """One text per row, or none. Work is done per distinct text, not per row."""

    def __init__(self, rows: int) -> None:
        self.code: Int32s = np.full(rows, ABSENT, dtype=np.int32)
        self._pool: dict[str, int] = {}

    def missing(self) -> Bools:
        """Tell which rows have no text yet."""
        return np.asarray(self.code == ABSENT, dtype=np.bool_)

    def put(self, rows: Bools, texts: Column, *, mapped: Callable[[str], str | None]) -> None:
        """Give the rows that `rows` marks the `texts`, each through `mapped`."""
        if len(texts) == 0:
            return
        encoded = texts.dictionary_encode()
        codes = [self._code(mapped(text)) for text in encoded.dictionary.to_pylist()]
        lookup = np.array([*codes, ABSENT], dtype=np.int32)  # NULL has the last one
        indices = kernels.fill_null(encoded.indices, len(codes)).to_numpy()
        self.code[rows] = lookup[indices]

    def put_one(self, row: int, text: str | None) -> None:
        """Give one row a text, unless it has one."""
        if text is not None and self.code[row] == ABSENT:
            self.code[row] = self._code(text)

    def put_where(self, rows: Bools, text: str) -> None:
        """Give every row that `rows` marks and that has none the same text."""
        self.code[rows & (self.code == ABSENT)] = self._code(text)

    def column(self) -> Column:
        """Answer the texts, NULL where there is none."""
        return take_or_null(pa.array(self.texts(), pa.string()), self.code)

    def lookup(self, dtype: Any, value_of: Callable[[str], Any], *, absent: Any) -> Any:
        """Answer a numpy array of what `value_of` makes of each row's text."""
        return np.array([*map(value_of, self.texts()), absent], dtype=dtype)[self.code]

    def texts(self) -> list[str]:
        """Answer the distinct texts; `code` indexes them."""
        return list(self._pool)

    def is_text(self, text: str) -> Bools:
        """Tell which rows have this text."""
        return np.asarray(self.code == self._pool.get(text, ABSENT - 1), dtype=np.bool_)

    def _code(self, text: str | None) -> int:
        return ABSENT if text is None else self._pool.setdefault(text, len(self._pool))
