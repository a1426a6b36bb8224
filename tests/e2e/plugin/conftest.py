"""The real LiteLLM proxy with our plug-in in it, against a small server that speaks the wire."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

AGENT_TESTS = Path(__file__).parents[2] / "agent"
PROXY_KEY = "sk-e2e-0123456789abcdef0123456789abcdef"
GPT_4O = {"input_nusd": 2_500_000_000, "output_nusd": 10_000_000_000, "max_output_tokens": 16_384}
MINI = {"input_nusd": 150_000_000, "output_nusd": 600_000_000, "max_output_tokens": 16_384}
CHEAP = {"input_nusd": 1_000, "output_nusd": 1_000, "max_output_tokens": 16_384}
LIMIT_NUSD = 1_000_000_000
WAIT_SECONDS = 60.0

Publish = Callable[..., None]
Fresh = Callable[[], tuple[list[int], list[int]]]


def budget(**changes: object) -> dict[str, object]:
    return {
        "id": "b1",
        "name": "team a",
        "owner": "ana@example.com",
        "match": {"tenant": ["a"]},
        "limit_nusd": 100 * LIMIT_NUSD,
        "window_start": "2026-01-01T00:00:00Z",
        "window_end": "2036-01-01T00:00:00Z",
    } | changes


@pytest.fixture(scope="session")
def control_plane(start_program: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    ready = start_program(AGENT_TESTS / "fake_control_plane.py")
    return {**ready, "url": f"http://127.0.0.1:{ready['port']}"}


@pytest.fixture(scope="session")
def dead_url() -> Iterator[str]:
    """URL of a deployment that nobody serves: its port is taken, and not listened at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@pytest.fixture(scope="session")
