"""From an HTTP answer of a model API to the usage in it, JSON or server-sent events, as it passes."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from controlplane.agent.outcome import error_type, is_free
from controlplane.agent.settle import Ending
from controlplane.agent.ticket import RefusedError
from controlplane.agent.usage import usage_buckets
from controlplane.core.json_errors import UNREADABLE
from controlplane.core.tokens import INPUT_BUCKETS

MAX_KEPT_BYTES: Final = 32 * 2**20
"""A longer JSON answer, or event of a stream, is passed on unread: the usage is then unknown."""
POLICY_HEADER: Final = "x-controlplane-policy"
_MARKER: Final = b"data: [DONE]"
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_FINAL_EVENTS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "message_delta"}
)
"""Events that carry the whole call's usage. Others may count what was written so far."""


class UsageReader:
    """Feed it an answer's bytes; it knows the usage at the end, or that there was none.

    Args:
        is_events: whether the content type is `text/event-stream`.
        hide_usage: drop the chunk that holds nothing but the usage: the sender did not ask for it,
            and a program that reads `choices[0]` of every chunk would fail on it.
    """

    def __init__(self, *, is_events: bool, hide_usage: bool = False) -> None:
        self._is_events = is_events
        self._hides = hide_usage
        self._kept = bytearray()
        self._looked = 0  # no event ends in the kept bytes before here
        self._usage: dict[str, object] = {}
        self._is_final = self._has_ended = self._has_count = self._has_marker = False
        self._is_lost = False
        self.response_id: str | None = None
        self.model: str | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; return what to pass on."""
        if self._is_lost:
            return data
        self._kept += data
        passed = b"".join(self._events()) if self._is_events else b""
        if len(self._kept) > MAX_KEPT_BYTES:
            passed += self.lose()
        return passed if self._hides else data

    def lose(self) -> bytes:
        """Read no further: what was not said yet stays unknown. Return what is to be passed on."""
        rest = bytes(self._kept) if self._hides else b""
        self._kept.clear()
        self._is_lost = True
        return rest

    def end(self) -> bytes:
        """Take the end in, as the upstream meant it; return what is left to pass on."""
        if self._is_lost:
            return b""
        self._has_ended = True
        if not self._is_events:
            self._read(bytes(self._kept))
            return b""
        rest = bytes(self._kept)
        self._kept.clear()
        passed = rest if self._is_shown(rest) else b""
        return passed if self._hides else b""

    def usage(self) -> dict[str, int] | None:
        """Return the bucket vector; None when the answer did not say, or stopped before it."""
        is_known = self._is_final or ((self._has_ended or self._has_marker) and self._has_count)
        return usage_buckets(self._usage) if is_known else None

    @property
    def is_lost(self) -> bool:
        """Whether it reads no further."""
        return self._is_lost

    @property
    def is_done(self) -> bool:
        """Whether a stream has said that it is at its end: many clients then hang up."""
        return self._is_final or self._has_marker

    def read_usage(self) -> dict[str, int] | None:
        """Return what the call read, where a stream said that before it stopped; else None."""
        buckets = usage_buckets(self._usage) or {}
        read = {name: count for name, count in buckets.items() if name in INPUT_BUCKETS}
        return read or None

    def note(self, said: Mapping[str, object]) -> None:
        """Take in one event that somebody else has decoded."""
        inner = said.get("response") or said.get("message")
        holder = inner if isinstance(inner, Mapping) else said
        self.response_id = self.response_id or _text(holder.get("id"))
        self.model = _text(holder.get("model")) or self.model
        for usage in (holder.get("usage"), said.get("usage")):
            if isinstance(usage, Mapping):
                self._usage.update({key: item for key, item in usage.items() if item is not None})
        if isinstance(said.get("usage"), Mapping) and holder is said:
            self._has_count = True
            self._is_final = self._is_final or said.get("choices") == []
        self._is_final = self._is_final or said.get("type") in _FINAL_EVENTS

    def _events(self) -> Iterator[bytes]:
        """Yield the whole events that are to be passed on; no byte is searched twice."""
        kept = self._kept
        while blank := _BLANK_LINE.search(kept, self._looked):
            event = bytes(kept[: blank.end()])
            del kept[: blank.end()]
            self._looked = 0
            if self._is_shown(event):
                yield event
        self._looked = max(0, len(kept) - 2)  # where one may have begun

    def _is_shown(self, event: bytes) -> bool:
        """Read one event; False when it holds the usage only and is to be hidden."""
        if event.strip() == _MARKER:
            self._has_marker = True
            return True
        if b"usage" not in event and self.response_id is not None:
            return True
        lines = event.splitlines()
        data = b"".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        said = self._read(data)
        return not (self._hides and said.get("usage") and said.get("choices") == [])

    def _read(self, data: bytes) -> Mapping[str, object]:
        try:
            said = msgspec.json.decode(data, type=dict[str, object])
        except UNREADABLE:
            return {}  # `[DONE]`, a comment, an error page
        self.note(said)
        return said


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def ending_of(status: int, reader: UsageReader, *, ended_at: datetime, is_whole: bool) -> Ending:
    """Say how a call ended that was answered; one that broke off is of unknown usage."""
    if is_free(status):
        return Ending(
            ended_at=ended_at,
            usage={},
            status="error",
            error_type=error_type(status),
            http_status=status,
        )
    is_whole = is_whole or reader.is_done
    is_error = status >= 400 or not is_whole  # noqa: PLR2004 - HTTP's own line
    return Ending(
        ended_at=ended_at,
        usage=reader.usage(),
        read_usage=reader.read_usage(),
        status="error" if is_error else "ok",
        error_type=(error_type(status) if is_whole else "cancelled") if is_error else None,
        http_status=status,
        response_id=reader.response_id,
    )


def broken(ended_at: datetime, *, was_sent: bool, kind: str) -> Ending:
    """Say how a call ended that was never answered: free only when it was never sent."""
    return Ending(
        ended_at=ended_at, usage=None if was_sent else {}, status="error", error_type=kind
    )


def refusal_headers(refused: RefusedError) -> dict[str, str]:
    """Return the headers of a refusal; clients of OpenAI and Anthropic obey `x-should-retry`."""
    refusal = refused.refusal
    headers = {"content-type": "application/json", POLICY_HEADER: refused.policy}
    if refusal.retry_after_seconds is not None:
        headers["retry-after"] = str(refusal.retry_after_seconds)
    if refusal.code != "rate_limited":
        headers["x-should-retry"] = "false"
    return headers


def refusal_body(refused: RefusedError, *, request_id: str) -> bytes:
    """Write a refusal so that the clients of OpenAI and of Anthropic both read it as an error."""
    body = refused.refusal.body(request_id=request_id, policy=refused.policy)
    error = {"type": "rate_limit_error", "param": None, **body}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
