"""The demonstration's history: months of plausible calls, sent like any producer sends them.

Nothing here touches the stores: the requests go to the collector's OTLP/HTTP endpoint and take
the same way as real traffic, newest day first, so that the pages fill from today backwards.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Final

import httpx
import msgspec

from controlplane.core.errors import UnavailableError
from controlplane.simulate.demo_calls import draw_hour, hours_back
from controlplane.simulate.demo_otlp import EncodedSpan, encode_call, encode_request
from controlplane.simulate.demo_spans import reports_of

HISTORY_DAYS: Final = 90
SPANS_PER_REQUEST: Final = 1_000
MAX_ATTEMPTS: Final = 30
_MAX_WAIT_SECONDS: Final = 5.0


class DemoKeys(msgspec.Struct, frozen=True):
    """Ingest keys of the demonstration's senders; a missing one sends without a key.

    `proxy` and `engine` serve all tenants: give them the role of that name and a tenant map on
    `tenant_attribute` (value = tenant). `clients` holds one client key per tenant. Without any
    key everything belongs to the keyless loopback sender's tenant, and layers come from dialects.
    """

    proxy: str | None = None
    engine: str | None = None
    clients: dict[str, str] = {}
    tenant_attribute: str = "tenant.id"

    def headers_of(self, sender: str, tenant: str) -> dict[str, str]:
        """Answer the authorization header for spans of a sender's role and tenant."""
        shared = {"proxy": self.proxy, "engine": self.engine}
        key = shared[sender] if sender in shared else self.clients.get(tenant)
        return {"authorization": f"Bearer {key}"} if key else {}


KEYLESS: Final = DemoKeys()
"""Everything is the keyless loopback sender's."""


class HistoryState(StrEnum):
    """Where the background load is."""

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"


class HistoryProgress(msgspec.Struct, frozen=True):
    """What has been acknowledged by the collector so far."""

    state: HistoryState
    days_done: int
    days: int
    spans: int
    calls: int


def run_history(  # noqa: PLR0913 - all by name; a seed alone reproduces a run
    endpoint: str,
    *,
    seed: int,
    now: datetime,
    days: int = HISTORY_DAYS,
    on_progress: Callable[[HistoryProgress], None] = lambda _: None,
    keys: DemoKeys = KEYLESS,
    should_stop: Callable[[], bool] = lambda: False,
) -> HistoryProgress:
    """Send `days` days of history that ends at `now`, newest first, and wait for each ack.

    Args:
        endpoint: base URL of the collector's OTLP/HTTP receiver, `http://127.0.0.1:4318`.
        seed: the same seed and `now` send the same bytes.
        now: end of the history; nothing later is sent.
        days: how far back.
        on_progress: told after each day.
        keys: who sends.
        should_stop: asked after each day; true ends the load early.

    Raises:
        UnavailableError: the collector refused, or stayed away for MAX_ATTEMPTS tries.
    """
    progress = HistoryProgress(HistoryState.RUNNING, 0, days, 0, 0)
    with httpx.Client(base_url=endpoint, timeout=30.0, trust_env=False) as client:
        for hours in hours_back(now, days):
            if should_stop():
                progress = msgspec.structs.replace(progress, state=HistoryState.STOPPED)
                break
            calls = [call for hour in hours for call in draw_hour(hour, seed=seed, newest=now)]
            calls.reverse()
            spans = [span for call in calls for span in encode_call(call, reports_of(call))]
            for headers, body in requests_of(spans, keys):
                _post(client, headers, body)
            progress = msgspec.structs.replace(
                progress,
                days_done=progress.days_done + 1,
                spans=progress.spans + len(spans),
                calls=progress.calls + len(calls),
            )
            if progress.days_done == days:
                progress = msgspec.structs.replace(progress, state=HistoryState.DONE)
            on_progress(progress)
    return progress


def requests_of(spans: list[EncodedSpan], keys: DemoKeys) -> Iterator[tuple[dict[str, str], bytes]]:
    """Split spans by who sends them, then by SPANS_PER_REQUEST: (headers, OTLP body)."""
    senders: dict[tuple[tuple[str, str], ...], list[EncodedSpan]] = defaultdict(list)
    for span in spans:
        senders[tuple(keys.headers_of(span.sender, span.tenant).items())].append(span)
    for headers, mine in senders.items():
        rest = iter(mine)
        while batch := list(islice(rest, SPANS_PER_REQUEST)):
            yield dict(headers), encode_request(batch, tenant_attribute=keys.tenant_attribute)


def _post(client: httpx.Client, headers: dict[str, str], body: bytes) -> None:
    """Deliver one request as the OTLP specification asks: retry what may be retried."""
    problem = ""
    for attempt in range(MAX_ATTEMPTS):
        wait = min(0.1 * 2**attempt, _MAX_WAIT_SECONDS)
        try:
            answer = client.post(
                "/v1/traces",
                content=body,
                headers={"content-type": "application/x-protobuf", **headers},
            )
        except httpx.TransportError as lost:
            problem = type(lost).__name__
        else:
            if answer.is_success:
                return
            problem = f"{answer.status_code}"
            if answer.status_code not in {429, 502, 503, 504}:
                break
            asked = answer.headers.get("retry-after", "")
            wait = min(float(asked), _MAX_WAIT_SECONDS) if asked.isdigit() else wait
        time.sleep(wait)
    msg = f"the collector did not take the demonstration's history ({problem})"
    raise UnavailableError(msg)
