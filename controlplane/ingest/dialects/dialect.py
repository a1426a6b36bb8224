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
    CACHE_HIT = "cache_hit"  # bool or text; a gateway had the whole reply already
    FINISH_REASON = "finish_reason"  # text, array of text, or that array as JSON
    ERROR_TYPE = "error_type"  # text or number
    ERROR_MESSAGE = "error_message"  # text, read for a status and never kept
    LEVEL = "level"  # text; `error` is a failure, whatever the status of the span
    HTTP_STATUS = "http_status"  # integer
    IS_STREAM = "is_stream"  # bool or text
    STREAM_MARK = "stream_mark"  # text; the class of a chunk that a stream was put together from, or a method that streams
    TTFT = "ttft_us"  # duration
    QUEUE = "queue_us"  # duration
    PREFILL = "prefill_us"  # duration
    DECODE = "decode_us"  # duration
    INTER_TOKEN = "inter_token_us"  # noqa: S105 - no secret: a duration, the mean time between two output tokens
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
    CACHE_READ_AUDIO_TOKENS = "cache_read_audio_tokens"
    WEB_SEARCHES = "web_searches"  # number, as are the billed quantities up to the cost
    REQUESTS = "requests"
    PAGES = "pages"
    AUDIO_SECONDS = "audio_seconds"
    IMAGES = "images"
    VIDEO_SECONDS = "video_seconds"
    CHARACTERS = "characters"
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
    Field.CACHE_READ_AUDIO_TOKENS,
)
"""The fields of core.tokens.ReportedUsage, by the same names."""

QUANTITY_FIELDS: Final = (
    Field.WEB_SEARCHES,
    Field.REQUESTS,
    Field.PAGES,
    Field.AUDIO_SECONDS,
    Field.IMAGES,
    Field.VIDEO_SECONDS,
    Field.CHARACTERS,
)
"""What is billed beside tokens; each is the bucket of the same name in core.tokens."""

Keys = Mapping[Field, tuple[str, ...]]
"""Attribute keys by field, most trusted first; the first that holds a readable value wins."""


Path = tuple[str, ...]


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute that holds a JSON object or a Python repr of a dict, as text.

    It is read only for what no attribute key of the field said, unless it `overrides` them.
    `paths` lead from the object to a value, `0` to a list's first item; a field may have several
    paths, the first readable wins. `totals` come before them: the integers at several paths,
    added, where the first one is said. `sums` come last: the integers of every member whose name
    starts with one of the prefixes, for producers whose parts are exclusive.
    """

    key: str
    encoding: Literal["json", "pyrepr"] = "json"
    overrides: bool = False
    paths: tuple[tuple[Field, Path], ...] = ()
    totals: tuple[tuple[Field, tuple[Path, ...]], ...] = ()
    sums: tuple[tuple[Field, tuple[str, ...]], ...] = ()
    searches: tuple[tuple[Field, str, str], ...] = ()
    """A member that is text, and the pattern whose first group is the value: a repr of an object
    that no reader can parse."""
    tail: tuple[str, ...] = ()
    """Members kept in the attributes map as `<key>.<member>`; `*` keeps each text, number, bool
    and list of texts of the object itself, never what is nested deeper."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One producer family. A span has the first dialect of the registry that claims it."""

    name: str
    layer: Layer
    evidence: str
    """Where to check it: versions seen on the wire, or the producer's source or page."""
    scenarios: tuple[str, ...] = ()
    """Folders of tests/corpus and tests/recordings whose calls this dialect reads."""
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
    providers_by_name: Mapping[str, str] = {}
    """Prefixes of span names that say the provider where no key does."""
    provider_in_scope: bool = False
    """The scope ends in a provider's name: `…instrumentation.anthropic`."""
    operations_by_name: Mapping[str, str] = {}
    """Prefixes of span names that say the operation where no key does."""
    operation_in_name: bool = False
    """A span's name is `{operation} {model}`, which is all that some failures have."""
    kinds_by_name: Mapping[str, ReportKind] = {}
    """Span names that settle what the span is, whatever its operation says; a name that ends in
    `*` is a prefix."""
    call_kind: str | None = None
    """The only kind of span that is a call; one of another kind is no report."""
    kinds_by_key: Mapping[str, ReportKind] = {}
    """The same by the presence of an attribute, where no name settled it."""
    call_needs: tuple[str, ...] = ()
    """A successful call carries one of these; without any, the span is a wrapper or one half of
    a call whose other half has them, and no report."""
    exception_is_failure: bool = False
    """An exception event makes the span failed, whatever its status says."""
    kind_of_usage: ReportKind = ReportKind.CALL
    """What a span is that has usage and no known operation."""
    echoes_model: bool = False
    """The API serves the very model that was asked for, and the producer names it once."""
    input_excludes_cache: bool | None = None
    """Whether cache reads and writes must be added to the input; None: only if larger than it."""
    cache_is_extra_of: frozenset[str] = frozenset()
    """Providers whose cache reads and writes must be added, where not those of all are."""
    output_excludes_reasoning: bool = False
    reasoning_is_extra_of: frozenset[str] = frozenset()
    """Providers whose reasoning must be added to the output, where not that of all is."""
    stream_usage_needs: tuple[str, ...] = ()
    """A stream's usage is the provider's only with one of these; else the producer counted."""
    stream_usage_is_of: frozenset[str] = frozenset()
    """Providers whose streams' usage the producer copies, whatever `stream_usage_needs` says."""
    millisecond_keys: frozenset[str] = frozenset()
    """Duration keys that are in milliseconds; every other number is in seconds."""
    stream_keys: tuple[str, ...] = ()
    """Keys that only a streamed call has."""
    stream_names: tuple[str, ...] = ()
    """Prefixes of span names that only a streamed call has."""
    first_token_events: tuple[str, ...] = ()
    """Span events whose first occurrence marks the first token; only a streamed call has them."""
    json_quoted: bool = False
    """Text values may be JSON, with quotes around them."""
