"""The demonstration as a process of its own: budgets, ninety days newest first, then live calls.

What finance adds (a bill, a business metric, a GPU pool's cost) follows the history beside the live
calls: it waits until the history is counted.
"""

import os
import signal
import threading
import time
from datetime import datetime
from types import FrameType

import httpx
import msgspec
import structlog

from controlplane import log
from controlplane.bootstrap.supervisor import say_ready
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import ControlPlaneError
from controlplane.simulate.demo import DemoKeys, HistoryProgress, run_history
from controlplane.simulate.demo_budgets import create_demo_budgets
from controlplane.simulate.demo_finance import (
    DemoFinance,
    create_demo_pool,
    settle_demo_finance,
)
from controlplane.simulate.demo_live import run_live

SEED = 20260401
ORDER = "CONTROLPLANE_DEMO_ORDER"


class DemoOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Where the demonstration sends, and as whom."""

    otlp: str
    api: str
    admin_key: str
    keys: DemoKeys
    history: bool
    """False when the data directory has the history of an earlier start."""


def environment(order: DemoOrder) -> dict[str, str]:
    """Return the order as the child reads it; keys do not show in a process list."""
    return {ORDER: msgspec.json.encode(order).decode()}


def run() -> None:
    """Follow the order in this process's environment until stopped."""
    log.configure()
    order = msgspec.json.decode(os.environ[ORDER], type=DemoOrder)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    threading.Thread(target=_stop_with_parent, args=(stopping,), daemon=True).start()
    if order.history:
        now = SystemClock().now()
        _send_history(order, stopping, now)
        finance = DemoFinance(api=order.api, key=order.admin_key, seed=SEED, now=now)
        threading.Thread(target=_settle, args=(finance, stopping), daemon=True).start()
    run_live(order.otlp, stopping, clock=SystemClock().now, keys=order.keys, seed=SEED)


def _send_history(order: DemoOrder, stopping: threading.Event, now: datetime) -> None:
    says = structlog.get_logger()
    started = time.monotonic()
    create_demo_budgets(order.api, order.admin_key, seed=SEED, now=now)
    create_demo_pool(DemoFinance(api=order.api, key=order.admin_key, seed=SEED, now=now))

    def tell(progress: HistoryProgress) -> None:
        says.info("demo_history", **msgspec.structs.asdict(progress))

    done = run_history(
        order.otlp,
        seed=SEED,
        now=now,
        keys=order.keys,
        on_progress=tell,
        should_stop=stopping.is_set,
    )
    say_ready(spans=done.spans, calls=done.calls, seconds=round(time.monotonic() - started, 1))


def _settle(finance: DemoFinance, stopping: threading.Event) -> None:
    says = structlog.get_logger()
    try:
        settle_demo_finance(finance, should_stop=stopping.is_set)
    except (ControlPlaneError, httpx.HTTPError) as wrong:
        says.warning("demo_finance_failed", problem=str(wrong))
    else:
        says.info("demo_finance_done")


def _stop_with_parent(stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopping.set()
