"""Forgetting a person, row by row."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from controlplane.ingest.subjects import Subject

Row = dict[str, Any]


def is_of(row: Row, subject: Subject) -> bool:
    """Whether a row names the subject."""
    return bool((row["tenant"], row["user_id"]) == (subject.tenant, subject.user_id))


def forget(rows: Iterable[Row], subject: Subject, traces: Collection[tuple[Any, ...]]) -> None:
    """Take the subject out of rows, and the attributes out of all that its traces say."""
    for row in rows:
        of = (row["domain"], row["trace_hi"], row["trace_lo"])
        if row["tenant"] == subject.tenant and of in traces and row.get("attributes") is not None:
            row["attributes"] = []
        if is_of(row, subject):
            row["user_id"] = None


def bury(row: Row, erased: Mapping[Subject, datetime]) -> None:
    """Take a subject out of a late row of before its erasure."""
    at = erased.get(Subject(row["tenant"], row["user_id"] or ""))
    if at is not None and row["start_time"] <= at:
        row["user_id"] = None
        row["attributes"] = None if row["attributes"] is None else []
