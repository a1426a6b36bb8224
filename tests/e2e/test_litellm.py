"""The main job, end to end: real proxy, real client, real telemetry, a budget that holds.

Two tenants share one proxy key; the OpenAI `user` field names the tenant. What the API says was
spent must equal what the upstream's own log says, priced here in Decimal, to the nano-dollar.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

PROXY_KEY = "sk-e2e-0123456789abcdef0123456789abcdef"
USD_PER_MTOK = {"input": Decimal("2.50"), "cached": Decimal("1.25"), "output": Decimal(10)}
"""OpenAI's list price of gpt-4o, written down here and nowhere taken from the code under test."""
MODEL = "gpt-4o"
LIMIT_USD = Decimal(1)
CLIENTS = 50
REFUSED_SECONDS = 3.0
"""Longer than a lease takes on a busy machine."""
VISIBLE_SECONDS = 120.0


def _nusd(bills: list[dict[str, Any]]) -> int:
    """Price bills exactly: one rounding per line item, half to even."""
    total = 0
    for bill in bills:
        lines = (
            (bill["input_tokens"] - bill["cached_tokens"]) * USD_PER_MTOK["input"],
            bill["cached_tokens"] * USD_PER_MTOK["cached"],
            bill["output_tokens"] * USD_PER_MTOK["output"],
        )
        total += sum(round(line * 1_000) for line in lines)  # USD per Mtok → nano-USD
    return total


