"""Prometheus text and OpenMetrics → an OTLP metrics request, so that a scrape is spooled like one.

Only series that a family gives a meaning are kept: an engine exposes hundreds.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import Metric, Sample
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from controlplane.ingest import otlp_pb2 as pb
from controlplane.ingest import otlp_signals_pb2 as sig
from controlplane.signals.families.registry import known

OPENMETRICS: Final = "application/openmetrics-text"
CUMULATIVE: Final = 2
_NANOS: Final = 1_000_000_000
_NAME: Final = re.compile(r"^(?:# (?:TYPE|HELP|UNIT) )?([A-Za-z_:][A-Za-z0-9_:]*)")
_SUFFIX: Final = re.compile(r"_(bucket|sum|count|created|total)$")
_OF_BOUNDS: Final = frozenset({"le", "quantile"})
_OF_PARSERS: Final = (KeyError, IndexError, OverflowError)
"""What a bad line raises beside ValueError: in the parsers, and for an endless count."""
_Key = tuple[tuple[str, str], ...]


class TooManySamplesError(ValueError):
    """A scrape has more samples than its job allows."""


class _Series:
    """All samples of one metric that means something, wherever the text has them."""

    def __init__(self) -> None:
        self.kind = "gauge"
        self.values: dict[_Key, float] = {}
        self.counts: dict[_Key, int] = {}
        self.began: dict[_Key, int] = {}

    def add(self, sample: Sample, part: str, kind: str) -> None:
        """Take a sample; its part of the metric is what its name ends with."""
        key = tuple(sorted(sample.labels.items()))
        if part == "created":
            self.began[key] = max(int(sample.value * _NANOS), 0)
        elif part == "count":
            self.kind = "histogram"
            self.counts[key] = max(int(sample.value), 0)
        elif part == "sum":
            self.kind = "histogram"
            self.values[key] = float(sample.value)
        elif not _OF_BOUNDS & sample.labels.keys():
            self.kind = "counter" if kind == "counter" or part == "total" else self.kind
            self.values[key] = float(sample.value)


def read_exposition(
    text: str, *, is_openmetrics: bool, resource: Mapping[str, str], now_nanos: int, limit: int
) -> "sig.MetricsData":
    """Read a scrape made at `now_nanos`.

    Raises:
        TooManySamplesError: more than `limit`.
        ValueError: not such a text.
    """
    try:
        found = _series_of(text, is_openmetrics=is_openmetrics)
    except _OF_PARSERS as wrong:
        raise ValueError("a line is malformed") from wrong
    if sum(len(series.values) for series in found.values()) > limit:
        raise TooManySamplesError(f"more than {limit} samples")
    metrics = [_metric(name, series, now_nanos) for name, series in found.items()]
    return sig.MetricsData(
        resource_metrics=[
            sig.ResourceMetrics(
                resource=pb.LooseResource(attributes=_pairs(resource.items())),
                scope_metrics=[sig.ScopeMetrics(metrics=metrics)],
            )
        ]
    )


def _series_of(text: str, *, is_openmetrics: bool) -> dict[str, _Series]:
    families: Iterable[Metric] = (
        read_openmetrics(text) if is_openmetrics else read_text(_known_lines(text))  # type: ignore[no-untyped-call]
    )
    found: dict[str, _Series] = {}
    for family in families:
        for sample in family.samples:
            base, part = _split(sample.name)
            if base and part != "bucket":
                found.setdefault(base, _Series()).add(sample, part, family.type)
    return found


def _split(name: str) -> tuple[str, str]:
    """Answer the name of a known metric and what of it this is; no name for an unknown one.

    Some libraries write a name with a colon differently in a sample than in its TYPE line, so that
    a parser does not find them together: the sample's own name decides.
    """
    suffix = _SUFFIX.search(name)
    if suffix is not None and known(base := name[: suffix.start()]):
        return base, suffix[1]
    return (name, "") if known(name) else ("", "")


def _known_lines(text: str) -> str:
    """Drop what has no meaning before it is parsed, bucket lines too: most of a scrape."""
    kept: list[str] = []
    for line in text.splitlines():
        found = _NAME.match(line)
        if found is None:
            if line and not line.startswith("#"):
                kept.append(line)  # for the parser to refuse
            continue
        name = found[1]
        if not line.startswith("#") and name.endswith("_bucket"):
            continue
        if known(name) or known(_SUFFIX.sub("", name)):
            kept.append(line)
    return "\n".join(kept) + "\n"


def _metric(name: str, series: _Series, now_nanos: int) -> "sig.Metric":
    made = sig.Metric(name=name.encode())
    if series.kind == "histogram":
        made.histogram.aggregation_temporality = CUMULATIVE
        for key, value in series.values.items():
            made.histogram.data_points.add(
                time_unix_nano=now_nanos,
                start_time_unix_nano=series.began.get(key, 0),
                sum=value,
                count=series.counts.get(key, 0),
                attributes=_pairs(key),
            )
        return made
    if series.kind == "counter":
        made.sum.is_monotonic = True
        made.sum.aggregation_temporality = CUMULATIVE
    data = made.sum if series.kind == "counter" else made.gauge
    for key, value in series.values.items():
        data.data_points.add(
            time_unix_nano=now_nanos,
            start_time_unix_nano=series.began.get(key, 0),
            as_double=value,
            attributes=_pairs(key),
        )
    return made


def _pairs(labels: Iterable[tuple[str, str]]) -> "list[pb.LooseKeyValue]":
    return [
        pb.LooseKeyValue(key=name.encode(), value=pb.LooseAnyValue(string_value=text.encode()))
        for name, text in labels
    ]
