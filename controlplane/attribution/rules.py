"""Who pays, as data: where each dimension is read, in which order, and from whom it is believed."""

from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.attribution.share import MAX_TEAMS, MAX_WEIGHT, PREFIX, is_plain, pool_name
from controlplane.core.errors import ConfigError, ControlPlaneError, InvalidInputError
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
MAX_SHARES: Final = 20
MAX_RESERVED: Final = 200
MAX_VALUES: Final = 10_000
MAX_FIXED_CHARS: Final = 200


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read a dimension from a span or resource attribute.

    With `tag` the attribute is a list of tags, and what follows `<tag>:` is read. `values`
    translates what was read (a value it does not name is left as it is); `roles` limits the rule
    to reports of keys with these roles, empty for every report. An empty text is unset.
    """

    id: str
    dimension: str
    attribute: str
    tag: str | None = None
    values: dict[str, str] = {}
    roles: tuple[KeyRole, ...] = ()


class Reserved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values of a dimension that not everybody may claim; a trailing `*` stands for any rest.

    Reports under a proxy's, engine's or agent's key may, and those of `tenants`. What another
    sender claims is dropped: its calls are unattributed in that dimension, and say why.
    """

    id: str
    dimension: str
    values: tuple[str, ...]
    tenants: tuple[str, ...] = ()


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account that several teams use: calls with these values are divided by weight."""

    id: str
    dimension: str
    values: tuple[str, ...]
    teams: dict[str, int]

    @property
    def pool(self) -> str:
        """The team that stands for all of them."""
        return pool_name(self.id, self.teams)


class AttributionRules(msgspec.Struct, frozen=True):
    """Rules in order; of a dimension the first that finds a value decides."""

    rules: tuple[Rule, ...]
    reserved: tuple[Reserved, ...] = ()
    shares: tuple[Share, ...] = ()

    def of(self, dimension: str) -> list[Rule]:
        """Return the rules of one dimension, in order."""
        return [rule for rule in self.rules if rule.dimension == dimension]

    @property
    def attributes(self) -> frozenset[str]:
        """Every attribute that some rule reads: kept however many a span has."""
        return frozenset(rule.attribute for rule in self.rules)


class RulesDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an organisation writes, as YAML or through the API."""

    rules: tuple[Rule, ...] = ()
    reserved: tuple[Reserved, ...] = ()
    shares: tuple[Share, ...] = ()


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


def with_organisation(document: object) -> AttributionRules:
    """Put an organisation's rules, as parsed from YAML, before the built-in ones.

    Raises:
        ConfigError: see `read_document`.
    """
    return compile_rules(read_document(document))


def read_document(document: object) -> RulesDocument:
    """Read and check what was parsed from YAML: a mapping, or a list of rules alone.

    Raises:
        ConfigError: an unknown field or dimension, an id used twice, or too many rules.
    """
    try:
        read = {"rules": document} if isinstance(document, list) else document
        checked = msgspec.convert(read, RulesDocument)
        check_written(checked)
    except msgspec.ValidationError as wrong:
        raise ConfigError("attribution_rules", str(wrong), _SEE) from None
    except InvalidInputError as wrong:
        raise ConfigError("attribution_rules", *_told(wrong)) from None
    return checked


def compile_rules(document: RulesDocument) -> AttributionRules:
    """Check a document and put it before the built-in rules.

    Raises:
        InvalidInputError: names the entry that is wrong, and what to write.
    """
    parts: dict[str, tuple[Rule | Reserved | Share, ...]] = {
        "rules": document.rules,
        "reserved": document.reserved,
        "shares": document.shares,
    }
    for field, entries in parts.items():
        ids = [entry.id for entry in entries]
        for at, entry in enumerate(entries):
            where = f"{field}[{at}]"
            if entry.dimension not in DIMENSIONS:
                known = f"Known: {', '.join(DIMENSIONS)}"
                raise InvalidInputError(f"{where}.dimension", f"{entry.dimension!r}", known)
            if not entry.id or ids.count(entry.id) > 1:
                raise InvalidInputError(f"{where}.id", f"id {entry.id!r} twice, or none", "Rename")
    _check_shares(document.shares)
    _check_sizes(document)
    merged = AttributionRules(
        (*document.rules, *BUILT_IN.rules), document.reserved, document.shares
    )
    if any(len(merged.of(dimension)) > MAX_RULES_PER_DIMENSION for dimension in DIMENSIONS):
        raise InvalidInputError(
            "rules", f"over {MAX_RULES_PER_DIMENSION} of a dimension", "Use `values`"
        )
    return merged


