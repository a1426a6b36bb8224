"""The organisation's data files read at start: its own prices and its attribution rules."""

from pathlib import Path

import yaml

from controlplane.attribution.rules import BUILT_IN, AttributionRules, with_organisation
from controlplane.core.errors import ConfigError
from controlplane.pricing.overrides import compile_overrides
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version
from controlplane.settings import Settings


def load_book(settings: Settings) -> PriceBook:
    """Compile the seed and the organisation's own prices.

    Raises:
        ConfigError: names the entry of `price_overrides` that is wrong.
    """
    path = settings.price_overrides
    own = compile_overrides(_read("price_overrides", path)) if path else []
    return PriceBook(seed_version(), listed_providers(), overrides=own)


def load_rules(settings: Settings) -> AttributionRules:
    """Read the organisation's rules before the built-in ones.

    Raises:
        ConfigError: names the rule of `attribution_rules` that is wrong.
    """
    path = settings.attribution_rules
    return with_organisation(_read("attribution_rules", path)) if path else BUILT_IN


def _read(key: str, path: Path) -> list[object]:
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except yaml.YAMLError:
        raise ConfigError(key, f"{path} is not YAML", "Mend the syntax") from None
    if not isinstance(listed, list):
        raise ConfigError(key, f"{path} is not a list", "Write `- ` entries")
    return listed
