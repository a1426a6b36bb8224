"""Rules in YAML: read with a line for every mistake, written as they would be by hand."""

from typing import Any

import pytest

from controlplane.core.errors import PolicyError
from controlplane.pipelines.authoring import json_schema, read_text, write_text
from controlplane.policy.document import RULE_KEYS, Canary, Cap, Failover, Throttle
from controlplane.policy.rules import PolicyRules

TEXT = """\
tenant: acme
dimension_map: {team: metadata.team}
rules:
  - {action: deny, id: d, match: {model: [bad]}}
  - action: cap
    id: c.with.dots
    max_tokens: 100
    when:
      min_input_tokens: 10
    priority: 3
"""


def test_yaml_rules() -> None:
    """As people write them."""
    rules = read_text(TEXT).rules
    assert ["d", "c.with.dots"] == [rule.id for rule in rules.rules]
    assert PolicyRules() == read_text("rules: []").rules == read_text("{}").rules
    assert rules == read_text(write_text(rules)).rules


@pytest.mark.parametrize("text", ["", "\n\n", "# rules of production\n", "---\n", "null"])
def test_an_empty_file_lifts_no_rule(text: str) -> None:
    """It is half a write, or the wrong file."""
    with pytest.raises(PolicyError, match=r"empty file. Write `rules: \[\]`"):
        read_text(text)


def test_on_and_no_are_words() -> None:
    """A failover has a field `on`, and a rule or a team may be called `no`."""
    text = (
        "rules:\n- {action: failover, id: no, order: [a], on: ['429', timeout], match: {team: [y]}}"
    )
    (rule,) = read_text(text).rules.rules
    assert Failover(id="no", order=("a",), on=("429", "timeout"), match={"team": ("y",)}) == rule
    assert PolicyRules(rules=(rule,)) == read_text(write_text(PolicyRules(rules=(rule,)))).rules


def test_json_is_yaml() -> None:
    """One reader for both, and it says the same of both."""
    text = (
        '{"scope": "x", "rules": [{"action": "throttle", "id": "\\u00e9", "rps": 1.5,'
        ' "match": {"model": ["a\\n", "on"]}, "priority": 3}]}'
    )
    expected = Throttle(id="é", rps=1.5, match={"model": ("a\n", "on")}, priority=3)
    rules = read_text(text).rules
    assert PolicyRules(scope="x", rules=(expected,)) == rules
    assert rules == read_text(text + " # not JSON").rules


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        ('{"tenant": "a",\n"tenant": "b"}', "tenant", 2),
        ('{"rules": [\n{"action": "deny", "id": "d",\n"status": "x"}]}', "rules[0].status", 3),
        ('{"rules": [\n{"action": "throttle", "id": "t", "rps": 1e999}]}', "rules[0].rps", 2),
    ],
)
def test_mistakes_in_json_have_a_line_too(text: str, field: str, line: int) -> None:
    """A second value of a key would else win in silence, and no number is infinite."""
    with pytest.raises(PolicyError) as refused:
        read_text(text)
    assert (field, line) == (refused.value.field, refused.value.line)


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        ("rules: [\n{", "rules", 2),
        ("tenant: a\nrules:\n  - {action: deny, id: d, color: red}", "rules[0]", 3),
        ("tenant: a\nrules:\n  - action: explode\n    id: d", "rules[0].action", 3),
        ("rules:\n- action: cap\n  id: c\n  max_tokens: many", "rules[0].max_tokens", 4),
        ("tenant: a\n\ntenant: b", "tenant", 3),
        ("rules:\n- action: cap\n  id: c\n  max_tokens: 1\n  id: d", "id", 5),
        ("tenant: a\ncolor: red", "rules", 1),
    ],
)
def test_mistakes_have_a_line(text: str, field: str, line: int) -> None:
    """Where an editor should jump to; a key that is there twice is a mistake too."""
    with pytest.raises(PolicyError) as refused:
        read_text(text)
    assert (field, line) == (refused.value.field, refused.value.line)
    assert f"line {line}: " in str(refused.value)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("rules.d.match.model", 4),
        ("rules.d.status", 4),
        ("rules.c.with.dots.max_tokens", 7),
        ("rules.c.with.dots.when", 8),
        ("rules.c.with.dots.priority", 10),
        ("rules.c.with.dots.match.team", 5),
        ("dimension_map.team", 2),
        ("rules.nobody", 3),
        ("budgets.b.match.team", 1),
    ],
)
def test_what_the_compiler_names_is_found_in_the_text(field: str, line: int) -> None:
    """By the rule's id, or the nearest thing around it that is written."""
    authored = read_text(TEXT)
    assert line == authored.located(PolicyError(field, "is wrong")).line


def test_velocity_limits_are_rules_to_write_too() -> None:
    """Read and written as they are, found by their id, and completed by an editor."""
    text = (
        "tenant: a\nvelocity:\n- id: w\n  per: user_id\n  limit_usd: '5'\n"
        "- {id: k, per: api_key, limit_usd: '9.5', rpm: 2}\n"
    )
    authored = read_text(text)
    assert ["5", "9.5"] == [limit.limit_usd for limit in authored.rules.velocity]
    assert authored.rules == read_text(write_text(authored.rules)).rules
    for field, line in (("velocity.w.limit_usd", 5), ("velocity.k.burst", 6), ("velocity", 2)):
        assert line == authored.line_of(field)
    parts: Any = json_schema()["$defs"]
    selectors = parts["VelocityLimit"]["properties"]["match"]["propertyNames"]["enum"]
    assert ("user_id" in selectors, "model" in selectors) == (True, False)


def test_hostile_text_is_refused() -> None:
    """Nesting without end, and tags that would make objects."""
    with pytest.raises(PolicyError, match="too deeply"):
        read_text("a: " + "[" * 2_000 + "]" * 2_000)
    with pytest.raises(PolicyError, match="not YAML"):
        read_text("tenant: !!python/object/apply:os.getcwd []")


def test_defaults_are_not_written() -> None:
    """The form that differences are shown in is the shortest."""
    rules = PolicyRules(rules=(Cap(id="c", max_tokens=5), Canary(id="k", to="next")))
    expected = (
        "rules:\n- action: cap\n  id: c\n  max_tokens: 5\n- action: canary\n  id: k\n  to: next\n"
    )
    assert expected == write_text(rules)


def test_schema_names_every_action_and_every_selector() -> None:
    """What an editor completes; every reference leads somewhere."""
    schema = json_schema()
    parts: Any = schema["$defs"]
    actions = {
        option
        for part in parts.values()
        for option in part.get("properties", {}).get("action", {}).get("enum", [])
    }
    expected = "annotate canary cap deny downgrade experiment failover route strip throttle"
    assert set(expected.split()) == actions
    assert list(RULE_KEYS) == parts["Deny"]["properties"]["match"]["propertyNames"]["enum"]
    assert parts["Deny"]["additionalProperties"] is False

    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if "$ref" in part else set()
            return own.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    assert {ref.removeprefix("#/$defs/") for ref in references(schema)} <= set(parts)
