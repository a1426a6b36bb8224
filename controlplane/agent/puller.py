"""Get the policy: long poll, verify before parse, never go back, remember on disk, NACK aloud."""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import httpx
import msgspec

from controlplane.agent.disk import Highest, PolicyDisk, StoredPolicy
from controlplane.agent.lease import Instant
from controlplane.agent.log import say
from controlplane.agent.settings import AgentSettings
from controlplane.core.clock import Clock
from controlplane.core.errors import ControlPlaneError, PolicyError
from controlplane.core.json_errors import UNREADABLE
from controlplane.policy.bundle import SIGNATURE_HEADER, decode_document
from controlplane.policy.document import RULE_KEYS, PolicyDocument
from controlplane.policy.wire import Generation, Nack

CAPABILITIES: Final = (
    *("deny", "throttle", "route", "downgrade", "cap", "strip"),
    *("failover", "canary", "annotate", "experiment", "lease"),
)
"""What this agent does; a document that requires more is refused whole."""
MAX_POLICY_BYTES: Final = 8 * 2**20
MAX_BACKOFF_SECONDS: Final = 10.0
CALM_POLL_SECONDS: Final = 60.0
"""Between two polls while the stream is healthy."""
MIN_POLL_SECONDS: Final = 1.0
"""Between two polls that brought nothing, where the server does not hold them."""
RESYNC_SECONDS: Final = 600.0
"""How often the whole document is fetched, whatever both sides believe; jittered (D5)."""
SAVE_AFTER_SECONDS: Final = 0.05
"""How long after a policy is in force it is written down: fronts have been told by then."""
SAVE_SECONDS: Final = 30.0  # between two notes on disk that the policy is still current

UNPREDICTABLE: Final[random.Random] = random.SystemRandom()
"""Spreads a fleet: nobody comes back when all others do."""

_Kept = TypeVar("_Kept", StoredPolicy, Highest)

Verify = Callable[[bytes, str], None]
"""Raises a ControlPlaneError unless the header signs exactly these bytes with a pinned key."""


class _Pair(msgspec.Struct, frozen=True):
    """All that is read of a document which is refused: which one it was."""

    epoch: int = 0
    gen: int = 0


class Applied(msgspec.Struct, frozen=True):
    """A document in force, when the server last confirmed that it is current, and since when."""

    document: PolicyDocument
    generation: Generation
    confirmed: Instant
    since: Instant


