"""Is everything that was served also here? Accounts, counters against calls, and who fell silent.

A counter of an engine, a proxy or an SDK counts tokens whether or not their spans arrive. Growth
is a lower bound, so more tokens counted than called is missing data; fewer says nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from controlplane.core.instants import MICROSECOND
from controlplane.core.money import format_usd
from controlplane.signals.families.registry import known
from controlplane.signals.meanings import Meaning
from controlplane.signals.samples import MAX_INSTANCES

Row = Mapping[str, Any]

TOLERATED: Final = 50
"""Counted may exceed called by one part in this many: scrapes and calls end at other instants."""
MIN_MISSING_TOKENS: Final = 1_000
MIN_SILENCE: Final = timedelta(minutes=15)
MIN_LATENESS: Final = timedelta(minutes=2)
MAX_SILENCE: Final = timedelta(hours=6)
"""An emitter that is this long silent is, however rarely it sends."""
GAPS: Final = 4
"""Silence is longer than so many of the emitter's mean gaps."""
MIN_RECEIVED: Final = 10
"""An emitter with fewer items has no rhythm to fall out of."""
SILENCE: Final = frozenset({"silent_emitter", "silent_instance"})
NO_NAME: Final = "no service.name"
"""An emitter that says nothing of itself, without a key to know it by."""
ITEMS: Final = {"traces": "spans", "metrics": "data points", "logs": "log records"}
_HOUR: Final = timedelta(hours=1)
_LAYER_OF: Final = {"litellm": "proxy", "gen_ai": ""}
"""Which reports a family's counters are compared with; engines are the rest."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One emitter's items of one signal; `received = stored + duplicates + rejected`."""

    tenant: str
    key_id: str
    service_name: str
    signal: str
    received: int
    stored: int
    duplicates: int
    rejected: int
    rejected_by_reason: dict[str, int]
    late: int
    ahead: int
    last_received: datetime
    is_silent: bool


class CounterCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that a program counted itself, beside those of the calls we hold."""

    tenant: str
    emitter: str
    source: str
    model: str | None
    counted_input_tokens: int
    counted_output_tokens: int
    call_input_tokens: int
    call_output_tokens: int
    missing_tokens: int
    missing_nusd: int | None
    """At the mean price of the calls that it was compared with; None where none is priced."""


class QualityFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should look at."""

    code: str
    severity: str
    tenant: str
    emitter: str
    message: str
    missing_nusd: int | None = None


class Completeness(msgspec.Struct, frozen=True):
    """The meter's reading."""

    accounts: tuple[Account, ...]
    counters: tuple[CounterCheck, ...]
    findings: tuple[QualityFinding, ...]


def read_meter(
    *,
    emitters: Iterable[Row],
    instances: Iterable[Row],
    rejections: Iterable[Row],
    growth: Iterable[Row],
    calls: Sequence[Row],
    now: datetime,
) -> Completeness:
    """Put together what the store answers about one window that ends about now.

    Rows are those of `signals.signal_ports.SignalReader`.
    """
    accounts = tuple(_accounts(emitters, rejections, now=now))
    counters = tuple(_counters(growth, calls))
    findings = (
        *(found for account in accounts for found in _of_account(account, calls, now=now)),
        *_of_instances(accounts, instances, calls, now=now),
        *(found for check in counters if (found := _of_counter(check)) is not None),
        *_of_reported_costs(calls),
    )
    return Completeness(accounts, counters, findings)


def with_silence_of(meter: Completeness, recent: Completeness) -> Completeness:
    """Judge who is silent by a longer look back than the window's own.

    Who sent nothing within a short window has no account in it, and is silent all the same.
    """
    silent = {_named(account) for account in recent.accounts if account.is_silent}
    accounts = (
        msgspec.structs.replace(account, is_silent=_named(account) in silent)
        for account in meter.accounts
    )
    findings = (
        *(found for found in recent.findings if found.code in SILENCE),
        *(found for found in meter.findings if found.code not in SILENCE),
    )
    return Completeness(tuple(accounts), meter.counters, findings)


def _named(account: Account) -> tuple[str, ...]:
    return account.tenant, account.key_id, account.service_name, account.signal


def _accounts(
    emitters: Iterable[Row], rejections: Iterable[Row], *, now: datetime
) -> Iterable[Account]:
    reasons: dict[tuple[str, ...], dict[str, int]] = {}
    for row in rejections:
        reasons.setdefault(_emitter(row), {})[row["reason"]] = row["rejected"]
    for row in emitters:
        yield Account(
            tenant=row["tenant"],
            key_id=row["key_id"],
            service_name=row["service_name"],
            signal=row["signal"],
            received=row["received"],
            stored=row["stored"],
            duplicates=row["duplicates"],
            rejected=row["rejected"],
            rejected_by_reason=reasons.get(_emitter(row), {}),
            late=row["late"],
            ahead=row["ahead"],
            last_received=row["last_received"],
            is_silent=is_silent(row, now=now),
        )


