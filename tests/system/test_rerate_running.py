"""Commands about money beside the hub that owns the store, through its API, and at rest: one answer."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from controlplane.bootstrap.evidence import verify
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from tests.priced_calls import priced
from tests.system.conftest import Program

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
WINDOW = ("--start", "2026-11-20T00:00:00Z", "--end", "2026-11-21T00:00:00Z")
CALLS = 7
CALL = {"tenant": "acme", "team": "search", "provider": "openai", "billing_model": "gpt-4o-mini",
        "start_time": AT, "input_tokens": 1_000, "input_uncached": 1_000, "output_tokens": 100,
        "output_text": 100}  # fmt: skip
OLD, NEW = 1_000 * 150 + 100 * 600, 1_000 * 2_000 + 100 * 4_000
"""Nano-USD of a call: 0.15 and 0.60 USD a million, then 2 and 4."""


def command(folder: Path, *arguments: str, **env: str) -> Any:
    """Run a command and return the one JSON document it prints."""
    made = subprocess.run(
        [sys.executable, "-m", "controlplane", *arguments, "--json"],
        capture_output=True,
        check=False,
        env={**os.environ, "CONTROLPLANE_DATA_DIR": str(folder / "data"), **env},
    )
    assert not made.returncode, made.stderr.decode()
    return json.loads(made.stdout)


def without_id(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "run_id"}


@pytest.mark.slow
def test_a_re_rate_beside_the_hub_is_that_of_its_api(
    tmp_path: Path, span_rows: Callable[..., pa.Table], start_program: Callable[..., Program]
) -> None:
    (tmp_path / "data").mkdir()
    store = DuckDbSpanStore(tmp_path / "data" / "spans.duckdb")
    calls = [{**CALL, "trace_lo": n, "span_id": n} for n in range(1, CALLS + 1)]
    book = PriceBook(seed_version(), listed_providers())
    store.write(priced(span_rows, calls, book), batch_id="b")
    store.close()
    prices = tmp_path / "new.csv"
    prices.write_text(
        "provider,model,bucket,usd,valid_from\n"
        "openai,gpt-4o-mini,input_uncached,2,2026-11-01\n"
        "openai,gpt-4o-mini,output_text,4,2026-11-01\n"
    )
    command(tmp_path, "prices", "import", str(prices), "--format", "csv", "--apply")
    key = command(tmp_path, "keys", "create", "--kind", "service", "--role", "admin",
                  "--all-tenants")["text"]  # fmt: skip
    hub = start_program(tmp_path, "serve", "--role", "api")
    try:
        beside = command(tmp_path, "rerate", *WINDOW)
        assert ("previewed", CALLS) == (beside["state"], beside["calls"])
        assert f"{CALLS * (NEW - OLD) / 1e9:.9f}".rstrip("0") == beside["moved_usd"]
        remote = command(
            tmp_path, "rerate", *WINDOW, "--server", hub.ready["api"], CONTROLPLANE_CLIENT_KEY=key
        )
        assert without_id(beside) == without_id(remote)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=hub.ready["api"], headers=headers, trust_env=False) as client:
            view = client.get(f"/api/v1/rerates/{beside['run_id']}").raise_for_status().json()
        assert beside == view["report"]
        applied = command(tmp_path, "rerate", *WINDOW, "--apply")
        assert ("applied", beside["groups"]) == (applied["state"], applied["groups"])
        assert 0 == command(tmp_path, "rerate", *WINDOW, "--apply")["calls"]
        where = ("--server", hub.ready["api"])
        exported = command(
            tmp_path, "export", "calls", str(tmp_path / "out"), *WINDOW, "--tenant", "acme", *where,
            CONTROLPLANE_CLIENT_KEY=key,
        )  # fmt: skip
        assert (CALLS, CALLS * NEW) == (exported["rows"], exported["total_nusd"])
        assert verify(tmp_path / "out", public_key=None).ok
        bill = tmp_path / "bill.csv"
        bill.write_text("Date,Amount\n2026-11-20,1\n")
        report = command(
            tmp_path, "reconcile", str(bill), "--provider", "openai", "--map",
            "day=Date,cost=Amount", *where, CONTROLPLANE_CLIENT_KEY=key,
        )  # fmt: skip
        assert f"{CALLS * NEW / 1e9:g}" == report["ledger_usd"]
    finally:
        hub.end(signal.SIGTERM)
        hub.clear_away()
    assert 0 == command(tmp_path, "rerate", *WINDOW)["calls"], "and at rest"
