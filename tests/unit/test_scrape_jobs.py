"""A file of scrape jobs that is wrong says where."""

from pathlib import Path

import pytest

from controlplane.bootstrap.scraping import load_scrape_jobs
from controlplane.core.errors import ConfigError


def test_jobs_are_read_with_their_defaults(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(
        '- {job: a, engine: vllm, targets: ["x:1"]}\n- {job: b, engine: dcgm, dns: {names: [n]}}'
    )
    first, second = load_scrape_jobs(file)
    assert ("a", 15.0, "default", "/metrics") == (
        first.job,
        first.interval_seconds,
        first.tenant,
        first.path,
    )
    assert second.dns is not None
    assert [] == load_scrape_jobs(None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {job: a, engine: ollama, targets: [x]}", "engine"),
        ("- {job: a, engine: vllm, target: [x]}", "target"),
        ("- {job: a, engine: vllm}", "a has no targets"),
        ("- {job: a, engine: vllm, dns: {names: [n], type: A}}", "dns.port"),
        ("- {job: a, engine: vllm, targets: [x], interval_seconds: 0}", "interval_seconds"),
        ("{", "not YAML"),
    ],
)
def test_a_wrong_job_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_scrape_jobs(file)