def proxy(
    control_plane: dict[str, Any],
    upstream: str,
    dead_url: str,
    start_proxy: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    put_rules(control_plane, rules=[])

    def deployment(group: str, model: str, **info: str) -> dict[str, object]:
        params = {"model": f"openai/{model}", "api_base": f"{upstream}/v1", "api_key": "none"}
        return {"model_name": group, "litellm_params": params, "model_info": info}

    nobody = {"model": "openai/gpt-fixed", "api_base": dead_url, "api_key": "none"}
    claude = {"model": "anthropic/claude-fixed", "api_base": upstream, "api_key": "none"}
    slow = {**claude, "model": "anthropic/claude-slow-fixed"}
    return start_proxy(
        {
            "model_list": [
                deployment("gpt-4o", "gpt-4o"),
                deployment("gpt-4o-mini", "gpt-4o-mini"),
                deployment("shaky", "gpt-4o-flaky"),
                deployment("split", "gpt-4o", id="left"),
                deployment("split", "gpt-4o-mini", id="right"),
                deployment("gpt-fixed", "gpt-fixed"),
                deployment("tough", "gpt-fixed", id="alive"),
                {**deployment("tough", "gpt-fixed", id="dead"), "litellm_params": nobody},
                {**deployment("claude", "x"), "litellm_params": claude},
                {**deployment("claude-slow", "x"), "litellm_params": slow},
                deployment("blocked-after", "gpt-fixed"),
                deployment("blocked-meanwhile", "gpt-hang"),
                deployment("busy", "gpt-busy"),
                deployment("shut", "gpt-busy"),
                deployment("busy-by-id", "gpt-busy"),
                deployment("nobody-asks-for-it", "gpt-fixed", id="by-id"),
                deployment("cut", "gpt-cut"),
            ],
            "litellm_settings": {
                "callbacks": [
                    "controlplane.agent.litellm_proxy.handler",
                    "blocking_callback.handler",
                ],
                "fallbacks": [
                    {"busy": ["gpt-fixed"]},
                    {"shut": ["gpt-fixed"]},
                    {"busy-by-id": ["by-id"]},
                ],
                "num_retries": 1,
                "cache": True,
                "cache_params": {"type": "local", "mode": "default_off"},
            },
        },
        {
            "CONTROLPLANE_AGENT_SERVER_URL": control_plane["url"],
            "CONTROLPLANE_AGENT_API_KEY": "cp_proxy_test_test",
            "CONTROLPLANE_AGENT_POLICY_KEYS": ",".join(
                f"{kid}={key}" for kid, key in control_plane["keys"].items()
            ),
            "OPENAI_API_BASE": f"{upstream}/v1",  # where LiteLLM sends a batch
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_API_BASE": upstream,  # where it passes on what it does not look at
            "ANTHROPIC_API_KEY": "none",
            "PYTHONPATH": str(Path(__file__).parent / "callbacks"),
            "CONTROLPLANE_AGENT_STATE_DIR": str(tmp_path_factory.mktemp("agent")),
        },
    )


def put_rules(control_plane: dict[str, Any], **changes: object) -> None:
    document = {
        "dimension_map": {"tenant": "user", "team": "header.x-team"},
        "budgets": [budget()],
        "rate_card": {
            "openai/gpt-4o": GPT_4O,
            "openai/gpt-4o-mini": MINI,
            "openai/gpt-fixed": GPT_4O,
            "anthropic/claude-fixed": GPT_4O,
            "anthropic/claude-slow-fixed": GPT_4O,
            "openai/gpt-4o-flaky": GPT_4O,
            "openai/gpt-busy": CHEAP,
            "openai/gpt-hang": GPT_4O,
            "openai/gpt-cut": GPT_4O,
        },
    } | changes
    httpx.put(f"{control_plane['url']}/_rules", json=document).raise_for_status()


@pytest.fixture
def publish(control_plane: dict[str, Any], proxy: str) -> Publish:
    """Publish a document and wait until the proxy says that it applies it."""

    def apply(**changes: object) -> None:
        put_rules(control_plane, **changes)
        wanted = httpx.get(f"{control_plane['url']}/api/v1/policy").headers["ETag"].strip('"')

        def is_applied() -> bool:
            answer = httpx.post(
                f"{proxy}/v1/chat/completions",
                headers=auth(),
                json={"model": "none"},
                timeout=WAIT_SECONDS,
            )
            return bool(answer.headers.get("x-controlplane-policy") == wanted)

        until(is_applied)

    return apply


def auth() -> dict[str, str]:
    return {"Authorization": f"Bearer {PROXY_KEY}"}


@pytest.fixture
def client(proxy: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key=PROXY_KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def fresh(control_plane: dict[str, Any]) -> Fresh:
    """Return what calls cost that began in this test: those settled, and those unproven.

    The proxy and its control plane are one for the session, and a call's end may be told late:
    what came since the test began may be another test's.
    """
    began = datetime.now(UTC)

    def told() -> tuple[list[int], list[int]]:
        now = state(control_plane)
        mine = {
            one["hold_id"]
            for request in now["requests"]
            for one in request["settle"]
            if datetime.fromisoformat(one["started_at"]) >= began
        }
        settled, unproven = (
            [cost for hold, cost in now[kind].items() if hold in mine]
            for kind in ("settled", "unproven")
        )
        return settled, unproven

    return told


def ask(client: openai.OpenAI, model: str = "gpt-4o", **options: Any) -> Any:
    asked: dict[str, Any] = {"user": "b", "max_tokens": 20, **options}
    asked["messages"] = [{"role": "user", "content": "say something"}]
    return client.chat.completions.create(model=model, **asked)


def last_bill(upstream: str) -> dict[str, Any]:
    bills: list[dict[str, Any]] = httpx.get(f"{upstream}/_log").json()
    return bills[-1]


def state(control_plane: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = httpx.get(f"{control_plane['url']}/_state").json()
    return state


def taken_nusd(control_plane: dict[str, Any]) -> int:
    """Wait until what is idle was given back; return what other tests have spent."""
    until(lambda: not state(control_plane)["standing"]["leased_nusd"])
    standing = state(control_plane)["standing"]
    return int(standing["limit_nusd"] - standing["free_nusd"])


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
