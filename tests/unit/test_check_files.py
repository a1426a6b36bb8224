"""`check-config` reads what the settings name, and finds what would refuse to start."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.bootstrap.check_files import check_files
from controlplane.core.errors import ConfigError
from controlplane.settings import CollectorSettings, ContentRule, ContentSettings, Settings


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("attribution_rules", "- {id: a, dimension: teem, attribute: x}", "teem"),
        ("attribution_rules", "{", "not YAML"),
        ("collector.scrape_jobs", "- {job: a, engine: vlm, targets: [x]}", "vlm"),
        ("gpu_pools", "- {name: a}", "gpu_pools"),
        ("price_overrides", "- {provider: openai}", "price_overrides"),
        ("contracts", "- {id: a, discount: many}", "contracts"),
        ("collector.tls", "no certificate", "collector.tls_cert_file"),
        ("content.rules", "(", "content.rules 'own'"),
    ],
)
def test_a_wrong_file_is_found_before_the_start(
    tmp_path: Path, key: str, text: str, says: str
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    sections: dict[str, dict[str, Any]] = {
        "collector.scrape_jobs": {"collector": CollectorSettings(scrape_jobs=file)},
        "collector.tls": {"collector": CollectorSettings(tls_cert_file=file, tls_key_file=file)},
        "content.rules": {
            "content": ContentSettings(rules=(ContentRule(name="own", pattern=text),))
        },
    }
    told: dict[str, Any] = sections.get(key, {key: file})
    with pytest.raises(ConfigError, match=says):
        check_files(Settings(**told))


def test_without_files_there_is_nothing_to_find() -> None:
    check_files(Settings())
