"""What a producer family's spans look like: which keys, which semantics. Data, no behavior."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

import msgspec

from controlplane.signals.vocabulary import Layer, ReportKind


class Field(StrEnum):
    """A fact that a dialect says where to read; the value is the name, the comment its type."""

    PROVIDER = "provider"  # text; spellings are mapped by providers.py
    OPERATION = "operation"  # text; spellings are mapped by operations.py
    REQUEST_MODEL = "request_model"  # text
    RESPONSE_MODEL = "response_model"  # text
    DEPLOYED_MODEL = "deployed_model"  # text, `provider/model`; what a gateway really called
    MODEL_ALIAS = "model_alias"  # text; a gateway's name for it, which may hide the real one
    RESPONSE_ID = "response_id"  # text
    GATEWAY_CALL_ID = "gateway_call_id"  # text
    SERVICE_TIER = "service_tier"  # text; what was served before what was asked for
    FINISH_REASON = "finish_reason"  # text, array of text, or that array as JSON
    ERROR_TYPE = "error_type"  # text or number
    HTTP_STATUS = "http_status"  # integer
    IS_STREAM = "is_stream"  # bool or text
    TTFT = "ttft_us"  # duration
    QUEUE = "queue_us"  # duration
    PREFILL = "prefill_us"  # duration
    DECODE = "decode_us"  # duration
    INPUT_TOKENS = "input_tokens"  # integer, as are all that follow up to the cost
    CACHED_INPUT_TOKENS = "cached_input_tokens"
    CACHE_CREATION_INPUT_TOKENS = "cache_creation_input_tokens"
    CACHE_CREATION_1H_TOKENS = "cache_creation_1h_tokens"
    OUTPUT_TOKENS = "output_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    INPUT_AUDIO_TOKENS = "input_audio_tokens"
    INPUT_IMAGE_TOKENS = "input_image_tokens"
    INPUT_VIDEO_TOKENS = "input_video_tokens"
    OUTPUT_AUDIO_TOKENS = "output_audio_tokens"
    OUTPUT_IMAGE_TOKENS = "output_image_tokens"
    REPORTED_COST = "reported_cost"  # USD


USAGE_FIELDS: Final = (
    Field.INPUT_TOKENS,
    Field.CACHED_INPUT_TOKENS,
    Field.CACHE_CREATION_INPUT_TOKENS,
    Field.CACHE_CREATION_1H_TOKENS,
    Field.OUTPUT_TOKENS,
    Field.REASONING_TOKENS,
    Field.INPUT_AUDIO_TOKENS,
    Field.INPUT_IMAGE_TOKENS,
    Field.INPUT_VIDEO_TOKENS,
    Field.OUTPUT_AUDIO_TOKENS,
    Field.OUTPUT_IMAGE_TOKENS,
)
"""The fields of core.tokens.ReportedUsage, by the same names."""

Keys = Mapping[Field, tuple[str, ...]]
"""Attribute keys by field, most trusted first; the first that holds a readable value wins."""


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute that holds a JSON object or a Python repr of a dict, as text.

    It is read only for what no attribute key of the field said. `paths` lead from the object to a
    value, `0` to a list's first item; a field may have several paths, the first readable wins.
    `sums` add the integers of every member whose name starts with a prefix, for producers whose
    parts are exclusive; they come after the paths.
    """

    key: str
    encoding: Literal["json", "pyrepr"] = "json"
    paths: tuple[tuple[Field, tuple[str, ...]], ...] = ()
    sums: tuple[tuple[Field, str], ...] = ()
    tail: tuple[str, ...] = ()
    """Members kept in the attributes map as `<key>.<member>`; `*` keeps each text, number, bool
    and list of texts of the object itself, never what is nested deeper."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One producer family. A span has the first dialect of the registry that claims it."""

    name: str
    layer: Layer
    scopes: tuple[str, ...] = ()
    """Instrumentation scope names, exact, or a prefix that ends in `*`."""
    requires: str | None = None
    """With `scopes`: claim only spans that carry this attribute with a value."""
    markers: tuple[str, ...] = ()
    """Prefixes of attribute keys that claim a span whose scope no dialect knows."""
    keys: Keys
    blobs: tuple[Blob, ...] = ()
    provider: str | None = None
    """The provider where no key says it."""
    kinds_by_name: Mapping[str, ReportKind] = {}
    """Span names that settle what the span is, whatever its operation says."""
    kinds_by_key: Mapping[str, ReportKind] = {}
    """The same by the presence of an attribute, where no name settled it."""
    call_needs: tuple[str, ...] = ()
    """A successful call carries one of these; without any, the span is a wrapper or one half of
    a call whose other half has them, and no report."""
    exception_is_failure: bool = False
    """An exception event makes the span failed, whatever its status says."""
    kind_of_usage: ReportKind = ReportKind.CALL
    """What a span is that has usage and no known operation."""
    input_excludes_cache: bool | None = False
    """Whether cache reads and writes must be added to the input; None: only if larger than it."""
    output_excludes_reasoning: bool = False
    millisecond_keys: frozenset[str] = frozenset()
    """Duration keys that are in milliseconds; every other number is in seconds."""
    first_token_events: tuple[str, ...] = ()
    """Span events whose first occurrence marks the first token."""
    json_quoted: bool = False
    """Every text value is JSON, so text has quotes around it."""
