"""The policy document: what an agent is told, closed and immutable per (scope, epoch, gen).

Unknown fields are refused (algorithms D1): an old agent that ignored a new selector would apply a
rule to everyone. Selectors AND across keys and OR inside a key; no selector matches everything.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from controlplane.policy.units import BudgetUnit

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
CALL_FACTS = tuple(key for key in SELECTOR_KEYS if key != "model")
"""Those that are one column of a call; a model is known by several names."""
RULE_KEYS = (*SELECTOR_KEYS, "task_class", "tenant_tier")
"""What rules may select by besides: said by the request alone, so no call is counted by it."""


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


class When(Closed, frozen=True, kw_only=True):
    """Facts of a request that are numbers or yes and no; all that are set must hold.

    A fact the agent does not know holds for nothing.
    """

    min_input_tokens: int | None = None
    max_input_tokens: int | None = None
    tools: bool | None = None
    stream: bool | None = None


class RuleFields(Closed, frozen=True, kw_only=True):
    """What every rule has: a name, a place in the order, and whom it is for."""

    id: str
    priority: int = 0
    match: dict[str, tuple[str, ...]] = {}
    when: When = When()
    shadow: bool = False
    """Never sent to agents: what it would have done is told from the calls they let through."""


class Deny(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="deny"):
    """Refuse the request with 429 (or `status`)."""

    status: int = 429
    reason: str = ""
    emergency: bool = False
    """Publishing it reaches every node at once, without stages (L13)."""


class Throttle(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="throttle"):
    """At most so many matching requests or tokens per agent process; each limit set must hold."""

    rpm: int | None = None
    """Requests in a minute of the clock."""
    rps: float | None = None
    """Requests a second on average, `burst` at once (default: one second's worth, at least 1)."""
    burst: int | None = None
    tpm: int | None = None
    """Input tokens and the output limit of the requests admitted in a minute of the clock."""
    concurrency: int | None = None
    """Requests under way at once."""


class Slo(Closed, frozen=True, kw_only=True):
    """What a deployment must keep to get its share, over the last `window_seconds`."""

    latency_p95_ms: int | None = None
    error_ratio: float | None = None
    min_calls: int = 20
    """With fewer calls than this nothing is known, and the deployment keeps its share."""
    window_seconds: int = 300


class Route(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="route"):
    """Send a share of the requests to each deployment; weights are integers, sticky by `sticky`.

    A deployment outside `slo` gets nothing while another is within it.
    """

    weights: dict[str, int]
    sticky: str | None = None
    slo: Slo | None = None


class Downgrade(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="downgrade"):
    """Replace the requested model by `to`; with `budget`, only above that used ratio of it."""

    to: str
    budget: str | None = None
    above_ratio: float | None = None


class Cap(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="cap"):
    """Lower the request's output limit to `max_tokens` and its choices to `n`."""

    max_tokens: int | None = None
    n: int | None = None


STRIPPABLE = (
    "tools",
    "server_tools",
    "reasoning",
    "logprobs",
    "parallel_tool_calls",
    "background",
    "prediction",
    "audio",
    "service_tier",
)
"""Features that a rule may take out of a request; which fields that are, agents know."""


class Strip(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="strip"):
    """Take features out of the request: it is sent without them, and held without their cost."""

    features: tuple[str, ...]


class Breaker(Closed, frozen=True, kw_only=True):
    """When a deployment is left alone: so many failures in the window, then a pause, then a probe."""

    failures: int = 5
    window_seconds: int = 30
    open_seconds: int = 30


class Failover(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="failover"):
    """Try the deployments in this order; go on to the next on any answer of `on`."""

    order: tuple[str, ...]
    on: tuple[str, ...] = ("429", "5xx", "timeout", "connect")
    """`timeout`, `connect`, `5xx` or a status."""
    timeout_ms: int | None = None
    """How long a deployment may take to begin its answer before it counts as a timeout."""
    breaker: Breaker = Breaker()


class AbortIf(Closed, frozen=True, kw_only=True):
    """What ends a canary; ratios of cost and latency are against the model it replaces."""

    error_ratio: float | None = None
    latency_ratio: float | None = None
    cost_ratio: float | None = None


class Canary(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="canary"):
    """Send a growing share of the requests to the model `to`, sticky by `sticky`.

    The server moves `share_percent` through `steps`, a generation each, to 0 when it aborts; an
    author leaves it out.
    """

    to: str
    steps: tuple[int, ...] = (1, 5, 25, 100)
    step_seconds: int = 600
    min_calls: int = 50
    abort_if: AbortIf = AbortIf()
    sticky: str | None = None
    share_percent: int | None = None


class Annotate(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="annotate"):
    """Add headers to the request and attributes to its span; all rules that match add theirs."""

    headers: dict[str, str] = {}
    attributes: dict[str, str] = {}


class Arm(Closed, frozen=True, kw_only=True):
    """One side of an experiment; without a model, the one that was asked for."""

    weight: int
    model: str | None = None


class Experiment(RuleFields, frozen=True, kw_only=True, tag_field="action", tag="experiment"):
    """Give each value of `sticky` one arm for good, by hash; what it did is read from the calls."""

    arms: dict[str, Arm]
    sticky: str = "user_id"


Rule = Deny | Throttle | Route | Downgrade | Cap | Strip | Failover | Canary | Annotate | Experiment


class BudgetClause(Closed, frozen=True, kw_only=True):
    """What an agent must know of a budget in order to hold calls against it."""

    id: str
    name: str
    owner: str
    match: dict[str, tuple[str, ...]]
    limit_nusd: int
    """In `unit`."""
    unit: BudgetUnit = BudgetUnit.USD
    window_start: datetime
    window_end: datetime
    rolling: str | None = None
    """Length of a rolling window, `24h`; `window_start` and `window_end` then say nothing, the
    standing does."""
    mode: Mode = Mode.HARD
    unpriced: str = "block"
    """A model without a price: `block` it, hold it at the `ceiling` of its provider, or `allow` it
    unheld. Of a budget in USD."""
    unattributed: str = "allow"
    """A request that lacks a fact the budget selects by: `block` it, hold it as if it matched
    (`ceiling`), or `allow` it uncounted."""
    stale: str = "policy"
    """When the document is too old: `block`, go on with the leases there are (`ceiling`), `allow`
    unheld, or as `on_stale` of the `policy` says."""
    parent: str | None = None
    """The budget above: a call is held against both or neither."""
    escrow_nusd: int = 0
    """What each agent is leased beside, for times when it does not reach the server; 0: nothing."""


class RatePerMillion(Closed, frozen=True, kw_only=True):
    """Ceiling rates of one model, nano-USD per million tokens; the dearest reachable row (L4)."""

    input_nusd: int
    output_nusd: int
    request_nusd: int = 0
    max_output_tokens: int = 0  # the model's own output limit, for requests without one; 0: unknown
    context_tokens: int = 0
    """What one pass of the model reads at most, and writes where it has no limit of its own; 0:
    not known. It bounds requests that refer to content held elsewhere (L3)."""


class OnStale(Closed, frozen=True, kw_only=True):
    """When a document stops being good enough to act on."""

    warn_after_seconds: int = 30
    """An agent whose document was last confirmed longer ago says that it is degraded."""
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
    provider_ceilings: dict[str, RatePerMillion] = {}
    """Provider → the dearest of everything it has a price for; there for budgets with `unpriced:
    ceiling` only."""
    price_book_version: str = ""
    tenant: str = ""
    """Whose a request is when `dimension_map` reads no tenant from it: the proxy key's own."""
    dimension_map: dict[str, str] = {}
    """dimension → where the agent reads it in a request: `user`, `metadata.<key>`, `header.<name>`,
    `key.alias`, `key.team`; the same map that turns the proxy's spans into tenants."""
    annotations: dict[str, str] = {}
