"""A batch of signals as the bytes of one Flight action."""

import msgspec
import pyarrow as pa

from controlplane.signals.signal_ports import SignalBatch

ACTION = "write-signals"


class SignalMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A batch with its id; each table is an Arrow IPC stream."""

    batch_id: str
    samples: bytes
    events: bytes
    accounts: bytes
    rejections: bytes
    instances: bytes
    contents: bytes


def to_wire(batch: SignalBatch, *, batch_id: str) -> bytes:
    """Encode a batch."""
    tables = {name: _encode(getattr(batch, name)) for name in SignalBatch.__struct_fields__}
    return msgspec.msgpack.encode(SignalMessage(batch_id=batch_id, **tables))


def from_wire(body: bytes) -> tuple[SignalBatch, str]:
    """Decode a batch and its id.

    Raises:
        msgspec.MsgspecError, pyarrow.ArrowException: not such a message.
    """
    message = msgspec.msgpack.decode(body, type=SignalMessage)
    tables = {
        name: pa.ipc.open_stream(getattr(message, name)).read_all()
        for name in SignalBatch.__struct_fields__
    }
    return SignalBatch(**tables), message.batch_id


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()
