"""Rules as people write them: YAML or JSON with a line for every mistake, and back to YAML."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from controlplane.core.errors import PolicyError
from controlplane.policy.document import RULE_KEYS, Rule
from controlplane.policy.rules import PolicyRules, read_rules
from controlplane.policy.velocity import MATCH_KEYS, VelocityLimit

SCHEMA_ID: Final = "urn:controlplane:policy:v1"
MAX_DEPTH: Final = 32
BOOLEAN: Final = "tag:yaml.org,2002:bool"
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's truth values: `on`, `no` and `y` are the words they are in rules, not booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != BOOLEAN]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(BOOLEAN, re.compile("(?:true|false)$"), list("tf"))


class Authored(msgspec.Struct, frozen=True, kw_only=True):
    """Rules, and the text they were read from."""

    rules: PolicyRules
    text: str

    def located(self, wrong: PolicyError) -> PolicyError:
        """Return the error with the line of what it speaks of, as far as the text says it."""
        line = wrong.line or self.line_of(wrong.field)
        return PolicyError(wrong.field, wrong.problem, wrong.fix, line=line)

    def line_of(self, field: str) -> int | None:
        """Return the line of a field as the compiler names it, `rules.<id>.status`; None: nowhere."""
        return _nearest_line(_lines(_compose(self.text)), _by_index(field, self.rules))


def read_text(text: str) -> Authored:
    """Read rules in YAML, of which JSON is a part.

    JSON is read as such, which takes a hundredth of the time; only what is wrong with it, or a key
    that is there twice, is looked for in the way that knows lines.

    Raises:
        PolicyError: not YAML, a key twice, or not rules; names place and line.
    """
    rules = _read_json(text)
    return Authored(rules=rules if rules is not None else _read_yaml(text), text=text)


def _read_json(text: str) -> PolicyRules | None:
    """Return the rules; None unless the text is flawless JSON of rules."""
    try:
        json.loads(text, object_pairs_hook=_each_once)
        return read_rules(msgspec.json.decode(text))
    except (ValueError, RecursionError, PolicyError):
        return None


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _read_yaml(text: str) -> PolicyRules:
    root = _compose(text)
    lines = _lines(root)
    try:
        tree: object = _Loader("").construct_document(root) if root is not None else None
    except yaml.YAMLError as wrong:
        raise _not_yaml(wrong) from None
    if tree is None:  # half a write, or the wrong file: to lift every rule takes a word
        raise PolicyError("rules", "is an empty file", "Write `rules: []` to have no rule", line=1)
    try:
        return read_rules(tree)
    except PolicyError as wrong:
        line = _nearest_line(lines, wrong.field)
        raise PolicyError(wrong.field, wrong.problem, wrong.fix, line=line) from None


def _compose(text: str) -> Node | None:
    try:
        root: Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as wrong:
        raise _not_yaml(wrong) from None
    except RecursionError:
        raise PolicyError("rules", "is nested too deeply", "Write it flat") from None
    return root


def _lines(root: Node | None) -> dict[str, int]:
    """Return where each part stands: `rules[0].match.team` → the line it begins on, from 1."""
    lines: dict[str, int] = {}
    if root is not None:
        _note_lines(root, "", lines, depth=0)
    return lines


def _not_yaml(wrong: yaml.YAMLError) -> PolicyError:
    mark = getattr(wrong, "problem_mark", None)
    return PolicyError(
        "rules", "is not YAML", "Mend the syntax", line=mark.line + 1 if mark else None
    )


def write_text(rules: PolicyRules) -> str:
    """Write rules as YAML without what is default: the form that differences are shown in."""
    text: str = yaml.safe_dump(_spoken(rules), sort_keys=False, allow_unicode=True, width=100)
    return text


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of authored rules, for editors and for checks in git."""
    (schema,), parts = msgspec.json.schema_components([PolicyRules])
    definitions = {
        name: _with_selectors(part, MATCH_KEYS if name == VelocityLimit.__name__ else RULE_KEYS)
        for name, part in parts.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Policy rules of a scope",
        **{key: _local(value) for key, value in schema.items()},
        "$defs": {name: _local(part) for name, part in definitions.items()},
    }


def _with_selectors(part: object, known: Sequence[str]) -> object:
    """Name the selectors where the types only say that there are some."""
    if isinstance(part, dict) and isinstance(part.get("properties"), dict):
        match = part["properties"].get("match")
        if isinstance(match, dict):
            match["propertyNames"] = {"enum": list(known)}
    return part


def _local(part: object) -> object:
    """Point references at `$defs`, where the parts are."""
    if isinstance(part, dict):
        return {key: _local(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_local(each) for each in part]
    if isinstance(part, str) and part.startswith("#/components/schemas/"):
        return part.replace("#/components/schemas/", "#/$defs/")
    return part


def _note_lines(node: Node, path: str, lines: dict[str, int], *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise PolicyError("rules", "is nested too deeply", "Write it flat")
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, f"{path}[{index}]", lines, depth=depth + 1)
    elif isinstance(node, MappingNode):
        _note_keys(node, path, lines, depth=depth)


def _note_keys(node: MappingNode, path: str, lines: dict[str, int], *, depth: int) -> None:
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value) if isinstance(key, ScalarNode) else "?"
        line = key.start_mark.line + 1
        if name in seen:
            raise PolicyError(name, "is there twice", "Keep one of them", line=line)
        seen.add(name)
        inner = f"{path}.{name}" if path else name
        lines[inner] = line
        _note_lines(value, inner, lines, depth=depth + 1)


def _by_index(field: str, rules: PolicyRules) -> str:
    """Turn `rules.<id>.status` into `rules[0].status`; an id may hold dots."""
    part, _, rest = field.partition(".")
    if not rest or part not in {"rules", "velocity"}:
        return field
    named: Sequence[Rule | VelocityLimit] = rules.rules if part == "rules" else rules.velocity
    # The later of two of one name is the one too many.
    for index, one in reversed(list(enumerate(named))):
        if rest == one.id or rest.startswith(f"{one.id}."):
            return f"{part}[{index}]{rest.removeprefix(one.id)}"
    return part


def _nearest_line(lines: Mapping[str, int], path: str) -> int | None:
    """Return the line of the path or of the nearest thing around it that is written out."""
    while path:
        if path in lines:
            return lines[path]
        steps = list(_STEP.finditer(path))
        path = path[: steps[-1].start()].rstrip(".[") if len(steps) > 1 else ""
    return lines.get("")


def _spoken(value: object) -> object:
    """Return plain data without fields that are at their default."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        said: dict[str, object] = {"action": tag} if isinstance(tag, str) else {}
        for field in msgspec.structs.fields(value):
            inner: object = getattr(value, field.name)
            if field.required or inner != _default(field):
                said[field.name] = _spoken(inner)
        return said
    if isinstance(value, Mapping):
        return {str(key): _spoken(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_spoken(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        made: object = field.default_factory()
        return made
    kept: object = field.default
    return kept
