"""How many calls are priced per CPU-second, and how long a re-rate of many takes.

Pricing is the ingest stage on batches of 20,000 calls over the whole price book's commonest models.
The re-rate is of calls in a real span store, one million a simulated day, from one version of prices
to another that moves every call: new prices of all reports, adjustments and dirty marks included.
"""

import os
import resource
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import genai_prices
import msgspec
import numpy as np
import pyarrow as pa
from genai_prices.types import Usage

from controlplane.bootstrap.parts import open_span_store
from controlplane.core.calendar import Window
from controlplane.pipelines.rerate import RerateStore, apply_rerate, preview_rerate
from controlplane.pipelines.settle import settle_tick
from controlplane.pricing.contracts import Contract
from controlplane.pricing.price import price, reprice
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.rerate import RerateOrder
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.signals.schema import ATTRIBUTED_SCHEMA

BATCH: Final = 20_000
CALLS_A_DAY: Final = 1_000_000
START: Final = datetime(2026, 10, 1, tzinfo=UTC)
MODELS: Final = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5.1"),
    ("anthropic", "claude-sonnet-4-5"),
    ("gcp.gemini", "gemini-2.5-pro"),
    ("gcp.gemini", "gemini-2.5-flash"),
)
PEER_CALLS: Final = 2_000


def run(*, seconds: float, calls: int) -> dict[str, object]:
    """Measure both, and genai-prices' own calculator beside them.

    Args:
        seconds: of pricing.
        calls: in the re-rate.
    """
    book = PriceBook(seed_version(), listed_providers())
    priced = _price(book, seconds=seconds)
    rerated = _rerate(book, calls=calls)
    return {
        "stages": {"price": priced, **rerated},
        "whole": {
            "calls_priced_per_cpu_second": priced["calls_per_cpu_second"],
            "rerate_calls": float(calls),
            "rerate_seconds": rerated["apply"]["seconds"],
            "rerate_calls_per_cpu_second": rerated["apply"]["calls_per_cpu_second"],
        },
        "peers": {"genai-prices": _genai_prices(), "litellm": None},
        "load_average": list(os.getloadavg()),
        "config": {
            "batch_calls": BATCH,
            "calls_a_day": CALLS_A_DAY,
            "models": len(MODELS),
            "price_book_version": book.version,
            "cpus": os.cpu_count(),
        },
    }


def calls_of(number: int, *, rows: int = BATCH) -> pa.Table:
    """Make batch `number` of calls, ATTRIBUTED_SCHEMA; the same number makes the same batch."""
    draw = np.random.default_rng(number)
    which = draw.integers(len(MODELS), size=rows)
    first = number * rows
    micros = 86_400_000_000 * (first + np.arange(rows)) // CALLS_A_DAY
    starts = micros + int(START.timestamp()) * 1_000_000
    uncached, cached = draw.integers(1, 9_000, size=rows), draw.integers(0, 4_000, size=rows)
    output = draw.integers(1, 2_000, size=rows)
    said: Mapping[str, Any] = {
        "domain": "default",
        "key_id": "",
        "key_role": "unknown",
        # A second after each: what comes before it was made is of a clock that is ahead.
        "received_at": pa.array(starts + 1_000_000).cast(pa.timestamp("us", tz="UTC")),
        "trace_hi": np.full(rows, number, dtype=np.uint64),
        "trace_lo": np.arange(first + 1, first + rows + 1, dtype=np.uint64),
        "span_id": np.arange(1, rows + 1, dtype=np.uint64),
        "parent_span_id": np.zeros(rows, dtype=np.uint64),
        "start_time": pa.array(starts).cast(pa.timestamp("us", tz="UTC")),
        "duration_us": np.full(rows, 900_000, dtype=np.int64),
        "content_hash": np.arange(rows, dtype=np.uint64),
        **dict.fromkeys(("name", "kind", "scope_name", "dialect"), "bench"),
        "service_name": "bench",
        "report_kind": "call",
        "layer": "client",
        "provider": pa.array([MODELS[i][0] for i in which]),
        "operation": "chat",
        "request_model": pa.array([MODELS[i][1] for i in which]),
        "billing_model": pa.array([MODELS[i][1] for i in which]),
        "status": "ok",
        "input_tokens": uncached + cached,
        "cached_input_tokens": cached,
        "output_tokens": output,
        "input_uncached": uncached,
        "cache_read": cached,
        "output_text": output,
        "usage_state": "exact",
        "tenant": "bench",
        "team": pa.array([f"team-{i % 20}" for i in range(rows)]),
    }
    columns = []
    for field in ATTRIBUTED_SCHEMA:
        value = said.get(field.name)
        if isinstance(value, str | datetime):
            columns.append(pa.repeat(pa.scalar(value, field.type), rows))
        elif value is None:
            columns.append(pa.nulls(rows, field.type))
        else:
            columns.append(pa.array(value).cast(field.type))
    return pa.table(columns, schema=ATTRIBUTED_SCHEMA)


