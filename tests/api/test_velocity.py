"""A flood of spending against a running API and real agents; and what people see and do of it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from controlplane.agent.bounds import Bound
from controlplane.agent.clock import AgentClock
from controlplane.agent.main import build_agent
from controlplane.agent.runtime import Agent
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request
from controlplane.api.app import create_app
from controlplane.api.server import ApiServer
from controlplane.api.services import Services
from controlplane.auth.principal import PrincipalKind
from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.bootstrap.policy_rounds import guard_velocity, subject_names
from controlplane.budgets.budget import Budget
from controlplane.cli.main import app as cli
from controlplane.core.calendar import Period
from controlplane.pipelines.agent_reports import store_settles
from controlplane.pipelines.publish import RateCard, publish
from controlplane.pipelines.settle import settle_tick
from controlplane.policy.bundle import Signer
from controlplane.policy.document import RatePerMillion
from controlplane.policy.rules import PolicyRules
from controlplane.policy.velocity import Excess, VelocityLimit, turn
from controlplane.pricing.price_book import PriceBook
from controlplane.store.metadata.keys import NewKey
from controlplane.store.metadata.quotas import QuotaRepository
from controlplane.store.spans.duckdb_store import DuckDbSpanStore

USD = 1_000_000_000
LIMIT = VelocityLimit(id="wallet", per="user_id", limit_usd="5")
RULES = PolicyRules(
    tenant="acme", dimension_map={"user_id": "user", "api_key": "key.alias"}, velocity=(LIMIT,)
)
NAME_OF = subject_names(b"k" * 32)
READ = 400_000
"""Input tokens of a call: a dollar, at $2.50 a million."""
CARD = RateCard({"gpt-4o": RatePerMillion(input_nusd=2_500_000_000, output_nusd=0)}, "house@1")


@pytest.fixture
def flooded() -> Iterator[DuckDbSpanStore]:
    store = DuckDbSpanStore(None)
    yield store
    store.close()


@pytest.fixture
def hub(
    services: Services, metadata: Engine, prices: PriceBook, flooded: DuckDbSpanStore
) -> Services:
    """The API with the settles of agents stored and priced, as the hub composes it."""
    clock = AgentClock()
    publishing = msgspec.structs.replace(
        services.publishing, quotas=QuotaRepository(metadata), rate_card=lambda _now: CARD
    )
    sync = msgspec.structs.replace(
        services.sync,
        report=lambda settles, caller, now: store_settles(
            settles, caller, book=prices, writer=flooded, now=now
        ),
    )
    return msgspec.structs.replace(services, publishing=publishing, sync=sync, clock=clock)


class Caller:
    """One user of a proxy: calls that cost a dollar each, until one is refused."""

    def __init__(self, agent: Agent, user: str) -> None:
        self._agent = agent
        self._user = user
        self.calls = 0
        self.refused: RefusedError | None = None

    async def call(self) -> None:
        request = Request(
            request_id="r",
            facts={"tenant": "acme", "user_id": self._user, "model": "gpt-4o"},
            bound=Bound(operation="chat", input_tokens=READ, output_tokens=1),
            candidates=lambda group: ((group,),),
            provider="openai",
        )
        try:
            ticket = await self._agent.admit(request)
        except RefusedError as answer:
            self.refused = answer
            return
        self.calls += 1
        assert ticket.hold_id
        ending = Ending(ended_at=self._agent.clock.now(), usage={"input_uncached": READ})
        self._agent.settle(ticket.hold_id, ending)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another task or thread does."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_flood_of_one_user_is_held_back_within_one_interval(
    hub: Services, keys: Any, signer: Signer, flooded: DuckDbSpanStore, tmp_path: Path
) -> None:
    """One look of the guard after its spend passed the limit; the other user goes on.

    Agent, API, ledger, count-once, guard and delivery are the shipped ones, in one process.
    """
    clock, tools = hub.clock, hub.publishing
    budget = Budget(
        id="b",
        name="b",
        owner="o",
        tenant="acme",
        limit_nusd=1_000 * USD,
        period=Period.YEAR,
        counts_from=clock.now() - timedelta(days=1),
    )
    hub.budgets.create(budget)
    publish("default", clock.now(), tools=tools, rules=RULES)
    key = keys.key(
        NewKey(
            kind=PrincipalKind.PROXY, role="proxy", name="p", tenant="acme", policy_scopes=("*",)
        )
    )
    app = create_app(hub)

    def look() -> None:
        settle_tick(flooded, now=clock.now(), ledger=None)
        guard_velocity(
            clock.now(),
            publishing=tools,
            reader=flooded,
            name_of=NAME_OF,
            published=app.state.policy_watch.published,
        )

    async def play(agent: Agent) -> None:
        mallory, bob = Caller(agent, "mallory"), Caller(agent, "bob")
        for _ in range(5):
            await mallory.call()
        await bob.call()
        await until(lambda: not agent.holder.queue.pending)
        await asyncio.to_thread(look)
        assert "1.1" == agent.policy  # five dollars are at the limit, not above it
        for _ in range(10):
            await mallory.call()
        await until(lambda: not agent.holder.queue.pending)
        await asyncio.to_thread(look)
        await until(lambda: agent.policy == "1.2")
        await mallory.call()
        assert (15, f"velocity.wallet.{NAME_OF(('acme', 'mallory'))}") == (
            mallory.calls,
            mallory.refused and mallory.refused.refusal.rule,
        )
        for _ in range(3):
            await bob.call()
        assert (4, None) == (bob.calls, bob.refused)

    with ApiServer(app) as server:

        async def main() -> None:
            agent = build_agent(
                AgentSettings(
                    server_url=server.url,
                    api_key=key,
                    policy_keys=signer.pinned,
                    state_dir=tmp_path,
                    node="n",
                    sync_interval_seconds=0.05,
                    admission_wait_seconds=10.0,
                )
            )
            await agent.ready()
            try:
                await play(agent)
            finally:
                await agent.stop()

        asyncio.run(main())
    (quota,) = tools.quotas.quotas("default")
    assert ("acme", "mallory", 15 * USD) == (quota.tenant, quota.value, quota.spent_nusd)


@pytest.fixture
def held_back(services: Services, metadata: Engine) -> Services:
    """Ana of acme and of globex, held back since now."""
    now = services.clock.now()
    quotas = QuotaRepository(metadata)
    publishing = msgspec.structs.replace(services.publishing, quotas=quotas)
    mapped = msgspec.structs.replace(
        RULES, dimension_map=RULES.dimension_map | {"tenant": "key.team"}
    )
    above = [Excess(LIMIT, (tenant, "ana"), usd * USD) for tenant, usd in SPENT.items()]
    names = {one.subject: NAME_OF(one.subject) for one in above}
    quotas.change(
        "default", lambda before: turn(before, above, scope="default", names=names, now=now)
    )
    publish("default", now, tools=publishing, rules=mapped)
    return msgspec.structs.replace(services, publishing=publishing)


SPENT = {"acme": 6, "globex": 7}


def test_quotas_are_listed_to_who_may_see_their_tenant(
    serve: Callable[..., Any], held_back: Services, keys: Any
) -> None:
    """The user's id only to who may see calls; another tenant's not at all."""
    api = serve(publishing=held_back.publishing)
    auditor = keys.add("acme", scopes=ROLE_SCOPES[Role.AUDITOR])
    finance = keys.add("acme", "globex", scopes=ROLE_SCOPES[Role.FINANCE])
    with api.client(auditor) as client:
        (row,) = client.get("/api/v1/policy/quotas").json()["rows"]
        assert [] == client.get("/api/v1/policy/quotas?scope=prod").json()["rows"]
    name = NAME_OF(("acme", "ana"))
    assert {
        "id": f"velocity.wallet.{name}",
        "scope": "default",
        "limit": "wallet",
        "per": "user_id",
        "tenant": "acme",
        "name": f"user_{name}",
        "value": "ana",
        "spent_usd": "6",
        "limit_usd": "5",
        "window_seconds": 600,
        "since": "2026-11-20T10:07:00Z",
        "until": "2026-11-20T10:22:00Z",
    } == row
    with api.client(finance) as client:
        rows = client.get("/api/v1/policy/quotas").json()["rows"]
    assert [("globex", None), ("acme", None)] == [(one["tenant"], one["value"]) for one in rows]


def test_commands_list_and_end_quotas(
    serve: Callable[..., Any], held_back: Services, keys: Any
) -> None:
    """In words and in JSON; what does not exist is one sentence, and so is a key of one tenant."""
    api = serve(publishing=held_back.publishing)
    admin = keys.add(scopes=ROLE_SCOPES[Role.ADMIN], all_tenants=True)

    def run(*arguments: str, key: str = admin) -> Result:
        return CliRunner().invoke(
            cli,
            ["policy", "quotas", *arguments],
            env={"CONTROLPLANE_CLIENT_URL": api.url, "CONTROLPLANE_CLIENT_KEY": key},
        )

    acmes, globexs = (f"velocity.wallet.{NAME_OF((each, 'ana'))}" for each in SPENT)
    until = "5 in 600 s  until 2026-11-20T10:22:00Z"
    assert [
        f"{globexs}  globex  user_{NAME_OF(('globex', 'ana'))}  $7 of ${until}",
        f"{acmes}  acme  user_{NAME_OF(('acme', 'ana'))}  $6 of ${until}",
    ] == run("list").stdout.splitlines()
    refused = run("end", acmes, key=keys.add("acme", scopes=ROLE_SCOPES[Role.ADMIN]))
    assert "access to all tenants" in str(refused.exception)
    assert f"default: ended {acmes}\n" == run("end", acmes).stdout
    assert f"'{acmes}' does not exist" in str(run("end", acmes).exception)
    rows = msgspec.json.decode(run("list", "--json").stdout)["rows"]
    assert [globexs] == [row["id"] for row in rows]
    ended = msgspec.json.decode(run("end", globexs, "--json").stdout)
    assert {"ended": globexs, "scope": "default"} == ended
    assert "Nobody is held back in 'default'.\n" == run("list").stdout


def test_operator_ends_a_quota(serve: Callable[..., Any], held_back: Services, keys: Any) -> None:
    """Agents are told with who did it; twice, or by somebody else, it does not exist."""
    api = serve(publishing=held_back.publishing)
    admin = keys.add(scopes=ROLE_SCOPES[Role.ADMIN], all_tenants=True)
    path = f"/api/v1/policy/quotas/velocity.wallet.{NAME_OF(('acme', 'ana'))}"
    with api.client(keys.add("acme", scopes=ROLE_SCOPES[Role.ADMIN])) as client:
        assert 403 == client.delete(path).status_code
    with api.client(admin) as client:
        assert 204 == client.delete(path).status_code
        assert 404 == client.delete(path).status_code
        rows = client.get("/api/v1/policy/quotas").json()["rows"]
        newest = client.get("/api/v1/policy/generations").json()["rows"][0]
    assert ["globex"] == [row["tenant"] for row in rows]
    assert ("velocity", "somebody", 1) == (newest["cause"], newest["author"], newest["rules"])
