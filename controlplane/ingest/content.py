"""What people wrote and models answered, where an installation asks for it: apart from the money.

Off, nothing of it leaves decode. On, the texts of calls are redacted, cut and stored in a table of
their own with a retention of its own. Usage never depends on any of it: it is read before.
"""

import re
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from controlplane.ingest.attributes import AttributeTable
from controlplane.ingest.columns import Bools, Column, byte_lengths, kernels
from controlplane.ingest.limits import Limits
from controlplane.ingest.otlp import Decoded
from controlplane.ingest.redaction import Redactor
from controlplane.ingest.texts import texts_at
from controlplane.signals.content import CONTENT_SCHEMA
from controlplane.signals.vocabulary import ReportKind

_INPUT: Final = re.compile(
    r"""
    ^gen_ai\.(input\.messages|system_instructions|prompt($|\.)|tool\.definitions) |
    ^(input\.value|llm\.input_messages\.|llm\.prompts|ai\.prompt|mlflow\.spanInputs$) |
    ^langfuse\.observation\.input$ | ^traceloop\.entity\.input$ | ^request_data$ |
    ^gcp\.vertex\.agent\.llm_request$ | ^llm\.[^.]+\.messages$
    """,
    re.VERBOSE,
)
_OUTPUT: Final = re.compile(
    r"""
    ^gen_ai\.(output\.messages|completion($|\.)) |
    ^(output\.value|llm\.output_messages\.|llm\.completions|mlflow\.spanOutputs$) |
    ^ai\.response\.(text|object|toolCalls|reasoning) |
    ^langfuse\.observation\.output$ | ^traceloop\.entity\.output$ | ^response_data$ |
    ^gcp\.vertex\.agent\.llm_response$ | ^llm\.[^.]+\.(choices|content)$
    """,
    re.VERBOSE,
)


EDGE_CHARS: Final = 512
"""Looked at beyond what is kept: longer than any key, token or number that is taken out."""


class ContentPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of content, and how."""

    redactor: Redactor
    max_chars: int
    """Longest text kept of one attribute. What is far beyond is cut before anything looks at it."""
    max_texts: int
    """Attributes kept of one span, first come first kept."""


def side_of(key: str) -> str | None:
    """Answer whether an attribute holds what went in or came out; None where neither."""
    if _INPUT.search(key):
        return "input"
    return "output" if _OUTPUT.search(key) else None


def contents_of(
    decoded: Decoded, spans: pa.Table, policy: ContentPolicy | None, *, limits: Limits
) -> pa.Table:
    """Answer CONTENT_SCHEMA rows of the calls among `spans`, ATTRIBUTED_SCHEMA rows of `decoded`."""
    if policy is None or spans.num_rows == 0:
        return CONTENT_SCHEMA.empty_table()
    attributes = AttributeTable(
        decoded.spans.column("attributes"), max_per_row=limits.max_attributes_per_span
    )
    sides = [side_of(name) for name in attributes.names]
    wanted = np.array([side is not None for side in sides], dtype=np.bool_)
    if not wanted.any():
        return CONTENT_SCHEMA.empty_table()
    is_call = kernels.equal(spans.column("report_kind"), ReportKind.CALL.value)
    of_call = np.asarray(is_call.to_numpy(), dtype=np.bool_)
    held = attributes.live & wanted[attributes.code_of] & of_call[attributes.row_of]
    positions = _first(np.flatnonzero(held), attributes, most=policy.max_texts)
    rows: Column = pa.array(attributes.row_of[positions].astype(np.int64))
    codes: Column = pa.array(attributes.code_of[positions])
    seen = texts_at(attributes, positions, max_chars=policy.max_chars + EDGE_CHARS)
    is_cut_off = byte_lengths(attributes.texts)[positions] > byte_lengths(seen)
    text, is_cut = _shortened(policy.redactor.redact(seen), is_cut_off, policy)
    identity = spans.select(_IDENTITY).take(rows)
    columns: dict[str, Column] = {name: identity.column(name) for name in _IDENTITY}
    columns |= {
        "side": pa.array(sides, pa.string()).take(codes),
        "name": pa.array(attributes.names, pa.string()).take(codes),
        "text": text,
        "is_cut": is_cut,
    }
    table = pa.table(columns).cast(CONTENT_SCHEMA)
    return table.filter(kernels.is_valid(table.column("text")))


def _shortened(texts: Column, is_cut_off: Bools, policy: ContentPolicy) -> tuple[Column, Column]:
    """Cut redacted texts, and answer which: one cut before may end with half of what is hidden."""
    without_edge = kernels.utf8_slice_codeunits(texts, 0, -EDGE_CHARS)
    kept = kernels.if_else(pa.array(is_cut_off), without_edge, texts)
    is_long = kernels.greater(kernels.utf8_length(kept), policy.max_chars)
    is_cut = kernels.or_(pa.array(is_cut_off), kernels.fill_null(is_long, pa.scalar(value=False)))
    return kernels.utf8_slice_codeunits(kept, 0, policy.max_chars), is_cut


_IDENTITY: Final = ("domain", "tenant", "trace_hi", "trace_lo", "span_id", "start_time")


def _first(positions: Column, attributes: AttributeTable, *, most: int) -> Column:
    rows = attributes.row_of[positions]
    counts = np.bincount(rows, minlength=attributes.rows)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return positions[rank < most]