def _emitter(row: Row) -> tuple[str, ...]:
    return row["tenant"], row["key_id"], row["service_name"], row["signal"]


def is_silent(row: Row, *, now: datetime) -> bool:
    """Whether an emitter sent nothing for so long that somebody should look."""
    return _is_overdue(row, now=now, least=MIN_SILENCE)


def is_late(row: Row, *, now: datetime) -> bool:
    """Whether an emitter is out of its rhythm: what it has not sent may still have happened."""
    return _is_overdue(row, now=now, least=MIN_LATENESS)


def _is_overdue(row: Row, *, now: datetime, least: timedelta) -> bool:
    if row["received"] < MIN_RECEIVED:
        return False
    gap = (row["last_received"] - row["first_hour"]) / row["received"]
    allowed = min(max(least, GAPS * gap), MAX_SILENCE)
    heard = max(row["last_received"], row.get("last_heard") or row["last_received"])
    return bool(now - heard > allowed)


def _of_account(
    account: Account, calls: Sequence[Row], *, now: datetime
) -> Iterable[QualityFinding]:
    def found(code: str, message: str, *, severity: str = "warning") -> QualityFinding:
        emitter = _display(account)
        return QualityFinding(
            code=code, severity=severity, tenant=account.tenant, emitter=emitter, message=message
        )

    if account.is_silent and account.signal == "traces":
        minutes = (now - account.last_received) // timedelta(minutes=1)
        silent = found("silent_emitter", f"nothing for {minutes} minutes, after a steady flow")
        missing = _silent_nusd(account, calls, now=now)
        yield msgspec.structs.replace(silent, missing_nusd=missing)
    if account.rejected:
        reasons = ", ".join(f"{n} {r}" for r, n in sorted(account.rejected_by_reason.items()))
        of = f"{account.rejected:,} of {account.received:,} {ITEMS[account.signal]}"
        yield found("items_rejected", f"{of} rejected: {reasons}")
    if account.ahead:
        ahead = f"{account.ahead:,} of {account.stored:,} stored spans start in the future"
        yield found("clock_ahead", f"{ahead}: its clock is ahead")
    if account.late:
        late = f"{account.late:,} of {account.stored:,} stored spans came an hour late or more"
        yield found("late_arrivals", late, severity="info")


def _display(account: Account) -> str:
    return account.service_name or account.key_id or NO_NAME


def _of_instances(
    accounts: Sequence[Account], instances: Iterable[Row], calls: Sequence[Row], *, now: datetime
) -> Iterable[QualityFinding]:
    """Tell of replicas that fell silent while others of their emitter go on."""
    of_emitter: dict[tuple[str, ...], list[Row]] = {}
    for row in instances:
        name = (row["tenant"], row["key_id"], row["service_name"])
        of_emitter.setdefault(name, []).append(row)
    for account in accounts:
        found = of_emitter.get((account.tenant, account.key_id, account.service_name), [])
        if account.signal != "traces" or account.is_silent or len(found) >= MAX_INSTANCES:
            continue  # more than are known: they live for a moment each
        for row in lost_instances(found, now=now):
            silence = now - row["last_received"]
            silent = msgspec.structs.replace(account, last_received=row["last_received"])
            whole = _silent_nusd(silent, calls, now=now)
            every = sum(one["received"] for one in found)
            yield QualityFinding(
                code="silent_instance",
                severity="warning",
                tenant=account.tenant,
                emitter=_display(account),
                message=(
                    f"instance {row['instance']}: nothing for {silence // timedelta(minutes=1)}"
                    " minutes while others send, and no new one took its place"
                ),
                missing_nusd=None if whole is None else whole * row["received"] // every,
            )


def lost_instances(instances: Sequence[Row], *, now: datetime) -> list[Row]:
    """Choose the replicas that are silent and were not replaced: each new one replaces one."""

    def fell_silent(row: Row) -> bool:
        return is_silent({**row, "first_hour": row["first_received"]}, now=now)

    fresh = sorted(one["first_received"] for one in instances if not fell_silent(one))
    lost = []
    for row in sorted(filter(fell_silent, instances), key=lambda one: one["last_received"]):
        # A new one begins before the old one ends, where a service is rolled out.
        successor = next((at for at in fresh if at >= row["last_received"] - MIN_SILENCE), None)
        if successor is None:
            lost.append(row)
        else:
            fresh.remove(successor)
    return lost


