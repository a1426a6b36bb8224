"""Which dialect each span belongs to: its scope first, then its keys."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.columns import Bools, Column
from controlplane.ingest.dialects.dialect import Dialect

_UNCLAIMED: Final = -1


class Claims(msgspec.Struct, frozen=True):
    """The dialect of each row, as an index into `dialects`, and the dialects that have rows."""

    dialects: Sequence[Dialect]
    index: npt.NDArray[np.int16]
    present: list[tuple[Dialect, Bools]]


def claim(scopes: Column, attributes: AttributeTable, dialects: Sequence[Dialect]) -> Claims:
    """Give each span the first dialect whose scopes and requirement it meets.

    A span whose scope no dialect names has the first dialect with a marker among its keys; the
    last dialect takes the rest.
    """
    index = np.full(attributes.rows, _UNCLAIMED, dtype=np.int16)
    encoded = scopes.dictionary_encode()
    scope_of = np.asarray(encoded.indices.to_numpy(), dtype=np.int32)
    for code, scope in enumerate(encoded.dictionary.to_pylist()):
        rows = scope_of == code
        for number, dialect in enumerate(dialects):
            if matches_scope(scope, dialect):
                free = rows & (index == _UNCLAIMED)
                if dialect.requires is not None:
                    free &= attributes.at(dialect.requires) != ABSENT
                index[free] = number
    _claim_by_markers(index, attributes, dialects)
    index[index == _UNCLAIMED] = len(dialects) - 1
    present = [(dialects[number], index == number) for number in np.unique(index).tolist()]
    return Claims(dialects, index, present)


def _claim_by_markers(
    index: npt.NDArray[np.int16], attributes: AttributeTable, dialects: Sequence[Dialect]
) -> None:
    for number, dialect in enumerate(dialects):
        if not (index == _UNCLAIMED).any():
            return
        for name in attributes.named() if dialect.markers else ():
            if name.startswith(dialect.markers):
                index[(index == _UNCLAIMED) & (attributes.at(name) != ABSENT)] = number


def matches_scope(scope: str, dialect: Dialect) -> bool:
    """Whether a dialect names a scope."""
    return any(
        scope.startswith(known[:-1]) if known.endswith("*") else scope == known
        for known in dialect.scopes
    )
