"""The watch over a real span store and a real database: what is found, told once, and never lost."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from typing_extensions import override

from controlplane.alerts.alert import AlertState
from controlplane.alerts.burn import RULES, Burn
from controlplane.alerts.ports import Delivery, Notification, Receiver, Verdict
from controlplane.core.ids import SequentialIds
from controlplane.pipelines.settle import settle_tick
from controlplane.pipelines.watch import (
    Sources,
    budget_findings,
    deliver_round,
    forecast_findings,
    keep_alive,
    watch_round,
)
from controlplane.pipelines.watch_unpriced import unpriced_findings
from controlplane.pipelines.watched import WatchedBudget
from controlplane.policy.wire import Standing
from controlplane.signals.samples import (
    ACCOUNT_SCHEMA,
    EVENT_SCHEMA,
    REJECTION_SCHEMA,
    SAMPLE_SCHEMA,
)
from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.signals.signal_ports import SignalBatch
from controlplane.store.metadata.alerts import AlertRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.migrate import migrate
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

NOW = datetime(2026, 11, 20, 12, 7, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
USD = 1_000_000_000
FIRST = NOW.replace(day=1)


def _spans(rows: list[dict[str, object]]) -> pa.Table:
    """Client calls of tenant acme, one trace each; what a row does not say is a plain ok call."""
    base = {
        "domain": "default", "key_id": "", "key_role": "unknown", "received_at": NOW,
        "trace_hi": 7, "span_id": 1, "parent_span_id": 0, "duration_us": 1_000, "name": "chat",
        "kind": "client", "service_name": "app", "scope_name": "s", "dialect": "otel-genai",
        "report_kind": "call", "layer": "client", "provider": "openai", "operation": "chat",
        "billing_model": "gpt-4o", "status": "ok", "usage_state": "exact", "tenant": "acme",
        "cost_state": "priced", "price_id": "p", "price_provenance": "exact",
    }  # fmt: skip
    filled = [
        {**base, "trace_lo": number + 1, "content_hash": number, **row}
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=SPAN_SCHEMA)


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[DuckDbSpanStore]:
    store = DuckDbSpanStore(tmp_path / "spans.duckdb")
    yield store
    store.close()


@pytest.fixture
def alerts(tmp_path: Path) -> Iterator[AlertRepository]:
    engine = open_engine(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    migrate(engine)
    yield AlertRepository(engine)
    engine.dispose()


def _history(*, last_usd: int) -> list[dict[str, object]]:
    """Ten days of $1 a quarter hour for team search, and `last_usd` in the newest hour."""
    end = NOW.replace(minute=0)
    starts = [end - QUARTER * n for n in range(1, 10 * 96)]
    return [
        {
            "start_time": start,
            "team": "search",
            "output_tokens": 100,
            "cost_nusd": (last_usd if end - start <= 4 * QUARTER else 1) * USD,
        }
        for start in starts
    ]


def _look(spans: DuckDbSpanStore, alerts: AlertRepository, *, now: datetime = NOW) -> list[str]:
    firing = watch_round(
        Sources(spans, spans.signals), [], alerts, receivers=["hook"], ids=SequentialIds(), now=now
    )
    return [alert.labels["alertname"] for alert in firing]


def test_a_jump_in_a_teams_cost_is_told_once_with_its_numbers(
    spans: DuckDbSpanStore, alerts: AlertRepository
) -> None:
    """$9 where $1 was expected: one page, named, with what caused it."""
    spans.write(_spans(_history(last_usd=9)), batch_id="b")
    settle_tick(spans, now=NOW, ledger=None)
    assert ["CostAnomaly"] == _look(spans, alerts)
    assert ["CostAnomaly"] == _look(spans, alerts, now=NOW + timedelta(minutes=1))
    (message,) = alerts.due(now=NOW + timedelta(minutes=2), limit=10)
    (alert,) = message.alerts
    assert {
        "alertname": "CostAnomaly",
        "detector_id": "cost_excess",
        "severity": "page",
        "team": "search",
        "tenant": "acme",
    } == alert.labels
    assert "Team search: $9.00 in 15 min, $1.00 expected" == alert.annotations["summary"]
    assert "gpt-4o $18.00" == alert.annotations["top_models"]  # two buckets of excess so far
    assert (NOW.replace(minute=0) - 2 * QUARTER).isoformat() == alert.annotations["since"]


def test_steady_spend_is_quiet(spans: DuckDbSpanStore, alerts: AlertRepository) -> None:
    """The same dollar as always."""
    spans.write(_spans(_history(last_usd=1)), batch_id="b")
    settle_tick(spans, now=NOW, ledger=None)
    assert [] == _look(spans, alerts)
    assert [] == alerts.due(now=NOW, limit=10)


def test_longer_answers_of_a_model_are_a_ticket(
    spans: DuckDbSpanStore, alerts: AlertRepository
) -> None:
    """Twice the output tokens in the last hours, against the week before."""
    rows: list[dict[str, object]] = [
        {
            "start_time": NOW - timedelta(minutes=10 * n),
            "output_tokens": (200 if n < 30 else 100) + n % 40,
            "cost_nusd": 0,
            "trace_lo": 10 * n + k + 1,
        }
        for n in range(1, 800)
        for k in range(8)
    ]
    spans.write(_spans(rows), batch_id="b")
    settle_tick(spans, now=NOW, ledger=None)
    assert ["OutputLengthDrift"] == _look(spans, alerts)
    (alert,) = alerts.alerts()
    assert ("ticket", "gpt-4o") == (alert.labels["severity"], alert.labels["model"])


def _budget(used_usd: int, *, window: datetime = FIRST) -> WatchedBudget:
    standing = Standing(
        budget_id="b1",
        window_start=window,
        window_end=window + timedelta(days=30),
        limit_nusd=100 * USD,
        debt_nusd=0,
        settled_enforced_nusd=used_usd * USD,
        settled_unproven_nusd=0,
        observed_unenforced_nusd=0,
        leased_nusd=0,
        free_nusd=(100 - used_usd) * USD,
    )
    return WatchedBudget(
        tenant="acme", name="Search", owner="ana", standing=standing, forecast_thresholds=()
    )


@pytest.mark.parametrize(
    ("used", "expected"), [(49, []), (50, ["50"]), (99, ["50", "80"]), (100, ["50", "80", "100"])]
)
def test_thresholds_reached(used: int, expected: list[str]) -> None:
    """At the threshold counts as reached."""
    assert expected == [f.labels["threshold"] for f in budget_findings(_budget(used))]


def test_each_threshold_is_told_once_per_window(
    spans: DuckDbSpanStore, alerts: AlertRepository
) -> None:
    """A correction below and above again is silent; the next window tells again."""
    told: list[str] = []
    next_window = FIRST + timedelta(days=30)
    for day, budget in enumerate(
        [_budget(55), _budget(45), _budget(60), _budget(55, window=next_window)]
    ):
        now = NOW + timedelta(days=day)
        watch_round(
            Sources(spans, spans.signals),
            [budget],
            alerts,
            receivers=["hook"],
            ids=_ids(day),
            now=now,
        )
        for message in alerts.due(now=now, limit=10):
            told += [f"{day}:{alert.labels['threshold']}" for alert in message.alerts]
            alerts.settle(message.id, Delivery(Verdict.DELIVERED), next_attempt=now)
    assert ["0:50", "3:50"] == told


def _heard(spans: DuckDbSpanStore, *, received: int, until: datetime) -> None:
    """An hour of steady traces from the gateway."""
    account = {
        "tenant": "acme", "key_id": "k", "service_name": "gateway", "signal": "traces",
        "hour": NOW - timedelta(minutes=7), "received": received, "late": 0, "ahead": 0,
        "last_received": until,
    }  # fmt: skip
    batch = SignalBatch(
        samples=SAMPLE_SCHEMA.empty_table(),
        events=EVENT_SCHEMA.empty_table(),
        accounts=pa.Table.from_pylist([account], schema=ACCOUNT_SCHEMA),
        rejections=REJECTION_SCHEMA.empty_table(),
    )
    spans.write_signals(batch, batch_id=until.isoformat())


def test_without_data_a_budget_is_not_calm(spans: DuckDbSpanStore, alerts: AlertRepository) -> None:
    """Ingest stops: the silence is told, the burn stays; when it is heard again the burn clears."""
    burn = Burn(RULES[0], 20 * USD, USD)
    burning = msgspec.structs.replace(_budget(40), burns=(burn,))

    def look(minutes: int, budget: WatchedBudget) -> dict[str, str]:
        at = NOW + timedelta(minutes=minutes)
        sources = Sources(spans, spans.signals)
        watch_round(sources, [budget], alerts, receivers=[], ids=SequentialIds(), now=at)
        return {one.labels["alertname"]: one.state for one in alerts.alerts()}

    _heard(spans, received=600, until=NOW)
    assert {"BudgetBurn": "firing"} == look(1, burning)
    assert {"BudgetBurn": "firing"} == look(2, _budget(40))  # calm, and heard: one round of three
    for minutes in range(3, 16):
        assert {"BudgetBurn": "firing"} == look(minutes, _budget(40))
    assert {"BudgetBurn": "firing", "SourceSilent": "firing"} == look(16, _budget(40))
    _heard(spans, received=100, until=NOW + timedelta(minutes=20))
    assert "firing" == look(20, _budget(40))["BudgetBurn"]
    assert {"BudgetBurn": "resolved", "SourceSilent": "firing"} == look(21, _budget(40))
    assert "resolved" == look(22, _budget(40))["SourceSilent"]


def _ids(offset: int) -> SequentialIds:
    ids = SequentialIds()
    for _ in range(100 * offset):
        ids.new("x")
    return ids


class Script(Receiver):
    """Answers as told and remembers what it was given."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)
        self.seen: list[Notification] = []

    @override
    def deliver(self, message: Notification, *, now: datetime) -> Delivery:
        self.seen.append(message)
        return Delivery(self.verdicts.pop(0))


