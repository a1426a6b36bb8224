"""Quotas are kept whole, by scope and id, on both engines."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.core.errors import NotFoundError
from controlplane.policy.velocity import Quota, Turn
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
    seen: list[Sequence[Quota]] = []

    def keep(*quotas: Quota) -> Callable[[Sequence[Quota]], Turn]:
        def kept(before: Sequence[Quota]) -> Turn:
            seen.append(before)
            return Turn(kept=quotas)

        return kept

    assert (second, QUOTA) == store.change("default", keep(second, QUOTA)).kept
    store.change("prod", keep(other))
    assert [QUOTA, second] == list(store.quotas("default"))
    moved = msgspec.structs.replace(QUOTA, until=NOW + timedelta(hours=1))
    store.change("default", keep(moved))
    store.change("default", keep(moved))
    assert [(), (), (QUOTA, second), (moved,)] == seen
    assert ([moved], [other]) == (list(store.quotas("default")), list(store.quotas("prod")))


def test_quotas_that_can_not_be_folded_stay(metadata_engine: Engine) -> None:
    store = QuotaRepository(metadata_engine)
    store.change("default", lambda _: Turn(kept=(QUOTA,)))

    def refuse(_before: Sequence[Quota]) -> Turn:
        raise NotFoundError("quota", "x")

    with pytest.raises(NotFoundError):
        store.change("default", refuse)
    assert [QUOTA] == list(store.quotas("default"))


def test_who_changes_quotas_waits_for_who_does(metadata_engine: Engine) -> None:
    """The second sees what the first kept: neither a look nor a person is overwritten."""
    store = QuotaRepository(metadata_engine)
    seen: list[int] = []

    def slowly(before: Sequence[Quota]) -> Turn:
        second.start()
        second.join(0.2)  # it can not end before this does
        seen.append(len(before))
        return Turn(kept=(QUOTA,))

    def quickly(before: Sequence[Quota]) -> Turn:
        seen.append(len(before))
        return Turn(kept=tuple(before))

    second = threading.Thread(target=lambda: store.change("default", quickly))
    store.change("default", slowly)
    second.join(60)
    assert ([0, 1], [QUOTA]) == (seen, list(store.quotas("default")))