@pytest.fixture(scope="module")
def operator(system: Any) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {system.operator}"}
    with httpx.Client(base_url=f"{system.api}/api/v1", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def budget_id(operator: httpx.Client) -> str:
    """A hard dollar for tenant a, told apart by the OpenAI `user` field."""
    rules = {
        "scope": "default",
        "dimension_map": {"tenant": "user"},
        "trusted_sources": ["user"],
        "rules": [],
    }
    operator.put("/policy/rules", json=rules).raise_for_status()
    made = operator.post(
        "/budgets/",
        json={
            "name": "team a",
            "owner": "ana@example.com",
            "tenant": "a",
            "limit_usd": str(LIMIT_USD),
            "period": "month",
        },
    )
    budget: str = made.raise_for_status().json()["id"]
    return budget


@pytest.fixture(scope="module")
def proxy(
    system: Any,
    operator: httpx.Client,
    budget_id: str,
    upstream: str,
    start_proxy: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    assert budget_id

    def key(kind: str, role: str, **more: Any) -> str:
        order = {"kind": kind, "role": role, "name": kind, "tenant": "default", **more}
        made: str = operator.post("/keys/", json=order).raise_for_status().json()["key"]
        return made

    end_user = {"attribute": "metadata.user_api_key_end_user_id"}
    params = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
    return start_proxy(
        {
            "model_list": [{"model_name": MODEL, "litellm_params": params}],
            "litellm_settings": {"callbacks": ["otel", "controlplane.agent.litellm_proxy.handler"]},
        },
        {
            "CONTROLPLANE_AGENT_SERVER_URL": system.api,
            "CONTROLPLANE_AGENT_API_KEY": key("proxy", "proxy", all_tenants=True),
            "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                f"{kid}={text}" for kid, text in system.policy_keys.items()
            ),
            "CONTROLPLANE_AGENT_STATE_DIR": str(tmp_path_factory.mktemp("agent")),
            "OTEL_EXPORTER": "otlp_http",
            "OTEL_ENDPOINT": system.otlp,
            "OTEL_HEADERS": f"Authorization=Bearer {key('ingest', 'proxy', tenant_map=end_user)}",
        },
    )


def _spent(operator: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = operator.get("/costs", params={"range": "24h", "group_by": "tenant"})
    return {row["tenant"]: row for row in answer.raise_for_status().json()["rows"]}


def _standing(operator: httpx.Client, budget_id: str) -> dict[str, int]:
    answer = operator.get(f"/budgets/{budget_id}").raise_for_status().json()["standing"]
    return {
        name.removesuffix("_nusd"): int(value)
        for name, value in answer.items()
        if name.endswith("_nusd")
    }


async def _storm(proxy: str) -> tuple[dict[str, Counter[int]], list[Any]]:
    """Run 50 clients until tenant a has been refused for a while; return statuses and bodies."""
    outcome: dict[str, Counter[int]] = {"a": Counter(), "b": Counter()}
    bodies: list[Any] = []
    refused_in_a_row, served_at = 0, time.monotonic()
    client = openai.AsyncOpenAI(base_url=f"{proxy}/v1", api_key=PROXY_KEY, max_retries=0)

    async def call(tenant: str) -> int:
        try:
            await client.chat.completions.create(
                model=MODEL,
                user=tenant,
                max_tokens=1_000,
                messages=[{"role": "user", "content": "a question of some length " * 8}],
            )
        except openai.APIStatusError as refused:
            bodies.append(refused.body)
            return refused.status_code
        return 200

    async def run_a() -> None:
        nonlocal refused_in_a_row, served_at
        while refused_in_a_row < 60 or time.monotonic() < served_at + REFUSED_SECONDS:
            status = await call("a")
            outcome["a"][status] += 1
            if status == 429:
                refused_in_a_row += 1
                await asyncio.sleep(0.05)  # as a client that is told to wait
            else:
                refused_in_a_row, served_at = 0, time.monotonic()

    async def run_b() -> None:
        for _ in range(6):
            outcome["b"][await call("b")] += 1

    async with client:
        await asyncio.gather(*(run_a() for _ in range(CLIENTS - 10)), *(run_b() for _ in range(10)))
    return outcome, bodies


def test_a_hard_budget_holds_and_the_spend_is_exact(
    proxy: str, upstream: str, operator: httpx.Client, budget_id: str
) -> None:
    before = len(httpx.get(f"{upstream}/_log").json())
    outcome, bodies = asyncio.run(_storm(proxy))
    bills = httpx.get(f"{upstream}/_log").json()[before:]
    by_tenant = {
        tenant: [bill for bill in bills if bill["user"] == tenant] for tenant in ("a", "b")
    }
    spent_nusd = {tenant: _nusd(mine) for tenant, mine in by_tenant.items()}
    limit_nusd = int(LIMIT_USD * 10**9)

    # The budget held, nearly all of it was used, and the other tenant never noticed.
    assert spent_nusd["a"] <= limit_nusd
    assert spent_nusd["a"] >= 0.95 * limit_nusd
    assert {200, 429} == set(outcome["a"])
    assert {200: 60} == dict(outcome["b"])
    fields = bodies[-1]["provider_specific_fields"]
    assert ("budget_exhausted", "team a") == (fields["code"], fields["budget"]["name"])
    assert {"owner", "limit_usd", "spent_usd", "resets_at"} <= fields["budget"].keys()

    # The API says what the upstream says, to the nano-dollar, each call once.
    deadline = time.monotonic() + VISIBLE_SECONDS
    wanted = {tenant: str(nusd) for tenant, nusd in spent_nusd.items()}
    found: dict[str, str] = {}
    while time.monotonic() < deadline:
        found = {name: row["cost_nusd"] for name, row in _spent(operator).items() if name in wanted}
        if found == wanted:
            break
        time.sleep(0.5)
    assert wanted == found
    rows = _spent(operator)
    for tenant, mine in by_tenant.items():
        assert sum(bill["output_tokens"] for bill in mine) == int(rows[tenant]["output_tokens"])

    # The ledger says the same, and its parts add up.
    standing = _standing(operator, budget_id)
    assert spent_nusd["a"] == standing["settled_enforced"]
    parts = ("settled_enforced", "settled_unproven", "observed_unenforced", "leased", "free")
    assert standing["limit"] + standing["debt"] == sum(standing[part] for part in parts)
    assert (0, 0) == (standing["observed_unenforced"], standing["debt"])
