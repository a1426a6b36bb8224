"""A `Gate` whose agent is the node agent of this machine: its workers share one holder.

Which policy is in force is asked for once a second at most; everything that admits is the node
agent's.
"""

import atexit
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
import msgspec

from controlplane.agent.clock import seconds_since_boot
from controlplane.agent.health import Deployments
from controlplane.agent.log import say
from controlplane.agent.refusal import Refusal
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError, Request, Ticket
from controlplane.core.json_errors import UNREADABLE

POLICY_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 5.0
BASE: Final = "http://agent"


class _Policy(msgspec.Struct, frozen=True):
    policy: str = "none"
    dimension_map: dict[str, str] = {}
    tenant: str = ""
    models: tuple[str, ...] = ()


class _Refused(msgspec.Struct, frozen=True):
    error: dict[str, object] = {}


class _Told(Refusal, frozen=True, kw_only=True):
    """A refusal in the node agent's own words."""

    said: dict[str, object] = msgspec.field(default_factory=dict)

    def body(self, *, request_id: str, policy: str) -> dict[str, object]:
        """Pass the node agent's answer on."""
        said = {name: item for name, item in self.said.items() if name not in {"type", "param"}}
        return {**said, "request_id": request_id, "policy_generation": policy}


class NodeGate:
    """Asks over the node agent's socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=self._socket), base_url=BASE, timeout=TIMEOUT_SECONDS
        )
        self._lock = threading.Lock()
        self._owed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._teller: threading.Thread | None = None
        atexit.register(self.close)
        self._known = _Policy()
        self._asked_at = float("-inf")
        self.deployments = Deployments()

    @property
    def policy(self) -> str:
        """The generation in force, as `epoch.gen`."""
        return self._known.policy

    @property
    def dimension_map(self) -> Mapping[str, str]:
        """Where the policy says that each dimension is read in a request."""
        return self._known.dimension_map

    @property
    def tenant(self) -> str:
        """Whose a request is that names no tenant."""
        return self._known.tenant

    def ready(self) -> None:
        """Know the policy, as of a second ago."""
        if not self._is_due():
            return
        try:
            self._learn(self._client.get("/v1/policy"))
        except httpx.HTTPError as wrong:
            self._unreachable(wrong)

    async def ready_async(self) -> None:
        """Know the policy, as of a second ago."""
        if not self._is_due():
            return
        try:
            async with self._new_client() as client:
                self._learn(await client.get("/v1/policy"))
        except httpx.HTTPError as wrong:
            self._unreachable(wrong)

    def _is_due(self) -> bool:
        now = seconds_since_boot()
        with self._lock:
            if now - self._asked_at < POLICY_SECONDS:
                return False
            self._asked_at = now
        return True

    def _learn(self, answer: httpx.Response) -> None:
        if answer.is_success:
            self._known = msgspec.json.decode(answer.content, type=_Policy)

    @staticmethod
    def _unreachable(wrong: httpx.HTTPError) -> None:
        say("node_agent_unreachable", error=type(wrong).__name__)

    def _new_client(self) -> httpx.AsyncClient:
        """Return a client for this loop and request; a local socket is opened in microseconds."""
        transport = httpx.AsyncHTTPTransport(uds=self._socket)
        return httpx.AsyncClient(transport=transport, base_url=BASE, timeout=TIMEOUT_SECONDS)

    async def admit(self, request: Request) -> Ticket:
        """Admit one call."""
        return await self._admit(request, again=False)

    async def admit_again(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call."""
        return await self._admit(request, again=True)

    async def look_again(self, request: Request) -> Ticket:
        """Ask what the rules change in a later attempt at another model."""
        return await self._admit(request, again=True, hold=False)

    def admit_blocking(self, request: Request) -> Ticket:
        """Admit one call."""
        return self._admit_blocking(request, again=False)

    def admit_again_blocking(self, request: Request) -> Ticket:
        """Hold another attempt of an admitted call."""
        return self._admit_blocking(request, again=True)

    async def _admit(self, request: Request, *, again: bool, hold: bool = True) -> Ticket:
        await self.ready_async()
        order = self._order(request, again=again, hold=hold)
        try:
            async with self._new_client() as client:
                answer = await client.post("/v1/admit", content=order)
        except httpx.HTTPError as wrong:
            raise _no_agent(wrong) from wrong
        return _ticket(answer)

    def _admit_blocking(self, request: Request, *, again: bool) -> Ticket:
        self.ready()
        try:
            answer = self._client.post("/v1/admit", content=self._order(request, again=again))
        except httpx.HTTPError as wrong:
            raise _no_agent(wrong) from wrong
        return _ticket(answer)

    def _order(self, request: Request, *, again: bool, hold: bool = True) -> bytes:
        asked = request.facts.get("model", "")
        models = {asked, *self._known.models}
        return msgspec.json.encode(
            {
                "request_id": request.request_id,
                "again": again,
                **({} if hold else {"hold": False}),
                "asked": {
                    "facts": dict(request.facts),
                    "bound": request.bound,
                    "provider": request.provider,
                    "candidates": {model: request.candidates(model) for model in models},
                    "call_id": request.call_id,
                },
            }
        )

    def settle(self, hold_id: str, ending: Ending) -> None:
        """Say how an attempt ended."""
        self._say({"hold_id": hold_id}, ending)

    def release(self, slot: str, ending: Ending) -> None:
        """Say how a request ended."""
        self._say({"slot": slot}, ending)

    def _say(self, what: dict[str, str], ending: Ending) -> None:
        """Tell the node agent; if it is gone, the hold expires there, charged in full."""
        error = ending.error_type if ending.status == "error" else None
        unsent = "never_sent" if error in {"cancelled", None} else "connect"
        said = {
            **what,
            "http_status": ending.http_status,
            "buckets": ending.usage,
            "read": ending.read_usage,
            "error": error if ending.was_sent else unsent,
            "response_id": ending.response_id,
            "provider": ending.provider,
            "model": ending.model,
        }
        with self._lock:
            if self._teller is None or not self._teller.is_alive():  # first, or after a fork
                self._teller = threading.Thread(target=self._tell, name="settle", daemon=True)
                self._teller.start()
        self._owed.put(msgspec.json.encode(said))

    def _tell(self) -> None:
        """Send what is owed, in order: a caller's event loop must not wait for another process."""
        while (said := self._owed.get()) is not None:
            try:
                self._client.post("/v1/settle", content=said)
            except httpx.HTTPError as wrong:
                self._unreachable(wrong)

    def close(self) -> None:
        """Say what is still owed, and close the connections."""
        if self._teller is not None and self._teller.is_alive():
            self._owed.put(None)
            self._teller.join(TIMEOUT_SECONDS)
        self._client.close()


def _ticket(answer: httpx.Response) -> Ticket:
    if answer.is_success:
        return msgspec.json.decode(answer.content, type=Ticket)
    policy = answer.headers.get("x-controlplane-policy", "none")
    try:
        error = msgspec.json.decode(answer.content, type=_Refused).error
    except UNREADABLE:
        error = {}
    wait = answer.headers.get("retry-after", "")
    raise RefusedError(
        _Told(
            code=str(error.get("code", "agent_error")),
            reason=str(error.get("message", answer.text[:200])),
            status=answer.status_code,
            retry_after_seconds=int(wait) if wait.isdigit() else None,
            said=error,
        ),
        policy,
        request_id=str(error.get("request_id", "")),
    )


def _no_agent(wrong: httpx.HTTPError) -> RefusedError:
    return RefusedError(
        Refusal(
            code="agent_unreachable",
            reason=f"the node agent does not answer ({type(wrong).__name__})",
            status=503,
        ),
        "none",
    )
