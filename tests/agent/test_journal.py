import contextlib
import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.agent.clock import holder_lives, holder_name, machine_boot_id
from controlplane.agent.holder import Holder
from controlplane.agent.journal import Acked, Held, Journal, LeaseOpened, Record, Settled, replay
from controlplane.agent.lease import Instant
from controlplane.agent.settings import AgentSettings
from controlplane.agent.settle import Ending, Hold, lost
from controlplane.policy.wire import (
    MAX_SYNC_ITEMS,
    Generation,
    Grant,
    LeaseReturn,
    Settle,
    SyncReply,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT = Instant(NOW, 0.0)
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def _settle(hold_id: str, lease: str = "l1") -> Settle:
    return Settle(
        hold_id=hold_id,
        leases={"b": lease},
        held_nusd=30,
        started_at=NOW,
        ended_at=NOW,
        provider="p",
        model="m",
        usage={"output_text": 1},
    )


def _held(hold_id: str, lease: str = "l1") -> Held:
    return Held(hold_id, {"b": lease}, 30, 0, "p", "m")


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    return AgentSettings(
        server_url="http://127.0.0.1:1", api_key="k", policy_keys={"k": "x"}, state_dir=tmp_path
    )


def test_replay_finds_what_is_owed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", holder="h", scope="s")
    journal.append(LeaseOpened("l1", "b", 100))
    for hold in ("h1", "h2", "h3"):
        journal.append(_held(hold))
    journal.append(Settled(_settle("h1")))
    journal.append(Settled(_settle("h2")))
    journal.append(Acked(("h1",), ()))
    journal.close()
    remains = replay(tmp_path / "j")
    assert ("h", "s") == (remains.holder, remains.scope)
    assert ["h2"] == list(remains.settles)
    assert ["h3"] == list(remains.open_holds)
    assert {"l1": 10} == remains.left_nusd
    assert remains.settles["h2"] == _settle("h2")


def test_a_torn_last_line_is_as_if_never_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", holder="h", scope="s")
    journal.append(LeaseOpened("l1", "b", 100))
    journal.append(_held("h1"))
    journal.close()
    whole = (tmp_path / "j").read_bytes()
    for size in range(whole.rindex(b"{"), len(whole) - 1):
        (tmp_path / "j").write_bytes(whole[:size])
        assert {"l1": 100} == replay(tmp_path / "j").left_nusd
        assert not replay(tmp_path / "j").open_holds


@contextlib.contextmanager
def _room(path: Path, more_bytes: int) -> Iterator[None]:
    """Let files of this process grow no further than this one and so many bytes, as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("more_bytes", [0, 1, 20])
def test_a_full_disk_refuses_the_call(tmp_path: Path, more_bytes: int) -> None:
    """Nothing of the record stays: half a line would spoil the next one, which is whole again."""
    journal = Journal(tmp_path / "j", holder="h", scope="s")
    with _room(journal.path, more_bytes), pytest.raises(OSError, match=r"No space|File too large"):
        journal.append(_held("h1"))
    journal.append(_held("h2"))
    journal.close()
    assert ["h2"] == list(replay(tmp_path / "j").open_holds)


def test_a_full_disk_leaves_a_long_journal_as_it_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", holder="h", scope="s")
    live: list[Record] = [
        LeaseOpened("l1", "b", 100),
        *(_held(f"h{number}") for number in range(9)),
    ]
    before = journal.path.read_bytes()
    with _room(journal.path, 20), pytest.raises(OSError, match="No space"):
        journal.compact(live)
    assert [journal.path] == list(tmp_path.iterdir())
    assert before == journal.path.read_bytes()
    journal.append(live[0])
    journal.compact(live)
    journal.append(Settled(_settle("h0")))
    journal.close()
    remains = replay(tmp_path / "j")
    assert [f"h{number}" for number in range(1, 9)] == list(remains.open_holds)


def test_a_full_disk_holds_up_no_answer_of_the_server(
    settings: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has settled is forgotten, and its leases are taken, with the journal long still."""
    monkeypatch.setattr("controlplane.agent.journal.COMPACT_ABOVE_BYTES", 1)
    holder = Holder(settings)
    holder.queue.opened(_hold(1, "l1"))
    holder.queue.opened(_hold(2, "l1"))
    holder.queue.ended("h1", Ending(ended_at=NOW, usage={}))
    reply = SyncReply(generation=Generation(1, 1), settled=("h1",), server_time=NOW)
    (holder.journal.path.with_suffix(".new")).mkdir()  # which no file can take the place of
    holder.acknowledged(reply, ())
    assert not holder.queue.pending
    assert ["h2"] == list(replay(holder.journal.path).open_holds)
    holder.close()


def _hold(number: int, lease: str) -> Hold:
    return Hold(
        hold_id=f"h{number}", leases={"b": lease}, held_nusd=30, started=AT, provider="p", model="m"
    )


def test_compaction_keeps_the_truth(settings: AgentSettings) -> None:
    holder = Holder(settings)
    holder.granted(Grant("b", "l1", 500, 60.0, NOW), AT)
    holder.granted(Grant("b", "l2", 300, 60.0, NOW), AT)
    for number in range(6):
        leases = holder.book.hold({"b": 30}, AT)
        assert leases
        holder.queue.opened(_hold(number, leases["b"]))
    for number in range(4):
        holder.queue.ended(f"h{number}", Ending(ended_at=NOW, usage={}))
    reply = SyncReply(generation=Generation(1, 1), settled=("h0",), server_time=NOW)
    holder.acknowledged(reply, holder.returns(()))
    before = replay(holder.journal.path)
    size = holder.journal.path.stat().st_size
    holder.journal.compact(holder._live())
    after = replay(holder.journal.path)
    assert holder.journal.path.stat().st_size < size
    assert before.settles == after.settles
    assert before.open_holds.keys() == after.open_holds.keys()
    assert before.left_nusd == after.left_nusd
    holder.queue.opened(_hold(9, "l1"))
    assert "h9" in replay(holder.journal.path).open_holds
    holder.close()


def test_more_leases_than_a_sync_takes_are_given_back_in_turn(settings: AgentSettings) -> None:
    """A budget for each user is as many leases as users; a sync with too many is refused whole."""
    holder = Holder(settings)
    count = 2 * MAX_SYNC_ITEMS + 5
    for number in range(count):
        holder.granted(Grant(f"b{number}", f"l{number}", 1, 60.0, NOW), AT)
    assert holder.known_leases() is None  # a part of them would say that the others were lost
    reply = SyncReply(generation=Generation(1, 1), server_time=NOW)
    said: list[LeaseReturn] = []
    for most in (MAX_SYNC_ITEMS, MAX_SYNC_ITEMS, 5):
        returns = holder.returns(holder.book.give_back_all())
        assert most == len(returns)
        holder.acknowledged(reply, returns)
        said += returns
    assert {f"l{number}" for number in range(count)} == {one.lease_id for one in said}
    assert ((), ()) == (holder.known_leases(), holder.returns(()))
    holder.close()


def _write_dead(folder: Path, holder: str) -> None:
    journal = Journal(folder / f"journal-{holder[:8]}.jsonl", holder=holder, scope="default")
    journal.append(LeaseOpened("l1", "b", 100))
    journal.append(_held("h1"))
    journal.append(Settled(_settle("h1")))
    journal.close()


def test_the_dead_of_this_boot_give_back_what_they_left(
    settings: AgentSettings, tmp_path: Path
) -> None:
    _write_dead(tmp_path, f"{machine_boot_id()}:{2**22 + 1}:0:x")
    ((_, remains),) = Holder(settings).dead()
    assert {"l1": 70} == remains.left_nusd
    assert ["h1"] == list(remains.settles)


def test_after_a_reboot_nothing_is_given_back(settings: AgentSettings, tmp_path: Path) -> None:
    """The tail of the journal may be missing: holds that nobody knows of may have been made."""
    _write_dead(tmp_path, f"{OTHER_BOOT}:1:0:x")
    ((_, remains),) = Holder(settings).dead()
    assert ({}, None) == (remains.left_nusd, remains.leases)  # it may have had others
    assert ["h1"] == list(remains.settles)


def test_the_living_are_left_alone(settings: AgentSettings, tmp_path: Path) -> None:
    _write_dead(tmp_path, holder_name())
    assert [] == list(Holder(settings).dead())
    assert holder_lives(holder_name())


def test_a_lost_hold_is_charged_in_full() -> None:
    settle = lost(_held("h1"), NOW)
    assert settle.usage is None
    assert "error" == settle.status


def test_an_ended_hold_ends_once(settings: AgentSettings) -> None:
    holder = Holder(settings)
    holder.queue.opened(_hold(1, "l1"))
    assert holder.queue.ended("h1", Ending(ended_at=NOW, usage={"output_text": 3}))
    assert holder.queue.ended("h1", Ending(ended_at=NOW)) is None
    (settle,) = holder.queue.batch()
    assert {"output_text": 3} == settle.usage
    holder.close()