def _one_message(spans: DuckDbSpanStore, alerts: AlertRepository) -> None:
    watch_round(
        Sources(spans, spans.signals),
        [_budget(50)],
        alerts,
        receivers=["hook"],
        ids=SequentialIds(),
        now=NOW,
    )


def test_a_message_is_tried_with_one_id_until_it_is_taken(
    spans: DuckDbSpanStore, alerts: AlertRepository
) -> None:
    """Retries wait longer each time and keep the id, so the receiver can tell a repeat."""
    _one_message(spans, alerts)
    script = Script(Verdict.RETRY, Verdict.RETRY, Verdict.DELIVERED)
    delivered = [
        deliver_round(alerts, {"hook": script}, now=NOW + timedelta(seconds=second))
        for second in (0, 4, 5, 34, 35, 36)
    ]
    assert [0, 0, 0, 0, 1, 0] == delivered
    assert 1 == len({message.id for message in script.seen})
    assert [0, 1, 2] == [message.attempts for message in script.seen]


def test_a_crash_between_sending_and_marking_sends_again(
    spans: DuckDbSpanStore, alerts: AlertRepository, tmp_path: Path
) -> None:
    """At least once: the state of before the mark, taken up by another process."""
    _one_message(spans, alerts)
    copy = tmp_path / "crashed.sqlite"
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"metadata.sqlite{suffix}", f"{copy}{suffix}")
    first = Script(Verdict.DELIVERED)
    assert 1 == deliver_round(alerts, {"hook": first}, now=NOW)
    engine = open_engine(f"sqlite:///{copy}")
    again = Script(Verdict.DELIVERED)
    assert 1 == deliver_round(AlertRepository(engine), {"hook": again}, now=NOW)
    engine.dispose()
    assert first.seen == again.seen


