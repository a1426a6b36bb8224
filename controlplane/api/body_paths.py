"""What a body takes at the place where it is wrong: the fields of a struct, the words of a choice."""

import re
import typing
from collections.abc import Iterable
from enum import Enum
from types import UnionType
from typing import Any, Final

import msgspec

_STEP: Final = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
_SEQUENCES: Final = (list, tuple, set, frozenset)


def known_at(body: object, path: str) -> tuple[str, ...]:
    """Name what is accepted at a path as msgspec writes it; nothing where that is no short list.

    Args:
        body: the annotation of the whole body.
        path: such as `document.rules[0].roles[0]`; empty for the body itself.
    """
    places: list[object] = list(_choices(body))
    for step in _STEP.findall(path):
        places = [found for place in places for found in _below(place, step)]
    return tuple(dict.fromkeys(name for place in places for name in _names(place)))


def _below(place: object, step: str) -> Iterable[object]:
    if step.startswith("["):
        origin, given = typing.get_origin(place), typing.get_args(place)
        items = given[:1] if origin in _SEQUENCES else given[-1:]
        return (found for item in items for found in _choices(item))
    if not _is_struct(place):
        return ()
    hints = typing.get_type_hints(place)
    names = {field.encode_name: field.name for field in msgspec.structs.fields(place)}
    return _choices(hints[names[step]]) if step in names else ()


def _choices(annotation: object) -> Iterable[object]:
    """Yield the members of a union, whatever else is said of them left out."""
    if typing.get_origin(annotation) in {typing.Union, UnionType}:
        for one in typing.get_args(annotation):
            yield from _choices(one)
    else:
        yield annotation


def _names(place: object) -> Iterable[str]:
    if _is_struct(place):
        return (field.encode_name for field in msgspec.structs.fields(place))
    if isinstance(place, type) and issubclass(place, Enum):
        return (str(one.value) for one in place)
    if typing.get_origin(place) is typing.Literal:
        return map(str, typing.get_args(place))
    return ()


def _is_struct(place: Any) -> typing.TypeGuard[type[msgspec.Struct]]:
    return isinstance(place, type) and issubclass(place, msgspec.Struct)
