"""Values of OTLP/JSON as Python values: 64-bit numbers may be texts, absent ones are zero.

Strict in what is a span and generous in how it is written: what protobuf's own JSON writers make of
a request (field names as they are in the .proto, ids in base64) is read as well as what OTLP asks for.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

_UINT64_MAX: Final = 2**64 - 1
_INT64_MAX: Final = 2**63 - 1
_BASE64_CHARS: Final = {16: 24, 8: 12}
"""How long an id of so many bytes is in base64; in hex it is twice its bytes."""


@lru_cache(maxsize=128)
def _proto_name(key: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in key)


def member(holder: Mapping[str, Any], key: str) -> Any:
    """Answer what stands at a lowerCamelCase key, or at the name it has in the .proto."""
    found = holder.get(key)
    return holder.get(_proto_name(key)) if found is None else found


def as_id(value: object, size: int) -> bytes:
    """Read an id of so many bytes: hex, or base64 by its length; what is absent is empty.

    Raises:
        TypeError: no text.
        ValueError: neither hex nor base64.
    """
    if not value:
        return b""
    if not isinstance(value, str):
        msg = "an id is not a string"
        raise TypeError(msg)
    if len(value) != _BASE64_CHARS[size]:
        return bytes.fromhex(value)
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def objects_of(holder: object, key: str) -> list[Mapping[str, Any]]:
    """Answer the list of objects at a key, empty where it is absent.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(holder, dict):
        msg = f"the holder of {key} is not an object"
        raise TypeError(msg)
    items = member(holder, key) or []
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
    """Read a whole number, also one that is written as a double, or a text of digits.

    Raises:
        TypeError: anything else.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
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


def as_int64(value: object) -> int:
    """Read a whole number; what 64 bits can not hold is the largest that they can.

    Raises:
        TypeError: no number.
    """
    return max(-_INT64_MAX - 1, min(as_integer(value), _INT64_MAX))


def as_enum(value: object, names: Mapping[str, int], *, prefix: str) -> int:
    """Read an enum by its number or its name, with or without the prefix that all names have.

    Raises:
        TypeError: neither.
    """
    if isinstance(value, str) and not value.isdigit():
        return names.get(f"{prefix}{value.upper().removeprefix(prefix)}", 0)
    return 0 if value is None else as_integer(value)


def as_uint64(value: object) -> int:
    """Read an unsigned 64-bit number, 0 where it is absent.

    Raises:
        TypeError: no number.
        ValueError: outside 64 bits.
    """
    number = 0 if value is None else as_integer(value)
    if not 0 <= number <= _UINT64_MAX:
        msg = "a time or a count is outside 0 to 2^64 - 1"
        raise ValueError(msg)
    return number
