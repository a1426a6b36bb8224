"""What finance has of the demonstration, sent to a real HTTP server; bills are summed anew here."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typing_extensions import override

from controlplane.core.errors import UnavailableError
from controlplane.simulate import demo_finance
from controlplane.simulate.demo_calls import Call, draw_hour, hours_back

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
WEEK = timedelta(days=7)
USD_PER_MILLION = {
    "gpt-5": ("1.25", "0.125", "10"),
    "gpt-5-mini": ("0.25", "0.025", "2"),
    "gpt-4.1-mini": ("0.40", "0.10", "1.60"),
}


class Asked:
    """What came, and how many calls the API says that it counted."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str, dict[str, list[str]], bytes]] = []
        self.counted: list[int] = []
        self.status = 200


@pytest.fixture
def served() -> Iterator[tuple[demo_finance.DemoFinance, Asked]]:
    asked = Asked()

    class Api(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.orders.append((self.command, url.path, parse_qs(url.query), body))
            calls = asked.counted.pop(0) if len(asked.counted) > 1 else asked.counted[0]
            told = json.dumps({"meta": {"totals": {"calls": calls}}}).encode()
            self.send_response(asked.status)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def do_GET(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield demo_finance.DemoFinance(api=url, key="k", seed=7, now=NOW), asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def sent() -> list[Call]:
    """The week that the history sends: drawn with its own end, as the collector gets it."""
    drawn = [
        call
        for day in hours_back(NOW, 9)
        for hour in day
        for call in draw_hour(hour, seed=7, newest=NOW)
    ]
    return [call for call in drawn if MIDNIGHT - WEEK <= call.start < MIDNIGHT]


def test_the_bill_is_what_was_sent_and_what_nobody_reported(
    served: tuple[demo_finance.DemoFinance, Asked], sent: list[Call]
) -> None:
    """It waits for every call first; Decimal prices; a line is off by half a cent at most."""
    finance, asked = served
    steps = {"agent": 2}
    asked.counted = [0, sum(steps.get(call.shape, 1) for call in sent)]
    demo_finance.settle_demo_finance(finance, should_stop=lambda: False)

    method, path, params, body = next(o for o in asked.orders if "reconciliations" in o[1])
    assert ("POST", "/api/v1/reconciliations") == (method, path)
    assert (["openai"], ["yes"]) == (params["provider"], params["record"])
    lines = list(csv.DictReader(io.StringIO(body.decode())))
    tokens = {
        kind: sum(int(line["Units"]) for line in lines if line["Meter"] == kind)
        for kind in ("input_uncached", "cache_read", "output")
    }
    answered = [c for c in sent if c.model.name in USD_PER_MILLION and c.http_status == 200]
    fresh = cached = out = 0
    due = Decimal(0)
    for call in answered:
        rates = [Decimal(rate) / 10**6 for rate in USD_PER_MILLION[call.model.name]]
        for step in range(steps.get(call.shape, 1)):
            said_before = step * (call.output_tokens + 150)
            mine = (
                call.input_tokens + said_before - call.cached_tokens,
                call.cached_tokens,
                call.output_tokens,
            )
            fresh, cached, out = fresh + mine[0], cached + mine[1], out + mine[2]
            due += sum((n * rate for n, rate in zip(mine, rates, strict=True)), Decimal(0))
    assert (fresh + 220_000, cached, out + 40_000) == tuple(tokens.values())
    notebook = Decimal("0.675")  # 220,000 at $1.25 and 40,000 at $10 a million
    usage = [Decimal(line["Amount"]) for line in lines if line["Kind"] == "usage"]
    assert abs(sum(usage) - due - notebook) <= len(usage) * Decimal("0.005")
    assert [("fee", "2.50")] == [(n["Kind"], n["Amount"]) for n in lines if n["Kind"] != "usage"]


def test_the_pool_is_billed_for_its_day_newest_first(
    served: tuple[demo_finance.DemoFinance, Asked],
) -> None:
    finance, asked = served
    asked.counted = [10**9]
    demo_finance.create_demo_pool(finance)
    demo_finance.settle_demo_finance(finance, should_stop=lambda: False)
    assert ("PUT", "/api/v1/gpu/pools/lab-rack") == asked.orders[0][:2]
    windows = [json.loads(o[3]) for o in asked.orders if o[1] == "/api/v1/gpu/rebuild"]
    starts = [datetime.fromisoformat(one["start"]) for one in windows]
    ends = [datetime.fromisoformat(one["end"]) for one in windows]
    assert ends[0] == NOW
    assert starts[:-1] == ends[1:]
    assert datetime(2026, 11, 19, 11, tzinfo=UTC) == starts[-1]  # its first calls are of that hour


def test_the_metric_has_a_month_of_days_and_a_gap(
    served: tuple[demo_finance.DemoFinance, Asked],
) -> None:
    finance, _ = served
    order = demo_finance.metric_order(finance)
    days = [line.partition(",")[0] for line in order["csv"].splitlines()[1:]]
    month = [str((MIDNIGHT - timedelta(days=ago)).date()) for ago in range(30, 0, -1)]
    assert [day for day in month if day != "2026-11-15"] == days
    assert order == demo_finance.metric_order(finance)


def test_a_refusal_is_a_sentence(served: tuple[demo_finance.DemoFinance, Asked]) -> None:
    finance, asked = served
    asked.counted, asked.status = [0], 403
    with pytest.raises(UnavailableError, match="refused the demonstration's finance"):
        demo_finance.create_demo_pool(finance)


def test_it_stops_while_it_waits(served: tuple[demo_finance.DemoFinance, Asked]) -> None:
    finance, asked = served
    asked.counted = [0]
    demo_finance.settle_demo_finance(finance, should_stop=lambda: True)
    assert not [order for order in asked.orders if order[0] == "POST"]
