"""What the store holds of accounts, counters and calls -> the completeness meter's reading."""

from datetime import datetime, timedelta
from typing import Final

from controlplane.core.calendar import Window
from controlplane.signals.signal_ports import SignalReader
from controlplane.usage.completeness import Completeness, read_meter, with_silence_of

LOOK_BACK: Final = timedelta(days=1)
"""Who sent within this and stopped is silent, however short the window is that is asked of."""


def measure_completeness(
    reader: SignalReader, tenants: tuple[str, ...], window: Window, *, now: datetime
) -> Completeness:
    """Read the meter over a window; all of it is of the tenants named.

    Of a window that is past, silence is what was silence at its end.
    """
    until = min(now, window.end)
    meter = read_meter(
        emitters=reader.emitters(tenants, window).to_pylist(),
        instances=reader.instances(tenants, window).to_pylist(),
        rejections=reader.rejections(tenants, window).to_pylist(),
        growth=reader.growth(tenants, window).to_pylist(),
        calls=reader.counted_calls(tenants, window).to_pylist(),
        now=until,
    )
    if window.start <= until - LOOK_BACK:
        return meter
    day = Window(until - LOOK_BACK, window.end)
    recent = read_meter(
        emitters=reader.emitters(tenants, day).to_pylist(),
        instances=reader.instances(tenants, day).to_pylist(),
        rejections=(),
        growth=(),
        calls=reader.counted_calls(tenants, day).to_pylist(),
        now=until,
    )
    return with_silence_of(meter, recent)
