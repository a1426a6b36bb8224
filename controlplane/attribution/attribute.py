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

from controlplane.attribution.rules import DIMENSIONS, AttributionRules, Reserved, Rule
from controlplane.attribution.share import PREFIX
from controlplane.attribution.tags import tag_values
from controlplane.signals.schema import ATTRIBUTED_SCHEMA
from controlplane.signals.sender import MAPPED_ROLES, Sender
from controlplane.signals.vocabulary import KeyRole

TRUSTED_ROLES: Final = frozenset({KeyRole.PROXY, KeyRole.ENGINE, KeyRole.AGENT})
"""Roles whose word on who pays is taken, reserved values included."""
BY_KEY: Final = "key"
"""Decided by what an admin wrote on the ingest key: no attribute can say otherwise."""
REFUSED: Final = "refused:"
"""Before the reservation that a claim broke."""
POOL_NAME: Final = "pool_name"
"""The reservation of names of shared pools: only a share may give one."""
_UNSET: Final = -1
_MAX_PACKED: Final = 2**62

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
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
    keys = _Keys(spans, senders)
    for dimension in DIMENSIONS:
        own = rules.of(dimension)
        column, by = _dimension(tail, own, roles)
        verdict = _Verdict(column, by, [rule.id for rule in own])
        _refuse(verdict, dimension, rules.reserved, keys=keys, tenants=columns["tenant"])
        for mask, value in keys.fixed(dimension):
            verdict.put(mask, value, BY_KEY)
        columns[dimension], decided[dimension] = verdict.column, (verdict.by, verdict.ids)
    _share(columns, decided, rules)
    columns["attributed_by"] = _explain(decided, spans.num_rows)
    for name in ATTRIBUTED_SCHEMA.names[spans.num_columns :]:
        spans = spans.append_column(ATTRIBUTED_SCHEMA.field(name), columns[name])
    return spans


def refused_claims(attributed: pa.Table) -> dict[str, int]:
    """Count the rows by reservation whose claim to a dimension was refused."""
    told: Any = attributed["attributed_by"].combine_chunks().dictionary_encode()
    counts = np.bincount(told.indices.to_numpy(), minlength=len(told.dictionary))
    refused: dict[str, int] = {}
    for text, count in zip(told.dictionary.to_pylist(), counts.tolist(), strict=True):
        if REFUSED in text:
            for rule in msgspec.json.decode(text, type=dict[str, str]).values():
                if rule.startswith(REFUSED):
                    name = rule.removeprefix(REFUSED)
                    refused[name] = refused.get(name, 0) + count
    return refused


class _Keys:
    """Which rows came under which ingest key."""

    def __init__(self, spans: pa.Table, senders: Mapping[str, Sender]) -> None:
        keys: Any = spans["key_id"].combine_chunks().dictionary_encode()
        self._codes = keys.indices.to_numpy()
        self._senders = [senders[key] for key in keys.dictionary.to_pylist()]
        trusted = np.array([s.key_role in TRUSTED_ROLES for s in self._senders], dtype=np.bool_)
        self.trusted: Mask = trusted[self._codes] if len(self._codes) else trusted[:0]

    def fixed(self, dimension: str) -> list[tuple[Mask, str]]:
        """Return rows and the value that their key gives them."""
        return [
            (self._codes == code, sender.dimensions[dimension])
            for code, sender in enumerate(self._senders)
            if dimension in sender.dimensions
        ]


class _Verdict:
    """What one dimension of every row is, and which rule said so; `by` points into `ids`."""

    def __init__(self, column: Strings, by: npt.NDArray[np.int64], ids: list[str]) -> None:
        self.column, self.by, self.ids = column, by, ids

    def put(self, mask: Mask, value: str | None, rule_id: str) -> None:
        """Overrule what was decided for some rows."""
        if not mask.any():
            return
        if rule_id not in self.ids:
            self.ids.append(rule_id)
        self.column = pc.if_else(pa.array(mask), pa.scalar(value, pa.string()), self.column)
        self.by[mask] = self.ids.index(rule_id)


def _refuse(
    verdict: _Verdict,
    dimension: str,
    reserved: Sequence[Reserved],
    *,
    keys: _Keys,
    tenants: Strings,
) -> None:
    """Drop claims to what is reserved for others; a pool's name is for nobody to claim."""
    if dimension == "team":
        verdict.put(_matches(verdict.column, f"{PREFIX}*"), None, REFUSED + POOL_NAME)
    for one in reserved:
        if one.dimension != dimension:
            continue
        claimed = np.zeros(len(verdict.by), dtype=np.bool_)
        for value in one.values:
            claimed |= _matches(verdict.column, value)
        for tenant in one.tenants:
            claimed &= ~_matches(tenants, tenant)
        verdict.put(claimed & ~keys.trusted, None, REFUSED + one.id)


def _matches(column: Strings, value: str) -> Mask:
    told: Any
    if value.endswith("*"):
        told = pc.starts_with(column, value[:-1])
    else:
        told = pc.equal(column, pa.scalar(value, pa.string()))
    found: Any = pc.fill_null(told, False)  # noqa: FBT003 - the value that stands for NULL
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _share(
    columns: dict[str, Strings],
    decided: dict[str, tuple[npt.NDArray[np.int64], Sequence[str]]],
    rules: AttributionRules,
) -> None:
    """Give the calls of shared accounts to their pools, unless a key names the team."""
    by, ids = decided["team"]
    verdict = _Verdict(columns["team"], by, list(ids))
    for share in rules.shares:
        mask = np.zeros(len(by), dtype=np.bool_)
        for value in share.values:
            mask |= _matches(columns[share.dimension], value)
        if BY_KEY in verdict.ids:
            mask &= verdict.by != verdict.ids.index(BY_KEY)
        verdict.put(mask, share.pool, f"share:{share.id}")
    columns["team"], decided["team"] = verdict.column, (verdict.by, verdict.ids)


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
    packed = np.zeros(rows, dtype=np.int64)
    sizes = 1
    for by, ids in decided.values():
        size = len(ids) + 1
        if sizes > _MAX_PACKED // size:  # combinations are few, the product of sizes may not be
            packed = np.unique(packed, return_inverse=True)[1].astype(np.int64)
            sizes = rows
        packed = packed * size + by + 1
        sizes *= size
    _, first, which = np.unique(packed, return_index=True, return_inverse=True)
    texts = [_told(int(row), decided) for row in first]
    column: Strings = pa.array(texts, pa.string())
    return column.take(which)


def _told(row: int, decided: Mapping[str, tuple[npt.NDArray[np.int64], Sequence[str]]]) -> str:
    said = {name: ids[by[row]] for name, (by, ids) in decided.items() if by[row] != _UNSET}
    return msgspec.json.encode(said, order="sorted").decode()