def _price(book: PriceBook, *, seconds: float) -> dict[str, float]:
    batches = [calls_of(number) for number in range(8)]
    price(batches[0], book)
    done, before, end = 0, time.process_time(), time.monotonic() + seconds
    while not done or time.monotonic() < end:
        price(batches[done % len(batches)], book)
        done += 1
    took = time.process_time() - before
    return {
        "calls_per_cpu_second": done * BATCH / took,
        "cpu_us_per_call": took / done / BATCH * 1e6,
    }


def _rerate(book: PriceBook, *, calls: int) -> dict[str, dict[str, float]]:
    contracts = [
        Contract(id=f"bench-{name}", provider=name, margin_percent="7")
        for name in sorted({provider for provider, _ in MODELS})
    ]
    moved = PriceBook(seed_version(), listed_providers(), contracts=contracts)
    days = max(1, -(-calls // CALLS_A_DAY))
    window = Window(START, START + timedelta(days=days))
    order = RerateOrder(run_id="bench", window=window, price_version="bench")
    now = START + timedelta(days=40)
    with tempfile.TemporaryDirectory(prefix="controlplane-bench-") as folder:
        store = open_span_store(Path(folder))
        for number in range(-(-calls // BATCH)):
            store.write(price(calls_of(number), book), batch_id=f"b{number}")
            settle_tick(store, now=now, ledger=None, reprice=lambda rows: reprice(rows, book))
        first = Window(START, START + timedelta(days=1))
        preview = _timed(store.rerates, msgspec.structs.replace(order, window=first), moved)
        before, started = time.process_time(), time.monotonic()
        report = apply_rerate(store.rerates, order, moved, now=now)
        cpu, took = time.process_time() - before, time.monotonic() - started
        store.close()
    return {
        "preview_one_day": preview,
        "apply": {
            "calls": float(report.calls),
            "seconds": took,
            "cpu_seconds": cpu,
            "calls_per_cpu_second": report.calls / cpu,
            # Of the whole process up to now; a checkpoint that merges what was loaded holds most.
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        },
    }


def _timed(store: RerateStore, order: RerateOrder, book: PriceBook) -> dict[str, float]:
    before = time.process_time()
    report = preview_rerate(store, order, book)
    cpu = time.process_time() - before
    return {"calls": float(report.calls), "calls_per_cpu_second": report.calls / cpu}


def _genai_prices() -> dict[str, float]:
    """One call at a time, as its users call it."""
    usage = Usage(input_tokens=1_000, cache_read_tokens=100, output_tokens=50)
    before = time.process_time()
    for number in range(PEER_CALLS):
        _, model = MODELS[number % len(MODELS)]
        genai_prices.calc_price(usage, model_ref=model, genai_request_timestamp=START)
    return {"calls_per_cpu_second": PEER_CALLS / (time.process_time() - before)}
