r"""Takes what identifies people and opens doors out of recorded text, before it is stored.

Patterns are RE2's (through Arrow): linear in the text whatever the pattern, so a rule that somebody
writes can be slow for nobody. What a pattern alone can not tell is checked: a card number by Luhn,
an IBAN by its remainder modulo 97 (ISO 13616).

Most of what is recorded is JSON inside of text, where a line break is `\n`: a letter, if one does
not look. So a pattern begins at a boundary or right after an escape.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pyarrow as pa

from controlplane.core.errors import ConfigError
from controlplane.ingest.columns import Column, kernels

MAX_PATTERN_CHARS: Final = 512
MAX_RULES: Final = 64
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class RedactionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to take out: each match of an RE2 pattern becomes `[name]`."""

    name: str
    pattern: str


_ESCAPE: Final = r"\\[bfnrt]|\\u[0-9A-Fa-f]{4}"
"""How JSON writes what is no letter, and letters beyond ASCII."""
_AT_START: Final = rf"(?:({_ESCAPE})|\b)"
_ANYWHERE: Final = rf"({_ESCAPE}|)"
_PASSED_OVER: Final = r"\1"
"""The group of a built-in rule: an escape, which is left as it is."""

BUILT_IN: Final = (
    RedactionRule("private_key", r"()-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*"),
    RedactionRule(
        "api_key",
        _AT_START + r"(?:"
        r"(?:sk|rk|pk)[-_](?:ant-|proj-|live_|test_|or-v1-|lf-)?[A-Za-z0-9_-]{16,200}"
        r"|AKIA[0-9A-Z]{16}\b|ASIA[0-9A-Z]{16}\b|AIza[0-9A-Za-z_-]{35}"
        r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
        r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}|hf_[A-Za-z0-9]{30,40}\b|glpat-[A-Za-z0-9_-]{20}"
        r"|cp_[a-z]+_[A-Za-z0-9]{6,40}_[A-Za-z0-9_-]{16,100})",
    ),
    RedactionRule(
        "token", _AT_START + r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    ),
    RedactionRule(
        "email",
        _ANYWHERE + r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
    ),
)
"""In this order: what is longest first. Cards, IBANs and phone numbers come after them."""

_AFTER_ESCAPE: Final = r"(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4})"
_CARD: Final = re.compile(
    rf"(?:(?<![\w.-])|{_AFTER_ESCAPE})\d(?:[ -]?\d){{12,18}}(?![\w-])", re.ASCII
)
_IBAN: Final = re.compile(
    rf"(?:\b|{_AFTER_ESCAPE})[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?\b",
    re.ASCII,
)
_PHONES: Final = (
    RedactionRule("phone", _ANYWHERE + r"\+[0-9]{1,3}[ .()-]{0,2}[0-9](?:[ .()-]{0,2}[0-9]){6,13}"),
    RedactionRule(
        "phone",
        rf"(?:({_ESCAPE})\(?|\(|\b)[0-9]{{3}}\)?[ .-][0-9]{{3}}[ .-][0-9]{{4}}\b",
    ),
)


class Redactor:
    """The rules of an installation, checked once."""

    def __init__(self, rules: Sequence[RedactionRule] = (), *, built_in: bool = True) -> None:
        """Take the organisation's rules; they come after the built-in ones.

        Raises:
            ConfigError: too many rules, a name that is none, or a pattern that is too long, not
                RE2, or matches nothing at all.
        """
        if len(rules) > MAX_RULES:
            raise ConfigError("content.rules", "too many rules", f"Use at most {MAX_RULES}")
        for rule in rules:
            _check(rule)
        self._built_in = built_in
        self._rules = tuple(rules)

    @property
    def names(self) -> tuple[str, ...]:
        """What may stand in brackets in a redacted text."""
        built_in = (*(rule.name for rule in (*BUILT_IN, *_PHONES)), "card", "iban")
        own = (rule.name for rule in self._rules)
        return tuple(sorted({*(built_in if self._built_in else ()), *own}))

    def redact(self, texts: Column) -> Column:
        """Answer the texts with every match replaced by its rule's name in brackets."""
        if self._built_in:
            for rule in BUILT_IN:
                texts = _replaced(texts, rule, after=_PASSED_OVER)
            texts = _checked(texts, _CARD, name="card", is_one=is_card)
            texts = _checked(texts, _IBAN, name="iban", is_one=is_iban)
            for rule in _PHONES:
                texts = _replaced(texts, rule, after=_PASSED_OVER)
        for rule in self._rules:
            texts = _replaced(texts, rule)
        return texts


def _check(rule: RedactionRule) -> None:
    key = f"content.rules {rule.name!r}"
    if not _NAME.fullmatch(rule.name):
        raise ConfigError(key, "not a name", "Use lowercase letters, digits and _, 40 at most")
    if not 0 < len(rule.pattern) <= MAX_PATTERN_CHARS:
        raise ConfigError(
            key, "the pattern is empty or too long", f"Use 1 to {MAX_PATTERN_CHARS} characters"
        )
    try:
        empty = kernels.match_substring_regex(pa.array([""]), pattern=rule.pattern)
    except pa.ArrowInvalid as error:
        raise ConfigError(
            key, f"not an RE2 pattern ({error})", "Use no lookaround and no backreference"
        ) from None
    if empty[0].as_py():
        raise ConfigError(key, "the pattern matches an empty text", "Make it match something")


def _replaced(texts: Column, rule: RedactionRule, *, after: str = "") -> Column:
    return kernels.replace_substring_regex(
        texts, pattern=rule.pattern, replacement=f"{after}[{rule.name}]"
    )


def _checked(
    texts: Column, pattern: re.Pattern[str], *, name: str, is_one: Callable[[str], bool]
) -> Column:
    """Replace the matches that also pass a check; both patterns are linear by their shape."""

    def take(match: re.Match[str]) -> str:
        return f"[{name}]" if is_one(match[0]) else match[0]

    return pa.array(
        [None if text is None else pattern.sub(take, text) for text in texts.to_pylist()],
        pa.string(),
    )


def is_card(text: str) -> bool:
    """Whether digits are a payment card's: ISO/IEC 7812's check digit, and not all the same."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]  # noqa: PLR2004 - Luhn
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: moved, read as a number, it leaves 1 modulo 97."""
    plain = text.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
