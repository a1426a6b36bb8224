"""The HTTP server inside the hub's process: granian on a thread with a loop of its own.

The span store, the Flight server and the workers live in the same process, so one worker, and
blocking reads go to threads.
"""

import asyncio
import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

from controlplane.core.errors import UnavailableError

START_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 5
"""How long requests in flight may go on after `stop`."""
HEADER_SECONDS: Final = 30.0
"""How long a peer may take to ask, from its connection or its last answer on."""
BACKLOG: Final = 1_024
MAX_IN_FLIGHT: Final = 32_768
"""Open requests at once, waiting polls and streams among them; the process's descriptors end first."""
_POLL_SECONDS: Final = 0.005

log = structlog.stdlib.get_logger()


class ApiServer:
    """Serves one application on one address; `start` and `stop` are each called once."""

    def __init__(
        self,
        app: Litestar,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        header_seconds: float = HEADER_SECONDS,
    ) -> None:
        self._app = app
        self._host = host
        self._header_seconds = header_seconds
        # Bound but never listening: it finds the port when 0 is asked for, and keeps it ours. The
        # server listens on the same port beside it (SO_REUSEPORT); only listeners get connections.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._reserved = socket.socket(family, socket.SOCK_STREAM)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._reserved.bind((host, port))
        except OSError:
            self._reserved.close()
            raise
        self.port: int = self._reserved.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="api-server", daemon=True)

    @property
    def url(self) -> str:
        """Where to reach it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Return when connections are accepted.

        Raises:
            UnavailableError: it does not listen within START_SECONDS, or another process does.
        """
        with contextlib.closing(socket.socket(self._reserved.family, socket.SOCK_STREAM)) as probe:
            if probe.connect_ex((self._host, self.port)) == 0:
                self._reserved.close()
                raise UnavailableError(f"port {self.port} is in use. Stop the other or choose one")
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._thread.is_alive():
            with contextlib.closing(socket.socket(self._reserved.family)) as probe:
                if probe.connect_ex((self._host, self.port)) == 0:
                    return
            time.sleep(_POLL_SECONDS)
        raise UnavailableError(f"the API does not listen on {self.url}")

    def stop(self) -> None:
        """Release long polls, let requests in flight end within DRAIN_SECONDS, and stop."""
        loop, server = self._loop, self._server
        if loop is not None and server is not None and self._thread.is_alive():
            self._app.state.policy_watch.close()
            with contextlib.suppress(RuntimeError):  # the loop ended by itself meanwhile
                loop.call_soon_threadsafe(server.stop)
            self._thread.join(DRAIN_SECONDS + 1)
        self._reserved.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except TimeoutError:
            log.warning("api_requests_cut_off", after_seconds=DRAIN_SECONDS)
        except Exception:
            log.exception("api_server_failed")
            raise

    async def _serve(self) -> None:
        target: Any = self._app
        server = Server(
            target,
            address=self._host,
            port=self.port,
            interface=Interfaces.ASGI,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=MAX_IN_FLIGHT,
            # To find out which version a peer speaks it waits for the first byte for ever.
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=int(self._header_seconds * 1_000)),
        )
        server.workers_kill_timeout = DRAIN_SECONDS
        self._loop, self._server = asyncio.get_running_loop(), server
        await server.serve()
