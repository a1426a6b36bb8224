"""The numbers of contexts: each combination of shared columns is stored once and kept for good."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controlplane.store.spans.compact import CONTEXT_NAMES
from controlplane.store.spans.database import load, read_sql

MAX_REMEMBERED: Final = 200_000
"""Contexts whose number is known without asking the table; about 20 MB."""

_DIGEST_BYTES: Final = 16
_HALF_BYTES: Final = 8


class ContextNumbers:
    """Implements the `span_context` table's one rule: equal contexts have one number.

    A context is recognised by 128 bits of BLAKE2b over its values: a sender chooses some of them,
    so that the hash must stand against somebody who looks for two contexts that share one.
    Not safe for several threads; the writer's lock guards it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: OrderedDict[bytes, int] = OrderedDict()
        row = connection.execute("SELECT coalesce(max(context_id), 0) FROM span_context").fetchone()
        self._last = int(row[0]) if row else 0
        self._pending: dict[bytes, int] = {}

    def number(self, contexts: pa.Table) -> npt.NDArray[np.int64]:
        """Return the number of each row, storing new contexts in the caller's transaction.

        `keep` must follow the commit; without it the numbers given out here are forgotten.
        """
        columns = [contexts.column(name).to_pylist() for name in CONTEXT_NAMES]
        digests = [_digest(row) for row in zip(*columns, strict=True)]
        self._pending = {}
        missing = {d: i for i, d in enumerate(digests) if d not in self._known}
        if missing:
            self._pending = self._stored(list(missing))
            new = {d: i for d, i in missing.items() if d not in self._pending}
            self._store(contexts.take(pa.array(list(new.values()), pa.int64())), list(new))
        return np.array(
            [self._pending[d] if d in self._pending else self._known[d] for d in digests],
            dtype=np.int64,
        )

    def keep(self) -> None:
        """Remember what the last `number` found or made: it is committed."""
        self._known.update(self._pending)
        self._last = max(self._last, *self._pending.values(), 0)
        self._pending = {}
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _stored(self, digests: list[bytes]) -> dict[bytes, int]:
        load(self._connection, wanted=_halves(digests))
        found = self._connection.execute(read_sql("context_numbers")).fetchall()
        return {
            hi.to_bytes(_HALF_BYTES, "big") + lo.to_bytes(_HALF_BYTES, "big"): number
            for hi, lo, number in found
        }

    def _store(self, contexts: pa.Table, digests: list[bytes]) -> None:
        if not digests:
            return
        numbers = range(self._last + 1, self._last + 1 + len(digests))
        self._pending |= zip(digests, numbers, strict=True)
        rows = _halves(digests).append_column("context_id", pa.array(numbers, pa.int64()))
        for name in CONTEXT_NAMES:
            rows = rows.append_column(name, contexts.column(name))
        load(self._connection, new_context=rows)
        self._connection.execute("INSERT INTO span_context BY NAME FROM new_context")


def _digest(values_of_row: tuple[Any, ...]) -> bytes:
    values = msgspec.msgpack.encode(values_of_row)
    return blake2b(values, digest_size=_DIGEST_BYTES).digest()


def _halves(digests: list[bytes]) -> pa.Table:
    halves = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return pa.table({"digest_hi": halves[:, 0], "digest_lo": halves[:, 1]})
