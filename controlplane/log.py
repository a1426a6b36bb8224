"""Structured logging set-up: events with fields, JSON lines on stderr, no sentence and no secret."""

import logging
import sys
from typing import TextIO, cast

import structlog

SECRET_FIELDS = frozenset(
    {"authorization", "api_key", "secret", "password", "prompt", "completion"}
)


class Tolerant:
    """A text stream whose failures stop nobody: work goes on where its log can not be written.

    On a full disk, the line that says so is the first that does not fit.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost_writes = 0

    def write(self, text: str) -> int:
        """Write what the stream takes."""
        try:
            return self._stream.write(text)
        except OSError:
            self.lost_writes += 1
            return len(text)

    def flush(self) -> None:
        """Pass on what waits, as far as it can be."""
        try:
            self._stream.flush()
        except OSError:
            self.lost_writes += 1


def _drop_secrets(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for field in SECRET_FIELDS & event.keys():
        event[field] = "[redacted]"
    return event


def configure(*, level: str = "info", human: bool = False) -> None:
    """Send every log line of this process to stderr, as JSON or, for a terminal, as text."""
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=False)
        if human
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _drop_secrets,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Tolerant(sys.stderr))),
        cache_logger_on_first_use=True,
    )
