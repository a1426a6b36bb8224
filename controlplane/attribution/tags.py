"""Values inside tag lists: `team:search` among `["team:search", "feature:summarise"]`.

Producers send a list as JSON, or joined by commas (requirements: telemetry dialects, table 1).
"""

from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

Strings: TypeAlias = Any  # an Arrow string array; the published stubs know no dictionaries


def tag_values(texts: Strings, tag: str) -> Strings:
    """Return what follows `tag:` in the first tag of each text that has it, else NULL."""
    encoded = texts.dictionary_encode()  # tag lists repeat: each is read once
    found = [
        None if text is None else tag_value(text, tag) for text in encoded.dictionary.to_pylist()
    ]
    return pa.array(found, pa.string()).take(encoded.indices)


def tag_value(text: str, tag: str) -> str | None:
    """Return what follows `tag:` in the first tag that has it and is not empty, else None."""
    for each in _tags(text):
        name, colon, value = each.strip().partition(":")
        if colon and name == tag and value.strip():
            return value.strip()
    return None


def _tags(text: str) -> list[str]:
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError:
            return []  # a list of something else, or cut short: no tag is better than half of one
    return text.split(",")
