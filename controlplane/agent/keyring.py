"""Keep the keys that policies are verified with: asked for, checked against the root, on disk."""

import asyncio
import random
from typing import Final

import httpx
import msgspec

from controlplane.agent.log import say
from controlplane.agent.settings import AgentSettings
from controlplane.core.errors import ControlPlaneError
from controlplane.core.json_errors import UNREADABLE
from controlplane.durable import replace_file
from controlplane.policy.bundle import SIGNATURE_HEADER
from controlplane.policy.keyset import KeyRing, SignedKeySet

REFRESH_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 5.0
FILE: Final = "policy-keys.json"


class AgentKeys(KeyRing):
    """A ring that outlives the process: what the root said last is not forgotten by a restart."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__(settings.policy_keys, settings.policy_root)
        self._file = settings.state_dir / FILE
        self._random = random.SystemRandom()
        self._load()

    async def run(self, client: httpx.AsyncClient) -> None:
        """Ask until cancelled, at once and then every minute or so."""
        while True:
            pause = REFRESH_SECONDS
            try:
                await self.refresh(client)
            except (httpx.HTTPError, ControlPlaneError) as wrong:
                say("policy_keys_not_read", error=type(wrong).__name__, detail=str(wrong)[:200])
                pause = RETRY_SECONDS
            await asyncio.sleep(pause * self._random.uniform(0.7, 1.0))

    async def refresh(self, client: httpx.AsyncClient) -> bool:
        """Ask once; True when there are other keys now.

        Raises:
            httpx.HTTPError: the server could not be asked, or has no set.
            ControlPlaneError: its set is refused; the keys stay as they are.
        """
        answer = await client.get("/api/v1/policy/keys")
        answer.raise_for_status()
        version = answer.headers.get("etag", "").strip('"')
        signed = SignedKeySet(
            int(version) if version.isdigit() else 0,
            answer.content,
            answer.headers.get(SIGNATURE_HEADER, ""),
        )
        if not self.accept(signed):
            return False
        await asyncio.to_thread(self._keep, signed)
        say("policy_keys_changed", version=self.current.version if self.current else 0)
        return True

    def _keep(self, signed: SignedKeySet) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self._file, msgspec.json.encode(signed))

    def _load(self) -> None:
        try:
            self.accept(msgspec.json.decode(self._file.read_bytes(), type=SignedKeySet))
        except (OSError, *UNREADABLE, ControlPlaneError):
            return  # absent or not the root's: the pinned keys, until the server has a set
