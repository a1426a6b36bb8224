"""Where the time of a call went, in microseconds whatever unit its producer has."""

from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from controlplane.ingest import events
from controlplane.ingest.claims import Claims
from controlplane.ingest.columns import Bools, Column, Int64s, nullable
from controlplane.ingest.dialects.dialect import Field
from controlplane.ingest.reading import FieldReader, Read

_DURATIONS: Final = (Field.TTFT, Field.QUEUE, Field.PREFILL, Field.DECODE)
_MAX_MICROS: Final = 2**53


class Timings(msgspec.Struct, frozen=True):
    """The durations that spans say, and who has a first-token event."""

    durations: dict[Field, Read]
    inter_token: Read
    first_token_seen: Bools

    def columns(self, output_tokens: Read) -> dict[str, Column]:
        """Answer the five columns.

        Between n tokens are n - 1 gaps, as vLLM and the GenAI conventions count them: who says the
        time of decoding says the mean time between tokens, and the other way round.
        """
        decode, decode_said = self.durations[Field.DECODE]
        between, between_said = self.inter_token
        written, written_said = output_tokens
        gaps = np.where(written_said, written - 1, 0)
        fits = between_said & (gaps > 0) & (between < _MAX_MICROS // np.maximum(gaps, 1))
        spent = np.where(fits, between, 0) * np.where(fits, gaps, 0)
        durations = {
            **self.durations,
            Field.DECODE: (np.where(decode_said, decode, spent), decode_said | fits),
            Field.INTER_TOKEN: (
                np.where(between_said, between, _half_even(decode, np.maximum(gaps, 1))),
                between_said | (decode_said & (gaps > 0)),
            ),
        }
        return {
            field.value: nullable(values, said, dtype=pa.int64())
            for field, (values, said) in durations.items()
        }


def _half_even(dividend: Int64s, divisor: Int64s) -> Int64s:
    whole, rest = np.divmod(dividend, divisor)
    is_up = (2 * rest > divisor) | ((2 * rest == divisor) & (whole % 2 == 1))
    rounded: Int64s = whole + is_up
    return rounded


def read_timings(spans: pa.Table, reader: FieldReader, claims: Claims) -> Timings:
    """Read every duration; the time to the first token also from its event."""
    durations = {field: reader.micros(field) for field in _DURATIONS}
    seen = np.zeros(spans.num_rows, dtype=np.bool_)
    if events.has_events(spans.column("events")):
        start = np.asarray(spans.column("start_time").cast(pa.int64()).to_numpy())
        after, seen = events.first_tokens(spans.column("events"), claims, start_micros=start)
        values, said = durations[Field.TTFT]
        durations[Field.TTFT] = np.where(said, values, after), said | seen
    return Timings(durations, reader.micros(Field.INTER_TOKEN), seen)