class Puller:
    """The policy of one scope, as far as this process knows."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: AgentSettings,
        *,
        clock: Clock,
        verify: Verify,
        jitter: random.Random = UNPREDICTABLE,
    ) -> None:
        self._client = client
        self._jitter = jitter
        self._settings = settings
        self._clock = clock
        self._verify = verify
        self._disk = PolicyDisk(settings.state_dir, settings.scope)
        self._highest = self._disk.highest()
        self._stored: StoredPolicy | None = None
        self.applied: Applied | None = None
        self.nack: Nack | None = None
        self.error: str | None = None
        """Why the last poll brought nothing that may be applied."""
        self.seen = asyncio.Event()
        self.is_streaming = False
        self._wanted = asyncio.Event()
        self._acknowledged: tuple[Generation | None, Nack | None] | None = None
        self._saved = Instant.of(clock)
        self._resume()

    def _resume(self) -> None:
        """Apply what is on disk: as strict as if it had just come over the wire."""
        stored = self._disk.load()
        if stored is None:
            return
        try:
            self._verify(stored.body, stored.signature)
            document = _parse(stored.body, self._settings.scope)
            self._forward(document, stored.body)
        except ControlPlaneError:
            return  # tampered with, or an old one put back; the server will send a good one
        now = Instant.of(self._clock)
        age = max(0.0, (now.wall - stored.confirmed_at).total_seconds())
        confirmed = Instant(stored.confirmed_at, now.monotonic - age)
        self._stored = stored
        self.applied = Applied(
            document, Generation(document.epoch, document.gen), confirmed, since=now
        )
        self.seen.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Poll until cancelled; the wait is jittered so that a fleet does not return at once."""
        backoff, jitter = 0.0, self._jitter
        resync = self._clock.monotonic() + RESYNC_SECONDS * jitter.uniform(0.5, 1.0)
        while True:
            wait = self._settings.poll_wait_seconds * jitter.uniform(0.8, 1.0)
            try:
                is_due = self._clock.monotonic() >= resync
                if is_due:
                    resync = self._clock.monotonic() + RESYNC_SECONDS * jitter.uniform(0.8, 1.2)
                # Without a policy nothing can be admitted: then the answer is wanted at once.
                is_calm = self.is_streaming or is_due or self.applied is None
                asked, wait = self._clock.monotonic(), 0.0 if is_calm else wait
                if await self.poll(wait, whole=is_due):
                    changed()
                elif wait:  # an older server, or a cache before it, may answer at once
                    took = self._clock.monotonic() - asked
                    await asyncio.sleep(max(0.0, min(wait, MIN_POLL_SECONDS) - took))
                backoff, self.error = 0.0, None
                await self._rest(CALM_POLL_SECONDS * jitter.uniform(0.7, 1.0))
            except (httpx.HTTPError, ControlPlaneError) as wrong:
                self.error = f"{type(wrong).__name__}: {wrong}"[:300]
                say("policy_poll_failed", error=type(wrong).__name__, detail=str(wrong)[:300])
                changed()  # a NACK is told at once
                backoff = min(MAX_BACKOFF_SECONDS, max(0.25, backoff * 2))
                await asyncio.sleep(backoff * jitter.uniform(0.5, 1.0))
            if self._saved.seconds_until(Instant.of(self._clock)) > SAVE_SECONDS:
                self.persist_confirmation()

    async def _rest(self, seconds: float) -> None:
        """Leave it to the stream for a while: until it fails, or says that there is more."""
        if not self.is_streaming:
            return
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), seconds)

    def streaming(self, *, healthy: bool) -> None:
        """Note whether the stream works; when it stops, the poll is back at once."""
        if self.is_streaming and not healthy:
            self._wanted.set()
        self.is_streaming = healthy

    def ask_soon(self, delay_seconds: float) -> None:
        """Poll after a moment: there is something newer that was not pushed."""
        asyncio.get_running_loop().call_later(delay_seconds, self._wanted.set)

    @property
    def body(self) -> bytes | None:
        """The signed bytes of the document in force."""
        return self._stored.body if self._stored else None

    @property
    def applied_ago_seconds(self) -> float:
        """Since when the document in force is."""
        if self.applied is None:
            return 0.0
        return max(0.0, self.applied.since.seconds_until(Instant.of(self._clock)))

    @property
    def sha256(self) -> str | None:
        """Of the document in force, so that the server can tell it from one it never wrote."""
        return self._highest.sha256 if self.applied and self._highest else None

    def state(self) -> tuple[Generation | None, Nack | None]:
        """Return what to tell the server: the pair in force, and what was refused."""
        return (self.applied.generation if self.applied else None), self.nack

    def acknowledged(self, applied: Generation | None, nack: Nack | None) -> None:
        """Note that the server knows this."""
        self._acknowledged = (applied, nack)

    @property
    def unacknowledged(self) -> bool:
        """Whether the server does not know yet what we have or refuse."""
        return self._acknowledged != self.state()

    async def poll(self, wait_seconds: float, *, whole: bool = False) -> bool:
        """Ask once, waiting up to `wait_seconds` for something newer; True when it changed.

        With `whole` the document is sent and compared even when its pair is what we have.

        Raises:
            httpx.HTTPError: the server could not be asked; what is applied stays applied.
            ControlPlaneError: it answered with a document that is refused; `nack` says why.
        """
        asked = Instant.of(self._clock)
        seen = self._newest_seen() if not whole else None
        headers = {"If-None-Match": seen.etag()} if seen else {}
        response = await self._client.get(
            "/api/v1/policy",
            params={
                "scope": self._settings.scope,
                "node": self._settings.node,
                "wait": f"{wait_seconds:.1f}",
            },
            headers=headers,
            timeout=wait_seconds + self._settings.request_timeout_seconds,
        )
        if response.status_code == httpx.codes.NOT_MODIFIED:
            if self.applied and seen == self.applied.generation:
                self.confirm(asked)
            return False
        response.raise_for_status()
        return self.accept(response.content, response.headers, asked)

    def _newest_seen(self) -> Generation | None:
        """Return the pair to wait for something newer than; one that is refused is not asked for again.

        A server that holds on to what we refuse does not confirm what we have.
        """
        if self.applied is None:
            return None
        refused = self.nack.generation if self.nack else self.applied.generation
        return max(self.applied.generation, refused)

    def accept(self, body: bytes, headers: Mapping[str, str], asked: Instant) -> bool:
        """Verify, parse, compare, persist, apply, in that order; True when it is new.

        Raises:
            ControlPlaneError: it is refused and NACKed; what was applied stays applied.
        """
        signature = headers.get(SIGNATURE_HEADER, "")
        if len(body) > MAX_POLICY_BYTES:
            raise PolicyError("document", f"has {len(body)} bytes", f"At most {MAX_POLICY_BYTES}")
        self._verify(body, signature)  # what is not ours is refused without a NACK: it has no name
        try:
            document = _parse(body, self._settings.scope)
            generation = self._forward(document, body)
        except PolicyError as refused:
            pair = _peek(body)
            self.nack = Nack(Generation(pair.epoch, pair.gen), str(refused))
            raise
        is_new = self.applied is None or generation != self.applied.generation
        self._stored = StoredPolicy(body, signature, asked.wall)
        if is_new:
            self._highest = Highest(generation.epoch, generation.gen, _digest(body))
            self._save(self._disk.reached, self._highest)
            self._save_soon()
            self.nack = None  # what a front or we refuse of the same pair stays refused
        before = self.applied
        since = Instant.of(self._clock) if is_new or before is None else before.since
        self.applied = Applied(document, generation, asked, since)
        self.seen.set()
        return is_new

    def refused_by_front(self, generation: Generation, reason: str) -> None:
        """NACK a generation that we could apply and a proxy before us could not."""
        if self.applied and self.applied.generation == generation:
            self.nack = Nack(generation, reason)

    def confirm(self, asked: Instant) -> None:
        """Note that what is applied is still current."""
        if self.applied:
            self.applied = msgspec.structs.replace(self.applied, confirmed=asked)

    def _forward(self, document: PolicyDocument, body: bytes) -> Generation:
        generation = Generation(document.epoch, document.gen)
        if self._highest is None:
            return generation
        if generation < self._highest.generation:
            raise PolicyError(
                "gen",
                f"{generation.etag()} is older than {self._highest.generation.etag()}",
                "Roll back by publishing the old content as a new generation",
            )
        if generation == self._highest.generation and _digest(body) != self._highest.sha256:
            raise PolicyError("gen", f"{generation.etag()} was seen with other content")
        return generation

    def _save_soon(self) -> None:
        """Keep the policy itself when it has been acted on: a proxy must not wait for the disk."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # nothing to wait for
            self._save_policy()
        else:
            loop.call_later(SAVE_AFTER_SECONDS, self._save_policy)

    def _save_policy(self) -> None:
        if self._stored:
            self._save(self._disk.save, self._stored)

    @staticmethod
    def _save(write: Callable[[_Kept], None], what: _Kept) -> None:
        """Write; a full disk is no reason to go on with an older policy."""
        try:
            write(what)
        except OSError as wrong:
            say("policy_not_saved", error=wrong.strerror)

    def persist_confirmation(self) -> None:
        """Write the last confirmation to disk, so that a restart knows how stale it is."""
        if self.applied and self._stored and self._highest:
            self._saved = Instant.of(self._clock)
            confirmed = self.applied.confirmed.wall
            self._stored = msgspec.structs.replace(self._stored, confirmed_at=confirmed)
            self._save_policy()


def _parse(body: bytes, scope: str) -> PolicyDocument:
    document = decode_document(body)
    if document.api != "v1":
        raise PolicyError("api", f"{document.api!r} is not v1", "Upgrade the agent")
    if document.scope != scope:
        raise PolicyError("scope", f"{document.scope!r} is not ours", f"Send {scope!r}")
    missing = sorted(set(document.capabilities_required) - set(CAPABILITIES))
    if missing:
        raise PolicyError("capabilities_required", f"{missing} are missing", "Upgrade the agent")
    for part in (
        *document.rules,
        *document.budgets,
    ):  # it would match nothing: a deny that lets pass
        unknown = sorted(set(part.match) - set(RULE_KEYS))
        if unknown:
            raise PolicyError(f"{part.id}.match", f"{unknown} are not known", "Upgrade the agent")
    return document


def _peek(body: bytes) -> _Pair:
    try:
        return msgspec.json.decode(body, type=_Pair)
    except UNREADABLE:
        return _Pair()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
