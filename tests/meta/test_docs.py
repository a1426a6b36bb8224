"""What an operator can meet is documented, and what is documented exists."""

import re
from pathlib import Path

import msgspec
import pytest

from controlplane import settings, telemetry
from controlplane.core import errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "deploy" / "docs"


def _keys(kind: type[msgspec.Struct], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for field in msgspec.structs.fields(kind):
        nested = isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
        name = f"{prefix}{field.name}"
        keys += _keys(field.type, f"{name}.") if nested else [name]
    return keys


def _documented(file: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", (DOCS / file).read_text(), re.MULTILINE))


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    """One table, one row a key."""
    assert set(_keys(settings.Settings)) == _documented("settings.md")


def test_every_metric_of_ours_is_documented_and_the_other_way_round() -> None:
    """Names as they are exposed."""
    exposed = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in telemetry.REGISTRY.collect()
    }
    assert exposed == _documented("metrics.md")


def test_metric_names_follow_prometheus() -> None:
    """Our prefix, base units, `_total` on counters only."""
    for metric in telemetry.REGISTRY.collect():
        assert metric.name.startswith("controlplane_")
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)$", metric.name)
        assert metric.documentation.endswith(".")


def test_every_error_is_drawn_in_the_tree() -> None:
    """The head of the file shows what can be caught."""
    drawn = errors.__doc__ or ""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    assert [] == [kind.__name__ for kind in kinds if kind.__name__ not in drawn]


@pytest.mark.parametrize("target", ["help", "setup", "fmt", "lint", "test", "prove", "up", "bench"])
def test_make_targets_of_the_contract_exist(target: str) -> None:
    """Design section 13."""
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_decision_is_in_the_index() -> None:
    """An ADR nobody can find decides nothing."""
    folder = ROOT / "controlplane" / "adr"
    index = (folder / "README.md").read_text()
    assert [] == [f.name for f in folder.glob("[0-9]*.md") if f.name not in index]


def test_every_dependency_says_what_it_is_for() -> None:
    """One line each in the ADR folder."""
    text = (ROOT / "pyproject.toml").read_text()
    blocks = re.findall(
        r"^(?:dependencies|server|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL
    )
    names = {re.split(r"[\[<>=]", name)[0] for b in blocks for name in re.findall(r'"([^"]+)"', b)}
    said = (ROOT / "controlplane" / "adr" / "dependencies.md").read_text()
    stubs = {name for name in names if name.startswith("types-") or name.endswith("-stubs")}
    assert len(names) > 40
    assert set() == {name for name in names - stubs if name not in said}
