"""`bench price` prints what the contract says, and prices something."""

from controlplane.bench.price import BATCH, MODELS, calls_of, run
from controlplane.pricing.price import price
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers


def test_the_document_has_the_contracts_keys_and_every_call_moves() -> None:
    """A margin on every model: as many adjustments as calls."""
    result = run(seconds=0.1, calls=BATCH)
    assert {"stages", "whole", "peers", "load_average", "config"} == result.keys()
    stages, whole = result["stages"], result["whole"]
    assert isinstance(stages, dict)
    assert isinstance(whole, dict)
    assert BATCH == whole["rerate_calls"] == stages["apply"]["calls"]
    assert whole["calls_priced_per_cpu_second"] > 10_000
    assert stages["apply"]["peak_memory_bytes"] > 2**26


def test_every_call_of_the_load_has_a_price() -> None:
    priced = price(calls_of(3, rows=600), PriceBook("t", listed_providers()))
    assert {"priced"} == set(priced["cost_state"].to_pylist())
    assert len(MODELS) == len(set(priced["billing_model"].to_pylist()))
