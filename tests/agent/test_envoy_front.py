"""What Envoy says of a call, said to the shipped gRPC services by the tests themselves.

The real Envoy is in tests/e2e/test_envoy.py; here are the turns that it takes rarely.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.agent.envoy import messages_pb2 as wire
from controlplane.agent.envoy.authz import Authorization
from controlplane.agent.envoy.routes import HOLD_HEADER, routes_of
from controlplane.agent.envoy.usage import CallProcessor
from controlplane.agent.inflate import MAX_READ_BYTES
from controlplane.agent.main import build_agent
from controlplane.agent.runtime import Agent
from controlplane.agent.settings import AgentSettings
from controlplane.policy.document import PolicyDocument

IN_NUSD, OUT_NUSD = 1_000, 10_000
RATE = {"input_nusd": IN_NUSD * 10**6, "output_nusd": OUT_NUSD * 10**6}
MAP = {"tenant": "header.x-tenant", "team": "user"}
ORDER = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "say"}]}
ANSWER = {"id": "c1", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
COST = 5 * IN_NUSD + 7 * OUT_NUSD
NO_CONTEXT: Any = None  # neither service looks at it

Work = Callable[["Front"], Awaitable[None]]


class Front(msgspec.Struct):
    """An agent and what Envoy talks to."""

    agent: Agent
    plane: Any

    def publish(self, *rules: dict[str, Any], **changes: Any) -> None:
        """Publish rules."""
        order = {"dimension_map": MAP, "rate_card": {"openai/m": RATE}, "rules": rules}
        self.plane.publish(**(order | changes))

    async def published(self, *rules: dict[str, Any], **changes: Any) -> None:
        """Publish rules, and wait until the agent applies them."""
        await asyncio.to_thread(self.publish, *rules, **changes)
        said = await asyncio.to_thread(httpx.get, f"{self.plane.url}/api/v1/policy")
        tag = said.headers["ETag"].strip('"')
        await until(lambda: self.agent.policy == tag)

    def budget_of(self, room_nusd: int) -> dict[str, Any]:
        """Return the usual budget with so much left to spend."""
        standing = self.plane.state()["standing"]
        taken = standing["limit_nusd"] - standing["free_nusd"]
        budget: dict[str, Any] = self.plane.budget(limit_nusd=taken + room_nusd)
        return budget

    async def asked(self, *messages: wire.ProcessingRequest) -> list[wire.ProcessingResponse]:
        """Send what Envoy asks about one call; return the answers."""
        processor = CallProcessor(self.agent, provider="openai")
        return [answer async for answer in processor.process(each(messages), NO_CONTEXT)]

    async def admitted(self, content: bytes | None = None, **headers: str) -> wire.CommonResponse:
        """Have a call admitted; return how it goes on."""
        body = json.dumps(ORDER).encode() if content is None else content
        _, answer = await self.asked(head(**headers), request_body(body))
        assert not answer.immediate_response.status.code, answer
        return answer.request_body.response

    async def told(self, *messages: wire.ProcessingRequest, ends: bool = False) -> dict[str, Any]:
        """Admit a call and tell of its answer; return what it is settled as.

        Envoy keeps the stream open for seconds after an answer, unless it `ends`.
        """
        held = added(await self.admitted())[HOLD_HEADER]
        talk = [head(**{HOLD_HEADER: held}), *messages]
        for message in talk:
            message.observability_mode = True
        processor = CallProcessor(self.agent, provider="openai")
        process = processor.process(each(talk, stays=not ends), NO_CONTEXT)
        listening = asyncio.create_task(anext(process, None))
        await until(lambda: not self.agent.holder.queue.is_busy)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        sent = [one for said in self.plane.state()["requests"] for one in said["settle"]]
        found: dict[str, Any] = next(
            one for one in sent if one["hold_id"] == held.partition("/")[0]
        )
        return found


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - what others do sets no event of ours
            await asyncio.sleep(0.01)


async def each(
    messages: Iterable[wire.ProcessingRequest], *, stays: bool = False
) -> AsyncIterator[wire.ProcessingRequest]:
    for message in messages:
        yield message
    if stays:
        await asyncio.Event().wait()


def added(change: wire.CommonResponse) -> dict[str, str]:
    """Return the headers that a call is given."""
    found = change.header_mutation.set_headers
    return {one.header.key: one.header.raw_value.decode() for one in found}


def bare(**headers: str) -> wire.ProcessingRequest:
    """Write the head of a request that has no body."""
    made = head(**headers)
    made.request_headers.end_of_stream = True
    return made


def head(**headers: str) -> wire.ProcessingRequest:
    """Write a request's head as Envoy sends it."""
    whole = {
        ":method": "POST",
        ":path": "/v1/chat/completions",
        ":authority": "api.openai.com:443",
        "x-request-id": "r-1",
        "x-tenant": "a",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    made = wire.ProcessingRequest()
    made.request_headers.headers.headers.extend(pairs(whole))
    return made


def pairs(headers: dict[str, str]) -> list[wire.HeaderValue]:
    return [wire.HeaderValue(key=key, raw_value=value.encode()) for key, value in headers.items()]


def request_body(content: bytes) -> wire.ProcessingRequest:
    return wire.ProcessingRequest(request_body=wire.HttpBody(body=content, end_of_stream=True))


def answered(
    status: int = 200, *, details: str = "via_upstream", **headers: str
) -> wire.ProcessingRequest:
    """Write an answer's head, and why Envoy gives it."""
    made = wire.ProcessingRequest()
    made.response_headers.headers.headers.extend(
        pairs(
            {":status": str(status), "content-type": "application/json"}
            | {name.replace("_", "-"): value for name, value in headers.items()}
        )
    )
    if details:
        said = made.attributes["envoy.filters.http.ext_proc"]
        said.fields["response.code_details"].string_value = details
    return made


def answer_body(content: bytes, *, end: bool = True) -> wire.ProcessingRequest:
    return wire.ProcessingRequest(response_body=wire.HttpBody(body=content, end_of_stream=end))


Run = Callable[[Work], None]


@pytest.fixture
def run(shared_control_plane: Any, make_settings: Callable[..., AgentSettings]) -> Run:
    """Run a coroutine with an agent that has the usual policy."""

    async def main(work: Work) -> None:
        agent = build_agent(make_settings(shared_control_plane, sync_interval_seconds=0.05))
        front = Front(agent, shared_control_plane)
        front.publish()
        await agent.ready()
        try:
            await work(front)
        finally:
            await agent.stop()

    return lambda work: asyncio.run(main(work))


def test_a_call_is_settled_when_its_answer_is_whole(run: Run) -> None:
    """Not when Envoy closes its side, seconds later: until then nobody else has the money."""

    async def work(front: Front) -> None:
        settled = await front.told(answered(), answer_body(json.dumps(ANSWER).encode()))
        assert ({"input_uncached": 5, "output_text": 7}, "ok") == (
            settled["usage"],
            settled["status"],
        )

    run(work)


def test_an_answer_that_ends_in_trailers_or_without_a_word_is_whole(run: Run) -> None:
    body = answer_body(json.dumps(ANSWER).encode(), end=False)
    trailers = wire.ProcessingRequest(response_trailers=wire.HttpTrailers())

    async def work(front: Front) -> None:
        for settled in (
            await front.told(answered(), body, trailers),
            await front.told(answered(), body, ends=True),
        ):
            assert {"input_uncached": 5, "output_text": 7} == settled["usage"]
            assert "ok" == settled["status"]
        cut = answer_body(json.dumps(ANSWER).encode()[:-1], end=False)
        settled = await front.told(answered(), cut, ends=True)
        assert (None, "cancelled") == (settled["usage"], settled["error_type"])

    run(work)


@pytest.mark.parametrize(
    ("status", "details", "usage"),
    [
        (503, "via_upstream", {}),  # the upstream said so: nobody bills that
        (503, "upstream_reset_before_response_started{connection_termination}", None),
        (503, "upstream_reset_before_response_started{remote_reset}", None),
        (503, "upstream_reset_before_response_started{remote_connection_failure|x}", {}),
        (503, "no_healthy_upstream", {}),
        (504, "response_timeout", None),
        (503, "", None),  # an Envoy that does not say why
        (400, "", {}),
    ],
)
def test_an_error_of_envoys_own_is_free_only_if_nothing_was_sent(
    run: Run, status: int, details: str, usage: dict[str, int] | None
) -> None:
    async def work(front: Front) -> None:
        settled = await front.told(answered(status, details=details), answer_body(b"oh"))
        assert (usage, status) == (settled["usage"], settled["http_status"])

    run(work)


def test_an_upstreams_own_error_is_known_by_the_time_it_took(run: Run) -> None:
    async def work(front: Front) -> None:
        head = answered(503, details="", x_envoy_upstream_service_time="4")
        assert {} == (await front.told(head, answer_body(b"busy")))["usage"]

    run(work)


def test_an_answer_is_asked_for_in_an_encoding_that_can_be_read(run: Run) -> None:
    async def work(front: Front) -> None:
        packed = answer_body(gzip.compress(json.dumps(ANSWER).encode()))
        settled = await front.told(answered(content_encoding="gzip"), packed)
        assert {"input_uncached": 5, "output_text": 7} == settled["usage"]
        lies = await front.told(answered(content_encoding="gzip"), answer_body(b"{}"))
        assert (None, "ok") == (lies["usage"], lies["status"])
        many = await front.admitted(accept_encoding="br, zstd, gzip")
        assert "gzip" == added(many)["accept-encoding"]
        assert "identity" == added(await front.admitted(accept_encoding="br"))["accept-encoding"]
        assert "accept-encoding" not in added(await front.admitted(x_tenant="b"))

    run(work)


def test_of_a_packed_answer_every_member_is_read_and_no_more_than_a_bound(run: Run) -> None:
    events = [f"data: {json.dumps({'choices': [{}], **ANSWER})}\n\n".encode()]
    events.append(b": " + b"." * MAX_READ_BYTES + b"\n\n")
    short, long = (gzip.compress(event, 1) for event in events)
    packed: Any = {"content_encoding": "gzip", "content_type": "text/event-stream"}

    async def work(front: Front) -> None:
        settled = await front.told(
            answered(**packed), answer_body(gzip.compress(b": a\n\n") + short)
        )
        assert {"input_uncached": 5, "output_text": 7} == settled["usage"]
        cut = await front.told(answered(**packed), answer_body(short + long))
        assert (None, "ok") == (cut["usage"], cut["status"])

    run(work)


def test_a_call_without_a_body_is_not_let_past(run: Run) -> None:
    """Envoy sends no body message for it: asked by its head alone, it was let through."""

    async def work(front: Front) -> None:
        for end in ("/v1/chat/completions", "/v1/fine_tuning/jobs/j/resume"):
            (answer,) = await front.asked(bare(**{":path": end}))
            told = json.loads(answer.immediate_response.body)["error"]
            assert (429, "budget_unbounded_request", "r-1") == (
                answer.immediate_response.status.code,
                told["code"],
                told["request_id"],
            )
            assert ("b1", "team a", "ana") == tuple(
                told["budget"][k] for k in ("id", "name", "owner")
            )
        await front.published({"action": "throttle", "id": "q", "concurrency": 1})
        (answer,) = await front.asked(bare(x_tenant="b"))
        change = answer.request_headers.response
        assert [HOLD_HEADER] == list(change.header_mutation.remove_headers)
        assert added(change)[HOLD_HEADER].startswith("/")  # a place is held
        (answer,) = await front.asked(bare(**{":method": "GET"}))
        assert not added(answer.request_headers.response)

    run(work)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(json.dumps(ORDER).encode()),
        json.dumps(ORDER).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(ORDER).encode(),
        json.dumps({**ORDER, "temperature": float("nan")}).encode(),
        json.dumps({**ORDER, "user": "\ud83d"}).encode(),  # half of an emoji
    ],
    ids=["gzip", "utf-16", "a byte order mark", "NaN", "half of an emoji"],
)
def test_a_body_that_some_server_can_read_is_read_here_too(run: Run, content: bytes) -> None:
    """Else it would be past every rule on its model."""
    deny = {"action": "deny", "id": "d", "match": {"model": ["m"]}}
    cap = {"action": "cap", "id": "c", "max_tokens": 7}
    packed: Any = {"content_encoding": "gzip"} if content[:2] == b"\x1f\x8b" else {}

    async def work(front: Front) -> None:
        await front.published(cap)
        change = await front.admitted(content, **packed)
        assert 7 == json.loads(change.body_mutation.body)["max_tokens"]
        assert "content-encoding" in change.header_mutation.remove_headers
        assert str(len(change.body_mutation.body)) == added(change)["content-length"]
        await front.published(deny)
        _, answer = await front.asked(head(**packed), request_body(content))
        assert b"policy_denied" in answer.immediate_response.body

    run(work)


