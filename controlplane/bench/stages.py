"""Every stage of ingest on its own, in one process: processor time per span."""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from controlplane.attribution.attribute import attribute
from controlplane.attribution.rules import with_organisation
from controlplane.bench.load import SPANS_PER_REQUEST, RequestTemplate
from controlplane.bootstrap.parts import open_span_store, open_spool
from controlplane.ingest.limits import DEFAULT_LIMITS
from controlplane.ingest.normalize import normalize
from controlplane.ingest.otlp import decode_requests, split_payload
from controlplane.ingest.ports import Payload, SpoolEntry
from controlplane.pricing import seed
from controlplane.pricing.price import price
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.sender import KEYLESS_SENDER

REQUESTS_PER_BATCH: Final = 104
"""What the ingest loop takes at most: 32 MiB."""
WARM_UP_ROUNDS: Final = 1

Result = TypeVar("Result")


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], Result]) -> Result:
        """Add the process's CPU time, helper threads included, to a stage."""
        before = time.process_time()
        result = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - before
        return result


def measure_stages(*, seconds: float) -> dict[str, dict[str, float]]:
    """Return spans per CPU-second and CPU-microseconds per span, stage by stage."""
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        one_round = _round_in(Path(folder))
        for number in range(WARM_UP_ROUNDS):
            one_round(_Stopwatch(), number)
        watch, rounds, end = _Stopwatch(), 0, time.monotonic() + seconds
        while rounds == 0 or time.monotonic() < end:
            one_round(watch, WARM_UP_ROUNDS + rounds)
            rounds += 1
    spans = rounds * REQUESTS_PER_BATCH * SPANS_PER_REQUEST
    return {
        stage: {"spans_per_cpu_second": spans / took, "cpu_us_per_span": took / spans * 1e6}
        for stage, took in watch.seconds.items()
    }


def _round_in(folder: Path) -> Callable[[_Stopwatch, int], None]:
    """Return what sends one batch through every stage."""
    templates = [RequestTemplate(number) for number in range(4)]
    draw = np.random.default_rng(1)
    book = PriceBook(seed.seed_version(), seed.listed_providers())
    rules = with_organisation([])
    spool, store = open_spool(folder), open_span_store(folder)

    def one_round(watch: _Stopwatch, number: int) -> None:
        now = datetime.now(UTC)
        payloads = [
            Payload(templates[i % len(templates)].fresh(draw, now_unix_nano=time.time_ns()))
            for i in range(REQUESTS_PER_BATCH)
        ]

        def fill_spool() -> None:
            for payload in payloads:
                spool.append(SpoolEntry(payload, KEYLESS_SENDER, now))

        def empty_spool() -> None:
            while batch := spool.claim(max_bytes=2**30, max_entries=2 * REQUESTS_PER_BATCH):
                spool.drop(batch.batch_id)

        watch.time("check", lambda: [split_payload(p, limits=DEFAULT_LIMITS) for p in payloads])
        watch.time("spool_append", fill_spool)
        watch.time("spool_claim_and_drop", empty_spool)
        count = len(payloads)
        decoded = watch.time(
            "decode",
            lambda: decode_requests(
                payloads,
                senders=[KEYLESS_SENDER] * count,
                received_at=[now] * count,
                limits=DEFAULT_LIMITS,
            ),
        )
        spans = watch.time("normalize", lambda: normalize(decoded, limits=DEFAULT_LIMITS))
        senders = {KEYLESS_SENDER.key_id: KEYLESS_SENDER}
        attributed = watch.time("attribute", lambda: attribute(spans, rules, senders=senders))
        priced = watch.time("price", lambda: price(attributed, book))
        watch.time("store", lambda: store.write(priced, batch_id=f"bench-{number}"))

    return one_round