def check_written(document: RulesDocument) -> None:
    """Check a document that somebody writes now; what can never match is a mistake.

    Versions from before a check was made stay in force: `compile_rules` takes them.

    Raises:
        InvalidInputError: names the entry that is wrong, and what to write.
    """
    compile_rules(document)
    for at, rule in enumerate(document.rules):
        where = f"rules[{at}]"
        for field in ("attribute", "tag"):
            if getattr(rule, field) == "":
                raise InvalidInputError(f"{where}.{field}", "empty", "Name it, or leave it out")
        wrong = [text for text in rule.values.values() if not text or text.startswith(PREFIX)]
        if wrong:
            fix = f"Name a {rule.dimension}; accounts that teams share are `shares`"
            raise InvalidInputError(f"{where}.values", f"becomes {wrong[0]!r}", fix)
    many: dict[str, tuple[Reserved | Share, ...]] = {
        "reserved": document.reserved,
        "shares": document.shares,
    }
    for field, entries in many.items():
        for at, entry in enumerate(entries):
            where = f"{field}[{at}].values"
            if not entry.values:
                raise InvalidInputError(where, "none", f"Name what is {_MEANT[field]}")
            wrong = [text for text in entry.values if not text or "*" in text[:-1]]
            if wrong:
                raise InvalidInputError(where, repr(wrong[0]), "Only a last * stands for any rest")


_MEANT: Final = {"reserved": "reserved", "shares": "shared"}


def _check_shares(shares: tuple[Share, ...]) -> None:
    for at, share in enumerate(shares):
        where = f"shares[{at}]"
        if share.dimension == "team":
            raise InvalidInputError(f"{where}.dimension", "team", "Name a user, key or customer")
        wrong = [name for name in (share.id, *share.teams) if not is_plain(name)]
        if wrong:
            raise InvalidInputError(where, f"name {wrong[0]!r}", "Leave out blanks and [ ] = , :")
        weights = share.teams.values()
        if not 1 <= len(weights) <= MAX_TEAMS or not all(1 <= w <= MAX_WEIGHT for w in weights):
            raise InvalidInputError(
                f"{where}.teams",
                "weights",
                f"Name 1 to {MAX_TEAMS} teams with whole weights from 1 to {MAX_WEIGHT}",
            )


def _check_sizes(document: RulesDocument) -> None:
    many = {
        "shares": (len(document.shares), MAX_SHARES),
        "reserved": (len(document.reserved), MAX_RESERVED),
        "values": (
            sum(len(one.values) for one in document.reserved)
            + sum(len(one.values) for one in document.shares),
            MAX_VALUES,
        ),
    }
    for field, (count, most) in many.items():
        if count > most:
            raise InvalidInputError(field, f"{count} of them", f"At most {most}")


def _told(wrong: ControlPlaneError) -> tuple[str, str]:
    return str(wrong), _SEE


_SEE: Final = "See deploy/docs/attribution.md"


def read_fixed(dimensions: Mapping[str, str]) -> dict[str, str]:
    """Check what an admin wants said of all that comes under an ingest key.

    Raises:
        InvalidInputError: a dimension nobody knows, or nothing said of it.
    """
    for name, value in dimensions.items():
        if name not in DIMENSIONS:
            raise InvalidInputError("dimensions", f"{name!r}", f"Known: {', '.join(DIMENSIONS)}")
        if not 0 < len(value) <= MAX_FIXED_CHARS or value.startswith(PREFIX):
            raise InvalidInputError(f"dimensions.{name}", f"{value!r}", "Give a plain, short value")
    return dict(dimensions)
