"""Which keys may join reports: limits, what an id must have, and whose ids are none (C2).

A span store decides in SQL; `join_flags` decides for tables that never were stored, and is the
statement that the store's is tested against.
"""

import re
from typing import Final

import msgspec

from controlplane.core.instants import MINUTE_US

MAX_SHARERS: Final = 16
"""Sides that may share an id within one UTC hour of their start: a handful of layers and
libraries report one call; what more share is a constant, a cache's or a caller's id. Spans of one
side that start at the same microsecond are one request's, and one sharer."""

MAX_IN_TRACE: Final = 2_000
"""Reports of one trace that ancestry is worked out for, and of one minute that pairs are: failed
ones, halves of streams, alike ones of a gateway and its clients."""

MAX_IN_REQUEST: Final = 1_024
"""Spans of one engine that may be one request within one UTC hour."""

CLOCKS_APART_US: Final = 1_000_000
"""How much a gateway's clock may be behind that of its client."""

MIN_OWN_CHARACTERS: Final = 8
_VENDOR_PREFIX: Final = re.compile("^[A-Za-z]{1,12}[-_]")


def is_join_key(value: str | None) -> bool:
    """Whether an id has enough of its own to name one response.

    The vendor's prefix (`chatcmpl-`, `msg_`) says nothing; fewer than eight characters after it
    are a counter or a small random number (Ollama sends 0-999), which repeat within minutes.
    """
    return bool(value) and len(_VENDOR_PREFIX.sub("", value or "")) >= MIN_OWN_CHARACTERS


def gateway_cell(start_us: int, *, is_gateway: bool) -> int:
    """Return the minute in which a client's or a gateway's report is matched (`gateway_pairs`).

    A gateway's begins after the client's, clocks permitting: the minute is its own or the one
    before, once the clocks are allowed for.
    """
    return (start_us + (CLOCKS_APART_US if is_gateway else 0)) // MINUTE_US


class WeakEmitter(msgspec.Struct, frozen=True, order=True):
    """An emitter that was seen to give different calls the same id; a stored input (C2)."""

    domain: str
    service_name: str
    scope_name: str
    since_us: int
    """Start times from here on: ids of this emitter join nothing."""
