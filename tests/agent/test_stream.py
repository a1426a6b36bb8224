"""Reading server-sent events: exact bytes, whatever they hold and however they are cut."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from controlplane.agent.puller import MAX_POLICY_BYTES
from controlplane.agent.stream import Event, read_events
from controlplane.core.errors import LimitExceededError
from controlplane.policy.wire import Generation

BODY = '{"annotations":{"a":"line\u2028separator\x85 and \x0b"}}'.encode()
WIRE = (
    b'id: "1.7"\nevent: ping\ndata: "1.7"\n\n'
    b'id: "1.8"\nevent: policy\ndata: ed25519;kid=x\ndata: ' + BODY + b"\n\n"
    b": a comment\n\n"
)


def read(*chunks: bytes) -> list[Event]:
    async def feed() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[Event]:
        return [event async for event in read_events(feed())]

    return asyncio.run(collect())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
def test_events_do_not_depend_on_how_the_bytes_are_cut(size: int) -> None:
    """A document may hold separators that text readers split at; it comes whole."""
    found = read(*(WIRE[i : i + size] for i in range(0, len(WIRE), size)))
    assert [
        Event(b"ping", Generation(1, 7), (b'"1.7"',)),
        Event(b"policy", Generation(1, 8), (b"ed25519;kid=x", BODY)),
        Event(b"message", None, ()),
    ] == found


def test_event_without_end_is_refused() -> None:
    """What is larger than any policy is not collected."""
    with pytest.raises(LimitExceededError):
        read(*[b"data: " + b"x" * 2**20] * (MAX_POLICY_BYTES // 2**20 + 1))
