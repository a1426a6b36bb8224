"""What people write: the rules of a scope, as YAML in git or JSON through the API."""

import msgspec

from controlplane.core.errors import PolicyError
from controlplane.policy.document import Closed, OnStale, Rule
from controlplane.policy.velocity import VelocityLimit


class Deployment(Closed, frozen=True, kw_only=True):
    """What a name in a route or a fallback stands for."""

    provider: str
    model: str


class PolicyRules(Closed, frozen=True, kw_only=True):
    """The authored half of a policy; budgets and prices are the other, compiled in."""

    scope: str = "default"
    tenant: str = "default"
    """Whose the requests are that `dimension_map` names no tenant for: the proxy key's own."""
    rules: tuple[Rule, ...] = ()
    dimension_map: dict[str, str] = msgspec.field(default_factory=dict)
    trusted_sources: tuple[str, ...] = ()
    """Sources of `dimension_map` that the proxy itself sets, so that hard budgets may rest on them."""
    deployments: dict[str, Deployment] = msgspec.field(default_factory=dict)
    """Everything this scope can call; rules then name nothing else, and agents carry these rates."""
    velocity: tuple[VelocityLimit, ...] = ()
    """How fast one key or user may spend; never sent to agents, the quotas that begin are."""
    on_stale: OnStale = OnStale()
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


def read_rules(tree: object) -> PolicyRules:
    """Read rules from what a JSON or YAML reader returns.

    Raises:
        PolicyError: an unknown field or a value of the wrong kind; names its place.
    """
    try:
        return msgspec.convert(tree, PolicyRules)
    except msgspec.ValidationError as wrong:
        problem, _, where = str(wrong).partition(" - at `$")
        raise PolicyError(where.strip("`.") or "rules", problem, "Mend the rules") from None
