"""NORMALIZED rows → ATTRIBUTED rows: the tenant from the key, dimensions from the rules.

Columnar: a dimension is one array of positions into the attribute map's values, filled rule by
rule where it is still empty; nothing is done per row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controlplane.attribution.rules import DIMENSIONS, AttributionRules, Rule
from controlplane.attribution.tags import tag_values
from controlplane.signals.schema import ATTRIBUTED_SCHEMA
from controlplane.signals.sender import Sender
from controlplane.signals.vocabulary import KeyRole

MAPPED_ROLES: Final = frozenset({KeyRole.PROXY, KeyRole.ENGINE})
"""Roles whose key may carry a tenant map; a client can not choose its tenant."""
_BITS_PER_DIMENSION: Final = 7
_UNSET: Final = -1

Positions = npt.NDArray[np.int64]
Strings: TypeAlias = Any  # an Arrow string array; the published stubs know neither maps nor take


class _Tail:
    """The attribute maps of a table as flat arrays."""

    def __init__(self, spans: pa.Table) -> None:
        maps: Any = spans["attributes"].combine_chunks()
        self.rows = spans.num_rows
        offsets = maps.offsets.to_numpy()  # rows + 1, wherever a slice begins
        lengths = np.diff(offsets)
        first, total = int(offsets[0]), int(lengths.sum())
        self.values: Strings = maps.items.slice(first, total)
        self._row_of = np.repeat(np.arange(self.rows), lengths)
        keys = maps.keys.slice(first, total).dictionary_encode()
        self._codes = keys.indices.to_numpy()
        self._code_of = {key: code for code, key in enumerate(keys.dictionary.to_pylist())}
        sizes: Any = pc.binary_length(self.values)
        self._filled = sizes.to_numpy(zero_copy_only=False) > 0

    def find(self, attribute: str) -> Positions:
        """Return each row's position of a non-empty value in `values`, or _UNSET."""
        positions = np.full(self.rows, _UNSET, dtype=np.int64)
        code = self._code_of.get(attribute)
        if code is not None:
            at = np.flatnonzero((self._codes == code) & self._filled)
            positions[self._row_of[at]] = at
        return positions

    def take(self, positions: Positions) -> Strings:
        """Return the values at the positions, NULL for _UNSET."""
        return self.values.take(pa.array(positions, mask=positions == _UNSET))


def attribute(
    spans: pa.Table, rules: AttributionRules, *, senders: Mapping[str, Sender]
) -> pa.Table:
    """Add tenant, dimensions and the rules that decided; the rows and their order stay.

    Args:
        spans: rows of NORMALIZED_SCHEMA.
        rules: an organisation's rules before the built-in ones.
        senders: the sender of every `key_id` in the table.
    """
    tail = _Tail(spans)
    roles = spans["key_role"].to_pylist() if _uses_roles(rules) else []
    columns: dict[str, Strings] = {}
    decided: dict[str, tuple[npt.NDArray[np.int64], Sequence[str]]] = {}
    columns["tenant"], decided["tenant"] = _tenants(spans, tail, senders)
    for dimension in DIMENSIONS:
        own = rules.of(dimension)
        columns[dimension], by = _dimension(tail, own, roles)
        decided[dimension] = by, [rule.id for rule in own]
    columns["attributed_by"] = _explain(decided, spans.num_rows)
    for name in ATTRIBUTED_SCHEMA.names[spans.num_columns :]:
        spans = spans.append_column(ATTRIBUTED_SCHEMA.field(name), columns[name])
    return spans


def _uses_roles(rules: AttributionRules) -> bool:
    return any(rule.roles for rule in rules.rules)


def _dimension(
    tail: _Tail, rules: list[Rule], roles: list[str | None]
) -> tuple[Strings, npt.NDArray[np.int64]]:
    positions = np.full(tail.rows, _UNSET, dtype=np.int64)
    by = np.full(tail.rows, _UNSET, dtype=np.int64)
    tagged: list[tuple[npt.NDArray[np.bool_], Strings]] = []
    for number, rule in enumerate(rules):
        found = tail.find(rule.attribute)
        take = (by == _UNSET) & (found != _UNSET)
        if rule.roles:
            take &= np.isin(np.array(roles, dtype=object), [role.value for role in rule.roles])
        if rule.tag is not None and take.any():
            values = tag_values(tail.take(np.where(take, found, _UNSET)), rule.tag)
            take = values.is_valid().to_numpy(zero_copy_only=False)
            tagged.append((take, values))
        else:
            positions[take] = found[take]
        by[take] = number
    column = tail.take(positions)
    for taken, values in tagged:
        column = pc.if_else(pa.array(taken), values, column)
    for number, rule in enumerate(rules):
        if rule.values and bool((by == number).any()):
            column = _translate(column, by == number, rule.values)
    return column, by


def _translate(column: Strings, mask: npt.NDArray[np.bool_], values: Mapping[str, str]) -> Strings:
    translated: Any = pc.index_in(column, value_set=pa.array(list(values), pa.string()))
    replacement = pa.array(list(values.values()), pa.string()).take(translated)
    chosen = pc.and_(pa.array(mask), pc.is_valid(replacement))
    return pc.if_else(chosen, replacement, column)


def _tenants(
    spans: pa.Table, tail: _Tail, senders: Mapping[str, Sender]
) -> tuple[Strings, tuple[npt.NDArray[np.int64], Sequence[str]]]:
    keys: Any = spans["key_id"].combine_chunks().dictionary_encode()
    codes = keys.indices.to_numpy()
    known = [senders[key] for key in keys.dictionary.to_pylist()]
    column: Strings = pa.array([sender.tenant for sender in known], pa.string())
    column = column.take(keys.indices)
    by = np.zeros(spans.num_rows, dtype=np.int64)
    for code, sender in enumerate(known):
        mapped = sender.tenant_map
        if mapped is None or sender.key_role not in MAPPED_ROLES:
            continue
        positions = tail.find(mapped.attribute)
        positions[codes != code] = _UNSET
        told = tail.take(positions)
        if mapped.tenants is not None:
            table = mapped.tenants
            at: Any = pc.index_in(told, value_set=pa.array(list(table), pa.string()))
            told = pa.array(list(table.values()), pa.string()).take(at)
        column = pc.coalesce(told, column)
        by[told.is_valid().to_numpy(zero_copy_only=False)] = 1
    return column, (by, ["key", "tenant_map"])


def _explain(
    decided: Mapping[str, tuple[npt.NDArray[np.int64], Sequence[str]]], rows: int
) -> Strings:
    """Write `{dimension: rule id}` once per distinct combination, which are few."""
    packed = np.zeros(rows, dtype=np.uint64)
    for by, _ in decided.values():
        packed = (packed << np.uint64(_BITS_PER_DIMENSION)) | (by + 1).astype(np.uint64)
    distinct, which = np.unique(packed, return_inverse=True)
    texts = [_unpack(int(code), decided) for code in distinct]
    column: Strings = pa.array(texts, pa.string())
    return column.take(which)


def _unpack(code: int, decided: Mapping[str, tuple[npt.NDArray[np.int64], Sequence[str]]]) -> str:
    said: dict[str, str] = {}
    for dimension, (_, ids) in reversed(list(decided.items())):
        number = code & ((1 << _BITS_PER_DIMENSION) - 1)
        code >>= _BITS_PER_DIMENSION
        if number:
            said[dimension] = ids[number - 1]
    return msgspec.json.encode(said, order="sorted").decode()
