"""One signed body as a change of another: the bytes between what both begin and end with.

A document is written in the order of its fields, rules and budgets before the rates, so a
publication that changes no price is a few kilobytes beside a rate card of hundreds.
"""

import re
from hashlib import sha256
from typing import Final

import msgspec

_PLACE: Final = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{64}) (\d{1,9}) (\d{1,9})")
_CONTINUES: Final = range(0x80, 0xC0)
"""Bytes inside a character of UTF-8."""


class Patch(msgspec.Struct, frozen=True):
    """How to make a body from the one before it."""

    before_sha256: str
    sha256: str
    head: int
    """So many bytes are as they begin before."""
    tail: int
    """And so many as they end."""
    middle: bytes

    def place(self) -> str:
        """Write everything but the bytes in between; `read_patch` reads it."""
        return f"{self.before_sha256} {self.sha256} {self.head} {self.tail}"

    def apply(self, before: bytes) -> bytes | None:
        """Return the body; None: this is not what the patch was made of, or for."""
        if self.head + self.tail > len(before) or _digest(before) != self.before_sha256:
            return None
        body = before[: self.head] + self.middle + before[len(before) - self.tail :]
        return body if _digest(body) == self.sha256 else None


def make_patch(before: bytes, after: bytes) -> Patch:
    """Return the change between two bodies, cut between characters."""
    head = _common(before, after, most=min(len(before), len(after)), ends=False)
    while head and _cuts(after, head):
        head -= 1
    most = min(len(before), len(after)) - head
    tail = _common(before, after, most=most, ends=True)
    while tail and _cuts(after, len(after) - tail):
        tail -= 1
    middle = after[head : len(after) - tail]
    return Patch(_digest(before), _digest(after), head, tail, middle)


def read_patch(place: bytes, middle: bytes) -> Patch | None:
    """Read what `place` wrote; None: it is something else."""
    found = _PLACE.fullmatch(place)
    if found is None:
        return None
    before, after, head, tail = found.groups()
    return Patch(before.decode(), after.decode(), int(head), int(tail), middle)


def _common(one: bytes, other: bytes, *, most: int, ends: bool) -> int:
    """Return how many bytes two bodies share; halving, so that each step is one comparison."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        if ends:
            is_same = one[len(one) - middle :] == other[len(other) - middle :]
        else:
            is_same = one[:middle] == other[:middle]
        low, most = (middle, most) if is_same else (low, middle - 1)
    return low


def _cuts(body: bytes, at: int) -> bool:
    return at < len(body) and body[at] in _CONTINUES


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()
