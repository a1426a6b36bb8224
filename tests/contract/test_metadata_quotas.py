"""Quotas are kept whole, by scope and id, on both engines."""

from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Engine

from controlplane.policy.velocity import Quota
from controlplane.store.metadata.quotas import QuotaRepository

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
QUOTA = Quota(
    id="velocity.w.a1",
    scope="default",
    limit_id="w",
    per="user_id",
    tenant="acme",
    value="ana ✓",
    name="user_a1",
    spent_nusd=2**62,
    limit_nusd=1,
    window_seconds=600,
    since=NOW,
    until=NOW + timedelta(seconds=900),
)


def test_quotas_are_replaced_and_removed_together(metadata_engine: Engine) -> None:
    """Those of other scopes stay."""
    store = QuotaRepository(metadata_engine)
    second = msgspec.structs.replace(QUOTA, id="velocity.w.b2", forgiven_until=NOW)
    other = msgspec.structs.replace(QUOTA, scope="prod")
    store.save_quotas("default", [second, QUOTA], removed=())
    store.save_quotas("prod", [other], removed=["velocity.w.b2"])
    assert [QUOTA, second] == list(store.quotas("default"))
    moved = msgspec.structs.replace(QUOTA, until=NOW + timedelta(hours=1))
    store.save_quotas("default", [moved], removed=[second.id])
    store.save_quotas("default", [], removed=())
    assert ([moved], [other]) == (list(store.quotas("default")), list(store.quotas("prod")))
