"""Values of OTLP/JSON as Python values: 64-bit numbers may be texts, absent ones are zero."""

import math
from collections.abc import Mapping
from typing import Any, Final

_UINT64_MAX: Final = 2**64 - 1


def objects_of(holder: object, key: str) -> list[Mapping[str, Any]]:
    """Answer the list of objects at a key, empty where it is absent.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(holder, dict):
        msg = f"the holder of {key} is not an object"
        raise TypeError(msg)
    items = holder.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        msg = f"{key} is not an array of objects"
        raise TypeError(msg)
    return items


def as_bool(value: object) -> bool:
    """Read true or false.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        msg = "a bool is not true or false"
        raise TypeError(msg)
    return value


def as_integer(value: object) -> int:
    """Read a number or a text of digits.

    Raises:
        TypeError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = "an integer is not a number or a string of digits"
        raise TypeError(msg)
    return int(value)


def as_double(value: object) -> float:
    """Read a number, or one of the texts that JSON has no number for.

    Raises:
        TypeError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        msg = "a double is not a number"
        raise TypeError(msg)
    return math.nan if value == "NaN" else float(value)


def as_uint64(value: object) -> int:
    """Read an unsigned 64-bit number, 0 where it is absent.

    Raises:
        TypeError: no number.
        ValueError: outside 64 bits.
    """
    number = 0 if value is None else as_integer(value)
    if not 0 <= number <= _UINT64_MAX:
        msg = "a time is outside 64 bits"
        raise ValueError(msg)
    return number
