"""Merge the rule ids that decided a call's dimensions, report by report."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

_RULES = msgspec.json.Decoder(dict[str, str])


def merge_rules(ranked: Sequence["pa.ChunkedArray[Any]"]) -> "pa.Array[Any]":
    """Merge JSON `{dimension: rule id}` columns; the first rank that names a dimension wins."""
    rows = zip(*(column.to_pylist() for column in ranked), strict=True)
    return pa.array([_merge(row) for row in rows], pa.string())


def _merge(texts: tuple[str | None, ...]) -> str | None:
    said = [text for text in texts if text]
    if len(said) <= 1 or said.count(said[0]) == len(said):
        return said[0] if said else None
    merged: dict[str, str] = {}
    for text in said:
        for dimension, rule in _RULES.decode(text).items():
            merged.setdefault(dimension, rule)
    return msgspec.json.encode(merged, order="sorted").decode()
