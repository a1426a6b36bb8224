"""The policy document: what an agent is told, closed and immutable per (scope, epoch, gen).

Unknown fields are refused (algorithms D1): an old agent that ignored a new selector would apply a
rule to everyone. Selectors AND across keys and OR inside a key; no selector matches everything.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

SELECTOR_KEYS = (
    "tenant",
    "team",
    "project",
    "feature",
    "customer",
    "user_id",
    "api_key",
    "environment",
    "provider",
    "model",
    "operation",
)
"""Facts an agent knows of a request before it is sent; a value may end in `*` to match a prefix."""


class Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything signed: a field we do not know is a reason to refuse the whole."""


class Mode(StrEnum):
    """What a budget does when it is exhausted: refuse, only tell, or only record."""

    HARD = "hard"
    SOFT = "soft"
    SHADOW = "shadow"


class StaleMode(StrEnum):
    """What an agent does with a document older than `dead_after_seconds`."""

    PESSIMISTIC = "pessimistic"
    SAFE = "safe"
    LAST_KNOWN_GOOD = "last_known_good"


class Deny(Closed, frozen=True, kw_only=True, tag_field="action", tag="deny"):
    """Refuse the request with 429 (or `status`)."""

    id: str
    priority: int = 0
    match: dict[str, tuple[str, ...]] = {}
    status: int = 429
    reason: str = ""


class Throttle(Closed, frozen=True, kw_only=True, tag_field="action", tag="throttle"):
    """At most `rpm` requests per minute per agent process that match."""

    id: str
    rpm: int
    priority: int = 0
    match: dict[str, tuple[str, ...]] = {}


class Route(Closed, frozen=True, kw_only=True, tag_field="action", tag="route"):
    """Send a share of the requests to each deployment; weights are integers, sticky by `sticky`."""

    id: str
    weights: dict[str, int]
    sticky: str | None = None
    priority: int = 0
    match: dict[str, tuple[str, ...]] = {}


class Downgrade(Closed, frozen=True, kw_only=True, tag_field="action", tag="downgrade"):
    """Replace the requested model by `to`; with `budget_at`, only above that used ratio of a budget."""

    id: str
    to: str
    priority: int = 0
    match: dict[str, tuple[str, ...]] = {}
    budget: str | None = None
    above_ratio: float | None = None


class Cap(Closed, frozen=True, kw_only=True, tag_field="action", tag="cap"):
    """Lower the request's output limit to `max_tokens`."""

    id: str
    max_tokens: int
    priority: int = 0
    match: dict[str, tuple[str, ...]] = {}


Rule = Deny | Throttle | Route | Downgrade | Cap


class BudgetClause(Closed, frozen=True, kw_only=True):
    """What an agent must know of a budget in order to hold calls against it."""

    id: str
    name: str
    owner: str
    match: dict[str, tuple[str, ...]]
    limit_nusd: int
    window_start: datetime
    window_end: datetime
    mode: Mode = Mode.HARD
    unpriced: str = "block"  # block | allow


class RatePerMillion(Closed, frozen=True, kw_only=True):
    """Ceiling rates of one model, nano-USD per million tokens; the dearest reachable row (L4)."""

    input_nusd: int
    output_nusd: int
    request_nusd: int = 0
    max_output_tokens: int = 0  # the model's own output limit, for requests without one; 0: unknown


class OnStale(Closed, frozen=True, kw_only=True):
    """When a document stops being good enough to act on."""

    warn_after_seconds: int = 30
    dead_after_seconds: int = 900
    mode: StaleMode = StaleMode.PESSIMISTIC


class PolicyDocument(Closed, frozen=True, kw_only=True):
    """One generation for one scope."""

    api: str = "v1"
    scope: str = "default"
    epoch: int = 1
    gen: int = 0
    issued_at: datetime
    capabilities_required: tuple[str, ...] = ()
    on_stale: OnStale = OnStale()
    budgets: tuple[BudgetClause, ...] = ()
    rules: tuple[Rule, ...] = ()
    rate_card: dict[str, RatePerMillion] = {}
    price_book_version: str = ""
    tenant: str = ""
    """Whose a request is when `dimension_map` reads no tenant from it: the proxy key's own."""
    dimension_map: dict[str, str] = {}
    """dimension → where the agent reads it in a request: `user`, `metadata.<key>`, `header.<name>`,
    `key.alias`, `key.team`; the same map that turns the proxy's spans into tenants."""
    annotations: dict[str, str] = {}
