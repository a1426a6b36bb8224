"""An alert and its states, in Alertmanager's words; all transitions in one table.

inactive ──seen──▶ pending ──held for `hold` rounds──▶ firing ──clear for `clear` rounds──▶ resolved
    ▲                 │not seen                                                               │
    └─────────────────┘◀───────────────────────── seen again starts anew ────────────────────┘
"""

import re
from datetime import datetime
from enum import StrEnum

import msgspec

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class AlertState(StrEnum):
    """Where an alert is."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How soon somebody must look: now, in working hours, or only in reports."""

    PAGE = "page"
    TICKET = "ticket"
    INFO = "info"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation sees now. Identity is the label set: only stable keys go in labels.

    `once` marks a finding that is told once per its labels and never resolves (a budget threshold
    within its period): numbers, times and contributors belong in annotations.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    once: bool = False


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert's whole state; evaluation is a pure function over these."""

    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    state: AlertState
    since: datetime
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    seen_rounds: int = 0
    clear_rounds: int = 0
    once: bool = False


def clean_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels that Alertmanager would keep; an empty value is no label (AL-06).

    Raises:
        ValueError: a name Alertmanager refuses, or nothing left.
    """
    kept = {name: value for name, value in sorted(labels.items()) if value}
    wrong = [name for name in kept if not _LABEL.fullmatch(name)]
    if wrong or not kept:
        msg = f"not label names: {wrong}" if wrong else "an alert needs a label"
        raise ValueError(msg)
    return kept


def fingerprint(labels: dict[str, str]) -> str:
    """Write the identity of a label set as text: names sorted, values quoted."""
    return msgspec.json.encode(clean_labels(labels)).decode()
