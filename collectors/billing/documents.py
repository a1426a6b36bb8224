"""JSON documents of bills: numbers keep every digit, and what has another shape is told, not guessed."""

import gzip
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from controlplane.core.errors import InvalidInputError, LimitExceededError

MAX_JSON_BYTES: Final = 256 * 2**20
"""A JSON document is held whole; tables are read row by row."""
_EXACT: Final = msgspec.json.Decoder(Any, float_hook=Decimal)


class BadLineError(ValueError):
    """A line that can not be used; the rest of the file can."""


def document_of(path: Path) -> Any:
    """Read a JSON document; numbers keep every digit that is written.

    Raises:
        InvalidInputError: not JSON.
        LimitExceededError: too large to hold.
    """
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            body = file.read(MAX_JSON_BYTES + 1)
    except (EOFError, OSError) as wrong:
        raise InvalidInputError("file", f"{path.name}: {wrong}", "Name a readable file") from None
    if len(body) > MAX_JSON_BYTES:
        raise LimitExceededError("bytes of a JSON bill", MAX_JSON_BYTES)
    try:
        return _EXACT.decode(body.decode("utf-8-sig"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise InvalidInputError("file", f"{path.name} is not JSON: {wrong}") from None


def object_of(value: object) -> dict[str, Any]:
    """Return an object; an empty one where there is none.

    Raises:
        BadLineError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadLineError(f"no object in {str(value)[:40]!r}")
    return value


def list_of(value: object) -> list[Any]:
    """Return a list; an empty one where there is none.

    Raises:
        BadLineError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadLineError(f"no list in {str(value)[:40]!r}")
    return value


def results_of(path: Path, start: str) -> Iterator[tuple[object, dict[str, Any]] | BadLineError]:
    """Yield each result of a report's page or list of pages with its bucket's `start`.

    OpenAI and Anthropic answer alike: a page has buckets of time in `data`, a bucket `results`.
    """
    document = document_of(path)
    for page in document if isinstance(document, list) else [document]:
        try:
            buckets = list_of(object_of(page).get("data"))
        except BadLineError as wrong:
            yield wrong
            continue
        for bucket in buckets:
            yield from _of_bucket(bucket, start)


def _of_bucket(
    bucket: object, start: str
) -> Iterator[tuple[object, dict[str, Any]] | BadLineError]:
    try:
        said = object_of(bucket)
        results = list_of(said.get("results"))
    except BadLineError as wrong:
        yield wrong
        return
    for result in results:
        if isinstance(result, dict):
            yield said.get(start), result
        else:
            yield BadLineError(f"no result in {str(result)[:40]!r}")
