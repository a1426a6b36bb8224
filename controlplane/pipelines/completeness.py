"""What the store holds of accounts, counters and calls -> the completeness meter's reading."""

from datetime import datetime

from controlplane.core.calendar import Window
from controlplane.signals.signal_ports import SignalReader
from controlplane.usage.completeness import Completeness, read_meter


def measure_completeness(
    reader: SignalReader, tenants: tuple[str, ...], window: Window, *, now: datetime
) -> Completeness:
    """Read the meter over a window; all of it is of the tenants named."""
    return read_meter(
        emitters=reader.emitters(tenants, window).to_pylist(),
        instances=reader.instances(tenants, window).to_pylist(),
        rejections=reader.rejections(tenants, window).to_pylist(),
        growth=reader.growth(tenants, window).to_pylist(),
        calls=reader.counted_calls(tenants, window).to_pylist(),
        now=now,
    )
