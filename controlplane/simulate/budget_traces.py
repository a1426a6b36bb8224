"""Traces of simulated calls, settled and posted to the ledger as the settler does."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
import pyarrow as pa

from controlplane.auth.principal import Principal
from controlplane.budgets.posting import REFUSED
from controlplane.ingest.settlement import CHANGE_SCHEMA
from controlplane.policy.wire import Settle
from controlplane.simulate.budget_server import MODEL, TENANT

PLAIN: Final[dict[str, object]] = {
    "domain": "default",
    "trace_hi": 0,
    "trace_lo": 1,
    "reports": 1,
    "layers": "client",
    "service_name": "app",
    "dialect": "x",
    "status": "ok",
    "usage_state": "exact",
    "tenant": TENANT,
    "cost_state": "priced",
    "request_model": MODEL,
    "billing_model": MODEL,
    "sign": 1,
}


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace says of a call."""

    number: int
    input_tokens: int
    output_tokens: int
    cost_nusd: int
    is_refused: bool
    """By its upstream: it used nothing."""


class Traces:
    """Calls that were traced and are not posted yet."""

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []
        self._unreported: dict[str, dict[str, object]] = {}
        self._version = 0

    def bypassed(self, call: Traced, *, at: datetime) -> None:
        """A call that never asked an agent."""
        self._rows.append(_row(call, at, seconds=0.1))

    def enforced(self, call: Traced, *, at: datetime, seconds: float) -> None:
        """A call that an agent admitted; it is known as such when the agent has settled it."""
        row = _row(call, at, seconds=seconds)
        self._unreported[f"call{call.number}"] = {**row, "enforced": True}

    def reported(self, settles: Sequence[Settle], _caller: Principal, _now: datetime) -> None:
        """Take the agents' word of calls, as the report store does."""
        for settle in settles:
            row = self._unreported.pop(settle.call_id or "", None)
            if row is not None:
                self._rows.append(row)

    def settled(self) -> pa.Table | None:
        """Return one settlement version of what came since; None when nothing did."""
        if not self._rows:
            return None
        self._version += 1
        rows = [{**row, "version": self._version} for row in self._rows]
        self._rows = []
        return pa.Table.from_pylist(rows, schema=CHANGE_SCHEMA)


def _row(call: Traced, at: datetime, *, seconds: float) -> dict[str, object]:
    used: dict[str, object] = {
        "cost_nusd": call.cost_nusd,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
    }
    if call.is_refused:
        used = {"cost_nusd": 0, "cost_state": "free", "cost_reason": REFUSED}
    return {
        **PLAIN,
        **used,
        "call_id": f"c{call.number}",
        "span_id": call.number,
        "start_time": at,
        "duration_us": int(seconds * 1e6),
        "enforced": False,
        "response_id": f"response{call.number}",
        "gateway_call_id": f"call{call.number}",
    }