def test_a_message_nobody_can_take_ends_as_dead(
    spans: DuckDbSpanStore, alerts: AlertRepository
) -> None:
    """A receiver that is gone, and one that never answers in days of retries."""
    _one_message(spans, alerts)
    assert 0 == deliver_round(alerts, {}, now=NOW)
    assert [] == alerts.due(now=NOW + timedelta(days=30), limit=10)
    watch_round(
        Sources(spans, spans.signals),
        [_budget(80)],
        alerts,
        receivers=["hook"],
        ids=_ids(1),
        now=NOW,
    )
    script = Script(*[Verdict.RETRY] * 20)
    for day in range(20):
        deliver_round(alerts, {"hook": script}, now=NOW + timedelta(days=2 * day))
    assert 11 == len(script.seen)  # the first and one for each of the ten waits


def test_what_fires_is_kept_alive(spans: DuckDbSpanStore, alerts: AlertRepository) -> None:
    """Alertmanager forgets what it no longer hears of."""
    firing = watch_round(
        Sources(spans, spans.signals),
        [_budget(100)],
        alerts,
        receivers=[],
        ids=SequentialIds(),
        now=NOW,
    )
    script = Script(Verdict.DELIVERED)
    assert keep_alive([], script, now=NOW, new_id=lambda: "m") is None
    assert keep_alive(firing, script, now=NOW, new_id=lambda: "m") == Delivery(Verdict.DELIVERED)
    (message,) = script.seen
    assert 3 == len(message.alerts)
    assert {AlertState.FIRING} == {alert.state for alert in message.alerts}
    assert message == msgspec.json.decode(msgspec.json.encode(message), type=Notification)


def test_the_first_call_without_a_price_is_a_finding_of_the_next_round(
    spans: DuckDbSpanStore, alerts: AlertRepository
) -> None:
    """One alert a model, with the reason; usage that nobody knows is another problem."""
    unpriced = {"cost_state": "unpriced", "input_tokens": 70, "output_tokens": 7}
    start = {"start_time": NOW - timedelta(seconds=5)}
    rows = [
        {**start, **unpriced, "billing_model": "mystery", "cost_reason": "unknown_model"},
        {**start, **unpriced, "billing_model": "silent", "cost_reason": "unknown_usage"},
        {**start, "billing_model": "gpt-4o", "cost_nusd": 5},
    ]
    spans.write(_spans(rows), batch_id="u")
    settle_tick(spans, now=NOW, ledger=None)
    firing = watch_round(
        Sources(spans, spans.signals), [], alerts, receivers=[], ids=SequentialIds(), now=NOW
    )
    (found,) = [alert for alert in firing if alert.labels["alertname"] == "UnpricedUsage"]
    assert ("mystery", "unknown_model", "openai") == (
        found.labels["model"],
        found.annotations["reasons"],
        found.annotations["providers"],
    )
    assert "1 call (77 tokens)" in found.annotations["summary"]
    assert "import a price list" in found.annotations["action"]


