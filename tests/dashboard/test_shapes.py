from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import charts, frames, tables, tracing
from dashboard.client import Table
from dashboard.money_rows import known
from dashboard.spoken import UNKNOWN

AT = datetime(2026, 11, 20, 23, 0, tzinfo=UTC)
KINDS = {kind: kind for kind in ("billed", "unpriced", "suppressed", "other")}


def answer(rows: list[dict[str, Any]], **meta: Any) -> Table:
    return Table(pa.Table.from_pylist(rows), {"zone": "UTC", "granularity": "day", **meta})


def row(at: datetime, team: str | None, usd: str, *, unpriced: int = 0) -> dict[str, Any]:
    return {
        "bucket_start": at,
        "bucket_end": at + timedelta(days=1),
        "team": team,
        "cost_usd": usd,
        "calls": 2,
        "unpriced_calls": unpriced,
    }


def test_a_bucket_that_ends_after_the_data_is_partial() -> None:
    start = datetime(2026, 11, 19, tzinfo=UTC)
    rows = [row(start + timedelta(days=i), "a", "1") for i in range(2)]
    marks = frames.points(
        answer(rows, data_through="2026-11-20T12:00:00Z"), "team", other="", top=["a"]
    )
    assert [mark.partial for mark in marks] == [False, True]


def test_a_bucket_is_complete_from_its_end_on_whatever_its_width() -> None:
    """A fiscal month of five weeks: the API says where it ends."""
    start = datetime(2026, 10, 26, tzinfo=UTC)
    end = start + timedelta(weeks=5)
    for seconds, partial in ((-1, True), (0, False)):
        asked = answer(
            [{**row(start, "a", "1"), "bucket_end": end}],
            granularity="month", data_through=(end + timedelta(seconds=seconds)).isoformat(),
        )  # fmt: skip
        (mark,) = frames.points(asked, "team", other="", top=[])
        assert (partial, "2026-11-30T00:00:00.000000Z") == (mark.partial, mark.until)


def test_charts_show_the_organisations_wall_time() -> None:
    assert frames.wall(AT, ZoneInfo("Asia/Kolkata")) == "2026-11-21T04:30:00.000000Z"


def test_groups_beyond_the_palette_are_drawn_as_others_and_none_is_lost() -> None:
    rows = [row(AT, f"team-{i}", str(20 - i)) for i in range(12)] + [row(AT, None, "0.5")]
    ranked = answer(rows)
    top = frames.top_groups(ranked, "team")
    marks = frames.points(answer(rows, data_through=None), "team", other="others", top=top)
    assert len(top) == frames.MAX_SERIES
    assert {mark.series for mark in marks} == {*top, "others"}
    assert len(marks) == len(rows)


@pytest.mark.parametrize(
    ("calls", "unpriced", "shown"),
    [(2, 0, "$3.00"), (2, 1, "≥ $3.00"), (2, 2, "–")],  # noqa: RUF001 - the dash of tables
)
def test_cost_says_how_much_of_it_is_known(calls: int, unpriced: int, shown: str) -> None:
    known = "0" if calls == unpriced else "3"
    measures = {"calls": calls, "unpriced_calls": unpriced, "cost_usd": known}
    assert shown == frames.cost_of(measures)


def span(number: int, parent: int | None) -> dict[str, Any]:
    return {
        "span_id": f"{number:016x}", "parent_span_id": None if parent is None else f"{parent:016x}",
        "start_time": AT + timedelta(milliseconds=number), "duration_us": 1000, "name": str(number),
        "service_name": "s", "report_kind": "none", "suppressed_reason": None, "cost_reason": None,
        "cost_usd": None, "input_tokens": None, "output_tokens": None,
    }  # fmt: skip


@given(st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=1, max_size=12))
def test_every_span_is_drawn_once_whatever_the_parents_say(parents: list[int | None]) -> None:
    """Parents may be missing, be the span itself or form a ring; no span hangs the page."""
    spans = [span(i, parent) for i, parent in enumerate(parents)]
    bars = tracing.waterfall(answer(spans), KINDS)
    assert sorted(bar["name"] for bar in bars) == sorted(str(i) for i in range(len(parents)))


