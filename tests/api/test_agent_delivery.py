"""Real agents against a real API: pushed, polled beside it, through restarts and bad documents."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from typing_extensions import override

from controlplane.agent.clock import AgentClock
from controlplane.agent.puller import Puller
from controlplane.agent.settings import AgentSettings
from controlplane.agent.stream import PolicyStream
from controlplane.api.app import create_app
from controlplane.api.server import ApiServer
from controlplane.api.services import Services
from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.pipelines.publish import publish
from controlplane.policy.bundle import Signer, Verifier, decode_document
from controlplane.policy.document import Cap
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation

Publish = Callable[..., Any]


class Listener:
    """One agent's policy side: the puller and the stream, as the runtime starts them."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        state_dir: Path,
        signer: Signer,
        kind: type[Puller] = Puller,
    ) -> None:
        settings = AgentSettings(
            server_url=url,
            api_key=key,
            policy_keys=signer.pinned,
            state_dir=state_dir,
            node="n",
            poll_wait_seconds=20,
        )
        self.fetched = 0

        async def count(answer: httpx.Response) -> None:
            self.fetched += answer.url.path == "/api/v1/policy" and answer.status_code == 200

        self.client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            event_hooks={"response": [count]},
        )
        clock = AgentClock()
        verify = Verifier(settings.policy_keys).verify
        self.puller = kind(self.client, settings, clock=clock, verify=verify)
        self.stream = PolicyStream(self.client, settings, self.puller, clock=clock)

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self.puller.run(lambda: None)),
            asyncio.create_task(self.stream.run(lambda: None, lambda: None)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.aclose()

    async def until(self, met: Callable[[], bool], within: float = 60) -> float:
        """Return how many seconds it took."""
        started = time.monotonic()
        while not met():
            assert time.monotonic() - started < within
            await asyncio.sleep(0.002)  # looking again is the thing to do
        return time.monotonic() - started

    def runs(self, gen: int) -> bool:
        applied = self.puller.applied
        return applied is not None and applied.generation == Generation(1, gen)


@pytest.fixture
def key(keys: Any) -> str:
    text: str = keys.add("acme", scopes=ROLE_SCOPES[Role.PROXY])
    return text


@pytest.fixture
def tell(services: Services) -> Publish:
    """Publish a cap of so many tokens, in this or in another process."""

    def told(tokens: int, app: Any = None, **notes: str) -> None:
        rules = PolicyRules(rules=(Cap(id="c", max_tokens=tokens),), annotations=notes)
        publish("default", services.clock.now(), tools=services.publishing, rules=rules)
        if app is not None:
            app.state.policy_watch.published()

    return told


def run(
    services: Services,
    key: str,
    signer: Signer,
    tmp_path: Path,
    play: Callable[[Any, Listener], Awaitable[None]],
    *,
    kind: type[Puller] = Puller,
) -> None:
    app = create_app(services)
    with ApiServer(app) as server:

        async def act() -> None:
            async with Listener(
                server.url, key, state_dir=tmp_path, signer=signer, kind=kind
            ) as listener:
                await play(app, listener)

        asyncio.run(act())


@pytest.mark.usefixtures("only_told")
def test_published_policy_is_applied_by_push(
    services: Services, key: str, signer: Signer, tmp_path: Path, tell: Publish
) -> None:
    """Without the read of every second; while the stream is healthy no poll waits."""
    tell(1)

    async def play(app: Any, listener: Listener) -> None:
        await listener.until(lambda: listener.runs(1) and listener.puller.is_streaming)
        for gen in range(2, 6):
            await asyncio.to_thread(tell, gen, app)
            await listener.until(lambda gen=gen: listener.runs(gen), within=15)  # type: ignore[misc]  # bound now
        confirmed = listener.puller.applied
        assert confirmed is not None

    run(services, key, signer, tmp_path, play)


def test_large_policy_is_fetched_when_it_is_announced(
    services: Services, key: str, signer: Signer, tmp_path: Path, tell: Publish
) -> None:
    """The stream says that there is more, and the poll gets it."""
    tell(1)

    async def play(app: Any, listener: Listener) -> None:
        await listener.until(lambda: listener.runs(1) and listener.puller.is_streaming)
        await asyncio.to_thread(tell, 2, app, **{f"k{i}": "x" * 250 for i in range(300)})
        await listener.until(lambda: listener.runs(2), within=15)

    run(services, key, signer, tmp_path, play)


def test_change_of_a_large_policy_is_applied_without_fetching_it(
    services: Services, key: str, signer: Signer, tmp_path: Path, tell: Publish
) -> None:
    """What is pushed is the change, and what is in force is the whole, as it was signed."""
    notes = {f"k{i}": "x" * 250 for i in range(300)}
    tell(1, **notes)

    async def play(app: Any, listener: Listener) -> None:
        await listener.until(lambda: listener.runs(1) and listener.puller.is_streaming)
        whole = 0
        for gen in range(2, 6):
            whole = listener.fetched
            await asyncio.to_thread(tell, gen, app, **notes)
            await listener.until(lambda gen=gen: listener.runs(gen))  # type: ignore[misc]  # bound now
        # A poll from before it streamed may have fetched an earlier one.
        assert whole == listener.fetched
        assert listener.puller.body is not None
        document = decode_document(listener.puller.body)
        assert ((Cap(id="c", max_tokens=5),), notes) == (document.rules, document.annotations)
        assert sha256(listener.puller.body).hexdigest() == listener.puller.sha256

    run(services, key, signer, tmp_path, play)


class Forgetful(Puller):
    """An agent that has other bytes than the server believes."""

    @property
    @override
    def body(self) -> bytes | None:
        return b"{}"


def test_change_of_what_an_agent_does_not_have_is_fetched_whole(
    services: Services, key: str, signer: Signer, tmp_path: Path, tell: Publish
) -> None:
    notes = {f"k{i}": "x" * 250 for i in range(300)}
    tell(1, **notes)

    async def play(app: Any, listener: Listener) -> None:
        await listener.until(lambda: listener.runs(1) and listener.puller.is_streaming)
        whole = listener.fetched
        await asyncio.to_thread(tell, 2, app, **notes)
        await listener.until(lambda: listener.runs(2), within=15)
        assert whole + 1 == listener.fetched

    run(services, key, signer, tmp_path, play, kind=Forgetful)


def test_policy_signed_by_a_stranger_changes_nothing(
    services: Services, key: str, tmp_path: Path, tell: Publish
) -> None:
    """Neither by push nor by poll; what the agent pins decides (D2)."""
    tell(1)
    stranger = Signer(b"x" * 32)

    async def play(_app: Any, listener: Listener) -> None:
        await listener.until(lambda: listener.stream.failures > 0)
        assert listener.puller.applied is None
        assert not listener.puller.is_streaming

    run(services, key, stranger, tmp_path, play)


def test_agent_survives_a_restart_of_the_api_and_streams_again(
    services: Services, key: str, signer: Signer, tmp_path: Path, tell: Publish
) -> None:
    """It keeps its policy, comes back by itself, and gets what was published meanwhile."""
    tell(1)

    async def act() -> None:
        first = ApiServer(create_app(services))
        await asyncio.to_thread(first.start)
        async with Listener(first.url, key, state_dir=tmp_path, signer=signer) as listener:
            await listener.until(lambda: listener.runs(1) and listener.puller.is_streaming)
            await asyncio.to_thread(first.stop)
            await listener.until(lambda: not listener.puller.is_streaming)
            assert listener.runs(1)
            await asyncio.to_thread(tell, 2)
            second = ApiServer(create_app(services), port=first.port)
            await asyncio.to_thread(second.start)
            await listener.until(lambda: listener.runs(2) and listener.puller.is_streaming)
            await asyncio.to_thread(second.stop)

    asyncio.run(act())
