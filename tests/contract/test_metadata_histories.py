"""What else the metadata database keeps, on both engines: re-rates, rates, pools, rules and alerts."""

from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from controlplane.alerts.alert import Alert, AlertState
from controlplane.alerts.ports import Delivery, Notification, Verdict
from controlplane.attribution.history import RulesVersion
from controlplane.attribution.rules import RulesDocument
from controlplane.core.errors import ConflictError, NotFoundError
from controlplane.pricing.currency import ExchangeRate
from controlplane.pricing.gpu_pool import GpuPool
from controlplane.pricing.rerate import RerateRun, RunState
from controlplane.store.metadata.alerts import AlertRepository
from controlplane.store.metadata.attribution import RulesRepository
from controlplane.store.metadata.currencies import ExchangeRateRepository
from controlplane.store.metadata.gpu_pools import GpuPoolRepository
from controlplane.store.metadata.rerates import RerateRepository

NOW = datetime(2026, 11, 20, 10, 7, 1, 3, tzinfo=UTC)


def _run(number: int, state: RunState) -> RerateRun:
    return RerateRun(
        id=f"rerate_{number}",
        state=state,
        window_start=NOW - timedelta(days=40),
        window_end=NOW - timedelta(microseconds=1),
        tenants=("acme", "=globex,'"),
        price_version=number,
        asked_by="ann",
        asked_at=NOW + timedelta(seconds=number),
    )


def test_a_re_rate_is_kept_as_it_was_asked_and_as_it_ended(metadata_engine: Engine) -> None:
    """To the microsecond, newest first, by state; an id is there once."""
    kept = RerateRepository(metadata_engine)
    states = (RunState.TO_PREVIEW, RunState.TO_APPLY, RunState.PREVIEWED, RunState.TO_APPLY)
    asked = [_run(number, state) for number, state in enumerate(states, start=1)]
    for run in asked:
        kept.add(run)
    assert asked[::-1] == kept.runs()
    assert asked[:1:-1] == kept.runs(limit=2)
    assert [asked[3], asked[1]] == kept.runs(states=[RunState.TO_APPLY])
    kept.done("rerate_2", state=RunState.APPLIED, report='{"calls":1}', now=NOW)
    done = msgspec.structs.replace(
        asked[1], state=RunState.APPLIED, report='{"calls":1}', done_at=NOW
    )
    assert done == kept.get("rerate_2")
    assert [asked[3]] == kept.runs(states=[RunState.TO_APPLY])
    with pytest.raises(NotFoundError):
        kept.get("rerate_9")
    with pytest.raises((ConflictError, IntegrityError)):
        kept.add(asked[0])


def test_exchange_rates_are_appended_in_the_order_of_their_recording(
    metadata_engine: Engine,
) -> None:
    """A later record of a day stays beside the earlier one; decimals are kept as written."""
    kept = ExchangeRateRepository(metadata_engine)
    rates = [
        ExchangeRate(currency=currency, day=date(2026, 11, day), usd_per_unit=usd, source="ecb",
                     recorded_at=NOW + timedelta(minutes=n))
        for n, (currency, day, usd) in enumerate(
            [("EUR", 2, "1.0873000"), ("JPY", 1, "0.0066"), ("EUR", 1, "1.1"), ("EUR", 2, "1.09")]
        )
    ]  # fmt: skip
    kept.add(rates[:3])
    kept.add(rates[3:])
    kept.add([])
    assert [rates[0], rates[2], rates[3]] == kept.of("EUR")
    assert [] == kept.of("CHF")


def test_a_pool_is_replaced_by_its_name_and_removed_once(metadata_engine: Engine) -> None:
    kept = GpuPoolRepository(metadata_engine)
    pools = [
        msgspec.convert(
            {"name": name, "price": {"kind": "on_demand", "hourly_usd": "2.5"}, "nodes": nodes},
            GpuPool,
        )
        for name, nodes in (("b", 1), ("a", 2), ("b", 7))
    ]
    for pool in pools:
        kept.put(pool, by="ann", now=NOW)
    assert (pools[1], pools[2]) == kept.pools()
    assert (True, False) == (kept.remove("b"), kept.remove("b"))
    assert (pools[1],) == kept.pools()


def test_rules_are_read_as_they_were_recorded_newest_first(metadata_engine: Engine) -> None:
    kept = RulesRepository(metadata_engine)
    assert kept.latest() is None
    document = msgspec.convert(
        {"rules": [{"id": "r", "dimension": "team", "attribute": "señal"}]}, RulesDocument
    )
    versions = [
        RulesVersion(version=n, recorded_at=NOW, source="api", recorded_by="ann", note="because",
                     document=document if n == 2 else RulesDocument())
        for n in (1, 2, 3)
    ]  # fmt: skip
    for version in versions:
        kept.append(version)
    assert versions[2] == kept.latest()
    assert versions[:0:-1] == kept.versions(limit=2)


def _alert(name: str, minutes: int) -> Alert:
    return Alert(
        fingerprint=name,
        labels={"alertname": name},
        annotations={"summary": "= 1 %"},
        state=AlertState.FIRING,
        since=NOW + timedelta(minutes=minutes),
    )


def test_a_round_replaces_the_alerts_and_adds_to_the_outbox(metadata_engine: Engine) -> None:
    """Due oldest first; tried again later when asked to, and never when done."""
    kept = AlertRepository(metadata_engine)
    first, second = _alert("a", 0), _alert("b", 1)
    messages = [
        Notification(id=f"m{n}", receiver="webhook", at=NOW + timedelta(seconds=n), alerts=(first,))
        for n in range(3)
    ]
    kept.save_round([first], messages[:1])
    kept.save_round([first, second], messages[1:])
    assert [second, first] == kept.alerts()
    assert messages[:2] == kept.due(now=NOW + timedelta(seconds=1), limit=9)
    late = NOW + timedelta(hours=1)
    kept.settle("m0", Delivery(Verdict.DELIVERED), next_attempt=NOW)
    kept.settle("m1", Delivery(Verdict.RETRY, "503"), next_attempt=late)
    kept.settle("m2", Delivery(Verdict.DEAD, "404"), next_attempt=NOW)
    assert [] == kept.due(now=late - timedelta(microseconds=1), limit=9)
    assert [msgspec.structs.replace(messages[1], attempts=1)] == kept.due(now=late, limit=9)
    kept.save_round([], [])
    assert [] == kept.alerts()
