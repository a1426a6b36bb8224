"""Rules of a role: the file recorded once, the newest version live, keys that say who pays."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from controlplane.attribution.history import RulesVersion
from controlplane.attribution.rules import BUILT_IN, Rule, RulesDocument, read_fixed
from controlplane.bootstrap.attribution_rules import REFRESH_SECONDS, LiveRules, open_rules
from controlplane.core.errors import ConfigError, InvalidInputError
from controlplane.settings import Settings
from controlplane.store.metadata.attribution import RulesRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.migrate import migrate

NOW = datetime(2026, 11, 20, tzinfo=UTC)
FILE = "- {id: squad, dimension: team, attribute: squad.name}\n"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    opened = open_engine(f"sqlite:///{tmp_path / 'm.sqlite'}")
    migrate(opened)
    return opened


def _version(number: int, rule: str) -> RulesVersion:
    rules = (Rule(id=rule, dimension="team", attribute=rule),)
    document = RulesDocument(rules=rules)
    return RulesVersion(
        version=number, recorded_at=NOW, source="api", recorded_by="ann", document=document
    )


def test_without_any_version_the_built_in_rules_stand(engine: Engine) -> None:
    assert BUILT_IN == LiveRules(RulesRepository(engine)).current()


def test_a_version_takes_effect_when_it_is_looked_for(engine: Engine) -> None:
    history, clock = RulesRepository(engine), [0.0]
    live = LiveRules(history, elapsed=lambda: clock[0])
    live.current()
    history.append(_version(1, "own"))
    assert BUILT_IN == live.current()
    clock[0] = REFRESH_SECONDS
    assert "own" == live.current().rules[0].id


def test_the_settings_file_is_recorded_once_until_it_changes(
    engine: Engine, tmp_path: Path
) -> None:
    """What was put through the API stands across restarts."""
    path = tmp_path / "rules.yaml"
    path.write_text(FILE)
    settings, history = Settings(attribution_rules=path), RulesRepository(engine)
    assert "squad" == open_rules(settings, engine).current().rules[0].id
    history.append(_version(2, "own"))
    assert "own" == open_rules(settings, engine).current().rules[0].id
    path.write_text(FILE.replace("squad", "crew"))
    assert "crew" == open_rules(settings, engine).current().rules[0].id
    assert [3, 2, 1] == [version.version for version in history.versions(limit=9)]


def test_a_wrong_file_refuses_to_start(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(FILE.replace("team", "teem"))
    with pytest.raises(ConfigError, match="teem"):
        open_rules(Settings(attribution_rules=path), engine)


@pytest.mark.parametrize("wrong", [{"teem": "x"}, {"team": ""}, {"team": "shared:x[a=1]"}])
def test_a_key_says_only_what_can_be_meant(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="dimensions"):
        read_fixed(wrong)
    assert {"team": "search"} == read_fixed({"team": "search"})
