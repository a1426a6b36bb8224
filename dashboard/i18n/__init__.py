"""Every word on a page, by key; one JSON catalogue per language with the same keys."""

from functools import lru_cache
from importlib import resources
from typing import Final

import msgspec

LANGUAGES: Final = {"en": "English", "es": "Español"}
DEFAULT_LANGUAGE: Final = "en"


@lru_cache(maxsize=len(LANGUAGES))
def catalogue(language: str) -> dict[str, str]:
    """Answer the catalogue of a language in LANGUAGES.

    Raises:
        KeyError: not one of them.
    """
    if language not in LANGUAGES:
        raise KeyError(language)
    text = resources.files(__name__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    return msgspec.json.decode(text, type=dict[str, str])


def translate(language: str, key: str, **values: object) -> str:
    """Answer the phrase with its `{placeholders}` filled.

    Raises:
        KeyError: no such key; a test compares the pages with the catalogues.
    """
    return catalogue(language)[key].format(**values)
