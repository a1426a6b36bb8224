"""A discrete-event simulation of an engine with continuous batching, and what each request cost it.

Every step costs the time to read the weights once, a time per prefilled token and a time per token
of context that a decoding request reads. The weights' read is shared by the requests of the step;
the rest is whose it is. Nothing here knows how the product splits a bill.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

READ_WEIGHTS_US = 5_000.0
PREFILL_TOKEN_US = 35.0
CONTEXT_TOKEN_US = 0.012
MAX_BATCH = 48
PREFILL_CHUNK = 1_024


class Request(NamedTuple):
    tenant: str
    arrival_us: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Done(NamedTuple):
    request: Request
    began_us: float
    prefilled_us: float
    ended_us: float
    gpu_us: float


class Engine(NamedTuple):
    done: list[Done]
    busy_us: float
    mean_batch: float


class _Running:
    def __init__(self, request: Request, began: float) -> None:
        self.request = request
        self.began = began
        self.to_prefill = request.input_tokens - request.cached_tokens
        self.decoded = 0
        self.prefilled = 0.0
        self.gpu = 0.0


def workload(seed: int, *, requests: int, per_second: float) -> list[Request]:
    """Three tenants of different habits: chat, retrieval with cached prompts, long answers."""
    rng = random.Random(seed)
    habits: dict[str, Callable[[], tuple[int, int, int]]] = {
        "chat": lambda: (rng.randint(200, 900), 0, rng.randint(100, 300)),
        "rag": lambda: (rng.randint(3_000, 7_000), rng.randint(1_000, 2_500), rng.randint(50, 150)),
        "writer": lambda: (rng.randint(100, 400), 0, rng.randint(500, 1_200)),
    }
    at = 0.0
    made = []
    for _ in range(requests):
        at += rng.expovariate(per_second) * 1e6
        tenant = rng.choices(list(habits), weights=(5, 3, 2))[0]
        made.append(Request(tenant, at, *habits[tenant]()))
    return made


def run(requests: list[Request]) -> Engine:
    waiting = sorted(requests, key=lambda r: r.arrival_us, reverse=True)
    running: list[_Running] = []
    done: list[Done] = []
    now = busy = batch_time = 0.0
    while waiting or running:
        if not running and waiting[-1].arrival_us > now:
            now = waiting[-1].arrival_us
        while waiting and waiting[-1].arrival_us <= now and len(running) < MAX_BATCH:
            running.append(_Running(waiting.pop(), now))
        step = _step(running)
        now += step
        busy += step
        batch_time += step * len(running)
        for one in list(running):
            if not one.to_prefill and not one.prefilled:
                one.prefilled = now
            if one.decoded >= one.request.output_tokens:
                running.remove(one)
                done.append(Done(one.request, one.began, one.prefilled, now, one.gpu))
    return Engine(done, busy, batch_time / busy)


def _step(running: list[_Running]) -> float:
    """Prefill a chunk, decode one token of everybody else; charge each for its part."""
    took = READ_WEIGHTS_US
    chunk = PREFILL_CHUNK
    worked = []
    for one in running:
        if one.to_prefill:
            tokens = min(one.to_prefill, chunk)
            if not tokens:
                continue
            chunk -= tokens
            one.to_prefill -= tokens
            own = tokens * PREFILL_TOKEN_US
        else:
            one.decoded += 1
            own = (one.request.input_tokens + one.decoded) * CONTEXT_TOKEN_US
        one.gpu += own
        took += own
        worked.append(one)
    for one in worked:
        one.gpu += READ_WEIGHTS_US / len(worked)
    return took
