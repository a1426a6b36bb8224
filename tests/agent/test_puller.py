import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.agent.lease import Instant
from controlplane.agent.puller import MAX_POLICY_BYTES, Puller
from controlplane.agent.settings import AgentSettings
from controlplane.core.clock import FakeClock
from controlplane.core.errors import PolicyError
from controlplane.policy.bundle import SIGNATURE_HEADER, Signer, Verifier
from controlplane.policy.wire import Generation

SIGNER = Signer(b"k" * 32)
STRANGER = Signer(b"x" * 32)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_puller(tmp_path: Path, clock: FakeClock) -> Callable[[], Puller]:
    settings = AgentSettings(
        server_url="http://127.0.0.1:1", api_key="k", policy_keys=SIGNER.pinned, state_dir=tmp_path
    )

    def make() -> Puller:
        verify = Verifier(SIGNER.pinned).verify
        return Puller(httpx.AsyncClient(), settings, clock=clock, verify=verify)

    return make


def _body(gen: int, **fields: Any) -> bytes:
    document = {"issued_at": "2026-01-01T00:00:00Z", "epoch": 1, "gen": gen, **fields}
    return json.dumps(document).encode()


def _take(puller: Puller, body: bytes, clock: FakeClock, *, signer: Signer = SIGNER) -> bool:
    return puller.accept(body, {SIGNATURE_HEADER: signer.sign(body)}, Instant.of(clock))


def test_newer_replaces_older_never_the_other_way(
    make_puller: Callable[[], Puller], clock: FakeClock
) -> None:
    puller = make_puller()
    assert _take(puller, _body(5), clock)
    assert not _take(puller, _body(5), clock)
    with pytest.raises(PolicyError, match="older"):
        _take(puller, _body(4), clock)
    assert puller.applied
    assert Generation(1, 5) == puller.applied.generation
    assert puller.nack
    assert Generation(1, 4) == puller.nack.generation
    assert _take(puller, _body(1, epoch=2), clock)
    assert puller.nack is None


def test_the_same_generation_with_other_content_is_refused(
    make_puller: Callable[[], Puller], clock: FakeClock
) -> None:
    puller = make_puller()
    _take(puller, _body(5), clock)
    with pytest.raises(PolicyError, match="other content"):
        _take(puller, _body(5, price_book_version="x"), clock)


@pytest.mark.parametrize(
    "fields",
    [
        {"rules": [{"action": "deny", "id": "r", "match": {}, "only_on": "sunday"}]},
        {"rules": [{"action": "explode", "id": "r"}]},
        {"surprise": 1},
        {"api": "v2"},
        {"scope": "other"},
        {"capabilities_required": ["telepathy"]},
        {"rules": [{"action": "deny", "id": "d", "match": {"planet": ["mars"]}}]},
    ],
)
def test_what_is_not_understood_is_nacked_and_the_old_stays(
    make_puller: Callable[[], Puller], clock: FakeClock, fields: dict[str, Any]
) -> None:
    puller = make_puller()
    _take(puller, _body(5), clock)
    with pytest.raises(PolicyError):
        _take(puller, _body(6, **fields), clock)
    assert puller.applied
    assert Generation(1, 5) == puller.applied.generation
    assert puller.nack
    assert Generation(1, 6) == puller.nack.generation
    assert puller.unacknowledged


def test_unsigned_bytes_are_not_even_parsed(
    make_puller: Callable[[], Puller], clock: FakeClock
) -> None:
    puller = make_puller()
    with pytest.raises(PolicyError, match="not pinned"):
        _take(puller, b"\x00 not json", clock, signer=STRANGER)
    with pytest.raises(PolicyError, match="missing"):
        puller.accept(_body(1), {}, Instant.of(clock))
    with pytest.raises(PolicyError, match="does not sign"):
        puller.accept(_body(1), {SIGNATURE_HEADER: SIGNER.sign(_body(2))}, Instant.of(clock))
    assert puller.applied is None


