"""The demonstration's budgets, posted to a real HTTP server that keeps them as the API does."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from typing_extensions import override

from controlplane.core.errors import UnavailableError
from controlplane.policy.rules import read_rules
from controlplane.simulate import demo_budgets
from controlplane.simulate.demo_calls import draw_hour, hours_back

NOW = datetime(2026, 11, 20, 10, 7, tzinfo=UTC)


class Budgets(BaseHTTPRequestHandler):
    """`/api/v1/budgets` and `/api/v1/policy/rules` for one key."""

    rows: list[dict[str, Any]]
    rules: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self.path == "/api/v1/policy/rules":
            self._send(200, self.rules[-1])
        else:
            self._send(200, {"rows": self.rows})

    def do_PUT(self) -> None:
        self.rules.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._send(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != "Bearer cp_user_x":
            self._send(403, {"detail": "this key lacks budgets:write"})
            return
        self.rows.append({**body, "id": f"budget_{len(self.rows)}"})
        self._send(201, self.rows[-1])

    def _send(self, status: int, told: object) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    rows: list[dict[str, Any]] = []
    handler = type("Bound", (Budgets,), {"rows": rows, "rules": [{"dimension_map": {}}]})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", rows
    server.shutdown()
    thread.join()
    server.server_close()


def spent_usd(team: str, days: int) -> Decimal:
    """Price the history anew: Decimal rates per million, calls drawn day by day."""
    rates = {
        "claude-haiku-4-5": ("1", "0.10", "5"),
        "claude-sonnet-4-5": ("3", "0.30", "15"),
        "gpt-5-mini": ("0.25", "0.025", "2"),
    }
    month = NOW.replace(day=1, hour=0, minute=0)
    total = Decimal(0)
    for day in hours_back(NOW, days):
        for call in (c for hour in day for c in draw_hour(hour, seed=5, newest=NOW)):
            if call.team.name != team or call.http_status != 200 or call.start < month:
                continue
            fresh, cached, out = (Decimal(rate) for rate in rates[call.model.name])
            for step in range(2 if call.shape == "agent" else 1):
                tokens_in = call.input_tokens + step * (call.output_tokens + 150)
                total += (tokens_in - call.cached_tokens) * fresh / 10**6
                total += call.cached_tokens * cached / 10**6 + call.output_tokens * out / 10**6
    return total


def test_one_budget_is_about_to_run_out(api: tuple[str, list[dict[str, Any]]]) -> None:
    url, rows = api
    ids = demo_budgets.create_demo_budgets(url, "cp_user_x", seed=5, now=NOW)
    assert ids == [row["id"] for row in rows]
    support = next(row for row in rows if row["match"] == {"team": ["support"]})
    used = spent_usd("support", 22) / Decimal(support["limit_usd"])
    assert Decimal("0.9") < used < 1
    assert {"acme", "globex"} == {row["tenant"] for row in rows}


def test_making_them_again_changes_nothing(api: tuple[str, list[dict[str, Any]]]) -> None:
    url, rows = api
    first = demo_budgets.create_demo_budgets(url, "cp_user_x", seed=5, now=NOW, tenant="default")
    again = demo_budgets.create_demo_budgets(url, "cp_user_x", seed=5, now=NOW, tenant="default")
    assert first == again
    assert len(rows) == len(demo_budgets.PLANS)
    assert {row["tenant"] for row in rows} == {"default"}
    assert {row["counts_from"] for row in rows} == {"2026-11-01T00:00:00+00:00"}


def test_a_refusal_names_its_reason(api: tuple[str, list[dict[str, Any]]]) -> None:
    with pytest.raises(UnavailableError, match="budgets:write"):
        demo_budgets.create_demo_budgets(api[0], "cp_user_other", seed=5, now=NOW, days=1)


def test_the_rules_are_ones_that_the_policy_accepts() -> None:
    rules = read_rules(demo_budgets.RULES)
    assert {rule.id for rule in rules.rules} == {"short-summaries", "labelling-quota"}
    assert {"tenant", "team"} <= rules.dimension_map.keys()
