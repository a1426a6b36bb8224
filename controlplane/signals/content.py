"""Recorded text of calls, apart from what they cost."""

from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
import pyarrow as pa

from controlplane.signals.queries import TraceQuery
from controlplane.signals.schema import TIMESTAMP

_FIELDS: Final[list["pa.Field[Any]"]] = [
    pa.field("domain", pa.string(), nullable=False),
    pa.field("tenant", pa.string(), nullable=False),
    pa.field("trace_hi", pa.uint64(), nullable=False),
    pa.field("trace_lo", pa.uint64(), nullable=False),
    pa.field("span_id", pa.uint64(), nullable=False),
    pa.field("start_time", TIMESTAMP, nullable=False),
    pa.field("side", pa.string(), nullable=False),  # input|output
    pa.field("name", pa.string(), nullable=False),  # the attribute
    pa.field("text", pa.string()),  # redacted, cut
    pa.field("is_cut", pa.bool_(), nullable=False),
]
CONTENT_SCHEMA: Final = pa.schema(_FIELDS)
"""One row per attribute of a call's span that holds what was written or answered."""


class ContentKeeper(Protocol):
    """Where recorded text goes in, comes out and goes away; spans and money know nothing of it."""

    def content(self, query: TraceQuery) -> pa.Table:
        """Answer CONTENT_SCHEMA rows of a trace of the query's tenants, in start order."""
        ...

    def forget_content(self, *, before: datetime) -> int:
        """Delete text of spans that started before an instant; return how many rows."""
        ...


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What this installation records of content."""

    capture: bool = False
    retention_days: int = 7
    marks: tuple[str, ...] = ()
    """Names that redaction leaves in brackets where it took something out."""

    @property
    def kept(self) -> timedelta:
        """How long a text is kept after its call began."""
        return timedelta(days=self.retention_days)
