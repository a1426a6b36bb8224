"""Metric files of a run -> what they count -> beside what the run's calls hold."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controlplane.ingest.metrics import Samples, decode_metrics
from controlplane.ingest.ports import SpoolEntry
from controlplane.pipelines.payload_files import requests_of
from controlplane.signals.meanings import Meaning
from controlplane.signals.samples import SampleKind, Temporality
from controlplane.signals.sender import KEYLESS_SENDER

_ARRIVAL: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TOKENS: Final = (Meaning.INPUT_TOKENS, Meaning.OUTPUT_TOKENS)
Row = Mapping[str, Any]


def read_metrics_file(body: bytes) -> Samples:
    """Decode a file as ingest would."""
    payloads = requests_of(body, "metrics")
    return decode_metrics([SpoolEntry(one, KEYLESS_SENDER, _ARRIVAL) for one in payloads])


def growth_of(rows: Iterable[Row], *, since: datetime | None) -> list[dict[str, Any]]:
    """Add up how much each counter grew from `since` on, None being the beginning.

    A series that began before counts from its first sample: what it had counted is older. The
    row-by-row twin of the store's `growth`.
    """
    series: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] != SampleKind.GAUGE and row["meaning"]:
            series[row["series_hash"]].append(row)
    return [{**found[0], "increase": _grown(found, since)} for found in series.values()]


def _grown(series: list[Row], since: datetime | None) -> float:
    grown = 0.0
    before: Row | None = None
    for row in sorted({row["time"]: row for row in series}.values(), key=lambda row: row["time"]):
        value: float = row["value"]
        if row["temporality"] == Temporality.DELTA:
            grown += value
        elif before is None:
            began = row["start_time"]
            grown += value if began is not None and (since is None or began >= since) else 0.0
        elif value < before["value"] or _restarted(before, row):
            grown += value
        else:
            grown += value - before["value"]
        before = row
    return grown


def _restarted(before: Row, row: Row) -> bool:
    starts = (before["start_time"], row["start_time"])
    return None not in starts and starts[1] > starts[0]


def counted_tokens(growth: Iterable[Row]) -> dict[Meaning, int]:
    """Answer the tokens that were counted; of several who count the same ones, the most."""
    sums: dict[tuple[str, str | None], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in growth:
        if row["meaning"] in _TOKENS:
            sums[row["meaning"], row["model"]][f"{row['emitter']}/{row['metric']}"] += row[
                "increase"
            ]
    total: dict[Meaning, int] = dict.fromkeys(_TOKENS, 0)
    for (meaning, _), by_counter in sums.items():
        total[Meaning(meaning)] += int(max(by_counter.values()))
    return total


def compare_tokens(
    counted: Mapping[Meaning, int], called: Mapping[Meaning, int]
) -> tuple[str, str, str]:
    """Say how counted and called tokens compare: code, severity and sentence."""
    said = (
        f"metrics count {counted[Meaning.INPUT_TOKENS]} input and "
        f"{counted[Meaning.OUTPUT_TOKENS]} output tokens, the calls hold "
        f"{called[Meaning.INPUT_TOKENS]} and {called[Meaning.OUTPUT_TOKENS]}"
    )
    if any(counted[meaning] > called[meaning] for meaning in _TOKENS):
        return "counters_ahead_of_calls", "warning", said
    if any(counted[meaning] < called[meaning] for meaning in _TOKENS):
        return "counters_behind_calls", "info", said
    return "counters_agree", "info", said
