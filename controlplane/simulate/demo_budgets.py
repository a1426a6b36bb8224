"""The demonstration's budgets and policy, made through the API as an operator would."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
import msgspec

from controlplane.core.calendar import Period, window_at
from controlplane.core.errors import UnavailableError
from controlplane.core.money import NUSD_PER_USD, format_usd
from controlplane.simulate.demo import HISTORY_DAYS
from controlplane.simulate.demo_calls import HOUR, Call, draw_hour, model_calls
from controlplane.simulate.demo_spans import step_tokens
from controlplane.simulate.demo_world import POOL_MODEL, UNPRICED_MODEL

RATES_NUSD_PER_TOKEN: Final = {
    # Input, cached input, output: list prices of November 2025. They size a limit and price
    # nothing; the ledger shows what the price book says.
    "gpt-5": (1_250, 125, 10_000),
    "gpt-5-mini": (250, 25, 2_000),
    "gpt-4.1-mini": (400, 100, 1_600),
    "claude-sonnet-4-5": (3_000, 300, 15_000),
    "claude-haiku-4-5": (1_000, 100, 5_000),
    UNPRICED_MODEL: (0, 0, 0),
    POOL_MODEL: (0, 0, 0),
}
_OK: Final = 200


RULES: Final = {
    # Agents must be able to tell whose a request is before it is sent, or no budget can be hard.
    "dimension_map": {
        "tenant": "metadata.tenant",
        "team": "key.team",
        "feature": "metadata.feature",
    },
    "trusted_sources": ["metadata.tenant", "metadata.feature"],
    "rules": [
        {
            "action": "cap",
            "id": "short-summaries",
            "match": {"feature": ["call-summary"]},
            "max_tokens": 1_024,
        },
        {
            "action": "throttle",
            "id": "labelling-quota",
            "match": {"team": ["data-science"], "feature": ["labelling"]},
            "rpm": 600,
        },
    ],
}
"""The demonstration's policy; written only where nobody has written one."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A monthly budget; its limit is what the team has spent by now, times `limit_percent`."""

    name: str
    owner: str
    tenant: str
    team: str
    mode: str
    limit_percent: int


PLANS: Final = (
    Plan(
        name="Support assistants",
        owner="support-lead@acme.example",
        tenant="acme",
        team="support",
        mode="hard",
        limit_percent=106,  # the one that is about to run out
    ),
    Plan(
        name="Search answers",
        owner="search-lead@acme.example",
        tenant="acme",
        team="search",
        mode="hard",
        limit_percent=220,
    ),
    Plan(
        name="Marketing copy",
        owner="marketing-lead@globex.example",
        tenant="globex",
        team="marketing",
        mode="soft",
        limit_percent=160,
    ),
)


def create_demo_budgets(
    api_url: str,
    key: str,
    *,
    seed: int,
    now: datetime,
    days: int = HISTORY_DAYS,
    tenant: str | None = None,
) -> list[str]:
    """Write RULES and make the PLANS through the API; answers the budgets' ids.

    They count from the start of the month (or of the history). Call it before the history of the
    same seed and `now` is sent: the ledger posts calls as they are settled. A budget of a name that exists already for its tenant is left alone.

    Args:
        api_url: base URL of the API.
        key: bearer of an operator (every tenant) with scopes budgets:* and policy:*.
        seed: of the history that will be sent.
        now: its end.
        days: its length.
        tenant: put every budget on this tenant, for a demonstration without keys.

    Raises:
        UnavailableError: the API refused or did not answer.
    """
    window = window_at(Period.MONTH, now)
    began = max(window.start, now - timedelta(days=days))
    calls = calls_between(began, now, seed=seed)
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=api_url, headers=headers, timeout=30.0, trust_env=False) as api:
        if not _sent(api.get(_RULES_PATH))["dimension_map"]:
            _sent(api.put(_RULES_PATH, json=RULES))
        known = {(row["tenant"], row["name"]): row["id"] for row in _sent(api.get(_PATH))["rows"]}
        return [
            known.get((body["tenant"], body["name"])) or _sent(api.post(_PATH, json=body))["id"]
            for body in (_body(plan, calls, tenant=tenant, counts_from=began) for plan in PLANS)
        ]


_PATH: Final = "/api/v1/budgets"
_RULES_PATH: Final = "/api/v1/policy/rules"


def calls_between(start: datetime, end: datetime, *, seed: int) -> list[Call]:
    """List the history's calls that start within `[start, end)`."""
    hour = start.replace(minute=0, second=0, microsecond=0)
    calls: list[Call] = []
    while hour < end:
        calls += [c for c in draw_hour(hour, seed=seed, newest=end) if c.start >= start]
        hour += HOUR
    return calls


def expected_nusd(calls: Sequence[Call]) -> int:
    """Estimate what the calls cost, at RATES_NUSD_PER_TOKEN."""
    return sum(_call_nusd(call, step) for call in calls for step in range(_steps(call)))


def _steps(call: Call) -> int:
    return model_calls(call) if call.http_status == _OK else 0


def _call_nusd(call: Call, step: int) -> int:
    fresh, cached, out = RATES_NUSD_PER_TOKEN[call.model.name]
    tokens_in, tokens_out = step_tokens(call, step)
    return (tokens_in - call.cached_tokens) * fresh + call.cached_tokens * cached + tokens_out * out


def _body(
    plan: Plan, calls: Sequence[Call], *, tenant: str | None, counts_from: datetime
) -> dict[str, object]:
    spent = expected_nusd([call for call in calls if call.team.name == plan.team])
    # Whole dollars: nobody budgets $61.37.
    limit = max(spent * plan.limit_percent // 100 // NUSD_PER_USD, 1) * NUSD_PER_USD
    return {
        "name": plan.name,
        "owner": plan.owner,
        "tenant": tenant or plan.tenant,
        "limit_usd": format_usd(limit),
        "period": Period.MONTH.value,
        "zone": "UTC",
        "match": {"team": [plan.team]},
        "mode": plan.mode,
        "unpriced": "allow",
        "counts_from": counts_from.isoformat(),
    }


def _sent(answer: httpx.Response) -> Any:
    if not answer.is_success:
        msg = f"the API refused the demonstration's budgets ({answer.status_code} {answer.text})"
        raise UnavailableError(msg)
    return answer.json()
