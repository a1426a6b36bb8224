"""What one attribute value means, read the plain way; a part of `ingest_rows`."""

import json
import math
import re
from decimal import Decimal
from typing import Any

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


def plain(value: AnyValue) -> Any:
    """Answer a Python value; None for nothing, an empty text, bytes; a dict for a map."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value or None
    if kind == "array_value":
        items = [(v.WhichOneof("value"), v) for v in value.array_value.values]
        scalar = {"string_value", "bool_value", "int_value", "double_value"}
        return [getattr(v, k) for k, v in items if k in scalar]
    if kind == "kvlist_value":
        return {}
    return None if kind in {None, "bytes_value"} else getattr(value, kind)


def attributes_of(pairs: Any) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for pair in pairs:
        value = plain(pair.value)
        if value is not None:
            said.pop(pair.key, None)  # the last value stands, in the last place
            said[pair.key] = value
    return said


def as_int(value: Any) -> int | None:
    # `int` itself strips less than `strip` does.
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,19}(\.0{1,40})?", value.strip()):
        value = int(value.strip().partition(".")[0])
    if isinstance(value, float) and math.isfinite(value) and value == math.floor(value):
        value = int(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return value if is_integer and -(2**63) <= value < 2**63 else None


def as_bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return words.get(value.strip().lower()) if isinstance(value, str) else None


def as_micros(value: Any, unit: float) -> int | None:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|µs|us|ms|s)", value.strip())
        if match:
            scale = {"ns": 1e-3, "µs": 1.0, "us": 1.0, "ms": 1e3, "s": 1e6}[match[2]]
            value, unit = float(match[1]), scale
        elif is_decimal(value.strip()):
            value = float(value.strip())
        else:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    micros = value * unit
    return round(micros) if 0 <= micros < 2**53 else None


def as_count(value: Any) -> int | None:
    if isinstance(value, str):
        value = float(value.strip()) if is_decimal(value.strip()) else None
    if isinstance(value, float):
        return round(value) if abs(value) < 2**63 else None
    return as_int(value)


def is_decimal(text: str) -> bool:
    number = r"[+-]?([0-9]{1,30}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?"
    return re.fullmatch(number, text) is not None


def as_nusd(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.strip() if isinstance(value, str) else repr(value)
    if not is_decimal(text):
        return None
    nusd = round(Decimal(text) * 10**9)
    return nusd if abs(nusd) < 2**63 else None


def as_name(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(pa.scalar(value).cast(pa.string()))
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else None


def first_listed(text: str) -> str | None:
    if not text.startswith("["):
        return text
    try:
        items = json.loads(text)
    except ValueError:
        return None
    return items[0] if items and isinstance(items[0], str) else None
