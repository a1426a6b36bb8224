"""Ends connections that a TLS server would wait for: a handshake has no deadline in granian.

Once a request has begun, the HTTP server and the receiver bound it. Before that a peer may say
nothing, or stop half-way through its handshake, and keep a place that others wait for. The kernel
knows enough of each connection to tell: what was sent on it, and when something last came.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from collectors.otlp.manners import Manners

_DESCRIPTORS: Final = Path("/proc/self/fd")
_INFO_BYTES: Final = 192
_ESTABLISHED: Final = 1
_LAST_RECEIVED_MS, _ACKNOWLEDGED_BYTES = 52, 120
"""Where struct tcp_info has `tcpi_last_data_recv` and `tcpi_bytes_acked` (linux/tcp.h)."""
_MOST_SECONDS_APART: Final = 1.0
_STOP_SECONDS: Final = 5.0


class StalledGuard:
    """A thread that looks at the connections to one port; `start` and `stop` are each called once.

    A connection ends on which we sent nothing for `header_seconds` (no handshake came about), or
    that was silent for longer than any request may take.
    """

    def __init__(self, port: int, manners: Manners) -> None:
        self._port = port
        self._header_seconds = manners.header_seconds
        self._silent_ms = int((manners.header_seconds + manners.body_seconds) * 1_000)
        self._first_seen: dict[object, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-stalled", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = min(self._header_seconds / 2, _MOST_SECONDS_APART)
        while not self._stopping.wait(pause):
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        seen: dict[object, float] = {}
        for connection in _connections(self._port):
            with closing(connection), suppress(OSError):  # it may end while it is looked at
                peer = connection.getpeername()
                since = seen[peer] = self._first_seen.get(peer, now)
                if self._is_stalled(connection, seconds=now - since):
                    connection.shutdown(socket.SHUT_RDWR)
        self._first_seen = seen

    def _is_stalled(self, connection: socket.socket, *, seconds: float) -> bool:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        if info[0] != _ESTABLISHED:
            return False
        (silent_ms,) = struct.unpack_from("I", info, _LAST_RECEIVED_MS)
        (sent,) = struct.unpack_from("Q", info, _ACKNOWLEDGED_BYTES)
        return bool(silent_ms > self._silent_ms or (not sent and seconds > self._header_seconds))


def _connections(port: int) -> Iterator[socket.socket]:
    """Duplicate the descriptor of each connection that this process accepted on a port."""
    for entry in _DESCRIPTORS.iterdir():
        try:
            copy = os.dup(int(entry.name))
        except OSError:  # closed since it was listed
            continue
        try:
            connection = socket.socket(fileno=copy)
        except OSError:  # a file
            os.close(copy)
            continue
        if _is_peer_of(connection, port):
            yield connection
        else:
            connection.close()


def _is_peer_of(connection: socket.socket, port: int) -> bool:
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    with suppress(OSError):
        connection.getpeername()  # a listener has none
        return bool(connection.type == socket.SOCK_STREAM and connection.getsockname()[1] == port)
    return False
