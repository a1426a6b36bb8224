"""Every bound on what a sender can make us do, named once; each is checked before allocation."""

import msgspec

MIB = 1024 * 1024


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
    """Span and resource attributes are bounded each on their own."""
    max_attribute_bytes: int = 64 * 1024
    """A longer text value of the attribute tail is truncated; usage blobs are skipped instead."""
    max_tail_attributes: int = 64
    """Attributes without a column that are kept in the `attributes` map, first come first kept."""
    max_tail_value_bytes: int = 1024
    """Longest value kept in the `attributes` map."""
    max_usage_blob_bytes: int = 64 * 1024
    """Longest JSON or Python-repr usage blob that is parsed."""
    max_nesting: int = 32
    """Depth of nested values; deeper input is refused at receipt."""


DEFAULT_LIMITS = Limits()
