"""`controlplane reconcile` over a real data directory: one JSON document, nothing changed."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from controlplane.bootstrap.places import SPANS_FILE
from controlplane.pipelines.settle import settle_tick
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

AT = datetime(2026, 11, 2, 10, tzinfo=UTC)


@pytest.fixture
def data_dir(tmp_path: Path, span_rows: Callable[..., pa.Table]) -> Path:
    """One call of openai that cost 0.000001."""
    folder = tmp_path / "data"
    folder.mkdir()
    store = DuckDbSpanStore(folder / SPANS_FILE)
    store.write(span_rows({"start_time": AT}), batch_id="b")
    settle_tick(store, now=AT, ledger=None)
    store.close()
    return folder


def _run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "controlplane", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_bill_is_explained_as_one_document(data_dir: Path, tmp_path: Path) -> None:
    """A dollar more: it stays unexplained; recording is another thing than looking."""
    bill = tmp_path / "bill.csv"
    bill.write_text("Date,Model,Amount\n2026-11-02,gpt-4o,1.000001\n")
    asked = ("reconcile", bill, "--provider", "openai", "--map", "day=Date,model=Model,cost=Amount",
             "--data-dir", data_dir)  # fmt: skip
    said = _run(*asked, "--json")
    assert (0, "") == (said.returncode, said.stderr)
    report: dict[str, Any] = json.loads(said.stdout)
    assert ("1.000001", "0.000001", "1") == (
        report["billed_usd"],
        report["ledger_usd"],
        report["difference_usd"],
    )
    assert "1" == report["classes"]["unexplained"]
    assert (True, 0.999999) == (report["within_tolerance"], report["unexplained_ratio"])
    text = _run(*asked, "--tolerance-usd", "0.5", "--record")
    assert "ABOVE the tolerance of 0.50% or $0.5" in text.stdout


def test_a_bill_in_euros_needs_the_rates_that_a_file_brings(data_dir: Path, tmp_path: Path) -> None:
    """0.80 EUR at 1.25 are the dollar of the call and 0.999999 more."""
    bill, rates = tmp_path / "bill.csv", tmp_path / "rates.csv"
    bill.write_text("Date,Model,Amount,Cur\n2026-11-02,gpt-4o,0.80,EUR\n")
    rates.write_text("currency,day,usd_per_unit\nEUR,2026-11-01,1.25\n")
    asked = ("reconcile", bill, "--provider", "openai", "--data-dir", data_dir, "--json",
             "--map", "day=Date,model=Model,cost=Amount,currency=Cur")  # fmt: skip
    refused = _run(*asked)
    assert (2, "") == (refused.returncode, refused.stdout)
    assert "no EUR rate up to 2026-11-02" in refused.stderr
    said = _run("rates", "import", rates, "--source", "ecb", "--data-dir", data_dir, "--json")
    assert {"source": "ecb", "rates": 1, "currencies": ["EUR"]} == json.loads(said.stdout)
    report = json.loads(_run(*asked).stdout)
    assert ("1", {"EUR": "0.80"}) == (report["billed_usd"], report["billed_in"])
    assert "1.25" == report["rates"][0]["usd_per_unit"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.csv", "--provider", "openai"), "is not a file"),
        (("{bill}", "--provider", "openai"), "Say --format"),
        (("{bill}", "--provider", "openai", "--format", "abacus"), "Use one of"),
        (("{bill}", "--provider", "openai", "--tolerance-percent", "x"), 'Write "0.5"'),
    ],
)
def test_errors_name_the_fix(
    data_dir: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("a,b\n1,2\n")
    said = _run("reconcile", *(one.format(bill=bill) for one in arguments), "--data-dir", data_dir)
    assert 2 == said.returncode
    assert words in said.stderr
    assert "Traceback" not in said.stderr
