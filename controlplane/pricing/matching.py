"""How a price list recognises a model's name: data, so that it can be kept and compared."""

import re
from functools import lru_cache

import msgspec

from controlplane.core.errors import InvalidInputError

MAX_PATTERN_CHARS = 500


class Match(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One condition on a lower-case name; exactly one field is set (see `check_match`)."""

    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    any_of: tuple["Match", ...] = ()
    all_of: tuple["Match", ...] = ()

    def is_match(self, name: str) -> bool:
        """Whether a lower-case name is meant."""
        if self.any_of:
            return any(each.is_match(name) for each in self.any_of)
        if self.all_of:
            return all(each.is_match(name) for each in self.all_of)
        if self.regex is not None:
            return _compiled(self.regex).search(name) is not None
        return self._is_literal_match(name)

    def _is_literal_match(self, name: str) -> bool:
        if self.equals is not None:
            return name == self.equals.lower()
        if self.starts_with is not None:
            return name.startswith(self.starts_with.lower())
        if self.ends_with is not None:
            return name.endswith(self.ends_with.lower())
        return self.contains is not None and self.contains.lower() in name

    def spellings(self) -> tuple[str, ...]:
        """Return the names that are spelled out; a pattern's can not be listed."""
        if self.equals is not None:
            return (self.equals,)
        return tuple(each.equals for each in self.any_of if each.equals is not None)

    def is_spelled_out(self) -> bool:
        """Whether the spellings are all there is."""
        return bool(self.spellings()) and len(self.spellings()) == max(1, len(self.any_of))


@lru_cache(maxsize=4_096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def check_match(match: Match, *, field: str) -> None:
    """Check what people or files say.

    Raises:
        InvalidInputError: not exactly one condition, an empty one, or a pattern that is none.
    """
    said = [name for name in match.__struct_fields__ if getattr(match, name)]
    if len(said) != 1:
        raise InvalidInputError(field, "has not exactly one condition", 'Write {"equals": "…"}')
    if match.regex is not None:
        try:
            too_long = len(match.regex) > MAX_PATTERN_CHARS
            _compiled(match.regex)
        except re.error:
            too_long = True
        if too_long:
            raise InvalidInputError(f"{field}.regex", "is not a pattern")
    for each in (*match.any_of, *match.all_of):
        check_match(each, field=field)