def test_children_follow_their_parent_indented() -> None:
    bars = tracing.waterfall(answer([span(3, 1), span(1, None), span(2, None), span(4, 3)]), KINDS)
    assert [bar["name"] for bar in bars] == ["1", "3", "4", "2"]
    indents = [len(bar["label"]) - len(bar["label"].lstrip()) for bar in bars]
    assert indents[3] == 0 < indents[1] < indents[2]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"report_kind": "call", "cost_usd": "1"}, "billed"),
        ({"report_kind": "call"}, "unpriced"),
        ({"report_kind": "call", "cost_usd": "1", "suppressed_reason": "x"}, "suppressed"),
        ({"report_kind": "aggregate", "cost_usd": "1"}, "other"),
    ],
)
def test_what_a_span_is_to_the_bill(change: dict[str, Any], kind: str) -> None:
    kind_of: Callable[[dict[str, Any]], str] = tracing.kind_of
    assert kind == kind_of({**span(1, None), **change})


def test_idle_time_is_said_with_the_sum_of_both_or_not_at_all() -> None:
    """Markdown must not take two amounts for a formula."""
    said = {"cost_usd": "4", "cost_nusd": "4000000000", "with_calls_usd": "10.5"}
    assert (r"\$4\.00", r"\$10\.50") == frames.idle({"idle": said})
    assert frames.idle({"idle": {**said, "cost_nusd": "0"}}) is None
    assert frames.idle({"idle": None}) is None
    assert frames.idle({}) is None


@pytest.mark.parametrize(
    ("usd", "unpriced", "shown"),
    [("12.5", 0, "$12.50"), ("0", 0, "$0.00"), ("12.5", 3, "≥ $12.50"), ("0", 3, UNKNOWN)],
)
def test_a_cost_that_leaves_calls_out_says_so(usd: str, unpriced: int, shown: str) -> None:
    """Unpriced is never $0.00 (UX-C07)."""
    assert shown == known(usd, unpriced)


def test_spend_is_stacked_and_as_wide_as_its_periods() -> None:
    """Two groups of one fiscal month, and the month after it: 4-4-5 has two starts in a month."""
    january, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 29, tzinfo=UTC)
    rows = [row(january, "a", "1"), row(january, "b", "2"), row(end, "a", "4")]
    asked = answer([{**one, "bucket_end": one["bucket_start"] + timedelta(28)} for one in rows])
    marks = frames.points(asked, "team", other="", top=["a", "b"])
    drawn = charts.spend(
        marks,
        series=["a", "b"],
        titles=dict.fromkeys(("time", "group", "cost", "calls", "partial"), ""),
        granularity="month",
    ).to_dict()
    (layer,) = drawn["layer"]
    assert "rect" == layer["mark"]["type"]
    fields = {name: layer["encoding"][name]["field"] for name in ("x", "x2", "y", "y2")}
    assert {"x": "at", "x2": "until", "y": "low", "y2": "high"} == fields
    (stack,) = layer["transform"]
    assert ("usd", ["at"], ["low", "high"]) == (stack["stack"], stack["groupby"], stack["as"])
    assert "timeUnit" not in layer["encoding"]["x"]
    assert [marks[0].until] * 2 == [marks[1].until, marks[2].at]


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["support", "search", "data-science"], 3),
        (["support", "platform", "marketing", "data-science", "search", "legal"], 4),
        (["claude-sonnet-4-5-20250929", "gpt-5-mini", "gpt-5"], 2),
        (["a" * 200, "b"], 1),
    ],
)
def test_a_legend_has_as_many_names_in_a_row_as_fit(names: list[str], columns: int) -> None:
    """Seven pixels a letter and thirty a mark, in the 520 of a chart on a small screen."""
    marks = frames.points(answer([row(AT, names[0], "1")]), "team", other="", top=names)
    drawn = charts.spend(
        marks, series=names, titles=dict.fromkeys(("time", "group", "cost", "calls"), ""),
        granularity="day",
    ).to_dict()  # fmt: skip
    assert columns == drawn["layer"][0]["encoding"]["color"]["legend"]["columns"]


def test_written_figures_stand_to_the_right_and_names_do_not() -> None:
    shown = pa.table(
        {"model": ["gpt-5", UNKNOWN], "cost": ["≥ $1,234.50", UNKNOWN], "change": ["-$0.0012", ""],
         "late": ["2 ms", "1.50 s"], "none": ["", ""], "calls": [1, 2]}
    )  # fmt: skip
    config = tables.figures(shown)
    assert {"cost", "change", "late", "calls"} == set(config)
    assert {"right"} == {config[name]["alignment"] for name in ("cost", "change", "late")}
