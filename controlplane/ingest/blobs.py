"""What a dialect keeps inside JSON or Python-repr attributes: usage, models, app metadata."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools
from controlplane.ingest.dialects.dialect import Blob, Field, Path
from controlplane.ingest.limits import Limits
from controlplane.ingest.redact import is_content
from controlplane.ingest.scalars import as_integer, as_text, read_blob

_EVERY: Final = "*"
_FIRST: Final = "0"
_MAX_SEARCHED: Final = 16 * 1024


class BlobValues(msgspec.Struct, frozen=True):
    """What blobs say, row by row; rows ascend within a blob, and earlier paths come first."""

    fields: dict[Field, list[tuple[int, object]]]
    overriding: dict[Field, list[tuple[int, object]]]
    tail: list[tuple[int, str, str]]

    def of(self, field: Field) -> list[tuple[int, object]]:
        """Answer (row, value) of a field, for what no key said."""
        return self.fields.get(field, [])

    def over(self, field: Field) -> list[tuple[int, object]]:
        """Answer (row, value) of a field from blobs that come before every key."""
        return self.overriding.get(field, [])


def read_blobs(attributes: AttributeTable, claims: Claims, *, limits: Limits) -> BlobValues:
    """Parse each distinct blob once and take what its dialect asks for."""
    values = BlobValues({}, {}, [])
    for dialect, rows in claims.present:
        for blob in dialect.blobs:
            if attributes.has(blob.key):
                _read(blob, rows, attributes=attributes, limits=limits, into=values)
    return values


def _read(
    blob: Blob, rows: Bools, *, attributes: AttributeTable, limits: Limits, into: BlobValues
) -> None:
    at = attributes.at(blob.key)
    holders = np.flatnonzero(rows & (at != ABSENT))
    holders = holders[attributes.is_text[at[holders]]]
    encoded = attributes.texts.take(at[holders]).dictionary_encode()
    found = [
        read_blob(
            text, blob.encoding, max_bytes=limits.max_blob_bytes, max_nesting=limits.max_nesting
        )
        for text in encoded.dictionary.to_pylist()
    ]
    tails = [list(_tail_of(blob, members, limits=limits)) for members in found]
    values = [list(_fields_of(blob, members)) for members in found]
    fields = into.overriding if blob.overrides else into.fields
    for row, code in zip(holders.tolist(), encoded.indices.to_pylist(), strict=True):
        into.tail.extend((row, name, text) for name, text in tails[code])
        for field, value in values[code]:
            fields.setdefault(field, []).append((row, value))


def _fields_of(blob: Blob, members: Mapping[str, Any]) -> Iterator[tuple[Field, object]]:
    """Answer what a blob says, in the order in which it is believed."""
    if not members:
        return
    for field, paths in blob.totals:
        total = _total(members, paths)
        if total is not None:
            yield field, total
    for field, path in blob.paths:
        value = _follow(members, path)
        if value is not None:
            yield field, value
    for field, name, pattern in blob.searches:
        text = members.get(name)
        match = re.search(pattern, text[:_MAX_SEARCHED]) if isinstance(text, str) else None
        if match:
            yield field, match[1]
    for field, prefixes in blob.sums:
        total = _sum(members, prefixes)
        if total is not None:
            yield field, total


def _total(members: Mapping[str, Any], paths: Sequence[Path]) -> int | None:
    """Add the integers at paths; None unless the first one is said."""
    whole, *rest = (as_integer(_follow(members, path)) for path in paths)
    return None if whole is None else whole + sum(part or 0 for part in rest)


def _follow(members: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = members
    for name in path:
        if isinstance(value, list) and name == _FIRST:
            value = value[0] if value else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _sum(members: Mapping[str, Any], prefixes: tuple[str, ...]) -> int | None:
    parts = [as_integer(value) for name, value in members.items() if name.startswith(prefixes)]
    read = [part for part in parts if part is not None]
    return sum(read) if read else None


def _tail_of(
    blob: Blob, members: Mapping[str, Any], *, limits: Limits
) -> Iterator[tuple[str, str]]:
    names = members if blob.tail == (_EVERY,) else blob.tail
    for name in list(names)[: limits.max_tail_attributes]:
        key = f"{blob.key}.{name}"
        text = _tail_text(members.get(name))
        if text and not is_content(key):
            yield key, text[: limits.max_tail_value_chars]


def _tail_text(value: object) -> str | None:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return msgspec.json.encode(value).decode() if value else None
    return as_text(value)
