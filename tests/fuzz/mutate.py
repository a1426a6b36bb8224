"""A fuzzer guided by what inputs come to: one that comes to something new is built upon."""

import gzip
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

Seen = frozenset[str]

_WORDS: Final = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # the largest varint
    b"\x80" * 10,
    b"\x00" * 16,
    b"\xff" * 8,
    b"[" * 60,
    b"{" * 60,
    b'{"a":' * 40,
    b"9" * 40,
    b"NaN",
    b"1e999",
    b"-1",
    b"\xed\xa0\x80",  # half a character
    b"\\ud800",
    b"gen_ai.usage.input_tokens",
    b"metadata.usage_object",
    b"langfuse.observation.usage_details",
    b"{'prompt_tokens_details': {'cached_tokens': 5}}",
    b"streaming response from",
    b"Error code: 429",
)
MAX_BYTES: Final = 64 * 1024


class Fuzzer:
    """Mutates seeds, and what came of them that was new."""

    def __init__(self, seeds: Sequence[bytes], take: Callable[[bytes], Seen], *, seed: int) -> None:
        self.draw = random.Random(seed)
        self.pool = list(seeds)
        self.take = take
        self.seen: set[str] = set()
        self.tried = 0

    def run(self, is_over: Callable[[], bool]) -> Iterator[tuple[bytes, BaseException]]:
        """Try inputs until it is over; yield each that raises, with what it raised."""
        while not is_over():
            data = self._next()
            self.tried += 1
            try:
                seen = self.take(data)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - finding these is what a fuzzer is for
                yield data, error
                continue
            if not seen <= self.seen:
                self.seen |= seen
                self.pool.append(data)

    def _next(self) -> bytes:
        data = bytearray(self.draw.choice(self.pool))
        for _ in range(self.draw.choice((1, 1, 2, 3, 8))):
            self.draw.choice(_CHANGES)(data, self)
        return bytes(data[:MAX_BYTES])


def _flip(data: bytearray, fuzzer: Fuzzer) -> None:
    if data:
        at = fuzzer.draw.randrange(len(data))
        data[at] ^= 1 << fuzzer.draw.randrange(8)


def _set(data: bytearray, fuzzer: Fuzzer) -> None:
    if data:
        data[fuzzer.draw.randrange(len(data))] = fuzzer.draw.choice((0, 1, 0x7F, 0x80, 0xFF))


def _cut(data: bytearray, fuzzer: Fuzzer) -> None:
    if len(data) > 1:
        start = fuzzer.draw.randrange(1, len(data))
        del data[start : start + fuzzer.draw.randrange(1, 64)]


def _insert(data: bytearray, fuzzer: Fuzzer) -> None:
    at = fuzzer.draw.randrange(1, len(data) + 1) if data else 0
    data[at:at] = fuzzer.draw.choice(_WORDS)


def _overwrite(data: bytearray, fuzzer: Fuzzer) -> None:
    if len(data) > 1:
        word = fuzzer.draw.choice(_WORDS)
        at = fuzzer.draw.randrange(1, len(data))
        data[at : at + len(word)] = word


def _splice(data: bytearray, fuzzer: Fuzzer) -> None:
    other = fuzzer.draw.choice(fuzzer.pool)
    if len(data) > 1 and len(other) > 1:
        start = fuzzer.draw.randrange(1, len(other))
        at = fuzzer.draw.randrange(1, len(data))
        data[at:at] = other[start : start + fuzzer.draw.randrange(1, 512)]


def _repeat(data: bytearray, _: Fuzzer) -> None:
    if 1 < len(data) < MAX_BYTES // 4:
        data += data[1:]


def _pack(data: bytearray, _: Fuzzer) -> None:
    """Send a plain body compressed, so that what is inside is reached too."""
    if data and data[0] % 4 == 0:
        data[:] = bytes([data[0] + 1]) + gzip.compress(bytes(data[1:]), 1)


_CHANGES: Final = (
    *(_flip, _flip, _set, _cut, _insert, _overwrite, _splice, _splice),
    *(_repeat, _pack),
)
