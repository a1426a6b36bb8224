"""Labels as a dictionary of texts, from either encoding of OTLP."""

from collections.abc import Iterable
from typing import Final

from controlplane.ingest import otlp_pb2 as pb

MAX_LABELS: Final = 128
MAX_CHARS: Final = 1_024


def texts_of(pairs: "Iterable[pb.LooseKeyValue]") -> dict[str, str]:
    """Read scalar values as text; lists, maps and what is over the bounds is left out or cut."""
    found: dict[str, str] = {}
    for pair in pairs:
        if len(found) >= MAX_LABELS:
            break
        text = text_of(pair.value)
        if text is not None:
            found[utf8(pair.key)[:MAX_CHARS]] = text[:MAX_CHARS]
    return found


def text_of(value: "pb.LooseAnyValue") -> str | None:
    """Read a scalar as text, None for anything else."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return utf8(value.string_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "int_value":
        return str(value.int_value)
    if kind == "double_value":
        return repr(value.double_value)
    return None


def utf8(text: bytes) -> str:
    """Read text; what is not UTF-8 is U+FFFD, what no store keeps (NUL) is left out."""
    return text.decode("utf-8", "replace").replace("\x00", "")