def test_a_restart_resumes_from_disk_with_its_age(
    make_puller: Callable[[], Puller], clock: FakeClock
) -> None:
    _take(make_puller(), _body(5), clock)
    clock.advance(timedelta(hours=1).total_seconds())
    puller = make_puller()
    assert puller.applied
    assert Generation(1, 5) == puller.applied.generation
    assert 3_600 == puller.applied.confirmed.seconds_until(Instant.of(clock))
    with pytest.raises(PolicyError, match="older"):
        _take(puller, _body(4), clock)


def test_a_file_that_was_tampered_with_is_not_applied(
    make_puller: Callable[[], Puller], clock: FakeClock, tmp_path: Path
) -> None:
    _take(make_puller(), _body(5), clock)
    (path,) = tmp_path.glob("policy-*.json")
    stored = json.loads(path.read_text())
    stored["signature"] = STRANGER.sign(_body(5))
    path.write_text(json.dumps(stored))
    puller = make_puller()
    assert puller.applied is None
    with pytest.raises(PolicyError, match="older"):
        _take(puller, _body(4), clock)  # what was applied is remembered all the same
    path.write_text("garbage")
    assert make_puller().applied is None


def test_secrets_on_disk_are_for_the_owner_alone(
    make_puller: Callable[[], Puller], clock: FakeClock, tmp_path: Path
) -> None:
    _take(make_puller(), _body(5), clock)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.json")}


def test_an_older_policy_put_back_on_disk_is_not_applied(
    make_puller: Callable[[], Puller], clock: FakeClock, tmp_path: Path
) -> None:
    """Its signature holds: only the generation tells (algorithms D2)."""
    puller = make_puller()
    _take(puller, _body(4), clock)
    (path,) = tmp_path.glob("policy-*.json")
    old = path.read_bytes()
    _take(puller, _body(5), clock)
    path.write_bytes(old)
    puller = make_puller()
    assert puller.applied is None
    assert _take(puller, _body(5), clock)


def test_oversized_document_is_refused_before_it_is_verified(
    make_puller: Callable[[], Puller], clock: FakeClock
) -> None:
    """What was in force stays in force."""
    puller = make_puller()
    _take(puller, _body(5), clock)
    with pytest.raises(PolicyError, match="bytes"):
        _take(puller, b" " * (MAX_POLICY_BYTES + 1), clock)
    assert puller.applied
    assert Generation(1, 5) == puller.applied.generation


def test_document_fetched_again_leaves_a_refusal_standing(
    make_puller: Callable[[], Puller], clock: FakeClock
) -> None:
    """The full resync of a good document is no word about the bad one after it."""
    puller = make_puller()
    _take(puller, _body(5), clock)
    with pytest.raises(PolicyError):
        _take(puller, _body(6, surprise=1), clock)
    assert not _take(puller, _body(5), clock)
    assert puller.nack
    assert Generation(1, 6) == puller.nack.generation


def test_what_was_refused_is_not_asked_for_again_and_confirms_nothing(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A poison rule must not keep its remedy waiting behind retries."""
    served: dict[str, Any] = {"gen": 5, "fields": {}}
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("If-None-Match"))
        etag = f'"1.{served["gen"]}"'
        if asked[-1] == etag:
            return httpx.Response(304)
        body = _body(served["gen"], **served["fields"])
        return httpx.Response(200, content=body, headers={SIGNATURE_HEADER: SIGNER.sign(body)})

    settings = AgentSettings(
        server_url="http://127.0.0.1:1", api_key="k", policy_keys=SIGNER.pinned, state_dir=tmp_path
    )
    client = httpx.AsyncClient(base_url="http://x", transport=httpx.MockTransport(answer))
    puller = Puller(client, settings, clock=clock, verify=Verifier(SIGNER.pinned).verify)

    async def main() -> None:
        assert await puller.poll(0)
        served.update(gen=6, fields={"surprise": 1})
        with pytest.raises(PolicyError):
            await puller.poll(0)
        clock.advance(60)
        before = puller.applied
        assert not await puller.poll(0)
        assert before == puller.applied  # confirmed is when the server last served what we have
        served.update(gen=7, fields={})
        assert await puller.poll(0)

    asyncio.run(main())
    assert [None, '"1.5"', '"1.6"', '"1.6"'] == asked
