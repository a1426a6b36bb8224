"""The commands as a person or a script meets them: output, exit status, one sentence for an error."""

import json
import subprocess
import sys
from importlib.metadata import version as package_version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"


def _run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controlplane", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd or ROOT)


def _price(
    *more: str, model: str = "gpt-4o", usage: str = '{"input_tokens": 1000}'
) -> tuple[int, str, str]:
    done = _run(
        "price", "--provider", "openai", "--model", model, "--at", "2026-11-20", "--usage", usage, *more
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_price_prints_one_json_document() -> None:
    """The contract's names; $2.50 a million input tokens."""
    status, out, err = _price("--json")
    answer = json.loads(out)
    assert (0, "") == (status, err)
    assert ("0.0025", "priced") == (answer["total_usd"], answer["cost_state"])
    assert [("input_uncached", 1000, 2_500_000)] == [
        (item["bucket"], item["quantity"], item["cost_nusd"]) for item in answer["line_items"]
    ]


def test_an_unknown_model_has_no_total() -> None:
    """Null with a reason, exit status 0: the question was answered."""
    status, out, _ = _price("--json", model="nobody-knows-it")
    answer = json.loads(out)
    assert (0, None, "unknown_model") == (status, answer["total_usd"], answer["cost_reason"])


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ("{", "usage: "),
        ('{"tokens": 1}', "usage.tokens: is not a usage name"),
        ('{"input_tokens": 1, "cached_input_tokens": 2}', "part can not exceed its whole"),
    ],
)
def test_wrong_usage_is_one_sentence_on_stderr(usage: str, words: str) -> None:
    """No traceback, nothing on stdout."""
    status, out, err = _price("--json", usage=usage)
    assert (2, "") == (status, out)
    assert words in err
    assert 1 == err.count("\n")


def test_inspect_has_the_contracts_shape() -> None:
    """A client's and a proxy's report of one call."""
    folder = CORPUS / "litellm-proxy"
    files = [str(f) for f in sorted(folder.glob("client+proxy-double-count*.pb"))]
    done = _run("inspect", *files, "--json")
    report = json.loads(done.stdout)
    assert 0 == done.returncode
    assert {"spans", "calls", "findings"} <= report.keys()
    (call,) = report["calls"]
    assert {
        "call_id", "provider", "operation", "request_model", "response_model", "input_tokens",
        "cached_input_tokens", "cache_creation_input_tokens", "output_tokens", "reasoning_tokens",
        "is_stream", "status", "error_type", "http_status", "cost_usd", "cost_state",
        "cost_reason", "price_id", "billing_span_id", "suppressed", "attribution",
    } == call.keys()  # fmt: skip
    expected = json.loads((folder / "client+proxy-double-count.expected.json").read_text())
    assert expected["calls"][0]["input_tokens"] == call["input_tokens"]
    assert 1 == len(call["suppressed"])


def test_inspect_of_nothing_readable_fails_and_says_which(tmp_path: Path) -> None:
    """An unreadable file is a finding; exit 1 only because none could be read."""
    bad = tmp_path / "x.pb"
    bad.write_bytes(b"\xff\xff\xff")
    done = _run("inspect", str(bad), "--json")
    assert 1 == done.returncode
    assert "x.pb" in json.dumps(json.loads(done.stdout)["findings"])


def test_bad_configuration_refuses_with_status_2(tmp_path: Path) -> None:
    """Names the key and the near one."""
    file = tmp_path / "c.yaml"
    file.write_text("api: {prot: 1}\n")
    for command in (["check-config"], ["serve", "--role", "collector"], ["up"]):
        done = _run(*command, "--config", str(file))
        assert 2 == done.returncode
        assert "api.prot: is not a setting. Did you mean 'port'?" in done.stderr


def test_own_prices_are_read_from_the_configuration(tmp_path: Path) -> None:
    """A self-hosted model is priced by the organisation, and the answer says so."""
    prices = tmp_path / "prices.yaml"
    prices.write_text('- {provider: openai, model: house-1, usd: {input_uncached: "0.10"}}\n')
    config = tmp_path / "c.yaml"
    config.write_text(f"price_overrides: {prices}\n")
    status, out, _ = _price("--json", "--config", str(config), model="house-1")
    answer = json.loads(out)
    assert (0, "0.0001", "override") == (status, answer["total_usd"], answer["price_provenance"])


