"""The spool keeps what it was given, in the batches it formed, whatever happens in between."""

import random
import sqlite3
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from collectors.packing import unpack
from collectors.sealing import Sealer, UnreadableError
from collectors.spool import SqliteSpool
from controlplane.core.errors import ConfigError, SpoolFullError, UnavailableError
from controlplane.ingest.ports import Payload, SpoolBatch, SpoolEntry
from controlplane.signals.sender import KEYLESS_SENDER, Sender
from controlplane.signals.vocabulary import KeyRole

OpenSpool = Callable[..., SqliteSpool]
NOW = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


def _entry(body: bytes, sender: Sender = KEYLESS_SENDER) -> SpoolEntry:
    return SpoolEntry(Payload(body), sender, NOW)


def _claim(spool: SqliteSpool, *, max_bytes: int = 2**20, max_entries: int = 100) -> SpoolBatch:
    batch = spool.claim(max_bytes=max_bytes, max_entries=max_entries)
    assert batch is not None
    return batch


def _bodies(batch: SpoolBatch) -> list[bytes]:
    return [entry.payload.body for entry in batch.entries]


def test_what_goes_in_comes_out_unchanged_and_in_order(open_spool: OpenSpool) -> None:
    spool = open_spool()
    sender = Sender(domain="d", tenant="t", key_id="k", key_role=KeyRole.ENGINE)
    entries = [
        _entry(b"one", sender),
        SpoolEntry(Payload(b"{}", "json"), KEYLESS_SENDER, NOW),
    ]
    for entry in entries:
        spool.append(entry)
    assert entries == list(_claim(spool).entries)


def test_empty_spool_has_no_batch(open_spool: OpenSpool) -> None:
    spool = open_spool()
    assert spool.claim(max_bytes=1, max_entries=1) is None
    assert 0 == spool.wait(0.0)


def test_appended_entry_survives_a_process_that_never_closes(
    open_spool: OpenSpool, tmp_path: Path, spool_key: bytes
) -> None:
    """A second opening reads what the first one acknowledged, while the first is still open."""
    open_spool().append(_entry(b"acked"))
    assert [b"acked"] == _bodies(_claim(open_spool(key=spool_key)))
    assert (tmp_path / "spool" / "spool.sqlite").exists()


def test_batch_keeps_its_id_and_members_over_a_restart(open_spool: OpenSpool) -> None:
    first = open_spool()
    first.append(_entry(b"a"))
    first.append(_entry(b"b"))
    batch = _claim(first)
    first.append(_entry(b"later"))
    first.close()

    second = open_spool()
    assert batch == _claim(second)
    second.drop(batch.batch_id)
    assert [b"later"] == _bodies(_claim(second))


def test_batch_is_answered_again_until_it_is_dropped(open_spool: OpenSpool) -> None:
    spool = open_spool()
    spool.append(_entry(b"a"))
    batch = _claim(spool)
    assert batch == _claim(spool)
    spool.drop(batch.batch_id)
    spool.drop(batch.batch_id)
    assert spool.claim(max_bytes=1, max_entries=1) is None


def test_batch_is_bounded_by_bytes_and_entries_but_never_empty(open_spool: OpenSpool) -> None:
    spool = open_spool()
    for body in (b"x" * 1000, b"y" * 1000, b"z", b"w"):
        spool.append(_entry(body))
    taken = []
    for bounds in ({"max_bytes": 10}, {"max_entries": 2}, {"max_bytes": 10_000}):
        batch = _claim(spool, **bounds)
        taken.append(len(batch.entries))
        spool.drop(batch.batch_id)
    assert [1, 2, 1] == taken


