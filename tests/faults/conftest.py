"""Senders that a test may let loose on a collector."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.lives import MakeRequest, Sender


@pytest.fixture
def senders() -> Iterator[Callable[[MakeRequest], list[Sender]]]:
    """Make two of each transport, idle until they are started and told where to send."""
    threads: list[Sender] = []

    def make(make_request: MakeRequest) -> list[Sender]:
        threads.extend(Sender(transport, make_request) for transport in ("http", "grpc") * 2)
        return threads

    yield make
    for thread in threads:
        thread.stop.set()
    for thread in threads:
        if thread.ident is not None:
            thread.join(60)