@pytest.mark.parametrize("text", ["{", "x: 1\n", '- {provider: a, model: b, usd: {inputs: "1"}}\n'])
def test_wrong_own_prices_refuse_to_start(tmp_path: Path, text: str) -> None:
    """Not YAML, not a list, or a bucket nobody knows."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(text)
    config = tmp_path / "c.yaml"
    config.write_text(f"price_overrides: {prices}\n")
    status, out, err = _price("--json", "--config", str(config))
    assert (2, "") == (status, out)
    assert "price_overrides" in err


def test_help_names_every_command_of_the_contract() -> None:
    """What design section 13 lists for this version."""
    shown = _run("--help").stdout
    for command in ("up", "serve", "agent", "inspect", "price", "check-config", "doctor", "verify"):
        assert command in shown


def test_one_readable_file_is_enough_for_inspect(tmp_path: Path) -> None:
    """Metrics are recognised and hold no calls; what can not be read beside them is a finding."""
    (tmp_path / "broken.pb").write_bytes(b"\xff")
    metrics = CORPUS / "litellm-proxy" / "chat.metrics.pb"
    done = _run("inspect", str(tmp_path / "broken.pb"), str(metrics), "--json")
    codes = {finding["code"] for finding in json.loads(done.stdout)["findings"]}
    assert (0, {"unreadable_file", "metrics_file"}) == (done.returncode, codes)
    assert 1 == _run("inspect", str(tmp_path / "broken.pb"), "--json").returncode


def test_a_signal_nobody_knows_is_refused() -> None:
    """Not taken for metrics, which hold no calls."""
    done = _run("inspect", "--signal", "trace", "README.md", "--json")
    assert (2, "") == (done.returncode, done.stdout)


@pytest.mark.parametrize("command", [["up"], ["serve", "--role", "collector"], ["migrate"]])
def test_a_data_dir_that_can_not_be_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    """A file is in its place."""
    (tmp_path / "taken").write_text("")
    done = _run(*command, "--data-dir", str(tmp_path / "taken"))
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "data_dir" in done.stderr


def test_verify_of_another_directory_is_one_sentence(tmp_path: Path) -> None:
    """A home directory holds directories and no manifest: a slip of who types, no broken export."""
    (tmp_path / "inner").mkdir()
    done = _run("verify", str(tmp_path))
    assert (2, "") == (done.returncode, done.stdout)
    assert "holds no manifest.json. Name the directory that `controlplane export`" in done.stderr
    assert 1 == done.stderr.count("\n")


def test_a_file_that_is_not_there_is_said_without_an_empty_table(tmp_path: Path) -> None:
    done = _run("inspect", str(tmp_path / "none.pb"))
    assert 1 == done.returncode
    assert "0 spans, 0 calls\nerror: unreadable_file: none.pb: No such file or directory\n" == (
        done.stdout
    )


def test_prices_are_read_as_price_lists_write_them() -> None:
    """$2.50 a million tokens of gpt-4o; what has no price says where to write one."""
    _, out, _ = _price()
    assert "$2.50 per million" in out
    _, out, _ = _price(model="nobody-knows-it")
    assert "no total, unpriced (unknown_model)\nno price: write one into `price_overrides`" in out


def test_a_policy_file_is_counted_in_words(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("rules:\n  - {id: no, action: deny, match: {model: [gpt-5]}}\n")
    assert f"{file}: 1 rule\n" == _run("policy", "check", str(file)).stdout


def test_the_version_is_that_of_the_package() -> None:
    done = _run("--version")
    expected = f"controlplane {package_version('inference-controlplane')}\n"
    assert (0, expected) == (done.returncode, done.stdout)


def test_a_missing_agent_setting_is_named_with_what_to_write() -> None:
    done = _run("agent")
    said = "CONTROLPLANE_AGENT_SERVER_URL: is not set. Write the API's address, like http://"
    assert (2, "") == (done.returncode, done.stdout)
    assert said in done.stderr
