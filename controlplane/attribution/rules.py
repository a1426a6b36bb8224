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

    `values` translates what was read (a value it does not name is left as it is); `roles` limits
    the rule to reports of keys with these roles, empty for every report. An empty text is unset.
    """

    id: str
    dimension: str
    attribute: str
    values: dict[str, str] = {}
    roles: tuple[KeyRole, ...] = ()


class AttributionRules(msgspec.Struct, frozen=True):
    """Rules in order; of a dimension the first that finds a value decides."""

    rules: tuple[Rule, ...]

    def of(self, dimension: str) -> list[Rule]:
        """Return the rules of one dimension, in order."""
        return [rule for rule in self.rules if rule.dimension == dimension]


_BUILT_IN: Final[dict[str, tuple[str, ...]]] = {
    # Spellings as producers send them (requirements: telemetry dialects, table 1).
    "team": (
        "team.id",
        "litellm.team.alias",
        "metadata.user_api_key_team_alias",
        "litellm.team.id",
        "metadata.user_api_key_team_id",
    ),
    "project": ("project.id", "metadata.user_api_key_project_id"),
    "feature": (
        "feature",
        "feature.name",
        "metadata.requester_metadata.feature",
        "ai.telemetry.functionId",
        "traceloop.workflow.name",
        "gen_ai.agent.name",
    ),
    "customer": ("customer.id", "traceloop.association.properties.customer_id"),
    "user_id": (
        "user.id",
        "enduser.id",
        "langfuse.user.id",
        "gen_ai.user",
        "gen_ai.request.user",
        "llm.user",
        "ai.telemetry.metadata.userId",
        "traceloop.association.properties.user_id",
        "langsmith.metadata.user_id",
        "metadata.user_api_key_end_user_id",
        "litellm.metadata.user_api_key_end_user_id",
    ),
    "api_key": (
        "metadata.user_api_key_alias",
        "litellm.api_key.hash",
        "metadata.user_api_key_hash",
    ),
    "environment": ("deployment.environment.name", "deployment.environment"),
    "region": ("cloud.region",),
}

BUILT_IN: Final = AttributionRules(
    tuple(
        Rule(id=f"default:{attribute}", dimension=dimension, attribute=attribute)
        for dimension, attributes in _BUILT_IN.items()
        for attribute in attributes
    )
)


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
