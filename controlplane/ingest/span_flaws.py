"""Why a span could never be stored, told from its first bytes while the sender still listens.

Decoding finds the same and more; this is the part that costs a comparison a span. A span that an
SDK writes begins with its two ids of the right length, and only others are looked at further.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

_TRACE_HEAD: Final = b"\n\x10"  # field 1, 16 bytes
_SPAN_HEAD: Final = b"\x12\x08"  # field 2, 8 bytes
_SPAN_AT: Final = 18
_TRACE_ID, _SPAN_ID, _START, _END = 1, 2, 7, 8
_LENGTHS: Final = {_TRACE_ID: (16, "invalid_trace_id"), _SPAN_ID: (8, "invalid_span_id")}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MORE: Final = 0x80


def flaws_of_spans(spans: Sequence[bytes]) -> Counter[str]:
    """Count encoded spans without usable ids by reason."""
    return Counter(
        flaw
        for span in spans
        if not (span.startswith(_TRACE_HEAD) and span.startswith(_SPAN_HEAD, _SPAN_AT))
        and (flaw := _flaw(span))
    )


def _flaw(span: bytes) -> str:
    """Walk the fields; the first that is wrong names the flaw, in the order that decoding does."""
    found: set[str] = set()
    has_time = False
    at = 0
    try:
        while at < len(span):
            tag, at = _varint(span, at)
            number, wire = tag >> 3, tag & 7
            length, at = _varint(span, at) if wire == _BYTES else (_width(span, at, wire), at)
            if wire == _BYTES and number in _LENGTHS:
                wanted, reason = _LENGTHS[number]
                if length not in {0, wanted}:
                    found.add(reason)
            if number in {_START, _END} and any(span[at : at + length]):
                has_time = True
            at += length
    except (IndexError, ValueError):
        return "malformed_span"
    if at > len(span):
        return "malformed_span"
    first = next((reason for _, reason in _LENGTHS.values() if reason in found), "")
    return first or ("" if has_time else "missing_time")


def _width(span: bytes, at: int, wire: int) -> int:
    if wire == _VARINT:
        return _varint(span, at)[1] - at
    if wire in {_FIXED64, _FIXED32}:
        return 8 if wire == _FIXED64 else 4
    raise ValueError(wire)


def _varint(span: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = span[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            return value, at
        shift += 7
