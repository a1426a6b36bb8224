import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from controlplane.attribution.rules import with_organisation
from controlplane.pipelines.inspect import InspectReport, inspect_files
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version

CORPUS = Path(__file__).parents[1] / "corpus"
LITELLM = CORPUS / "litellm-proxy"
Inspect = Callable[..., InspectReport]


@pytest.fixture(scope="session")
def inspect() -> Inspect:
    book = PriceBook(seed_version(), listed_providers())
    rules = with_organisation([])

    def run(*paths: Path, signal: str | None = None) -> InspectReport:
        return inspect_files(paths, book=book, rules=rules, signal=signal)

    return run


def test_client_proxy_and_engine_are_one_call_in_any_order(inspect: Inspect) -> None:
    files = [*LITELLM.glob("client+proxy-double-count.*pb")]
    files = [f for f in files if ".metrics." not in f.name]
    files.append(CORPUS / "synth" / "vllm" / "under-litellm-proxy.pb")
    report = inspect(*files)
    (call,) = report.calls
    # The billing span and the tokens are the stub's own log (expected.json of that scenario).
    assert ("726731807450416c", 2233, 149) == (
        call.billing_span_id,
        call.input_tokens,
        call.output_tokens,
    )
    assert {"31cf1afb494bb8ce", "266909da1713ce62"} == {s.span_id for s in call.suppressed}
    assert report.calls == inspect(*reversed(files)).calls


def test_the_document_has_the_contracts_keys(inspect: Inspect) -> None:
    document = msgspec.to_builtins(inspect(LITELLM / "anthropic-cached.pb"))
    assert ["spans", "calls", "findings"] == list(document)
    (call,) = document["calls"]
    assert {
        *("call_id", "provider", "operation", "request_model", "response_model", "input_tokens"),
        *("cached_input_tokens", "cache_creation_input_tokens", "output_tokens"),
        *("reasoning_tokens", "is_stream", "status", "error_type", "http_status", "cost_usd"),
        *("cost_state", "cost_reason", "price_id", "billing_span_id", "suppressed", "attribution"),
    } == set(call)
    # claude-sonnet-4-5: 648 x $3 + 768 x $0.30 + 132 x $3.75 + 94 x $15, per million tokens.
    assert ("anthropic", "0.0040794", "priced") == (
        call["provider"],
        call["cost_usd"],
        call["cost_state"],
    )


def test_gzip_and_json_are_read_as_they_are(inspect: Inspect, tmp_path: Path) -> None:
    packed = tmp_path / "chat.pb.gz"
    packed.write_bytes(gzip.compress((CORPUS / "otel-openai-v2" / "chat.pb").read_bytes()))
    assert 1 == len(inspect(packed).calls)
    assert 1 == len(inspect(CORPUS / "vercel-ai-otel-json" / "chat.json").calls)


@pytest.mark.parametrize("form", ["lines", "array", "with a byte order mark", "indented"])
def test_json_requests_after_one_another_are_one_run(
    inspect: Inspect, tmp_path: Path, form: str
) -> None:
    """A line each, as the Collector's file exporter writes them, or items of an array."""
    document = json.loads((CORPUS / "vercel-ai-otel-json" / "chat.json").read_bytes())
    lines = [json.dumps(document)]
    lines.append(re.sub('"traceId": "[0-9a-f]', '"traceId": "f', lines[0]))
    text = {
        "lines": "\n".join(lines) + "\n",
        "array": f"[{', '.join(lines)}]",
        "with a byte order mark": "\ufeff" + lines[0],
        "indented": json.dumps(document, indent=2),
    }[form]
    (tmp_path / "run.json").write_text(text)
    report = inspect(tmp_path / "run.json")
    once = inspect(CORPUS / "vercel-ai-otel-json" / "chat.json")
    assert report.spans == once.spans * (2 if form in {"lines", "array"} else 1)
    assert not [one for one in report.findings if one.code == "unreadable_file"]


def test_metrics_are_recognised_by_name_or_by_signal(inspect: Inspect, tmp_path: Path) -> None:
    renamed = tmp_path / "chat.pb"
    renamed.write_bytes((LITELLM / "chat.metrics.pb").read_bytes())
    by_name = inspect(LITELLM / "chat.metrics.pb")
    by_signal = inspect(renamed, signal="metrics")
    for report in (by_name, by_signal):
        assert ([], ["metrics_file"], True) == (
            report.calls,
            [finding.code for finding in report.findings],
            report.readable,
        )


def test_an_unreadable_file_is_a_finding(inspect: Inspect, tmp_path: Path) -> None:
    broken, cut = tmp_path / "broken.pb", tmp_path / "cut.pb.gz"
    broken.write_bytes(b"not a payload")
    cut.write_bytes(gzip.compress(b"x" * 1000)[:-20])
    report = inspect(broken, cut, tmp_path / "absent.pb", CORPUS / "otel-openai-v2" / "chat.pb")
    assert 1 == len(report.calls)
    unreadable = [f for f in report.findings if f.code == "unreadable_file"]
    assert ["broken.pb", "cut.pb.gz", "absent.pb"] == [f.message.split(":")[0] for f in unreadable]
    assert report.readable
    assert not inspect(broken).readable


def test_what_can_not_be_billed_is_a_finding(inspect: Inspect) -> None:
    unknown = inspect(CORPUS / "litellm-sdk" / "chat-stream-no-usage.pb")
    assert {"unknown_usage", "unpriced"} <= {finding.code for finding in unknown.findings}
    repeated = inspect(CORPUS / "vercel-ai-legacy" / "agent-tool.pb")
    assert "aggregate_not_billed" in {finding.code for finding in repeated.findings}


@pytest.mark.parametrize(
    ("scenario", "input_tokens", "output_tokens"),
    [
        # The stub's own log of what it served in that scenario.
        ("chat-stream", 1_274, 72),
        ("anthropic-cached", 1_548, 94),
        ("embeddings", 1_822, 0),
        ("client+proxy-double-count", 2_233, 149),
    ],
)
def test_a_proxys_own_counters_agree_with_its_calls(
    inspect: Inspect, scenario: str, input_tokens: int, output_tokens: int
) -> None:
    """The proxy counted scenarios before this one, too; those are not this run's."""
    report = inspect(*LITELLM.glob(f"{scenario}.*pb"))
    (told,) = [f for f in report.findings if f.code.startswith("counters_")]
    assert "counters_agree" == told.code
    assert f"metrics count {input_tokens} input and {output_tokens} output" in told.message


def test_counters_of_calls_that_are_not_there_are_a_warning(inspect: Inspect) -> None:
    report = inspect(LITELLM / "chat-stream.metrics.pb")
    (told,) = [f for f in report.findings if f.code.startswith("counters_")]
    assert ("counters_ahead_of_calls", "warning") == (told.code, told.severity)
