"""Closed sets that spans, reports and calls are described with."""

from enum import StrEnum


class Layer(StrEnum):
    """Where in the stack a report was made; the dialect declares it, the key's role outranks it."""

    CLIENT = "client"
    PROXY = "proxy"
    ENGINE = "engine"
    AGENT = "agent"


class KeyRole(StrEnum):
    """What the holder of an ingest key is; `unknown` is a keyless loopback sender."""

    CLIENT = "client"
    PROXY = "proxy"
    ENGINE = "engine"
    AGENT = "agent"
    UNKNOWN = "unknown"


class ReportKind(StrEnum):
    """What a span says about usage.

    `call`: one request really made, a candidate to bill (failed ones included).
    `aggregate`: an agent, chain, workflow, tool or step span; never bills, whatever it carries.
    `none`: not about a model call.
    """

    CALL = "call"
    AGGREGATE = "aggregate"
    NONE = "none"


class UsageState(StrEnum):
    """How far a report's token numbers can be used; the reason stands beside it."""

    EXACT = "exact"
    UNKNOWN = "unknown"
    IMPOSSIBLE = "impossible"
    ABSENT = "absent"


class CostState(StrEnum):
    """Whether a cost is known; `unpriced` has NULL cost and a reason, never 0."""

    PRICED = "priced"
    FREE = "free"
    UNPRICED = "unpriced"
    ESTIMATED = "estimated"


class PriceProvenance(StrEnum):
    """How the price row was found."""

    EXACT = "exact"
    ALIAS = "alias"
    OVERRIDE = "override"
    TIER = "tier"
    FALLBACK = "fallback"
    REPORTED = "reported"


class Status(StrEnum):
    """Outcome of a call."""

    OK = "ok"
    ERROR = "error"


class ErrorType(StrEnum):
    """Normalised failure class."""

    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    CLIENT_ERROR = "client_error"
    CANCELLED = "cancelled"
    OTHER = "other"


GATEWAY_CACHE = "gateway_cache"
"""The service tier of a reply that a gateway had already: no provider served or billed it."""

CACHE_HIT = "cache_hit"
"""Why such a call is free."""

UNKNOWN_USAGE = "unknown_usage"
"""Why a call that was dispatched is unpriced. After a colon may stand what became of its request:
`retry`, `hedge` (another attempt followed, or ran beside it) or `disconnect` (nobody waited)."""
