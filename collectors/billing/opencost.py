"""OpenCost: an answer of its allocation API, ours too; the cost of GPUs, and the idle row.

An allocation's hours are of a GPU and not of calls, so they are kept and not compared. A label `model`
names the model; what was idle is capacity that is paid for whether it is used or not: a fee.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from collectors.billing.documents import BadLineError, document_of, list_of, object_of
from collectors.billing.reading import amount_of, day_of, text_of
from controlplane.signals.billing import BillKind, BillLine

IDLE: Final = "__idle__"


def read(path: Path) -> Iterator[BillLine | BadLineError]:
    """Yield a line an allocation and window: GPU seconds and what the allocation cost in all."""
    try:
        steps = list_of(object_of(document_of(path)).get("data"))
    except BadLineError as wrong:
        yield wrong
        return
    for step in steps:
        try:
            allocations = object_of(step)
        except BadLineError as wrong:
            yield wrong
            continue
        for name, allocation in allocations.items():
            try:
                yield _line(name, object_of(allocation))
            except BadLineError as wrong:
                yield wrong


def _line(name: str, allocation: dict[str, Any]) -> BillLine:
    hours = amount_of(allocation.get("gpuHours"))
    # Prices of an hour are divided by 3,600 with a limited number of digits: whole seconds serve.
    seconds = None if hours is None else int((hours * 3_600).to_integral_value())
    window = object_of(allocation.get("window"))
    labels = object_of(object_of(allocation.get("properties")).get("labels"))
    is_idle = name.rsplit("/", 1)[-1] == IDLE
    return BillLine(
        day=day_of(window.get("start") or allocation.get("start")),
        model=None if is_idle else text_of(labels, "model"),
        key=name,
        kind=BillKind.FEE if is_idle else BillKind.USAGE,
        quantity=seconds,
        cost_usd=amount_of(allocation.get("totalCost")) or Decimal(0),
        description=name,
    )
