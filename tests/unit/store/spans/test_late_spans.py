"""Late spans of any number of hours: each stored once, for a bounded number of queries a batch."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.errors import StoreUnavailableError
from controlplane.signals.ports import Written
from controlplane.store.spans import seen_filter, writer
from controlplane.store.spans.duckdb_store import DuckDbSpanStore
from controlplane.store.spans.seen_filter import MAX_READS, WORTH_FORGETTING, SeenFilter

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
FLOOD = 600
Rows = Callable[..., pa.Table]
Hashes = npt.NDArray[np.uint64]
Span = tuple[int, int, int]
"""Id, hours of delay, content."""

spans_drawn = st.tuples(st.integers(1, 6), st.integers(0, 7) | st.just(700), st.integers(1, 2))
batches_drawn = st.lists(
    st.one_of(st.lists(spans_drawn, min_size=1, max_size=12), st.sampled_from(["restart", "fail"])),
    min_size=1,
    max_size=8,
)


def _row(span: Span) -> dict[str, object]:
    number, delay, content = span
    return {
        "span_id": number,
        "start_time": AT - timedelta(hours=delay),
        "content_hash": content,
    }


def _stored(store: DuckDbSpanStore) -> list[Span]:
    found = pa.concat_tables([spans for _, spans in store.batches()])
    columns = (found.column(name).to_pylist() for name in _row((1, 0, 1)))
    return [
        (number, (AT - start) // timedelta(hours=1), content)
        for number, start, content in zip(*columns, strict=True)
    ]


class _Limits:
    """Limits so small that every batch is beyond some of them."""

    def __enter__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        for name, value in (
            ("MAX_HOURS", 2),
            ("MAX_BYTES", 0),
            ("MAX_READS", 1),
            ("WORTH_FORGETTING", 2),
            ("_FIRST_CAPACITY", 4),
        ):
            self._patch.setattr(seen_filter, name, value)
        self._patch.setattr(writer, "HOURS_ALONE", 1)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


@settings(max_examples=30)
@given(steps=batches_drawn)
def test_any_mix_of_late_and_resent_spans_is_stored_once(
    steps: list[list[Span] | str], span_rows: Rows
) -> None:
    """Against a set: whatever is new to it is stored, in the order it came; the rest is resent."""
    expected: list[Span] = []
    with _Limits(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spans.duckdb"
        store = DuckDbSpanStore(path)
        for number, step in enumerate(steps):
            if step == "restart":
                store.close()
                store = DuckDbSpanStore(path)
            elif step == "fail":
                with pytest.raises(StoreUnavailableError):
                    store.write(span_rows(_row((1, 3, 1))), batch_id=None)  # type: ignore[arg-type]
            else:
                assert isinstance(step, list)
                new = [span for span in dict.fromkeys(step) if span not in expected]
                batch, name = span_rows(*map(_row, step)), f"{number}"
                said = store.write(batch, batch_id=name)
                assert Written(len(new), len(step) - len(new), replayed=False) == said
                assert store.write(batch, batch_id=name).replayed
                expected += new
        assert expected == (_stored(store) if expected else [])
        store.close()


class _Store:
    """Counts the hours read from it; each has one hash, the hour's number."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, hour: int) -> list[Hashes]:
        self.read.append(hour)
        return [np.array([hour], dtype=np.uint64)]


def _flood(on_time: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """One span in each of many old hours, and some in the newest, none of them stored."""
    hours = np.concatenate([np.arange(FLOOD), np.full(on_time, FLOOD)]).astype(np.int64)
    return np.arange(10_000, 10_000 + len(hours), dtype=np.uint64), hours


def test_a_flood_over_many_hours_has_few_of_them_read_the_fullest_first() -> None:
    store = _Store()
    seen = SeenFilter(store)
    hashes, hours = _flood(on_time=5)
    held = seen.may_hold(hashes, hours)
    assert FLOOD == store.read[0]
    assert MAX_READS == len(store.read) == len(set(store.read))
    # What was not read may be stored, however new it is; what was read is known to be new.
    assert np.array_equal(held, ~np.isin(hours, store.read))


def test_an_hour_after_another_is_read_until_a_flood_is_known_and_no_more() -> None:
    store = _Store()
    seen = SeenFilter(store)
    hashes, hours = _flood(on_time=5)
    for _ in range(-(-(FLOOD + 1) // MAX_READS)):
        seen.may_hold(hashes, hours)
    assert sorted(store.read) == list(range(FLOOD + 1))
    assert not seen.may_hold(hashes, hours).any()
    assert seen.may_hold(np.arange(FLOOD, dtype=np.uint64), hours[:FLOOD]).all()
    assert FLOOD + 1 == len(store.read)


def test_late_spans_make_no_hour_forgotten_when_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seen_filter, "MAX_HOURS", 2)
    monkeypatch.setattr(seen_filter, "MAX_BYTES", 1)
    store = _Store()
    seen = SeenFilter(store)
    for _ in range(3):
        seen.may_hold(*_flood(on_time=5))
    assert [FLOOD, 0] == store.read
    many = np.full(WORTH_FORGETTING, 300, dtype=np.int64)
    seen.may_hold(many.view(np.uint64), many)
    assert [FLOOD, 0, 300] == store.read
