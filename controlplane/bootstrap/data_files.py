"""The organisation's data files read at start, in YAML."""

from pathlib import Path

import yaml

from controlplane.attribution.rules import BUILT_IN, AttributionRules, with_organisation
from controlplane.core.errors import ConfigError
from controlplane.settings import Settings


def load_rules(settings: Settings) -> AttributionRules:
    """Read the organisation's rules before the built-in ones.

    Raises:
        ConfigError: names the rule of `attribution_rules` that is wrong.
    """
    path = settings.attribution_rules
    return with_organisation(read_yaml("attribution_rules", path) or []) if path else BUILT_IN


def read_list(key: str, path: Path | None) -> list[object]:
    """Read the file that a setting names; nothing where it names none.

    Raises:
        ConfigError: not YAML, or not a list.
    """
    listed = read_yaml(key, path) or [] if path else []
    if not isinstance(listed, list):
        raise ConfigError(key, f"{path} is not a list", "Write `- ` entries")
    return listed


def read_yaml(key: str, path: Path) -> object:
    """Read the file that a setting names.

    Raises:
        ConfigError: not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        raise ConfigError(key, f"{path} is not YAML", "Mend the syntax") from None