def test_a_body_that_nobody_reads_is_refused_or_goes_on_as_it_came(run: Run) -> None:
    """A form with a recording: its operation is known, its cost is not, its bytes are kept."""

    async def work(front: Front) -> None:
        to = {"action": "downgrade", "id": "d", "to": "small"}
        deny = {
            "action": "deny",
            "id": "n",
            "match": {"operation": ["transcriptions"], "tenant": ["c"]},
        }
        await front.published(to, deny)
        form, path = request_body(b"--x\r\n"), {":path": "/v1/audio/transcriptions"}
        _, answer = await front.asked(head(**path), form)
        assert b"not a JSON object" in answer.immediate_response.body
        _, answer = await front.asked(head(x_tenant="b", **path), form)
        assert not answer.request_body.response.HasField("body_mutation")
        _, answer = await front.asked(head(x_tenant="c", **path), form)
        assert b"policy_denied" in answer.immediate_response.body

    run(work)


def test_a_request_that_envoy_does_not_name_gets_a_name(run: Run) -> None:
    async def work(front: Front) -> None:
        await front.published(budgets=[front.budget_of(1)])
        body = request_body(json.dumps(ORDER).encode())
        _, answer = await front.asked(head(x_request_id=""), body)
        assert json.loads(answer.immediate_response.body)["error"]["request_id"].startswith("req_")
        check = wire.CheckRequest()
        http = check.attributes.request.http
        http.method, http.path, http.host = "POST", "/v1/chat/completions", "api.openai.com"
        http.headers["x-tenant"], http.raw_body = "a", json.dumps(ORDER).encode()
        refused = await Authorization(front.agent, provider=None).check(check, NO_CONTEXT)
        told = json.loads(refused.denied_response.body)["error"]
        assert told["request_id"].startswith("req_")
        assert {"limit_usd", "owner", "resets_at"} <= told["budget"].keys()

    run(work)