def test_concurrent_requests_are_each_kept_once(open_spool: OpenSpool) -> None:
    spool = open_spool()

    def send(sender: int) -> None:
        for number in range(25):
            spool.append(_entry(f"{sender}-{number}".encode()))

    threads = [threading.Thread(target=send, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(f"{s}-{n}".encode() for s in range(8) for n in range(25))
    assert expected == sorted(_bodies(_claim(spool, max_entries=1000)))


def test_waiting_requests_share_a_commit(open_spool: OpenSpool) -> None:
    """While one group is being written the others gather, and go together."""
    commits: list[str] = []
    first_is_writing, others_are_waiting = threading.Event(), threading.Event()

    def hold_the_first(step: str) -> None:
        if step == "before_fsync":
            commits.append(step)
            first_is_writing.set()
            others_are_waiting.wait(60)

    spool = open_spool(fail_point=hold_the_first)
    threads = [threading.Thread(target=spool.append, args=(_entry(bytes([i])),)) for i in range(11)]
    threads[0].start()
    assert first_is_writing.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(spool._commits._queue) < 10:
        pass
    others_are_waiting.set()
    for thread in threads:
        thread.join()
    assert 2 == len(commits)
    assert 11 == len(_claim(spool).entries)


def test_full_spool_refuses_says_when_and_takes_again(open_spool: OpenSpool) -> None:
    spool = open_spool(max_bytes=3000)
    spool.append(_entry(b"x" * 2000))
    with pytest.raises(SpoolFullError) as refused:
        spool.append(_entry(b"y" * 2000))
    assert refused.value.retry_after_seconds > 0
    batch = _claim(spool)
    assert [b"x" * 2000] == _bodies(batch)
    spool.drop(batch.batch_id)
    spool.append(_entry(b"y" * 2000))
    assert [b"y" * 2000] == _bodies(_claim(spool))


def test_size_limit_holds_over_a_restart(open_spool: OpenSpool) -> None:
    first = open_spool()
    first.append(_entry(b"x" * 2000))
    first.close()
    with pytest.raises(SpoolFullError):
        open_spool(max_bytes=3000).append(_entry(b"y" * 2000))


def test_closed_spool_takes_nothing(open_spool: OpenSpool) -> None:
    spool = open_spool()
    spool.close()
    with pytest.raises(UnavailableError):
        spool.append(_entry(b"late"))


def test_disk_that_refuses_is_answered_and_does_not_stop_the_spool(open_spool: OpenSpool) -> None:
    spool = open_spool()
    pages = spool._inserts.execute("PRAGMA page_count").fetchone()[0]
    spool._inserts.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UnavailableError, match="Free some space"):
        spool.append(_entry(random.Random(1).randbytes(1_000_000)))
    spool._inserts.execute("PRAGMA max_page_count = 1000000")
    spool.append(_entry(b"small"))
    assert [b"small"] == _bodies(_claim(spool))


def test_bytes_on_disk_hold_no_prompt_and_no_stranger_reads_them(
    open_spool: OpenSpool, tmp_path: Path
) -> None:
    spool = open_spool()
    canary = b"the secret prompt that must not be found"
    spool.append(_entry(canary))
    files = list((tmp_path / "spool").iterdir())
    assert len(files) >= 2, "the log is there beside the file"
    assert [] == [f.name for f in files if canary in f.read_bytes()]
    assert {0o600} == {stat.S_IMODE(f.stat().st_mode) for f in files}


def test_dropped_entries_leave_nothing_in_the_file(open_spool: OpenSpool, tmp_path: Path) -> None:
    """secure_delete: even the ciphertext is overwritten."""
    spool = open_spool()
    spool.append(_entry(random.Random(1).randbytes(100_000)))
    batch = _claim(spool)
    (sealed,) = spool._claims.execute("SELECT sealed FROM entry").fetchone()
    spool.drop(batch.batch_id)
    spool.close()
    content = (tmp_path / "spool" / "spool.sqlite").read_bytes()
    assert sealed[1000:1064] not in content
    assert sealed[50_000:50_064] not in content


def test_another_key_is_refused_and_the_right_one_still_opens(
    open_spool: OpenSpool, spool_key: bytes
) -> None:
    first = open_spool()
    first.append(_entry(b"kept"))
    first.close()
    with pytest.raises(ConfigError, match="another key"):
        open_spool(key=b"w" * 32)
    assert [b"kept"] == _bodies(_claim(open_spool(key=spool_key)))


def test_file_that_is_no_spool_is_refused(open_spool: OpenSpool, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "spool.sqlite").write_bytes(b"not a database at all" * 300)
    with pytest.raises(ConfigError, match="Move it away"):
        open_spool()


def test_damaged_entry_is_set_aside_and_blocks_nobody(
    open_spool: OpenSpool, tmp_path: Path, refused: Callable[[str], float]
) -> None:
    spool = open_spool()
    for body in (b"a", b"b", b"c"):
        spool.append(_entry(body))
    before = refused("unreadable_spool_entry")
    path = tmp_path / "spool" / "spool.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("UPDATE entry SET sealed = zeroblob(length(sealed)) WHERE id = 2")
    other.close()
    batch = _claim(spool)
    assert [b"a", b"c"] == _bodies(batch)
    assert before + 1 == refused("unreadable_spool_entry")
    spool.drop(batch.batch_id)
    assert 0 == spool.wait(0.0)
    assert [(2, "unreadable_spool_entry")] == spool._claims.execute(
        "SELECT entry_id, reason FROM aside"
    ).fetchall()


def test_damaged_page_costs_its_entries_alone(open_spool: OpenSpool, tmp_path: Path) -> None:
    """A broken overflow chain: SQLite itself can neither read nor delete that row."""
    noise = [random.Random(number).randbytes(200_000) for number in range(3)]  # does not pack
    first = open_spool()
    for body in noise:
        first.append(_entry(body))
    first.close()
    path = tmp_path / "spool" / "spool.sqlite"
    content = bytearray(path.read_bytes())
    _break_overflow_chain(content, path)
    path.write_bytes(content)

    spool = open_spool()
    batch = _claim(spool, max_bytes=2**30)
    assert [noise[0], noise[2]] == _bodies(batch)
    spool.drop(batch.batch_id)
    assert 0 == spool.wait(0.0)
    spool.append(_entry(b"life goes on"))
    assert [b"life goes on"] == _bodies(_claim(spool))


def _break_overflow_chain(content: bytearray, path: Path) -> None:
    """Point the middle of entry 2's overflow chain outside the file."""
    other = sqlite3.connect(path)
    (sealed,) = other.execute("SELECT sealed FROM entry WHERE id = 2").fetchone()
    (page_bytes,) = other.execute("PRAGMA page_size").fetchone()
    other.close()
    page = content.index(sealed[100_000:100_032]) // page_bytes * page_bytes
    content[page : page + 4] = (2**31 - 7).to_bytes(4, "big")


def test_an_entry_of_a_release_that_did_not_pack_is_read(
    open_spool: OpenSpool, tmp_path: Path
) -> None:
    """It was sealed as it was encoded; the one after it rests in a fraction of its size."""
    spool = open_spool()
    sealer = spool._sealer
    old = msgspec.msgpack.encode(_entry(b"from before"))
    spool._commits.insert(sealer.seal(old), size=len(old))
    spool.append(_entry(b"from now " * 10_000))
    batch = _claim(spool, max_bytes=2**30)
    assert [b"from before", b"from now " * 10_000] == _bodies(batch)
    with sqlite3.connect(tmp_path / "spool" / "spool.sqlite") as other:
        (at_rest,) = other.execute("SELECT max(length(sealed)) FROM entry").fetchone()
    assert at_rest < 10_000
    spool.drop(batch.batch_id)


@pytest.mark.parametrize("broken", [b"\xc1", b"\xc1" + bytes(8), b"\xc1" + b"\xff" * 40])
def test_what_was_not_packed_here_is_unreadable(broken: bytes) -> None:
    with pytest.raises(UnreadableError):
        unpack(broken)


def test_set_aside_entry_leaves_its_batch_for_good(open_spool: OpenSpool) -> None:
    first = open_spool()
    for body in (b"good", b"poison"):
        first.append(_entry(body))
    batch = _claim(first)
    first.set_aside(batch.entry_ids[1], reason="poison_entry")
    first.close()
    second = open_spool()
    again = _claim(second)
    assert (batch.batch_id, [b"good"]) == (again.batch_id, _bodies(again))
    second.drop(again.batch_id)
    assert second.claim(max_bytes=1, max_entries=1) is None
    second.append(_entry(b"next"))
    assert second.wait(0.0) > 0, "what was set aside is not counted twice"


def test_two_openings_share_no_key_and_one_never_repeats_a_nonce() -> None:
    master = b"m" * 32
    one, two = Sealer(master), Sealer(master)
    sealed = [one.seal(b"same") for _ in range(100)]
    assert 100 == len({s[:12] for s in sealed})
    assert sealed[0][:12] == two.seal(b"same")[:12], "nonces count from zero in each opening"
    assert sealed[0] != two.seal(b"same")
    assert b"same" == two.open(sealed[0], salt=one.salt)
    with pytest.raises(UnreadableError):
        two.open(sealed[0], salt=two.salt)
    with pytest.raises(UnreadableError):
        two.open(sealed[0][:-1], salt=one.salt)
    with pytest.raises(ValueError, match="32"):
        Sealer(b"short")
