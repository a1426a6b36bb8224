"""One model under names of other words: `Claude4.5Sonnet`, `Claude Sonnet 4.5`, `claude-sonnet-4-5`.

A bill names models for people, a price list as programs call them. Both say the same words in another
order; the maker's prefix, the date and the revision are only in an id. Two names are one model where
their words are the same and no other model has them; nothing is matched by likeness.
"""

import re
from collections.abc import Iterable
from typing import Final

GLOBAL: Final = "global"
"""Scope of a model that is served anywhere, at a price of its own."""
_PREFIXES: Final = re.compile(r"^(?:[a-z]+\.)+(?=[a-z])", re.IGNORECASE)
_REVISION: Final = re.compile(r"(?:-v?\d+)?:\d+(?::\w+)?$|-v\d+$", re.IGNORECASE)
_DATE: Final = re.compile(r"-20\d{6}(?=-|$)|-20\d\d-\d\d-\d\d(?=-|$)")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD: Final = re.compile(r"[a-z]+|\d+")
_ZERO: Final = re.compile(r"(?<=\d)\.0(?!\d)")
_LEFT_OUT: Final = frozenset(
    {"instruct", "global", "regional", "us", "eu", "apac", "jp", "au", "ca", "in"}
)

Words = tuple[str, ...]


def words_of(name: str) -> set[Words]:
    """Return the words of a name in a fixed order, in each way it may be cut into words."""
    plain = _ZERO.sub("", _DATE.sub("", _REVISION.sub("", name.strip())))
    prefix = _PREFIXES.match(plain)
    bare = _PREFIXES.sub("", plain)
    maker = "" if prefix is None else prefix[0].rstrip(".").rsplit(".", 1)[-1]
    cuts = (bare, _CAMEL.sub(" ", bare), f"{maker} {bare}")
    return {key for cut in cuts if (key := _sorted(cut))}


def _sorted(text: str) -> Words:
    """Sort the words; numbers keep their order, because 4.5 is not 5.4."""
    said = [word for word in _WORD.findall(text.lower()) if word not in _LEFT_OUT]
    return (*sorted(w for w in said if w.isalpha()), *(w for w in said if w.isdigit()))


def is_global(name: str) -> bool:
    """Whether a name is of a model that is served anywhere."""
    return name.lower().startswith(f"{GLOBAL}.")


class ModelWords:
    """Models by their words; of global and other ones of the same words those of the same scope."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_words: dict[tuple[bool, Words], set[str]] = {}
        for name in names:
            for words in words_of(name):
                self._by_words.setdefault((is_global(name), words), set()).add(name)

    def find(self, name: str) -> str | None:
        """Return the one model that a name is of; None where that is none or several."""
        scope = is_global(name)
        found = {
            each for words in words_of(name) for each in self._by_words.get((scope, words), ())
        }
        return found.pop() if len(found) == 1 else None