def _silent_nusd(account: Account, calls: Sequence[Row], *, now: datetime) -> int | None:
    """Carry the emitter's mean spend over its silence; None where nothing of it is priced."""
    own = [
        row
        for row in calls
        if row["service_name"] == account.service_name and row["tenant"] == account.tenant
    ]
    spent = sum(row["cost_nusd"] for row in own if row["priced_tokens"])
    if not any(row["priced_tokens"] for row in own):
        return None
    first = min(row["first_start"] for row in own)
    active = max((account.last_received - first) // MICROSECOND, _HOUR // MICROSECOND)
    return int(spent * ((now - account.last_received) // MICROSECOND) // active)


def _counters(growth: Iterable[Row], calls: Sequence[Row]) -> Iterable[CounterCheck]:
    sums: dict[tuple[str, str, str | None], dict[tuple[str, str], float]] = {}
    for row in growth:
        if row["meaning"] in {Meaning.INPUT_TOKENS, Meaning.OUTPUT_TOKENS}:
            by_metric = sums.setdefault((row["tenant"], row["emitter"], row["model"]), {})
            key = (row["meaning"], row["metric"])
            by_metric[key] = by_metric.get(key, 0.0) + row["increase"]
    for (tenant, emitter, model), by_metric in sorted(sums.items(), key=str):
        engine = next((k.engine for _, m in by_metric if (k := known(m)) is not None), "")
        matched = _matching(calls, tenant=tenant, emitter=emitter, model=model, engine=engine)
        counted = {
            # Two metrics of one meaning (old and new names) count the same tokens.
            meaning: int(max((v for (m, _), v in by_metric.items() if m == meaning), default=0))
            for meaning in (Meaning.INPUT_TOKENS, Meaning.OUTPUT_TOKENS)
        }
        called = {
            Meaning.INPUT_TOKENS: sum(row["input_tokens"] for row in matched),
            Meaning.OUTPUT_TOKENS: sum(row["output_tokens"] for row in matched),
        }
        missing = sum(max(counted[m] - called[m], 0) for m in counted)
        yield CounterCheck(
            tenant=tenant,
            emitter=emitter,
            source=engine,
            model=model,
            counted_input_tokens=counted[Meaning.INPUT_TOKENS],
            counted_output_tokens=counted[Meaning.OUTPUT_TOKENS],
            call_input_tokens=called[Meaning.INPUT_TOKENS],
            call_output_tokens=called[Meaning.OUTPUT_TOKENS],
            missing_tokens=missing,
            missing_nusd=_at_mean_price(missing, matched),
        )


def _matching(
    calls: Sequence[Row], *, tenant: str, emitter: str, model: str | None, engine: str
) -> list[Row]:
    """Choose the calls that a counter counts: of its own service, else of its layer, by model."""
    of_model = [
        row
        for row in calls
        if row["tenant"] == tenant
        and (
            model is None or plain_model(model) in {plain_model(row[n]) for n in _MODELS if row[n]}
        )
    ]
    own = [row for row in of_model if row["service_name"] == emitter]
    if own:
        return own
    layer = _LAYER_OF.get(engine, "engine")
    return [row for row in of_model if layer in row["layers"]] or (
        of_model if engine != "gen_ai" else []
    )


_MODELS: Final = ("model", "request_model")


def plain_model(name: str) -> str:
    """Drop a provider's prefix and case: `openai/GPT-4o` is `gpt-4o`."""
    return name.rpartition("/")[2].lower()


def _at_mean_price(tokens: int, calls: Sequence[Row]) -> int | None:
    priced = sum(row["priced_tokens"] for row in calls)
    return sum(row["cost_nusd"] for row in calls) * tokens // priced if priced else None


def _of_counter(check: CounterCheck) -> QualityFinding | None:
    counted = check.counted_input_tokens + check.counted_output_tokens
    called = check.call_input_tokens + check.call_output_tokens
    if check.missing_tokens < max(MIN_MISSING_TOKENS, counted // TOLERATED):
        return None
    of = f" of {check.model}" if check.model else ""
    if called:
        code = "counters_ahead_of_calls"
        message = f"it counted {counted} tokens{of}, its calls hold {called}"
    else:
        code, message = "counts_without_calls", f"it counted {counted} tokens{of}, no call is here"
    return QualityFinding(
        code=code,
        severity="warning",
        tenant=check.tenant,
        emitter=check.emitter,
        message=message,
        missing_nusd=check.missing_nusd,
    )


def _of_reported_costs(calls: Sequence[Row]) -> Iterable[QualityFinding]:
    """Tell of producers whose own cost is not ours, by tenant, producer and model.

    Small differences that cancel out, or that are of few calls, are rounding and not a finding.
    """
    sums: dict[tuple[str, str, str], Counter[str]] = {}
    for row in calls:
        key = (row["tenant"], row["service_name"], row["model"] or "")
        sums.setdefault(key, Counter()).update({name: row[name] for name in _OFF})
    for (tenant, emitter, model), of in sorted(sums.items()):
        if of["off_nusd"] and of["off_nusd"] * TOLERATED >= max(of["cost_nusd"], 0):
            theirs, ours = format_usd(of["off_reported_nusd"]), format_usd(of["off_cost_nusd"])
            yield QualityFinding(
                code="reported_cost_differs",
                severity="warning",
                tenant=tenant,
                emitter=emitter,
                message=(
                    f"{of['off_calls']} of {of['compared_calls']} calls of {model or 'no model'} "
                    f"say they cost {theirs} USD, we price them {ours} USD"
                ),
            )


_OFF: Final = (
    *("compared_calls", "off_calls", "off_reported_nusd", "off_cost_nusd", "off_nusd"),
    "cost_nusd",
)
