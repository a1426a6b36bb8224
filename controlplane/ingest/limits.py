"""Every bound on what a sender can make us do, named once; each is checked before allocation."""

from typing import Final

import msgspec

MIB: Final = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one export request and on one span; a hit is counted under the field's name.

    Request bounds refuse the request (413 or RESOURCE_EXHAUSTED). Span bounds keep the span and
    its usage: what is over the bound is dropped or truncated, because attributes beyond the first
    `max_attributes_per_span` are never worth a lost call.
    """

    max_compressed_bytes: int = 16 * MIB
    """Body as received, before decompression."""
    max_decompressed_bytes: int = 64 * MIB
    """Body after decompression; checked while decompressing, not after."""
    max_spans_per_request: int = 100_000
    max_attributes_per_span: int = 512
    """Span attributes beyond these are read only if they say what a call is or used; resource
    attributes are bounded the same, without exception."""
    max_tail_attributes: int = 64
    needed_attributes: frozenset[str] = frozenset()
    """What a later stage reads: kept however many attributes a span has."""
    """Attributes without a column that are kept in the `attributes` map, first come first kept."""
    max_tail_value_chars: int = 1024
    """Longest value kept in the `attributes` map; longer ones are truncated."""
    max_blob_bytes: int = 64 * 1024
    """Longest JSON or Python-repr value that is parsed for usage; longer ones are not read."""
    max_age_days: int = 0
    """Spans that began longer before they arrived are rejected: what they would join is gone, and
    what was summed of their time can not be made anew (algorithms C7). 0 takes any."""
    max_nesting: int = 32
    """Depth of nested values; a deeper one is not read."""


DEFAULT_LIMITS: Final = Limits()
