"""What of a packed answer is passed on, and what of it is read."""

import gzip
import json
import time
import zlib
from typing import Any

import httpx
import pytest

from controlplane.agent.http_answer import MAX_KEPT_BYTES, UsageReader
from controlplane.agent.inflate import MAX_PIECE_BYTES, MAX_READ_BYTES
from controlplane.agent.meter import Meter
from controlplane.agent.settle import Ending

USED = {"input_uncached": 5, "output_text": 7}
USAGE = {"usage": {"prompt_tokens": 5, "completion_tokens": 7}}
CHUNK = f"data: {json.dumps({'choices': [{}], **USAGE})}\n\n".encode()
LAST = f"data: {json.dumps({'choices': [], **USAGE})}\n\n".encode()


class Answer:
    """A packed answer on its way through a meter."""

    def __init__(self, *, is_events: bool, hides: bool = False) -> None:
        self.endings: list[Ending] = []
        response = httpx.Response(200, headers={"content-encoding": "gzip"})
        reader = UsageReader(is_events=is_events, hide_usage=hides)
        self.meter = Meter(response, reader, settle=self.endings.append)

    def passed(self, *packed: bytes) -> list[bytes]:
        """Send all of it, and end; return what the client gets."""
        return [piece for raw in packed for piece in self.meter.feed(raw)] + [self.meter.end()]

    @property
    def usage(self) -> Any:
        """What it is settled as."""
        (ending,) = self.endings
        return ending.usage


def test_a_chunk_is_unpacked_piece_by_piece_and_loses_nothing() -> None:
    body = json.dumps(USAGE).encode() + b" " * 5 * 2**20
    answer = Answer(is_events=False)
    pieces = answer.passed(gzip.compress(body))
    assert max(map(len, pieces)) == MAX_PIECE_BYTES
    assert body == b"".join(pieces)
    assert USED == answer.usage


@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_every_member_is_read_and_what_is_none_is_left_out(step: int) -> None:
    whole = gzip.compress(CHUNK) + gzip.compress(b": so\n\n") + gzip.compress(LAST) + bytes(16)
    answer = Answer(is_events=True)
    pieces = answer.passed(*(whole[at : at + step] for at in range(0, len(whole), step)))
    assert CHUNK + b": so\n\n" + LAST == b"".join(pieces)
    assert USED == answer.usage


def test_a_member_that_breaks_is_no_end() -> None:
    broken = bytearray(gzip.compress(LAST * 50))
    broken[-8] ^= 1  # of its checksum
    answer = Answer(is_events=True)
    with pytest.raises(zlib.error):
        answer.passed(gzip.compress(CHUNK), bytes(broken))


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize(
    ("is_events", "head", "body"),
    [
        pytest.param(False, json.dumps(USAGE).encode(), b" " * MAX_KEPT_BYTES, id="json"),
        pytest.param(True, CHUNK, b"." * (MAX_KEPT_BYTES + 1), id="an event without an end"),
        pytest.param(
            True, CHUNK, (b": " + b"." * 2**20 + b"\n\n") * (MAX_READ_BYTES // 2**20), id="a stream"
        ),
    ],
)
def test_what_is_too_long_to_read_is_passed_on_and_its_usage_unknown(
    *, is_events: bool, head: bytes, body: bytes, hides: bool
) -> None:
    """A count of what was written so far is no bill; neither is what comes after a hole."""
    answer = Answer(is_events=is_events, hides=hides and is_events)
    pieces = answer.passed(gzip.compress(head), gzip.compress(body, 1), gzip.compress(LAST))
    assert head + body + LAST == b"".join(pieces)
    assert answer.usage is None


def test_a_usage_that_was_final_stays_known_whatever_follows() -> None:
    answer = Answer(is_events=True)
    answer.passed(gzip.compress(LAST), gzip.compress(b"." * (MAX_KEPT_BYTES + 1), 1))
    assert USED == answer.usage


@pytest.mark.parametrize("mark", [b"\n\n", b"\r\n\r\n", b"\n\r\n"])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_an_event_ends_at_a_blank_line_wherever_the_stream_is_cut(mark: bytes, step: int) -> None:
    whole = b"".join(event.rstrip() + mark for event in (CHUNK, b": so\r", LAST))
    reader = UsageReader(is_events=True, hide_usage=True)
    passed = [reader.feed(whole[at : at + step]) for at in range(0, len(whole), step)]
    assert CHUNK.rstrip() + mark + b": so" + mark == b"".join([*passed, reader.end()])
    assert USED == reader.usage()


@pytest.mark.parametrize("piece", [b"." * 64, b".\n" * 32, b"\r" * 64])
def test_an_event_without_an_end_is_searched_once(piece: bytes) -> None:
    """Searched from its beginning at every piece, it would take minutes of processor time."""
    reader, began = UsageReader(is_events=True), time.process_time()
    for _ in range(MAX_KEPT_BYTES // len(piece) // 4):
        reader.feed(piece)
        assert time.process_time() - began < 20
    assert not reader.is_lost
