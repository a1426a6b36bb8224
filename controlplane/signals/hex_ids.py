"""OTLP ids as the halves we store and as the lowercase hex that people see."""

import re
from typing import Final

_TRACE: Final = re.compile("[0-9a-fA-F]{32}")
_SPAN: Final = re.compile("[0-9a-fA-F]{16}")
"""`int` takes a sign, spaces and underscores for digits; ids have none."""


def trace_hex(trace_hi: int, trace_lo: int) -> str:
    """Write a trace id as 32 hex digits."""
    return f"{trace_hi:016x}{trace_lo:016x}"


def span_hex(span_id: int) -> str:
    """Write a span id as 16 hex digits."""
    return f"{span_id:016x}"


def parse_trace_hex(text: str) -> tuple[int, int]:
    """Read 32 hex digits as (high, low).

    Raises:
        ValueError: not 32 hex digits.
    """
    if not _TRACE.fullmatch(text):
        msg = "a trace id has 32 hex digits"
        raise ValueError(msg)
    return int(text[:16], 16), int(text[16:], 16)


def parse_span_hex(text: str) -> int:
    """Read 16 hex digits.

    Raises:
        ValueError: not 16 hex digits.
    """
    if not _SPAN.fullmatch(text):
        msg = "a span id has 16 hex digits"
        raise ValueError(msg)
    return int(text, 16)
