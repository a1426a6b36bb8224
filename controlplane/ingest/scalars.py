"""What a single odd value means: the slow path of every column, and of blobs.

Producers write numbers as text, flags as 'True', durations as '1.04s', lists as JSON in a string.
Each function answers None for what it can not read; none raises.
"""

import ast
import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

import msgspec
from google.protobuf.message import DecodeError

from controlplane.core.money import MAX_NUSD, NUSD_PER_USD
from controlplane.ingest import otlp_pb2 as pb

_INT64: Final = 2**63
_DIGITS: Final = re.compile(r"([+-]?[0-9]{1,19})(?:\.0{1,40})?")
_DECIMAL: Final = re.compile(
    r"[+-]?([0-9]{1,30}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?"
)
_DURATION: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|µs|us|ms|s)")  # Rust's Debug
_MICROS: Final = {"ns": 1e-3, "µs": 1.0, "us": 1.0, "ms": 1e3, "s": 1e6}
_MAX_MICROS: Final = 2.0**53
_TRUE: Final = frozenset({"true", "1", "yes"})
_FALSE: Final = frozenset({"false", "0", "no"})
_REPR_TOKEN: Final = re.compile(r"'[^']*'|\b(?:None|True|False)\b")
_NAMES: Final = {"None": "null", "True": "true", "False": "false"}
_OPENERS, _CLOSERS = "([{", ")]}"


def as_integer(value: object) -> int | None:
    """Read an integer that fits 64 bits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return (
            int(value)
            if math.isfinite(value) and value.is_integer() and abs(value) < _INT64
            else None
        )
    if isinstance(value, str):
        digits = _DIGITS.fullmatch(value.strip())
        if digits is None:
            return None
        value = int(digits[1])
    return value if isinstance(value, int) and -_INT64 <= value < _INT64 else None


def as_flag(value: object) -> bool | None:
    """Read a bool."""
    if isinstance(value, bool):
        return value
    lowered = value.strip().lower() if isinstance(value, str) else ""
    if lowered in _TRUE:
        return True
    return False if lowered in _FALSE else None


def as_micros(value: object, *, micros_per_unit: float) -> int | None:
    """Read a duration: a number of units, or text with its own unit."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match:
            return _rounded(float(match[1]) * _MICROS[match[2]])
        if not _DECIMAL.fullmatch(value.strip()):
            return None
        value = float(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _rounded(float(value) * micros_per_unit)


def _rounded(micros: float) -> int | None:
    return round(micros) if 0 <= micros < _MAX_MICROS else None


def as_quantity(value: object) -> int | None:
    """Read a number of seconds, pages or requests as a whole number, rounded half-even."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value.strip()):
            return None
        value = float(value.strip())
    if isinstance(value, float):
        return round(value) if abs(value) < _INT64 else None  # NaN is not less
    return as_integer(value)


def as_nusd(value: object) -> int | None:
    """Read an amount of USD as nano-USD, rounded half-even once.

    A double is taken as the shortest decimal that names it, which is what its sender wrote.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.strip() if isinstance(value, str) else repr(value)
    if not _DECIMAL.fullmatch(text):
        return None
    try:
        exact = Decimal(text) * NUSD_PER_USD
    except InvalidOperation:
        return None
    nusd = int(exact.to_integral_value(rounding="ROUND_HALF_EVEN"))
    return nusd if abs(nusd) <= MAX_NUSD else None


def as_text(value: object) -> str | None:
    """Read a text; a number or flag is written as JSON would."""
    if isinstance(value, str):
        return value or None
    return json.dumps(value) if isinstance(value, int | float) else None


def first_of(text: str) -> str | None:
    """Answer the first text of a list written as JSON; text that is no list as it is."""
    if not text.startswith("["):
        return text
    try:
        items = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    first = items[0] if isinstance(items, list) and items else None
    return first if isinstance(first, str) else None


def unquoted(text: str) -> str:
    """Take the JSON quotes off a text that has them."""
    if not text.startswith('"'):
        return text
    try:
        inner = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return inner if isinstance(inner, str) else text


def read_blob(
    text: str, encoding: Literal["json", "pyrepr"], *, max_bytes: int, max_nesting: int
) -> dict[str, Any]:
    """Read an object out of a text; {} if it holds none, is too long or too deep."""
    if len(text) > max_bytes or _nesting(text) > max_nesting:
        return {}
    readers = (_decode_json,) if encoding == "json" else (_decode_plain_repr, _decode_repr)
    for decode in readers:
        try:
            found = decode(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict) and all(isinstance(name, str) for name in found):
            return found
    return {}


def _decode_json(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)  # it reads NaN and lone surrogates, which some producers write


def _decode_plain_repr(text: str) -> object:
    """Read a repr of plain texts, numbers and names through the JSON reader, five times faster.

    Anything with a double quote or an escape in it is left to the exact reader.
    """
    if '"' in text or "\\" in text:
        raise ValueError
    return msgspec.json.decode(_REPR_TOKEN.sub(_json_token, text))


def _json_token(match: re.Match[str]) -> str:
    return _NAMES.get(match[0]) or f'"{match[0][1:-1]}"'


def _decode_repr(text: str) -> object:
    return ast.literal_eval(text)


def _nesting(text: str) -> int:
    """Bound the depth from above: brackets inside texts count too."""
    if text.count("{") + text.count("[") + text.count("(") < 3:  # noqa: PLR2004 - the usual blob
        return 1
    depth = deepest = 0
    for character in text:
        if character in _OPENERS:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSERS:
            depth -= 1
    return deepest


def array_json(encoded: bytes, *, max_bytes: int) -> str | None:
    """Write an encoded ArrayValue of scalars as JSON text; nested values are left out."""
    if len(encoded) > max_bytes:
        return None
    try:
        values = pb.ArrayValue.FromString(encoded).values
    except DecodeError:
        return None
    kinds = ((value, value.WhichOneof("value")) for value in values)
    scalars = [getattr(value, kind) for value, kind in kinds if kind in _SCALAR_KINDS]
    return json.dumps(scalars, ensure_ascii=False)


_SCALAR_KINDS: Final = frozenset({"string_value", "bool_value", "int_value", "double_value"})
