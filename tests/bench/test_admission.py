"""`controlplane bench admission` in the small: its shape, and that it measures what it says."""

from controlplane.bench.admission import run


def test_admission_is_local_and_a_refusal_is_the_cheapest_answer() -> None:
    result = run(calls=2_000)
    assert {"stages", "whole", "peers", "load_average", "config"} == result.keys()
    assert {"read", "admit", "settle", "deny"} == result["stages"].keys()
    whole = result["whole"]
    assert 0 == whole["network_calls"]
    assert whole["admission_p50_ms"] <= 0.3
    assert result["stages"]["deny"]["p50_ms"] < result["stages"]["admit"]["p50_ms"]
    # hold and settle are both written to the journal
    assert whole["journal_bytes_per_call"] > 200
    parts = sum(result["stages"][name]["p50_ms"] for name in ("read", "admit", "settle"))
    assert 0.5 * parts < whole["p50_ms"] < 3 * parts
