"""Of one batch: how much each emitter sent, and what of it is not stored, by reason.

`received = stored + duplicates + rejected` holds per emitter (tenant, key, service, signal); the
store adds the first two, because only it knows what it had.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from controlplane.core.instants import MICROSECOND
from controlplane.ingest.columns import Column, Int64s, contiguous
from controlplane.ingest.emitters import Emitter, instances_of
from controlplane.ingest.otlp import Decoded
from controlplane.ingest.ports import Signal, SpoolEntry
from controlplane.signals.samples import ACCOUNT_SCHEMA, INSTANCE_SCHEMA, REJECTION_SCHEMA

LATE: Final = timedelta(hours=1)
AHEAD: Final = timedelta(minutes=5)
_EMITTER: Final = ("tenant", "key_id", "service_name", "signal")
_SPAN_EMITTER: Final = ("tenant", "key_id", "service_name")
_Emitter = tuple[str, str, str, Signal]


class Accounts:
    """Adds up a batch, signal by signal; all of it counts in the hour its last request came in."""

    def __init__(self, entries: Sequence[SpoolEntry]) -> None:
        """Begin with a batch of at least one entry."""
        self._arrived = max(entry.received_at for entry in entries)
        self._received: Counter[_Emitter] = Counter()
        self._late: Counter[_Emitter] = Counter()
        self._ahead: Counter[_Emitter] = Counter()
        self._rejected: Counter[tuple[_Emitter, str]] = Counter()
        self._instances: Counter[tuple[Emitter, str]] = Counter()

    def add_spans(self, decoded: Decoded, spans: pa.Table, entries: Sequence[SpoolEntry]) -> None:
        """Count a batch's spans; `spans` are the attributed ones, `entries` what was decoded.

        What is no span has no attributes: it is on its key's own tenant.
        """
        arrived, starts = (
            _micros(decoded.spans.column(name)) for name in ("received_at", "start_time")
        )
        late = starts < arrived - LATE // MICROSECOND
        ahead = starts > arrived + AHEAD // MICROSECOND
        emitters, of_row = _emitters(spans)
        self._add_instances(decoded, emitters, of_row)
        counts, late_counts, ahead_counts = (
            np.bincount(of_row[rows], minlength=len(emitters)).tolist()
            for rows in (np.ones_like(late), late, ahead)
        )
        for named, count, is_late, is_ahead in zip(
            emitters, counts, late_counts, ahead_counts, strict=True
        ):
            emitter: _Emitter = (*named, "traces")
            self._received[emitter] += count
            self._late[emitter] += is_late
            self._ahead[emitter] += is_ahead
        for (position, service, reason), count in decoded.refused.items():
            sender = entries[position].sender
            emitter = (sender.tenant, sender.key_id, service, "traces")
            self._received[emitter] += count
            self._rejected[emitter, reason] += count

    def _add_instances(self, decoded: Decoded, emitters: list[Emitter], of_row: Int64s) -> None:
        names = instances_of(decoded.resources)
        if not any(names):
            return
        resources = np.asarray(decoded.spans.column("resource").to_numpy(), dtype=np.int64)
        codes, counts = np.unique(of_row * len(names) + resources, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            if name := names[code % len(names)]:
                self._instances[emitters[code // len(names)], name] += count

    def add(
        self,
        signal: Signal,
        *,
        received: Mapping[Emitter, int],
        rejected: Mapping[tuple[Emitter, str], int],
    ) -> None:
        """Count a batch's points or records; `received` includes what is rejected."""
        for emitter, count in received.items():
            self._received[*emitter, signal] += count
        for (emitter, reason), count in rejected.items():
            self._rejected[(*emitter, signal), reason] += count

    def instances(self) -> pa.Table:
        """Answer the replicas that sent spans as INSTANCE_SCHEMA rows."""
        rows = [
            {
                **emitter._asdict(),
                "instance": name,
                "received": count,
                "last_received": self._arrived,
            }
            for (emitter, name), count in self._instances.items()
        ]
        return pa.Table.from_pylist(rows, schema=INSTANCE_SCHEMA)

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Answer the batch as ACCOUNT_SCHEMA and REJECTION_SCHEMA rows."""
        hour = self._arrived.replace(minute=0, second=0, microsecond=0)
        accounts = [
            {
                **dict(zip(_EMITTER, emitter, strict=True)),
                "hour": hour,
                "received": count,
                "late": self._late[emitter],
                "ahead": self._ahead[emitter],
                "last_received": self._arrived,
            }
            for emitter, count in self._received.items()
        ]
        rejections = [
            {
                **dict(zip(_EMITTER, emitter, strict=True)),
                "hour": hour,
                "reason": reason,
                "rejected": count,
            }
            for (emitter, reason), count in self._rejected.items()
        ]
        return (
            pa.Table.from_pylist(accounts, schema=ACCOUNT_SCHEMA),
            pa.Table.from_pylist(rejections, schema=REJECTION_SCHEMA),
        )


def _emitters(spans: pa.Table) -> tuple[list[Emitter], Int64s]:
    """List the emitters there are, and which of them each row is from."""
    of_row = np.zeros(spans.num_rows, dtype=np.int64)
    named: list[tuple[str, ...]] = [()]
    for name in _SPAN_EMITTER:
        column = contiguous(spans.column(name)).dictionary_encode()
        values = column.dictionary.to_pylist()
        width = max(len(values), 1)
        codes, of_row = np.unique(of_row * width + _codes(column), return_inverse=True)
        named = [(*named[code // width], values[code % width]) for code in codes.tolist()]
    return [Emitter(*one) for one in named], of_row.astype(np.int64)


def _codes(encoded: Column) -> Int64s:
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _micros(column: Column) -> Int64s:
    return np.asarray(contiguous(column).cast(pa.int64()).to_numpy(), dtype=np.int64)
