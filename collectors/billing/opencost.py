"""OpenCost: an answer of its allocation API; the cost of GPUs, and the idle row."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from collectors.billing.reading import BadLineError, amount_of, day_of, document_of
from controlplane.signals.billing import BillLine


def read(path: Path) -> Iterator[BillLine | BadLineError]:
    """Yield a line an allocation and window: GPU seconds and what the allocation cost in all."""
    document = document_of(path)
    for step in document.get("data") or () if isinstance(document, dict) else ():
        for name, allocation in (step or {}).items():
            try:
                yield _line(name, allocation)
            except BadLineError as wrong:
                yield wrong


def _line(name: str, allocation: dict[str, Any]) -> BillLine:
    hours = amount_of(allocation.get("gpuHours"))
    # Prices of an hour are divided by 3,600 with a limited number of digits: whole seconds serve.
    seconds = None if hours is None else int((hours * 3_600).to_integral_value())
    window = allocation.get("window") or {}
    return BillLine(
        day=day_of(window.get("start") or allocation.get("start")),
        model=None,
        meter="gpu_seconds",
        key=name,
        quantity=seconds,
        cost_usd=amount_of(allocation.get("totalCost")) or Decimal(0),
        description=name,
    )
