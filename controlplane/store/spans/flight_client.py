"""The span store of another process, written through Arrow Flight."""

import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
from pyarrow import flight

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.ports import Written
from controlplane.signals.signal_ports import SignalBatch, SignalsWritten
from controlplane.store.spans.compact import compact
from controlplane.store.spans.signal_wire import ACTION, to_wire

DEFAULT_TIMEOUT_SECONDS: Final = 60.0


class FlightSpanWriter:
    """Implements `SpanWriter` and `SignalWriter` across a socket; one write at a time, from any thread.

    The connection is made at the first write and again after an error. A write that was cut off
    may have been stored: that is why the caller tries again with the same batch id.
    """

    def __init__(self, socket: Path, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self._location = f"grpc+unix://{socket}"
        self._options = flight.FlightCallOptions(timeout=timeout_seconds)
        self._lock = threading.Lock()
        self._client: Any = None

    def write(self, spans: pa.Table, *, batch_id: str) -> Written:
        """See `SpanWriter.write`."""
        rows = compact(spans)
        with self._lock:
            try:
                return self._put(rows, batch_id)
            except (flight.FlightError, pa.ArrowException, OSError) as error:
                self._disconnect()
                raise StoreUnavailableError(f"span store: {error}") from error

    def write_signals(self, batch: SignalBatch, *, batch_id: str) -> SignalsWritten:
        """See `SignalWriter.write_signals`."""
        action = flight.Action(ACTION, pa.py_buffer(to_wire(batch, batch_id=batch_id)))
        with self._lock:
            try:
                answers = list(self._connected().do_action(action, self._options))
            except (flight.FlightError, pa.ArrowException, OSError) as error:
                self._disconnect()
                raise StoreUnavailableError(f"span store: {error}") from error
        return msgspec.json.decode(answers[0].body.to_pybytes(), type=SignalsWritten)

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            self._disconnect()

    def _put(self, spans: pa.Table, batch_id: str) -> Written:
        descriptor = flight.FlightDescriptor.for_command(batch_id.encode())
        writer, answers = self._connected().do_put(descriptor, spans.schema, self._options)
        with writer:
            writer.write_table(spans)
            writer.done_writing()
            answer = answers.read()
        if answer is None:
            raise flight.FlightUnavailableError("the stream ended without an answer")
        return msgspec.json.decode(answer.to_pybytes(), type=Written)

    def _connected(self) -> Any:
        if self._client is None:
            self._client = flight.connect(self._location)
        return self._client

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
