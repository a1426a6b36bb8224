"""Recorded text through the API: who may read it, what was taken out, until when it is kept."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from controlplane.auth.roles import ROLE_SCOPES, Role, Scope
from controlplane.signals.content import CONTENT_SCHEMA, Recording
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.signal_ports import SignalBatch
from controlplane.store.spans.duckdb_store import DuckDbSpanStore


def path_of(trace: int) -> str:
    return f"/api/v1/traces/{trace:032x}/content"


def keep(
    store: DuckDbSpanStore, *, trace: int, start: datetime, text: str, tenant: str = "acme"
) -> None:
    row = {
        "domain": "default", "tenant": tenant, "trace_hi": 0, "trace_lo": trace,
        "span_id": int(start.timestamp()), "start_time": start, "side": "input",
        "name": "gen_ai.input.messages", "text": text, "is_cut": False,
    }  # fmt: skip
    batch = SignalBatch(
        samples=SAMPLE_SCHEMA.empty_table(),
        events=EVENT_SCHEMA.empty_table(),
        accounts=ACCOUNT_SCHEMA.empty_table(),
        rejections=REJECTION_SCHEMA.empty_table(),
        contents=pa.Table.from_pylist([row], schema=CONTENT_SCHEMA),
    )
    store.write_signals(batch, batch_id=f"{trace}{start}")


def test_a_text_tells_what_was_taken_out_and_when_it_goes(
    serve: Callable[..., Any], admin: str, spans: DuckDbSpanStore, clock: Any
) -> None:
    start = clock.now() - timedelta(days=2)
    keep(spans, trace=7, start=start, text="[email] paid [card] and [card], not [brackets]")
    keep(spans, trace=7, start=clock.now() - timedelta(days=3, seconds=1), text="past its time")
    told = Recording(capture=True, retention_days=3, marks=("card", "email", "phone"))
    with serve(recording=told).client(admin) as client:
        answer = client.get(path_of(7)).json()
    (row,) = answer["rows"]
    assert "email,card" == row["redactions"]
    until = (start + timedelta(days=3)).astimezone(UTC)
    assert until == datetime.fromisoformat(row["kept_until"])
    assert (True, 3, 1) == tuple(answer["meta"][n] for n in ("capture", "retention_days", "texts"))


def test_nothing_recorded_says_whether_recording_is_off(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        answer = client.get(path_of(8)).json()
    assert ([], False) == (answer["rows"], answer["meta"]["capture"])


def test_text_is_for_those_with_its_scope_and_of_their_tenant(
    api: Any, keys: Any, spans: DuckDbSpanStore, clock: Any
) -> None:
    keep(spans, trace=9, start=clock.now(), text="of globex", tenant="globex")
    readers = {role for role in Role if Scope.CONTENT_READ in ROLE_SCOPES[role]}
    assert {Role.ADMIN} == readers
    for scope, status in ((Scope.CALLS_READ, 403), (Scope.CONTENT_READ, 200)):
        with api.client(keys.add("acme", scopes=frozenset({scope}))) as client:
            answer = client.get(path_of(9))
            assert status == answer.status_code
            assert "of globex" not in answer.text
