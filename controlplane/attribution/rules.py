"""Who pays, as data: where each dimension is read, in which order, and from whom it is believed."""

from typing import Final

import msgspec

from controlplane.core.errors import ConfigError
from controlplane.signals.vocabulary import KeyRole

DIMENSIONS: Final = (
    "team",
    "project",
    "feature",
    "customer",
    "user_id",
    "api_key",
    "environment",
    "region",
)
MAX_RULES_PER_DIMENSION: Final = 100


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read a dimension from a span or resource attribute.

    With `tag` the attribute is a list of tags, and what follows `<tag>:` is read. `values` translates what was read (a value it does not name is left as it is); `roles` limits
    the rule to reports of keys with these roles, empty for every report. An empty text is unset.
    """

    id: str
    dimension: str
    attribute: str
    tag: str | None = None
    values: dict[str, str] = {}
    roles: tuple[KeyRole, ...] = ()


class AttributionRules(msgspec.Struct, frozen=True):
    """Rules in order; of a dimension the first that finds a value decides."""

    rules: tuple[Rule, ...]

    def of(self, dimension: str) -> list[Rule]:
        """Return the rules of one dimension, in order."""
        return [rule for rule in self.rules if rule.dimension == dimension]


_BUILT_IN: Final[dict[str, tuple[str, ...]]] = {
    # Spellings as producers send them (requirements: telemetry dialects, table 1). What a gateway
    # knows from its own keys comes before what a program says of itself.
    "team": (
        "litellm.team.alias",
        "litellm.metadata.user_api_key_team_alias",
        "metadata.user_api_key_team_alias",
        "litellm.team.id",
        "litellm.metadata.user_api_key_team_id",
        "metadata.user_api_key_team_id",
        "team.id",
        "metadata.requester_metadata.team",
    ),
    "project": (
        "litellm.metadata.user_api_key_project_id",
        "metadata.user_api_key_project_id",
        "project.id",
        "metadata.requester_metadata.project",
    ),
    "feature": (
        "feature",
        "feature.name",
        "metadata.requester_metadata.feature",
        "ai.telemetry.functionId",
        "traceloop.association.properties.feature",
        "traceloop.workflow.name",
        "gen_ai.agent.name",
    ),
    "customer": (
        "customer.id",
        "traceloop.association.properties.customer_id",
        "metadata.requester_metadata.customer",
    ),
    "user_id": (
        "user.id",
        "enduser.id",
        "langfuse.user.id",
        "gen_ai.user",
        "gen_ai.request.user",
        "llm.user",
        "llm.invocation_parameters.user",
        "ai.telemetry.metadata.userId",
        "traceloop.association.properties.user_id",
        "langsmith.metadata.user_id",
        "metadata.user_id",
        "metadata.user_api_key_end_user_id",
        "litellm.metadata.user_api_key_end_user_id",
        "metadata.requester_metadata.user_id",
    ),
    "api_key": (
        "litellm.metadata.user_api_key_alias",
        "metadata.user_api_key_alias",
        "litellm.api_key.hash",
        "metadata.user_api_key_hash",
    ),
    "environment": ("deployment.environment.name", "deployment.environment"),
    "region": ("cloud.region",),
}
_TAG_LISTS: Final = (
    "langfuse.trace.tags",
    "langsmith.span.tags",
    "metadata.requester_metadata.tags",
    "tag.tags",
    "tags",
)
_TAGGED: Final = ("team", "project", "feature", "customer")
"""Dimensions that people write as `team:search` where a producer has nothing but tags."""


def _built_in() -> list[Rule]:
    said = [
        Rule(id=f"default:{attribute}", dimension=dimension, attribute=attribute)
        for dimension, attributes in _BUILT_IN.items()
        for attribute in attributes
    ]
    tagged = [
        Rule(id=f"default:{attribute}[{tag}]", dimension=tag, attribute=attribute, tag=tag)
        for tag in _TAGGED
        for attribute in _TAG_LISTS
    ]
    # A tag is written for this purpose; the names of workflows and agents are only a guess.
    guesses = [rule for rule in said if rule.attribute in _GUESSES]
    return [*(rule for rule in said if rule not in guesses), *tagged, *guesses]


_GUESSES: Final = ("traceloop.workflow.name", "gen_ai.agent.name")

BUILT_IN: Final = AttributionRules(tuple(_built_in()))


def with_organisation(own: list[object]) -> AttributionRules:
    """Put an organisation's rules, as parsed from YAML, before the built-in ones.

    Raises:
        ConfigError: an unknown field or dimension, an id used twice, or too many rules.
    """
    try:
        rules = tuple(msgspec.convert(own, list[Rule]))
    except msgspec.ValidationError as wrong:
        raise ConfigError("attribution_rules", str(wrong), "See the built-in rules") from None
    ids = [rule.id for rule in rules]
    for rule in rules:
        if rule.dimension not in DIMENSIONS:
            known = f"Known: {', '.join(DIMENSIONS)}"
            raise ConfigError("attribution_rules", f"{rule.id}: {rule.dimension!r}", known)
        if ids.count(rule.id) > 1:
            raise ConfigError("attribution_rules", f"id {rule.id!r} twice", "Rename one")
    merged = AttributionRules((*rules, *BUILT_IN.rules))
    if any(len(merged.of(dimension)) > MAX_RULES_PER_DIMENSION for dimension in DIMENSIONS):
        raise ConfigError(
            "attribution_rules", f"over {MAX_RULES_PER_DIMENSION} of a dimension", "Use `values`"
        )
    return merged
