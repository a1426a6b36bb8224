"""`controlplane bench admission`: what deciding on one call costs the process it is made in.

The shipped agent with a signed policy, a journal on disk and a lease large enough that no call
waits: admission never touches the network then, and neither does the bench.
"""

import gc
import os
import platform
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from controlplane.agent.http_request import HttpCall, facts_of, read_call, to_request
from controlplane.agent.lease import Instant
from controlplane.agent.main import build_agent
from controlplane.agent.runtime import Agent
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.bench.allocations import allocations_per_op, repeat
from controlplane.policy.bundle import SIGNATURE_HEADER, Signer, encode_document
from controlplane.policy.document import (
    BudgetClause,
    Cap,
    Deny,
    PolicyDocument,
    RatePerMillion,
    Route,
    Throttle,
)
from controlplane.policy.wire import Grant

RULES: Final = 50
LEASE_NUSD: Final = 10**17
WARM_UP: Final = 2_000
DAY: Final = timedelta(days=1)


def run(*, calls: int = 20_000) -> dict[str, Any]:
    """Measure in the shape of design section 13; times are processor time of this thread."""
    load_average = list(os.getloadavg())
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        agent = _agent(Path(folder))
        cycle, content = _cycle(agent)
        stages: dict[str, dict[str, Any]] = {
            name: _measure(each, calls=calls) for name, each in cycle.stages().items()
        }
        whole = _measure(cycle.whole, calls=calls)
        journal_bytes = agent.holder.journal.path.stat().st_size
        agent.holder.abandon()
    for name in ("read", "admit", "deny"):
        stages[name]["allocations_per_op"] = allocations_per_op(name)
    return {
        "stages": stages,
        "whole": {
            **whole,
            "allocations_per_op": allocations_per_op("whole"),
            "allocations_per_decision": stages["admit"]["allocations_per_op"],
            "admission_ops_per_cpu_second": stages["admit"]["ops_per_cpu_second"],
            "admission_p50_ms": stages["admit"]["p50_ms"],
            "admission_p99_ms": stages["admit"]["p99_ms"],
            "deny_p99_ms": stages["deny"]["p99_ms"],
            "network_calls": agent.syncer.syncs,
            "journal_bytes_per_call": journal_bytes / (WARM_UP + calls) / 2,
        },
        "peers": {},
        "load_average": load_average,
        "config": {
            "calls": calls,
            "rules": RULES,
            "hard_budgets": 2,
            "request_bytes": len(content),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
    }


def main(stage: str, times: int) -> None:
    """Do a stage so often and nothing else: what `allocations_per_op` counts."""
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        agent = _agent(Path(folder))
        cycle, _ = _cycle(agent)
        step = {**cycle.stages(), "whole": cycle.whole}[stage]
        repeat(step, times)
        agent.holder.abandon()


def _cycle(agent: Agent) -> tuple["_Cycle", bytes]:
    content = _request_body()
    call = read_call("POST", "api.openai.com", "/v1/chat/completions", content=content)
    assert call is not None  # noqa: S101 - a chat completion is one
    return _Cycle(agent, call, content), content


class _Cycle:
    """What happens to one call, in parts."""

    def __init__(self, agent: Agent, call: HttpCall, content: bytes) -> None:
        self._agent = agent
        self._content = content
        self._admitted: list[Ticket] = []
        self._request = self._ask(call, {})
        self._denied = self._ask(call, {"team": "team-7"})
        self._settles = self._tickets()

    def _ask(self, call: HttpCall, known: dict[str, str]) -> Request:
        agent = self._agent
        facts = facts_of(call, {}, agent.dimension_map, tenant=agent.tenant, known=known)
        return to_request(call, facts, request_id="req_bench")

    def stages(self) -> dict[str, Callable[[], None]]:
        """Return each part; `settle` ends what `admit` began."""
        return {
            "read": self.read,
            "admit": self.admit,
            "settle": self.settle,
            "deny": self.deny,
        }

    def read(self) -> None:
        """Parse the request, bound it, read its dimensions."""
        call = read_call("POST", "api.openai.com", "/v1/chat/completions", content=self._content)
        if call is not None:
            self._ask(call, {})

    def admit(self) -> None:
        """Decide, hold against two budgets, write the journal."""
        ticket = self._agent.admit_now(self._request)
        if isinstance(ticket, Ticket):
            self._admitted.append(ticket)

    def settle(self) -> None:
        """End a call with its usage, write the journal."""
        self._end(next(self._settles))

    def deny(self) -> None:
        """Refuse by rule."""
        try:
            self._agent.admit_now(self._denied)
        except RefusedError:
            return

    def whole(self) -> None:
        """Do all that one admitted call needs."""
        self.read()
        self.admit()
        self._end(self._admitted.pop())

    def _tickets(self) -> Iterator[Ticket]:
        while True:
            if not self._admitted:
                self.admit()
            yield self._admitted.pop()

    def _end(self, ticket: Ticket) -> None:
        ending = Ending(
            ended_at=self._agent.clock.now(), usage={"input_uncached": 900, "output_text": 40}
        )
        if ticket.hold_id:
            self._agent.settle(ticket.hold_id, ending)
        if ticket.slot:
            self._agent.release(ticket.slot, ending)
        queue = self._agent.holder.queue
        if queue.pending > 1_000:  # noqa: PLR2004 - as many as a sync takes
            queue.forget_settled()


def _measure(step: Callable[[], None], *, calls: int) -> dict[str, float]:
    for _ in range(WARM_UP):
        step()
    gc.collect()
    blocks = sys.getallocatedblocks()
    took: list[int] = []
    collected = sum(one["collections"] for one in gc.get_stats())
    started = time.thread_time_ns()
    for _ in range(calls):
        began = time.thread_time_ns()
        step()
        took.append(time.thread_time_ns() - began)
    total = time.thread_time_ns() - started
    cuts = statistics.quantiles(took, n=1_000)
    return {
        "ops_per_cpu_second": calls / (total / 1e9),
        "p50_ms": cuts[499] / 1e6,
        "p99_ms": cuts[989] / 1e6,
        "p999_ms": cuts[998] / 1e6,
        "kept_blocks_per_op": (sys.getallocatedblocks() - blocks - calls) / calls,
        "gc_runs": sum(one["collections"] for one in gc.get_stats()) - collected,
    }


def _agent(folder: Path) -> Agent:
    signer = Signer(secrets.token_bytes(32))
    agent = build_agent(
        AgentSettings(
            server_url="http://127.0.0.1:9",  # never called
            api_key="bench",
            policy_keys=signer.pinned,
            node="bench",
            state_dir=folder,
        )
    )
    body = encode_document(_document(agent.clock.now()))
    now = Instant.of(agent.clock)
    agent.puller.accept(body, {SIGNATURE_HEADER: signer.sign(body)}, now)
    for budget_id in ("org", "team"):
        expires = now.wall + DAY
        agent.holder.granted(
            Grant(budget_id, f"lease-{budget_id}", LEASE_NUSD, DAY.total_seconds(), expires), now
        )
    return agent


def _document(now: datetime) -> PolicyDocument:
    """Fifty rules of which the last ones match, two hard budgets, a card of thirty models."""
    denies = tuple(
        Deny(id=f"deny-{n}", priority=n, match={"team": (f"team-{n}",)}) for n in range(RULES - 3)
    )
    every = (
        Throttle(id="rate", rps=1e9, burst=10**9),
        Cap(id="cap", max_tokens=4_000),
        Route(id="split", weights={"left": 9, "right": 1}, sticky="tenant"),
    )
    budgets = tuple(
        BudgetClause(
            id=name,
            name=name,
            owner="bench",
            match={},
            limit_nusd=10**18,
            window_start=now - DAY,
            window_end=now + DAY,
        )
        for name in ("org", "team")
    )
    rate = RatePerMillion(input_nusd=2_500_000_000, output_nusd=10_000_000_000)
    return PolicyDocument(
        gen=1,
        issued_at=now,
        tenant="bench",
        rules=denies + every,
        budgets=budgets,
        rate_card={f"openai/model-{n}": rate for n in range(30)},
        dimension_map={"team": "header.x-team", "user_id": "user"},
    )


def _request_body() -> bytes:
    """Return a chat request of about a thousand tokens."""
    says = "The quick brown fox jumps over the lazy dog. " * 90
    request = {
        "model": "model-7",
        "user": "u-17",
        "max_tokens": 500,
        "messages": [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": says},
        ],
    }
    return msgspec.json.encode(request)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
