"""The registry of exclusive usage buckets, and the one way from a report's totals to them.

A report's totals overlap (cached tokens lie inside input tokens); buckets never do, so cost is a
sum over buckets. Shared by ingest, pricing and the agent.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

MAX_QUANTITY: Final = 2**40
"""Above this a quantity is marked impossible at decode (algorithms I10)."""


class Unit(StrEnum):
    """What a bucket counts."""

    TOKEN = "token"  # noqa: S105 - a billing unit, not a secret
    REQUEST = "request"
    PAGE = "page"
    SECOND = "second"
    IMAGE = "image"
    CHARACTER = "character"


class Direction(StrEnum):
    """Which derived total a bucket belongs to."""

    INPUT = "input"
    OUTPUT = "output"
    NONE = "none"


class Bucket(msgspec.Struct, frozen=True):
    """One exclusive billable quantity."""

    name: str
    unit: Unit
    direction: Direction


BUCKETS: Final[tuple[Bucket, ...]] = (
    Bucket("input_uncached", Unit.TOKEN, Direction.INPUT),
    Bucket("cache_read", Unit.TOKEN, Direction.INPUT),
    Bucket("cache_write_5m", Unit.TOKEN, Direction.INPUT),
    Bucket("cache_write_1h", Unit.TOKEN, Direction.INPUT),
    Bucket("input_audio", Unit.TOKEN, Direction.INPUT),
    Bucket("input_image", Unit.TOKEN, Direction.INPUT),
    Bucket("input_video", Unit.TOKEN, Direction.INPUT),
    Bucket("cache_read_audio", Unit.TOKEN, Direction.INPUT),
    Bucket("output_text", Unit.TOKEN, Direction.OUTPUT),
    Bucket("output_reasoning", Unit.TOKEN, Direction.OUTPUT),
    Bucket("output_audio", Unit.TOKEN, Direction.OUTPUT),
    Bucket("output_image", Unit.TOKEN, Direction.OUTPUT),
    Bucket("web_searches", Unit.REQUEST, Direction.NONE),
    Bucket("requests", Unit.REQUEST, Direction.NONE),
    Bucket("pages", Unit.PAGE, Direction.NONE),
    Bucket("audio_seconds", Unit.SECOND, Direction.NONE),
    Bucket("gpu_seconds", Unit.SECOND, Direction.NONE),
    Bucket("images", Unit.IMAGE, Direction.NONE),
    Bucket("video_seconds", Unit.SECOND, Direction.NONE),
    Bucket("characters", Unit.CHARACTER, Direction.NONE),
)
BUCKET_NAMES: Final = tuple(bucket.name for bucket in BUCKETS)
INPUT_BUCKETS: Final = tuple(b.name for b in BUCKETS if b.direction is Direction.INPUT)
OUTPUT_BUCKETS: Final = tuple(b.name for b in BUCKETS if b.direction is Direction.OUTPUT)


class ReportedUsage(msgspec.Struct, frozen=True):
    """Totals as a report states them; `None` is "not said", never zero.

    `input_tokens` includes cache reads and writes; `output_tokens` includes reasoning; a dialect
    whose producer says otherwise has added them already. `cache_creation_1h_tokens` is the part
    of the cache creation with a one-hour TTL; creation without a TTL is five minutes.
    """

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation_1h_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    input_video_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    cache_read_audio_tokens: int | None = None
    """The part of both the cached and the audio input."""


class ImpossibleUsageError(ValueError):
    """A report that does not decompose; `reason` is the counter's label."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


def decompose(usage: ReportedUsage) -> dict[str, int]:
    """Split overlapping totals into exclusive buckets; buckets of zero are left out.

    Raises:
        ImpossibleUsageError: a quantity is negative, above MAX_QUANTITY, or a part is larger than
            its whole; the message holds both numbers.
    """
    said = {field: getattr(usage, field) or 0 for field in usage.__struct_fields__}
    for field, quantity in said.items():
        if not 0 <= quantity <= MAX_QUANTITY:
            raise ImpossibleUsageError("quantity_out_of_range", f"{field}={quantity}")
    long_lived = said["cache_creation_1h_tokens"]
    if long_lived > said["cache_creation_input_tokens"]:
        raise ImpossibleUsageError(
            "part_exceeds_whole",
            f"cache_creation_1h {long_lived} > cache_creation {said['cache_creation_input_tokens']}",
        )
    heard_again = said["cache_read_audio_tokens"]
    if heard_again > min(said["cached_input_tokens"], said["input_audio_tokens"]):
        raise ImpossibleUsageError(
            "part_exceeds_whole",
            f"cache_read_audio {heard_again} > cached {said['cached_input_tokens']}"
            f" or audio {said['input_audio_tokens']}",
        )
    parts = {
        "cache_read": said["cached_input_tokens"] - heard_again,
        "cache_write_5m": said["cache_creation_input_tokens"] - long_lived,
        "cache_write_1h": long_lived,
        "input_audio": said["input_audio_tokens"] - heard_again,
        "cache_read_audio": heard_again,
        "input_image": said["input_image_tokens"],
        "input_video": said["input_video_tokens"],
        "output_reasoning": said["reasoning_tokens"],
        "output_audio": said["output_audio_tokens"],
        "output_image": said["output_image_tokens"],
    }
    parts["input_uncached"] = said["input_tokens"] - sum(parts.get(b, 0) for b in INPUT_BUCKETS)
    parts["output_text"] = said["output_tokens"] - sum(parts.get(b, 0) for b in OUTPUT_BUCKETS)
    for rest, whole in (("input_uncached", "input_tokens"), ("output_text", "output_tokens")):
        if parts[rest] < 0:
            raise ImpossibleUsageError(
                "part_exceeds_whole", f"{whole} {said[whole]} < parts {said[whole] - parts[rest]}"
            )
    return {name: parts[name] for name in BUCKET_NAMES if parts.get(name)}


def is_possible(buckets: Mapping[str, int]) -> bool:
    """Whether exclusive buckets are ones we know, each within 0 and MAX_QUANTITY.

    A bucket without a name here has no price either: it must not be counted as free.
    """
    return buckets.keys() <= set(BUCKET_NAMES) and all(
        0 <= quantity <= MAX_QUANTITY for quantity in buckets.values()
    )
