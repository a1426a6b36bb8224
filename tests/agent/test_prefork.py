"""A server that loads the agent before it forks eight workers: no lease is copied (L11)."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

WORKERS = 8

PRELOADED = """
import json, os, sys, threading, time
from datetime import UTC, datetime
from controlplane.agent.bounds import bound_request
from controlplane.agent.embedded import EmbeddedAgent
from controlplane.agent.main import build_agent
from controlplane.agent.settings import load_agent_settings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request

gate = EmbeddedAgent(build_agent(load_agent_settings()))
asked = Request(
    request_id="r", facts={"tenant": "a", "model": "m"},
    bound=bound_request("chat", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10}),
    candidates=lambda model: ((model,),), provider="p")

def serve():
    ticket = gate.admit_blocking(asked)
    time.sleep(0.005)
    usage = {"input_uncached": asked.bound.input_tokens, "output_text": ticket.output_tokens or 10}
    gate.settle(ticket.hold_id, Ending(ended_at=datetime.now(UTC), usage=usage))
    return asked.bound.input_tokens * 1_000 + (ticket.output_tokens or 10) * 10_000

def work():
    served, spent, refused = 0, 0, 0
    while refused < 6:
        try:
            spent += serve()
            served, refused = served + 1, 0
        except RefusedError:
            refused += 1
    return {"holder": gate.agent.holder.name, "served": served, "spent": spent}

spent = serve()                      # the parent holds leases, runs a thread, and then forks
pipes = []
for _ in range(int(sys.argv[1])):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.write(write, json.dumps(work()).encode())
            gate.close()
        finally:
            os._exit(0)
    os.close(write)
    pipes.append(read)
told = [json.loads(b"".join(iter(lambda r=read: os.read(r, 65536), b""))) for read in pipes]
for _ in pipes:
    os.wait()
told.append({"holder": gate.agent.holder.name, "served": 1, "spent": spent})
print(json.dumps(told), flush=True)
gate.close()
"""


def test_eight_preforked_workers_spend_one_budget(
    control_plane: Any, make_settings: Callable[..., Any]
) -> None:
    limit = 10**8
    control_plane.publish(budgets=[control_plane.budget(limit_nusd=limit)])
    settings = make_settings(control_plane)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELOADED, str(WORKERS)],
        stdout=subprocess.PIPE,
        timeout=240,
        check=True,
        env={
            **os.environ,
            "CONTROLPLANE_AGENT_SERVER_URL": settings.server_url,
            "CONTROLPLANE_AGENT_API_KEY": "k",
            "CONTROLPLANE_AGENT_ADMISSION_WAIT_SECONDS": "10",
            "CONTROLPLANE_AGENT_STATE_DIR": str(settings.state_dir),
            "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                f"{kid}={key}" for kid, key in settings.policy_keys.items()
            ),
        },
    )
    told = json.loads(done.stdout)
    holders = Counter(one["holder"] for one in told)
    assert WORKERS + 1 == len(holders)
    spent = sum(one["spent"] for one in told)
    assert 0.9 * limit <= spent <= limit
    deadline = time.monotonic() + 60
    while control_plane.state()["standing"]["leased_nusd"] and time.monotonic() < deadline:
        time.sleep(0.05)
    standing = control_plane.state()["standing"]
    assert spent == standing["settled_enforced_nusd"]
    assert 0 == standing["leased_nusd"]
    assert set(holders) >= {request["boot_id"] for request in control_plane.state()["requests"]}
