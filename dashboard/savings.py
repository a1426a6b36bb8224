"""Answers about what was and could be saved, as the page shows them. Nothing is added up here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dashboard import spoken
from dashboard.client import Table
from dashboard.filters import Filters
from dashboard.frames import UNATTRIBUTED
from dashboard.money_rows import signed

CACHE_COLUMNS: Final = (
    *("group", "calls", "hit_calls", "hit_tokens", "read_tokens", "written_tokens"),
    *("read_saving", "write_premium", "net_saving", "unknown_calls"),
)
CACHE_GROUPS: Final = ("model", "team")
FEATURE_COLUMNS: Final = ("feature", "calls", "was", "would_be", "moved", "not_compared")
LATENCY_COLUMNS: Final = ("tenant", "model", "recorded_ms", "other_ms", "moved_ms")
DEFAULT_CACHED_PERCENT: Final = 80
DEFAULT_CONTEXT: Final = 8_000
MAX_LINES: Final = 5
Say = Callable[..., str]


def cache_rows(answer: Table, group: str, names: Mapping[str, str]) -> pa.Table:
    """Turn cache figures into the table that is shown; a dash is what is not known."""
    rows = [row for row in answer.rows.to_pylist() if row["calls"] or row["unknown_calls"]]
    shown: dict[str, list[Any]] = {
        "group": [row[group] or UNATTRIBUTED for row in rows],
        "calls": [row["calls"] for row in rows],
        "hit_calls": [spoken.ratio(row["hit_ratio_calls"]) for row in rows],
        "hit_tokens": [spoken.ratio(row["hit_ratio_tokens"]) for row in rows],
        "read_tokens": [row["read_tokens"] for row in rows],
        "written_tokens": [row["write_tokens"] for row in rows],
        "read_saving": [spoken.money(row["read_saving_usd"]) for row in rows],
        "write_premium": [spoken.money(row["write_premium_usd"]) for row in rows],
        "net_saving": [spoken.money(row["net_saving_usd"]) for row in rows],
        "unknown_calls": [row["unknown_calls"] for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def cache_tiles(totals: Mapping[str, Any]) -> dict[str, str]:
    """Answer the figures of the whole window, by the phrase that names each."""
    return {
        "cache_hit_tokens": spoken.ratio(totals["hit_ratio_tokens"]),
        "cache_hit_calls": spoken.ratio(totals["hit_ratio_calls"]),
        "cache_read_saving": spoken.money(totals["read_saving_usd"]),
        "cache_write_premium": spoken.money(totals["write_premium_usd"]),
        "cache_net": spoken.money(totals["net_saving_usd"]),
    }


def cache_left_out(meta: Mapping[str, Any], say: Say) -> str:
    """Say what the figures are of, and what they leave out."""
    totals = meta["totals"]
    said = say(
        "cache_left_out",
        calls=spoken.count(totals["calls"]),
        without=spoken.count(totals["calls_without_usage"]),
        gateway=spoken.count(totals["gateway_answers"]),
        start=spoken.moment(meta["start"], zone=meta["zone"]),
        end=spoken.moment(meta["end"], zone=meta["zone"]),
        zone=meta["zone"],
    )
    if not totals["unknown_calls"]:
        return said
    unknown = say(
        "cache_unknown",
        unknown=spoken.count(totals["unknown_calls"]),
        tokens=spoken.count(totals["unknown_tokens"]),
    )
    return f"{said} {unknown}"


def question(
    meta: Mapping[str, Any], asked: Filters, scenario: Mapping[str, Any]
) -> dict[str, Any]:
    """Answer the body of a what-if about the calls that the page shows."""
    chosen = {"team": list(asked.teams), "model": list(asked.models)}
    return {
        "start": meta["start"],
        "end": meta["end"],
        "tenants": list(asked.tenants),
        "filters": {name: values for name, values in chosen.items() if values},
        "scenario": dict(scenario),
    }


def switch(target: str, ratio: float) -> dict[str, Any]:
    """Read `PROVIDER/MODEL`, or a model alone, and how many tokens its tokenizer makes of one."""
    provider, slash, model = target.strip().partition("/")
    scenario: dict[str, Any] = {"model": model if slash else provider}
    if slash:
        scenario["provider"] = provider
    permille = round(ratio * 1_000)
    return scenario if permille == 1_000 else {**scenario, "tokens_permille": permille}  # noqa: PLR2004 - as many tokens


def moved(found: Mapping[str, Any], say: Say) -> str:
    """Say what a scenario moves, or that nobody can tell."""
    counts = {
        "calls": spoken.count(found["calls"]),
        "not_compared": spoken.count(found["not_compared"]),
    }
    if not found["calls"]:
        return say("moved_unknown", **counts)
    return say(
        "moved",
        was=spoken.money(found["old_usd"]),
        would_be=spoken.money(found["new_usd"]),
        moved=signed(found["moved_usd"]),
        confidence=spoken.ratio(found["compared_ratio"]),
        **counts,
    )


def feature_rows(found: Mapping[str, Any], names: Mapping[str, str]) -> pa.Table:
    """Turn the features whose cost moves most into the table that is shown."""
    rows = found["features"]
    known = [bool(row["calls"]) for row in rows]
    shown: dict[str, list[Any]] = {
        "feature": [row["feature"] or UNATTRIBUTED for row in rows],
        "calls": [row["calls"] for row in rows],
        "was": [
            spoken.money(r["old_usd"] if k else None) for r, k in zip(rows, known, strict=True)
        ],
        "would_be": [
            spoken.money(r["new_usd"] if k else None) for r, k in zip(rows, known, strict=True)
        ],
        "moved": [
            signed(r["moved_usd"]) if k else spoken.UNKNOWN
            for r, k in zip(rows, known, strict=True)
        ],
        "not_compared": [row["not_compared"] for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def latency_rows(found: Mapping[str, Any], names: Mapping[str, str], say: Say) -> pa.Table:
    """Turn what was measured of latency into the table that is shown; a dash is what is not known."""
    rows = found["latency"]
    shown: dict[str, list[Any]] = {
        "tenant": [row["tenant"] for row in rows],
        "model": [f"{row['model'] or spoken.UNKNOWN} · {row['operation']}" for row in rows],
        "recorded_ms": [_ranks(row["recorded"], say) for row in rows],
        "other_ms": [_ranks(row["other"], say) for row in rows],
        "moved_ms": [_moved_ms(row) for row in rows],
    }
    return pa.table({names[key]: values for key, values in shown.items()})


def _ranks(told: Mapping[str, Any] | None, say: Say) -> str:
    if told is None:
        return spoken.UNKNOWN
    ranks = {name: f"{told[f'{name}_ms']:,.0f}" for name in ("p50", "p95")}
    return say("latency_ranks", calls=spoken.count(told["calls"]), **ranks)


def _moved_ms(row: Mapping[str, Any]) -> str:
    if row["other"] is None:
        return spoken.UNKNOWN
    return " / ".join(f"{row[f'{name}_change_ms']:+,.0f} ms" for name in ("p50", "p95"))


def commitment_lines(rows: Sequence[Mapping[str, Any]], say: Say) -> list[str]:
    """Say of the latest periods how far use is from what was committed."""
    return [
        say(
            "lever_commitment_line",
            contract=row["contract"],
            month=row["start"][:10],
            committed=spoken.money(row["committed_usd"]),
            used=spoken.money(row["contracted_usd"]),
            shortfall=spoken.money(row["shortfall_usd"]),
            overage=spoken.money(row["overage_usd"]),
        )
        for row in rows[-MAX_LINES:]
    ]
