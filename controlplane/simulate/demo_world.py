"""The demonstration's world as data: who calls which model, how often, and what goes wrong.

Tenants are firms that do not exist. Models exist and are in the public price data, but two that are
self-hosted: POOL_MODEL runs on the demonstration's GPU pool, whose bill its calls share, and nobody
has entered a price for UNPRICED_MODEL.
"""

from typing import Final

import msgspec

UNPRICED_MODEL: Final = "contract-lens-13b"
POOL_MODEL: Final = "qwen2.5-coder-7b"
POOL_HOURS: Final = 24
"""For how long before the newest data the pool has been there: a pilot that began yesterday."""


class Model(msgspec.Struct, frozen=True):
    """A deployed model; `snapshot` is the dated name that responses carry."""

    name: str
    provider: str  # gen_ai.provider.name
    snapshot: str
    tokens_per_second: int


class Mix(msgspec.Struct, frozen=True):
    """Names with the share of draws each gets; shares sum to one."""

    names: tuple[str, ...]
    shares: tuple[float, ...]


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """One team's habits; token medians are of a log-normal draw."""

    tenant: str
    name: str
    calls_per_day: int
    peak_hour_utc: int
    weekend_share: float
    models: Mix
    features: Mix
    shapes: Mix  # names of demo_spans.SHAPES
    users: int
    input_tokens: int
    output_tokens: int
    cached_ratio: float = 0.0
    customers: tuple[str, ...] = ()
    """Whom the team's users work for, by the number of the user; none for internal use."""
    since_hours: float | None = None
    """Hours before the newest data at which the team began; None is always."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A cost spike of one team: hours before the newest data, and how much worse it was."""

    team: str
    from_hours_ago: float
    to_hours_ago: float
    calls_factor: float
    input_factor: float


MODELS: Final = {
    model.name: model
    for model in (
        Model("gpt-5", "openai", "gpt-5-2025-08-07", 90),
        Model("gpt-5-mini", "openai", "gpt-5-mini-2025-08-07", 160),
        Model("gpt-4.1-mini", "openai", "gpt-4.1-mini-2025-04-14", 140),
        Model("claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5-20250929", 70),
        Model("claude-haiku-4-5", "anthropic", "claude-haiku-4-5-20251001", 130),
        Model(UNPRICED_MODEL, "self-hosted", UNPRICED_MODEL, 60),
        Model(POOL_MODEL, "self-hosted", POOL_MODEL, 25),
    )
}

_CUSTOMERS: Final = (
    "aurora-air",
    "borealis-bank",
    "cobalt-foods",
    "dune-hotels",
    "ember-clinics",
    "fjord-freight",
    "glacier-media",
)

TEAMS: Final = (
    Team(
        tenant="acme",
        name="support",
        calls_per_day=360,
        peak_hour_utc=15,
        weekend_share=0.55,
        models=Mix(("claude-haiku-4-5", "claude-sonnet-4-5", "gpt-5-mini"), (0.5, 0.3, 0.2)),
        features=Mix(("ticket-triage", "reply-draft", "call-summary"), (0.4, 0.4, 0.2)),
        shapes=Mix(("proxied", "agent"), (0.9, 0.1)),
        users=60,
        input_tokens=3_800,
        output_tokens=320,
        cached_ratio=0.45,
        customers=_CUSTOMERS,
    ),
    Team(
        tenant="acme",
        name="search",
        calls_per_day=300,
        peak_hour_utc=14,
        weekend_share=0.8,
        models=Mix(("gpt-5-mini", "gpt-4.1-mini"), (0.7, 0.3)),
        features=Mix(("query-rewrite", "answer"), (0.6, 0.4)),
        shapes=Mix(("proxied", "chain"), (0.75, 0.25)),
        users=400,
        input_tokens=2_100,
        output_tokens=180,
        cached_ratio=0.3,
        customers=_CUSTOMERS,
    ),
    Team(
        tenant="acme",
        name="platform",
        calls_per_day=90,
        peak_hour_utc=13,
        weekend_share=0.15,
        models=Mix(("gpt-5", "claude-sonnet-4-5"), (0.6, 0.4)),
        features=Mix(("code-review", "incident-notes"), (0.8, 0.2)),
        shapes=Mix(("direct", "agent"), (0.6, 0.4)),
        users=35,
        input_tokens=9_000,
        output_tokens=900,
        cached_ratio=0.6,
    ),
    Team(
        tenant="globex",
        name="marketing",
        calls_per_day=140,
        peak_hour_utc=10,
        weekend_share=0.1,
        models=Mix(("gpt-5", "gpt-5-mini"), (0.35, 0.65)),
        features=Mix(("campaign-copy", "translation"), (0.7, 0.3)),
        shapes=Mix(("proxied", "direct"), (0.7, 0.3)),
        users=25,
        input_tokens=1_600,
        output_tokens=700,
    ),
    Team(
        tenant="globex",
        name="data-science",
        calls_per_day=110,
        peak_hour_utc=11,
        weekend_share=0.25,
        models=Mix(("gpt-4.1-mini", "claude-sonnet-4-5"), (0.8, 0.2)),
        features=Mix(("labelling", "notebook-help"), (0.75, 0.25)),
        shapes=Mix(("chain", "direct"), (0.5, 0.5)),
        users=12,
        input_tokens=2_800,
        output_tokens=240,
    ),
    Team(
        tenant="initech",
        name="legal",
        calls_per_day=80,
        peak_hour_utc=9,
        weekend_share=0.1,
        models=Mix((UNPRICED_MODEL,), (1.0,)),
        features=Mix(("clause-search", "contract-review"), (0.6, 0.4)),
        shapes=Mix(("self-hosted",), (1.0,)),
        users=9,
        input_tokens=6_000,
        output_tokens=450,
    ),
    Team(
        tenant="initech",
        name="engineering",
        calls_per_day=240,
        peak_hour_utc=12,
        weekend_share=0.3,
        models=Mix((POOL_MODEL,), (1.0,)),
        features=Mix(("autocomplete", "test-writing"), (0.7, 0.3)),
        shapes=Mix(("self-hosted",), (1.0,)),
        users=20,
        input_tokens=1_800,
        output_tokens=380,
        since_hours=POOL_HOURS,
    ),
)
TENANTS: Final = tuple(dict.fromkeys(team.tenant for team in TEAMS))

INCIDENTS: Final = (
    # A retry loop over a weekend night, long over: a step in the charts.
    Incident(
        team="support",
        from_hours_ago=218,
        to_hours_ago=209,
        calls_factor=6.0,
        input_factor=2.0,
    ),
    # A prompt that grew by accident and is still running: something to find.
    Incident(
        team="support",
        from_hours_ago=2.5,
        to_hours_ago=0,
        calls_factor=3.0,
        input_factor=5.0,
    ),
)
