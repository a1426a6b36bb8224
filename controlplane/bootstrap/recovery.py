"""The hub's own note of how far the ledger had come, so that a restored database is noticed.

The note lies in the data directory, beside the span store and not in the metadata database: a copy
of the database that is put back is behind it.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog

from controlplane import telemetry
from controlplane.bootstrap.system import SystemClock
from controlplane.budgets.book import LeaseTerms
from controlplane.budgets.recovery import Mark, is_another
from controlplane.core.errors import ConflictError
from controlplane.core.json_errors import UNREADABLE
from controlplane.durable import replace_file
from controlplane.pipelines.publish import PublishTools, bump_epoch
from controlplane.policy.history import Change
from controlplane.store.metadata.timeline import TimelineRepository
from controlplane.workers.rounds import Rounds

NOTE: Final = "ledger-mark.json"
NOTE_SECONDS: Final = 5.0
log = structlog.stdlib.get_logger()


def notice_restore(
    data_dir: Path,
    timeline: TimelineRepository,
    *,
    terms: LeaseTerms,
    clock: SystemClock,
    repost: Callable[[int], None],
) -> bool:
    """Freeze a ledger that is behind our note, and post to it again what it lost of the calls.

    To be called before anything is granted.

    Args:
        data_dir: where the note is.
        timeline: of the ledger.
        terms: how long leases and calls can last.
        clock: ours.
        repost: makes the span store post every settlement version after this one again.

    Raises:
        UnavailableError: the database can not be read; do not go on.
    """
    path, found = data_dir / NOTE, timeline.mark()
    if _goes_on(path, found):
        return False
    until = clock.now() + timedelta(seconds=terms.frozen_seconds)
    repost(timeline.posted())
    timeline.recover(until)
    replace_file(path, msgspec.json.encode(found))
    log.error("ledger_restored", until=until.isoformat())
    return True


def _goes_on(path: Path, found: Mark) -> bool:
    """Whether the ledger goes on from where the note left it; a damaged note proves nothing."""
    if not path.exists():
        return True
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Mark)
    except UNREADABLE:
        log.exception("ledger_note_unreadable", path=str(path))
        return False
    if is_another(kept, found):
        log.error("ledger_is_behind", kept=msgspec.to_builtins(kept))
        return False
    return True


def recovery_rounds(
    data_dir: Path,
    timeline: TimelineRepository,
    *,
    publishing: PublishTools,
    clock: SystemClock,
    published: Callable[[], None],
) -> Rounds:
    """Return the worker that keeps the note, and gives every scope a new epoch once."""
    note = note_of(data_dir, timeline, publishing=publishing, clock=clock, published=published)
    return Rounds("ledger-mark", note, seconds=NOTE_SECONDS)


def note_of(
    data_dir: Path,
    timeline: TimelineRepository,
    *,
    publishing: PublishTools,
    clock: SystemClock,
    published: Callable[[], None],
) -> Callable[[], None]:
    """Return one round of that worker."""

    def note() -> None:
        telemetry.LEDGER_RECOVERING.set(timeline.recovering_until(clock.now()) is not None)
        if timeline.unannounced():
            try:
                for scope in publishing.policies.scopes():
                    if publishing.policies.newest(scope) is not None:
                        said = Change(author="ledger", message="the ledger was restored")
                        bump_epoch(scope, clock.now(), tools=publishing, change=said)
            except ConflictError:
                return  # somebody published meanwhile: the next round
            timeline.announced()
            published()
        replace_file(data_dir / NOTE, msgspec.json.encode(timeline.mark()))

    return note
