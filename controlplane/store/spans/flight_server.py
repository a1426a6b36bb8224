"""Let another process write spans: Arrow Flight on a Unix socket that only this user may open."""

import threading
from pathlib import Path
from typing import Any, Final, Protocol, Self

import msgspec
import pyarrow as pa
from pyarrow import flight

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.ports import Written
from controlplane.signals.signal_ports import SignalWriter
from controlplane.store.spans.compact import is_compact
from controlplane.store.spans.signal_wire import ACTION, from_wire

SOCKET_MODE: Final = 0o600
MAX_BATCH_ID_BYTES: Final = 512


def socket_location(path: Path) -> str:
    """Name a socket file as Flight does."""
    return f"grpc+unix://{path}"


class BatchWriter(SignalWriter, Protocol):
    """What another process may write; spans as `compact` makes them."""

    def write_compact(self, spans: pa.Table, *, batch_id: str) -> Written:
        """Do what `SpanWriter.write` does."""
        ...


class _SpanService(flight.FlightServerBase):
    """DoPut with the batch id as the descriptor's command; the answer is `Written` as JSON.

    What is not spans comes as an action (`signal_wire`).
    """

    def __init__(self, location: str, writer: BatchWriter) -> None:
        super().__init__(location)
        self._writer = writer

    # Flight names the arguments, and typing.override is newer than Python 3.11.
    def do_put(  # type: ignore[explicit-override]  # noqa: PLR0917 - said above
        self, context: Any, descriptor: Any, reader: Any, writer: Any
    ) -> None:
        """Store the stream's rows as one batch, then answer."""
        del context
        batch_id = descriptor.command.decode()
        if not batch_id or len(batch_id) > MAX_BATCH_ID_BYTES:
            raise flight.FlightServerError(f"a batch id has 1 to {MAX_BATCH_ID_BYTES} bytes")
        spans = _aligned(reader.read_all())
        if not is_compact(spans):
            raise flight.FlightServerError("the columns are not this release's; use one release")
        try:
            written = self._writer.write_compact(spans, batch_id=batch_id)
        except StoreUnavailableError as error:
            raise flight.FlightUnavailableError(str(error)) from error
        writer.write(pa.py_buffer(msgspec.json.encode(written)))

    def do_action(self, context: Any, action: Any) -> list[bytes]:  # type: ignore[explicit-override]
        """Store a batch of signals, then answer."""
        del context
        if action.type != ACTION:
            raise flight.FlightServerError(f"the one action is {ACTION}")
        batch, batch_id = from_wire(action.body.to_pybytes())
        try:
            written = self._writer.write_signals(batch, batch_id=batch_id)
        except StoreUnavailableError as error:
            raise flight.FlightUnavailableError(str(error)) from error
        return [msgspec.json.encode(written)]


def _aligned(spans: pa.Table) -> pa.Table:
    """Copy what a socket delivered at any address to where native code reads it without a warning."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, spans.schema) as stream:
        stream.write_table(spans)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


class SpanFlightServer:
    """Serves a `BatchWriter` until closed; a context manager.

    The directory of the socket should be private too: between bind and chmod the file has the
    process's default mode.
    """

    def __init__(self, socket: Path, writer: BatchWriter) -> None:
        """Listen on `socket`, taking the place of a file that an earlier process left.

        Raises:
            OSError: the path is too long for a socket, or its directory can not be written.
        """
        socket.unlink(missing_ok=True)
        self._service = _SpanService(socket_location(socket), writer)
        socket.chmod(SOCKET_MODE)
        self._socket = socket
        self._thread = threading.Thread(target=self._service.serve, name="span-flight", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the writes in progress, refuse others, remove the socket."""
        self._service.shutdown()
        self._thread.join()
        self._socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
