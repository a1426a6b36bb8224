"""What finance has of the demonstration's firms: a GPU pool, a provider's bill, a business metric.

All of it goes through the API as an operator would send it. The bill is made from what was drawn,
not from what the ledger says: it is what the provider saw, with a notebook's calls that nobody
reported, a fee, and amounts in cents.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import numpy as np

from controlplane.core.errors import UnavailableError
from controlplane.simulate.demo_budgets import RATES_NUSD_PER_TOKEN, calls_between
from controlplane.simulate.demo_calls import HOUR, Call, model_calls
from controlplane.simulate.demo_spans import step_tokens
from controlplane.simulate.demo_world import POOL_HOURS, POOL_MODEL

POOL: Final = {
    "name": "lab-rack",
    "nodes": 1,
    "models": [POOL_MODEL],
    "price": {
        "kind": "on_prem",
        "capex_usd": "2800",
        "life_years": 4,
        "power_kw": "0.3",
        "usd_per_kwh": "0.12",
        "pue": "1.2",
    },
    "idle": "owner",
    "owner": "initech",
}
"""A node of the lab at some 12 cents an hour; its idle time is its owner's."""
BILL_DAYS: Final = 7
FEE_USD: Final = "2.50"
NOTEBOOK_DAYS_AGO: Final = 3
NOTEBOOK: Final = {"input_uncached": 220_000, "output": 40_000}
"""Tokens of gpt-5 that the provider billed one day and no producer reported."""
METRIC: Final = "tickets resolved"
METRIC_TENANT: Final = "acme"
METRIC_DAYS: Final = 30
METRIC_GAP_DAYS_AGO: Final = 5
"""A day on which the help desk's export failed: nothing is interpolated."""
MOST_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5
REBUILT_AT_ONCE: Final = timedelta(hours=3)
_OK: Final = 200
_SATURDAY: Final = 5
_NUSD_PER_CENT: Final = 10_000_000
_BILL_COLUMNS: Final = "day=Date,model=SKU,meter=Meter,kind=Kind,quantity=Units,cost=Amount"

_Meters = Mapping[tuple[str, str, str], int]
"""Tokens by day, model and meter."""


class DemoFinance(msgspec.Struct, frozen=True, kw_only=True):
    """Whose history it is about, and whom to tell."""

    api: str
    key: str
    seed: int
    now: datetime

    def client(self) -> httpx.Client:
        """Open a connection as the operator."""
        return httpx.Client(
            base_url=f"{self.api}/api/v1",
            headers={"authorization": f"Bearer {self.key}"},
            timeout=60.0,
            trust_env=False,
        )

    def midnight(self) -> datetime:
        """Answer the start of the last day: the bill and the metric end there."""
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)


def create_demo_pool(finance: DemoFinance) -> None:
    """Make the GPU pool; before its calls come, so that they never are without a price for long.

    Raises:
        UnavailableError: the API refused or did not answer.
    """
    with finance.client() as api:
        _sent(api.put(f"/gpu/pools/{POOL['name']}", json=POOL))


def settle_demo_finance(finance: DemoFinance, *, should_stop: Callable[[], bool]) -> None:
    """Wait until the history is counted, then bill the pool, compare the bill, upload the metric.

    Raises:
        UnavailableError: the API refused or did not answer, or counted too few calls in time.
    """
    midnight = finance.midnight()
    start = midnight - timedelta(days=BILL_DAYS)
    # Drawn as the history was, whose stories are told backwards from now.
    drawn = calls_between(start, finance.now, seed=finance.seed)
    calls = [call for call in drawn if call.start < midnight]
    with finance.client() as api:
        _sent(api.put("/business-metrics", json=metric_order(finance)))
        if not _counted(api, (start, midnight), calls, should_stop=should_stop):
            return
        _bill_pool(api, finance, should_stop=should_stop)
        # The firms' projects are one account with the provider: no tenant is named.
        asked = {"provider": "openai", "name": "openai-costs.csv", "map": _BILL_COLUMNS}
        body = bill_csv(calls, midnight)
        _sent(api.post("/reconciliations", params={**asked, "record": "yes"}, content=body))


