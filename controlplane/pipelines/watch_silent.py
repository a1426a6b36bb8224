"""No data is its own finding, and what it hides is not over: who fell silent, and whose budgets wait.

A budget whose calls no longer arrive looks calm. Until its tenant is heard again its alerts neither
resolve nor begin anew (AL-26); who sent nothing for a day is forgotten, and so is what waits for it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from controlplane.alerts.alert import Alert, Finding, Severity
from controlplane.core.calendar import Window
from controlplane.signals.signal_ports import SignalReader
from controlplane.usage.completeness import is_late, is_silent

REMEMBERED: Final = timedelta(days=1)

Emitter = Mapping[str, Any]


def emitters_of(reader: SignalReader, tenants: Collection[str], now: datetime) -> list[Emitter]:
    """Answer who sent traces within the last day, and when last."""
    found = reader.emitters(tuple(sorted(tenants)), Window(now - REMEMBERED, now)).to_pylist()
    return [row for row in found if row["signal"] == "traces"]


def silent_findings(emitters: Sequence[Emitter], now: datetime) -> list[Finding]:
    """Return a finding per emitter of traces that fell out of its rhythm."""
    return [_finding(row, now) for row in emitters if is_silent(row, now=now)]


class Unheard:
    """Whose alerts of budgets are to stay as they are: tenants with an emitter that is overdue.

    That is sooner than it is called silent, because a burn is calm within minutes.
    """

    def __init__(self, emitters: Sequence[Emitter], now: datetime) -> None:
        self._tenants = {row["tenant"] for row in emitters if is_late(row, now=now)}

    def __call__(self, alert: Alert) -> bool:
        """Whether nobody can say that it is over."""
        return "budget_id" in alert.labels and alert.labels.get("tenant") in self._tenants


def _finding(row: Emitter, now: datetime) -> Finding:
    name = row["service_name"] or row["key_id"]
    minutes = (now - row["last_received"]) // timedelta(minutes=1)
    return Finding(
        labels={
            "alertname": "SourceSilent",
            "tenant": row["tenant"],
            "emitter": name,
            "severity": Severity.TICKET,
            "detector_id": "silent_emitter",
        },
        annotations={
            "summary": f"{name} sent nothing for {minutes} minutes, after a steady flow",
            "last_received": row["last_received"].isoformat(),
            "action": "Until it is heard again its tenant's budget alerts do not resolve",
        },
    )
