"""Selectors: AND across keys, OR inside a key, `*` at the end of a value matches a prefix."""

from collections.abc import Mapping, Sequence
from typing import Final

from controlplane.core.errors import PolicyError
from controlplane.policy.document import SELECTOR_KEYS

WILDCARD: Final = "*"
MAX_VALUES: Final = 1_000

Selectors = Mapping[str, Sequence[str]]


def matches(selectors: Selectors, facts: Mapping[str, str]) -> bool:
    """Whether a request with these facts is selected; a fact that is not known matches nothing."""
    for key, values in selectors.items():  # loops, not generators: this is the hot path
        fact = facts.get(key)
        if fact is None:
            return False
        for value in values:
            if value == fact or (value.endswith(WILDCARD) and fact.startswith(value[:-1])):
                break
        else:
            return False
    return True


def value_matches(pattern: str, fact: str | None) -> bool:
    """Whether one value of a selector covers the fact."""
    if fact is None:
        return False
    if pattern.endswith(WILDCARD):
        return fact.startswith(pattern[:-1])
    return pattern == fact


def overlap(left: Selectors, right: Selectors) -> bool:
    """Whether some request is selected by both."""
    return all(
        any(_meet(a, b) for a in left[key] for b in right[key])
        for key in left.keys() & right.keys()
    )


def covers(wide: Selectors, narrow: Selectors) -> bool:
    """Whether every request that `narrow` selects is selected by `wide` too."""
    return all(
        key in narrow and all(any(_contains(a, b) for a in values) for b in narrow[key])
        for key, values in wide.items()
    )


def _contains(a: str, b: str) -> bool:
    if b.endswith(WILDCARD):
        return a.endswith(WILDCARD) and b[:-1].startswith(a[:-1])
    return value_matches(a, b)


def _meet(a: str, b: str) -> bool:
    if a.endswith(WILDCARD) and b.endswith(WILDCARD):
        return a[:-1].startswith(b[:-1]) or b[:-1].startswith(a[:-1])
    return value_matches(a, b) or value_matches(b, a)


def check_selectors(
    selectors: Selectors, *, field: str, known: Sequence[str] = SELECTOR_KEYS
) -> None:
    """Pass selectors that mean what they say.

    Raises:
        PolicyError: an unknown key, no values, an empty value, or a `*` that is not at the end.
    """
    for key, values in selectors.items():
        where = f"{field}.{key}"
        if key not in known:
            raise PolicyError(where, "is not a selector", f"Known: {', '.join(known)}")
        if not 0 < len(values) <= MAX_VALUES:
            raise PolicyError(where, f"has {len(values)} values", f"Give 1 to {MAX_VALUES}")
        for value in values:
            if not value or WILDCARD in value[:-1]:
                raise PolicyError(
                    where, f"{value!r} is not a value", "Write a name, or a prefix ending in *"
                )