def _bill_pool(api: httpx.Client, finance: DemoFinance, *, should_stop: Callable[[], bool]) -> None:
    """Work out the pool's day, newest hours first: those are what alerts look at."""
    first = (finance.now - timedelta(hours=POOL_HOURS)).replace(minute=0, second=0, microsecond=0)
    first, end = first + HOUR, finance.now
    while first < end and not should_stop():
        top = end - timedelta(minutes=end.minute, seconds=end.second, microseconds=end.microsecond)
        start = max(first, top - REBUILT_AT_ONCE)
        _sent(api.post("/gpu/rebuild", json={"start": start.isoformat(), "end": end.isoformat()}))
        end = start


def metric_order(finance: DemoFinance) -> dict[str, str]:
    """Write a month of tickets, without today, which is not over, and without one day."""
    lines = ["day,value"]
    for ago in range(METRIC_DAYS, 0, -1):
        day = (finance.midnight() - timedelta(days=ago)).date()
        if ago != METRIC_GAP_DAYS_AGO:
            rng = np.random.default_rng((finance.seed, day.toordinal()))
            usual = 70 if day.weekday() >= _SATURDAY else 150
            lines.append(f"{day},{int(rng.poisson(usual))}")
    return {"tenant": METRIC_TENANT, "name": METRIC, "csv": "\n".join(lines)}


def bill_csv(calls: Sequence[Call], end: datetime) -> bytes:
    """Write the provider's bill for what its models answered until `end`, a line a day and meter."""
    lines = ["Date,SKU,Meter,Kind,Units,Amount"]
    meters = dict(_metered(calls))
    notebook = str((end - timedelta(days=NOTEBOOK_DAYS_AGO)).date())
    for meter, tokens in NOTEBOOK.items():
        key = (notebook, "gpt-5", meter)
        meters[key] = meters.get(key, 0) + tokens
    for (day, model, meter), tokens in sorted(meters.items()):
        if tokens:
            lines.append(f"{day},{model},{meter},usage,{tokens},{_cents(model, meter, tokens)}")
    last = (end - timedelta(days=1)).date()
    lines.append(f"{last},,,fee,,{FEE_USD}")
    return "\n".join(lines).encode()


def _metered(calls: Sequence[Call]) -> _Meters:
    meters: dict[tuple[str, str, str], int] = defaultdict(int)
    for call in calls:
        if call.model.provider != "openai" or call.http_status != _OK:
            continue
        day, name = str(call.start.date()), call.model.name
        for step in range(model_calls(call)):
            tokens_in, tokens_out = step_tokens(call, step)
            meters[day, name, "input_uncached"] += tokens_in - call.cached_tokens
            meters[day, name, "cache_read"] += call.cached_tokens
            meters[day, name, "output"] += tokens_out
    return meters


def _cents(model: str, meter: str, tokens: int) -> str:
    fresh, cached, out = RATES_NUSD_PER_TOKEN[model]
    rate = {"input_uncached": fresh, "cache_read": cached, "output": out}[meter]
    cents = (tokens * rate + _NUSD_PER_CENT // 2) // _NUSD_PER_CENT
    return f"{cents // 100}.{cents % 100:02d}"


def _counted(
    api: httpx.Client,
    window: tuple[datetime, datetime],
    calls: Sequence[Call],
    *,
    should_stop: Callable[[], bool],
) -> bool:
    """Wait until the window has every call that was sent; false when told to stop before."""
    expected = sum(model_calls(call) for call in calls)
    asked = {"start": window[0].isoformat(), "end": window[1].isoformat()}
    for _ in range(int(MOST_SECONDS / POLL_SECONDS)):
        if should_stop():
            return False
        if _sent(api.get("/costs", params=asked))["meta"]["totals"]["calls"] >= expected:
            return True
        time.sleep(POLL_SECONDS)
    msg = f"the demonstration's history is not counted after {MOST_SECONDS:.0f} s"
    raise UnavailableError(msg)


def _sent(answer: httpx.Response) -> Any:
    if not answer.is_success:
        msg = f"the API refused the demonstration's finance ({answer.status_code} {answer.text})"
        raise UnavailableError(msg)
    return answer.json()
