"""Where each target starts from: what producers really send, and what once broke it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

TESTS: Final = Path(__file__).parents[1]
FOUND: Final = TESTS / "corpus_hostile"
LARGEST_SEED: Final = 16 * 1024
_POLICY: Final = b"""
rules:
  - {id: a, action: deny, match: {team: [search, "ml-*"]}, status: 429, when: {tools: true}}
  - {id: b, action: throttle, rpm: 60, match: {model: [gpt-4o]}}
  - {id: c, action: cap, max_tokens: 512}
dimension_map: {team: metadata.team, user_id: user}
"""
_SCORE: Final = {
    "name": "helpful",
    "kind": "feedback",
    "score": 0.5,
    "label": "good",
    "trace_id": "0123456789abcdef0123456789abcdef",
    "span_id": "0123456789abcdef",
    "id": "s1",
}
_PAGE: Final = b"""# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="m",engine="0"} 1.5e3
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 4
vllm:time_to_first_token_seconds_sum{model_name="m"} 0.5
vllm:time_to_first_token_seconds_count{model_name="m"} 5
"""
_CHAT: Final = b"""/v1/chat/completions
{"model":"gpt-4o","max_tokens":5,"stream":true,"user":"u","metadata":{"team":"t"}}


data: {"choices":[{"delta":{"content":"a"}}]}

data: {"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}

data: [DONE]

"""
_MESSAGE: Final = b"""/v1/messages
{"model":"claude-sonnet-4-5","max_tokens":5,"messages":[]}


{"usage":{"input_tokens":5,"output_tokens":2,"cache_read_input_tokens":3}}"""


def seeds_of(target: str) -> list[bytes]:
    """Answer a target's seeds, what it once broke upon included."""
    return [*_SEEDS[target](), *(path.read_bytes() for path in found_by(target))]


def found_by(target: str) -> list[Path]:
    """Answer where the inputs are kept that once broke a target."""
    return sorted((FOUND / target).glob("*"))


def _recorded(suffix: str, *, metrics: bool = False) -> Iterator[bytes]:
    for root in ("corpus", "recordings"):
        for path in sorted((TESTS / root).rglob(f"*{suffix}")):
            if ".expected." in path.name or (".metrics." in path.name) is not metrics:
                continue
            body = path.read_bytes()
            if len(body) <= LARGEST_SEED:
                yield body


def _framed() -> Iterator[bytes]:
    yield from (b"\x00" + body for body in _recorded(".pb"))
    yield from (b"\x04" + body for body in _recorded(".json"))
    yield from (b"\x01" + path.read_bytes() for path in sorted(TESTS.rglob("corpus/**/*.gz"))[:8])


def _chosen() -> Iterator[bytes]:
    """A span of every dialect, its attributes in several forms."""
    yield from (bytes((number, 0, 1, 5, 12)) + bytes(range(64)) * 2 for number in range(40))


def _measured() -> Iterator[bytes]:
    yield from (b"\x00" + body for body in _recorded(".pb", metrics=True))
    yield from (b"\x04" + body for body in _recorded(".json", metrics=True))


_SEEDS: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = {
    "framing": _framed,
    "protobuf": lambda: _recorded(".pb"),
    "json": lambda: _recorded(".json"),
    "dialects": _chosen,
    "signals": _measured,
    "scores": lambda: iter((msgspec.json.encode(_SCORE),)),
    "policy": lambda: iter((_POLICY,)),
    "exposition": lambda: iter((b"\x00" + _PAGE, b"\x01" + _PAGE + b"# EOF\n")),
    "proxied": lambda: iter((_CHAT, _MESSAGE)),
}
