"""What an installation records of content, from its settings; and the worker that forgets it."""

from datetime import timedelta
from typing import Final

from controlplane.core.clock import Clock
from controlplane.ingest.content import ContentPolicy
from controlplane.ingest.redaction import RedactionRule, Redactor
from controlplane.settings import ContentSettings
from controlplane.signals.content import ContentKeeper, Recording
from controlplane.workers.rounds import Rounds

FORGET_SECONDS: Final = 3_600.0


def content_policy(told: ContentSettings) -> ContentPolicy | None:
    """Return what is kept; None where nothing is.

    Raises:
        ConfigError: a redaction rule that can not be one, also where nothing is kept.
    """
    redactor = _redactor(told)
    if not told.capture:
        return None
    return ContentPolicy(
        redactor=redactor, max_chars=told.max_chars, max_texts=told.max_texts_per_span
    )


def recording_of(told: ContentSettings) -> Recording:
    """Return what the API says of it.

    Raises:
        ConfigError: as `content_policy`.
    """
    return Recording(
        capture=told.capture, retention_days=told.retention_days, marks=_redactor(told).names
    )


def _redactor(told: ContentSettings) -> Redactor:
    rules = [RedactionRule(rule.name, rule.pattern) for rule in told.rules]
    return Redactor(rules, built_in=told.built_in_redaction)


def content_rounds(told: ContentSettings, keeper: ContentKeeper, clock: Clock) -> Rounds:
    """Return the worker that deletes text when its retention ends, also after capture was off."""
    kept = timedelta(days=told.retention_days)
    return Rounds(
        "content",
        lambda: keeper.forget_content(before=clock.now() - kept),
        seconds=FORGET_SECONDS,
    )