def test_who_leaves_while_its_call_waits_holds_nothing(run: Run) -> None:
    """Envoy cancels what it asked when its client has gone."""

    async def work(front: Front) -> None:
        await front.published(
            {"action": "throttle", "id": "q", "concurrency": 2},
            budgets=[front.budget_of(500_000)],
        )
        await front.admitted()
        for _ in range(3):
            body = json.dumps({**ORDER, "max_tokens": 10**4}).encode()
            waiting = asyncio.create_task(front.asked(head(), request_body(body)))
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert 1 == front.agent.holder.queue.unsettled
        assert added(await front.admitted(x_tenant="b"))[HOLD_HEADER].startswith("/")

    run(work)


def _document(*rules: dict[str, Any]) -> PolicyDocument:
    said = {"issued_at": "2026-01-01T00:00:00Z", "epoch": 1, "gen": 2, "rules": rules}
    return msgspec.convert({**said, "dimension_map": {"team": "header.x-team"}}, PolicyDocument)


def test_a_long_reason_does_not_cost_envoy_its_routes() -> None:
    """It refuses a body above 4,096 bytes together with every route beside it."""
    rule = {"action": "deny", "id": "d", "match": {"team": ["x"]}, "reason": "\u00fc" * 5_000}
    made = routes_of(_document(rule), name="n", cluster="default")
    body = made.virtual_hosts[0].routes[0].direct_response.body.inline_string
    assert len(body.encode()) <= 4_096
    assert "\u00fc" * 500 == json.loads(body)["error"]["message"]


def test_more_routes_than_envoy_is_sent_still_end_in_the_one_for_everybody() -> None:
    """What is left out the agent refuses and counts; a request without any route is a 404."""
    teams = [{"match": {"team": [f"t{number}"]}} for number in range(1_999)]
    limits = [{"action": "throttle", "id": f"l{n}", "rpm": 9, **teams[n]} for n in range(60)]
    ways = [{"action": "route", "id": f"w{n}", "weights": {"a": 1}, **teams[n]} for n in range(60)]
    denies = [{"action": "deny", "id": f"d{n}", **team} for n, team in enumerate(teams)]
    for rules, count in (
        ([*limits, *ways], 61),
        (denies, 2_000),
        ([*denies, *limits, *ways], 2_000),
    ):
        routes = routes_of(_document(*rules), name="n", cluster="c").virtual_hosts[0].routes
        assert (count, "default") == (len(routes), routes[-1].name)
        assert not routes[-1].match.headers
