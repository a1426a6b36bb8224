"""Erasing a person over HTTP: a dry run by default, of one's own tenants, and sums that stay."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa

from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.pipelines.settle import settle_tick
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

PATH = "/api/v1/erasures"


def test_a_user_is_counted_then_erased_and_the_sums_stay(
    serve: Callable[..., Any], keys: Any, clock: Any, span_rows: Callable[..., pa.Table]
) -> None:
    now = clock.now()
    store = DuckDbSpanStore(None)
    store.write(
        span_rows(
            *(
                {"span_id": n, "trace_lo": n, "start_time": now, "tenant": tenant, "user_id": "ada"}
                for n, tenant in enumerate(("acme", "acme", "globex"), start=1)
            )
        ),
        batch_id="a",
    )
    settle_tick(store, now=now + timedelta(minutes=1), ledger=None)
    api = serve(reader=store, subjects=store)
    key = keys.add("acme", scopes=ROLE_SCOPES[Role.ADMIN])

    def people(client: Any) -> dict[str | None, int]:
        body = client.get("/api/v1/costs", params={"range": "1h", "group_by": "user"}).json()
        return {row["user"]: row["calls"] for row in body["rows"]}

    with api.client(key) as client:
        dry = client.post(PATH, json={"tenant": "acme", "user": "ada"})
        assert {"tenant": "acme", "spans": 2, "traces": 2, "applied": False} == dry.json()
        assert {"ada": 2} == people(client)
        done = client.post(PATH, json={"tenant": "acme", "user": "ada", "apply": True})
        assert (200, True) == (done.status_code, done.json()["applied"])
        assert {None: 2} == people(client)
        foreign = client.post(PATH, json={"tenant": "globex", "user": "ada", "apply": True})
        nameless = client.post(PATH, json={"tenant": "acme", "user": ""})
    assert [403, 400] == [foreign.status_code, nameless.status_code]
    with api.client(keys.add("acme", scopes=ROLE_SCOPES[Role.FINANCE])) as client:
        refused = client.post(PATH, json={"tenant": "acme", "user": "ada"})
    assert 403 == refused.status_code
    store.close()