@pytest.mark.parametrize(
    ("reason", "mended_by"),
    [
        ("unknown_model", "import a price list"),
        ("no_gpu_price", "gpu_pools"),
        ("no_price_at_time", "earlier `valid_from`"),
        ("missing_rate:output_audio", "rates that the reasons name"),
        ("cost_out_of_range", "unit of its price"),
    ],
)
def test_the_alert_advises_what_mends_its_reason(
    spans: DuckDbSpanStore, reason: str, mended_by: str
) -> None:
    """No price list prices an engine of our own: only its pool does."""
    row = {
        "start_time": NOW - timedelta(seconds=5), "billing_model": "llama", "input_tokens": 7,
        "cost_state": "unpriced", "cost_reason": reason,
    }  # fmt: skip
    spans.write(_spans([row]), batch_id="u")
    settle_tick(spans, now=NOW, ledger=None)
    (found,) = unpriced_findings(spans, "acme", NOW)
    assert mended_by in found.annotations["action"]
    assert ("import a price list" in found.annotations["action"]) == (reason == "unknown_model")


def test_a_call_without_a_model_waits_for_the_report_that_names_it(
    spans: DuckDbSpanStore,
) -> None:
    """vLLM names none: its span comes before its proxy's, in which the model stands."""
    for age, tokens in ((timedelta(seconds=20), 5), (timedelta(minutes=6), 7)):
        row: dict[str, object] = {
            "start_time": NOW - age, "billing_model": None, "input_tokens": tokens,
            "cost_state": "unpriced", "cost_reason": "unknown_model", "span_id": tokens,
            "trace_lo": tokens, "content_hash": tokens,
        }  # fmt: skip
        spans.write(_spans([row]), batch_id=f"u{tokens}")
    settle_tick(spans, now=NOW, ledger=None)

    (found,) = unpriced_findings(spans, "acme", NOW)
    assert "unnamed" == found.labels["model"]
    assert "1 call (7 tokens)" in found.annotations["summary"]


def test_calls_of_a_pool_have_until_their_quarter_is_worked_out(spans: DuckDbSpanStore) -> None:
    """One that no pool has billed is told at once; one of a pool when its bill is overdue."""
    unpriced = {"cost_state": "unpriced", "cost_reason": "no_gpu_price", "output_tokens": 1}
    billed = {
        "cost_state": "estimated",
        "cost_reason": "gpu",
        "cost_nusd": 9,
        "billing_model": "on-pool",
    }
    rows: list[dict[str, object]] = [
        {**billed, "start_time": NOW - timedelta(hours=3)},
        {**unpriced, "start_time": NOW - timedelta(minutes=19), "billing_model": "on-pool"},
    ]
    spans.write(_spans(rows), batch_id="calm")
    settle_tick(spans, now=NOW, ledger=None)
    assert [] == unpriced_findings(spans, "acme", NOW)

    late = {**unpriced, "start_time": NOW - timedelta(minutes=21), "billing_model": "on-pool"}
    alone = {**unpriced, "start_time": NOW - timedelta(minutes=1), "billing_model": "on-none"}
    more = [{**row, "trace_lo": 70 + n} for n, row in enumerate((late, alone))]
    spans.write(_spans(more), batch_id="late")
    settle_tick(spans, now=NOW, ledger=None)
    found = unpriced_findings(spans, "acme", NOW)
    assert [("on-none", True), ("on-pool", True)] == [
        (one.labels["model"], one.annotations["summary"].count(" 1 call ") == 1) for one in found
    ]


@pytest.mark.parametrize(
    ("used", "day", "expected"),
    [
        (50, 5, []),
        (20, 6, []),
        (21, 6, ["100"]),
        (50, 15, []),
        (51, 15, ["100"]),
        (91, 15, ["100", "180"]),
    ],
)
def test_forecast_thresholds(used: int, day: int, expected: list[str]) -> None:
    """At the pace so far, above the threshold by the end of thirty days; not in the first six."""
    budget = msgspec.structs.replace(_budget(used), forecast_thresholds=(100, 180))
    found = forecast_findings(budget, FIRST + timedelta(days=day))
    assert expected == [finding.labels["threshold"] for finding in found]
    assert all(finding.once for finding in found)
