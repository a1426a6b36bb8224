"""Whether a rule or a budget speaks of a request."""

from collections.abc import Mapping


def matches(match: Mapping[str, tuple[str, ...]], facts: Mapping[str, str]) -> bool:
    """Return whether every key has one of its values; no keys match everything.

    A value that ends in `*` matches a prefix. A fact that the request lacks matches nothing, not
    even `*`: a rule must not reach what it can not see.
    """
    return all(
        key in facts and any(_value_matches(value, facts[key]) for value in values)
        for key, values in match.items()
    )


def _value_matches(value: str, fact: str) -> bool:
    return fact.startswith(value[:-1]) if value.endswith("*") else fact == value
