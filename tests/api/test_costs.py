"""Costs, calls and traces over HTTP, in both forms."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from controlplane.api.tables import ARROW, META_KEY
from controlplane.core.fiscal import FiscalCalendar, Pattern
from controlplane.signals.queries import CallQuery, CostQuery


def test_costs_are_exact_and_say_what_they_exclude(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/costs", params={"range": "24h", "group_by": "team,model"})
    assert answer.status_code == 200
    body = answer.json()
    # Five priced calls at 1.500000001 USD, one unpriced.
    assert body["meta"]["totals"]["cost_usd"] == "7.500000005"
    assert body["meta"]["totals"]["cost_nusd"] == "7500000005"
    assert body["meta"]["totals"]["calls"] == 6
    assert body["meta"]["totals"]["unpriced_calls"] == 1
    by_team = {row["team"]: row for row in body["rows"]}
    assert by_team["acme-team"]["cost_usd"] == "7.500000005"
    assert by_team["acme-team"]["cost_nusd"] == "7500000005"
    assert by_team[None]["unpriced_tokens"] == 30
    # What nobody knows the cost of is null in a row, and in no sum.
    assert (None, None) == (by_team[None]["cost_usd"], by_team[None]["cost_nusd"])
    assert body["meta"]["currency"] == "USD"
    assert body["meta"]["tenants"] == ["acme"]
    assert body["meta"]["data_through"] == "2026-11-20T10:07:00Z"
    assert list(body["rows"][0]) == body["columns"]


def test_arrow_and_json_hold_the_same_table(api: Any, acme: str) -> None:
    params = {"range": "24h", "group_by": "model", "granularity": "hour"}
    with api.client(acme) as client:
        as_json = client.get("/api/v1/costs", params=params).json()
        answer = client.get("/api/v1/costs", params=params, headers={"accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    with pa.ipc.open_stream(answer.content) as stream:
        table = stream.read_all()
    assert as_json["columns"] == table.column_names
    assert [row["cost_usd"] for row in as_json["rows"]] == table["cost_usd"].to_pylist()
    said = [row["cost_nusd"] for row in as_json["rows"]]
    assert [one and int(one) for one in said] == table["cost_nusd"].to_pylist()
    assert None in said  # the hour whose only call has no price
    assert table.schema.metadata is not None
    assert b"7.500000005" in table.schema.metadata[META_KEY]


def test_comparison_totals_the_window_before(api: Any, acme: str, reader: Any) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/costs", params={"range": "2h", "compare": "previous"})
    body = answer.json()["meta"]
    # 08:15 to 10:15 holds the calls of 10:07 and 09:07; before it those of 08:07 and 07:07.
    assert body["totals"]["calls"] == 2
    previous = body["previous"]
    assert ("2026-11-20T06:15:00Z", "2026-11-20T08:15:00Z") == (previous["start"], previous["end"])
    assert previous["totals"]["cost_usd"] == "3.000000002"
    assert previous["change_usd"] == "0"
    assert previous["change_ratio"] == 0.0
    assert [type(query) for query in reader.asked] == [CostQuery, CostQuery]


@pytest.mark.parametrize(
    ("params", "field", "words"),
    [
        ({"ranges": "7d"}, "ranges", "Did you mean 'range'?"),
        ({"group_by": "colour"}, "group_by", "no dimension 'colour'"),
        ({"filter.colour": "red"}, "filter.colour", "no such parameter"),
        ({"range": "tomorrow"}, "range", "Use one of today"),
        ({"range": "9999d"}, "range", "not within"),
        ({"start": "2026-11-01T00:00:00Z"}, "end", "missing"),
        ({"start": "yesterday", "end": "2026-11-01T00:00:00Z"}, "start", "not RFC 3339"),
        ({"start": "2026-11-01T00:00:00", "end": "2026-11-02T00:00:00Z"}, "start", "no offset"),
        ({"start": "2026-11-02T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "end", "not after"),
        ({"start": "2026-11-01T00:07:00Z", "end": "2026-11-02T00:00:00Z"}, "start", "quarter"),
        ({"range": "90d", "granularity": "quarter_hour"}, "granularity", "coarser"),
        ({"granularity": "fortnight"}, "granularity", "Use one of quarter_hour"),
        ({"zone": "Mars/Olympus"}, "zone", "IANA"),
        ({"zone": "../../etc/passwd"}, "zone", "IANA"),
        ({"start": "0001-01-01T00:00:00+23:59", "end": "2026-11-01T00:00:00Z"}, "start", "RFC"),
        ({"start": "2016-11-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "start", "days before"),
        ({"range": ["7d", "30d"]}, "range", "given twice"),
        ({"filter.team": "x" * 300}, "filter.team", "longer than"),
    ],
)
def test_bad_question_names_the_field_and_the_fix(
    api: Any, acme: str, params: dict[str, Any], field: str, words: str
) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/costs", params=params)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["code"] == "invalid_input"
    assert [field] == [error["field"] for error in problem["errors"]]
    assert words in problem["detail"]


def test_too_many_rows_are_refused_rather_than_cut(
    api: Any, acme: str, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "costs", lambda _query: pa.table({"calls": list(range(5_001))}))
    with api.client(acme) as client:
        answer = client.get("/api/v1/costs")
    assert answer.status_code == 413
    assert "5000" in answer.json()["detail"]


def test_filters_reach_the_store_with_commas_and_unattributed(
    api: Any, acme: str, reader: Any
) -> None:
    params = [("filter.team", "a,b"), ("filter.team", "unattributed"), ("zone", "Asia/Kolkata")]
    with api.client(acme) as client:
        assert client.get("/api/v1/costs", params=params).status_code == 200
    query = reader.asked[-1]
    assert query.filters == {"team": ("a,b", None)}
    assert query.zone == "Asia/Kolkata"


def test_calls_page_through_without_gap_or_repeat(api: Any, acme: str) -> None:
    seen: list[tuple[str, str]] = []
    params = {"limit": "2", "range": "24h"}
    with api.client(acme) as client:
        for _ in range(4):
            body = client.get("/api/v1/calls", params=params).json()
            seen += [(row["start_time"], row["call_id"]) for row in body["rows"]]
            if body["meta"]["next_cursor"] is None:
                break
            params["cursor"] = body["meta"]["next_cursor"]
    hours = ("10", "09", "08", "07", "06", "05")
    assert [f"2026-11-20T{hour}:07:00Z" for hour in hours] == [start for start, _ in seen]
    assert len({call_id for _, call_id in seen}) == 6


@pytest.mark.parametrize("cursor", ["", "!!!", "bm90IGpzb24", "WzEsMl0", "é", "W10"])
def test_a_made_up_cursor_is_refused(api: Any, acme: str, cursor: str) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/calls", params={"cursor": cursor})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1e3", "99999999999", "٣"])
def test_page_limits_hold(api: Any, acme: str, limit: str) -> None:
    with api.client(acme) as client:
        answer = client.get("/api/v1/calls", params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "limit"


def test_explicit_window_is_half_open_utc(api: Any, acme: str, reader: Any) -> None:
    params = {"start": "2026-11-20T05:30:00+05:30", "end": "2026-11-20T10:07:00Z"}
    with api.client(acme) as client:
        body = client.get("/api/v1/calls", params=params).json()
    query = reader.asked[-1]
    assert isinstance(query, CallQuery)
    assert query.window.start == datetime(2026, 11, 20, tzinfo=UTC)
    # Not the one of 10:07, at the end itself.
    assert "2026-11-20T09:07:00Z" == max(row["start_time"] for row in body["rows"])


def test_trace_shows_ids_as_hex_and_what_it_cost(api: Any, acme: str) -> None:
    trace_id = f"{sum(b'acme'):016x}{3:016x}"
    with api.client(acme) as client:
        body = client.get(f"/api/v1/traces/{trace_id}").json()
    assert body["meta"]["cost_usd"] == "1.500000001"
    assert [trace_id] == [row["trace_id"] for row in body["rows"]]
    assert body["rows"][0]["span_id"] == "0000000000000004"
    assert body["rows"][0]["parent_span_id"] is None
    assert body["rows"][0]["start_time"] == "2026-11-20T07:07:00Z"


@pytest.mark.parametrize(
    ("trace_id", "status"), [("0" * 32, 404), ("xyz", 400), ("g" * 32, 400), ("+1" * 16, 400)]
)
def test_a_trace_that_is_not_there_or_no_trace_id(
    api: Any, acme: str, trace_id: str, status: int
) -> None:
    with api.client(acme) as client:
        assert status == client.get(f"/api/v1/traces/{trace_id}").status_code


@pytest.mark.parametrize(
    ("granularity", "zone", "start", "end"),
    [
        # 4-4-5 from Monday 2025-12-29: the fourth quarter from 28 September, its second month
        ("month", "Asia/Kathmandu", "2026-10-25T18:15:00Z", "2026-11-22T18:15:00Z"),
        # its year has 53 weeks: 1 January 2027 is a Friday, and 4 January the nearest Monday
        ("quarter", "UTC", "2026-09-28T00:00:00Z", "2027-01-04T00:00:00Z"),
        ("week", "America/New_York", "2026-11-16T05:00:00Z", "2026-11-23T05:00:00Z"),
        ("day", "Australia/Lord_Howe", "2026-11-19T13:00:00Z", "2026-11-20T13:00:00Z"),
    ],
)
def test_buckets_end_by_the_organisations_calendar(
    serve: Any, acme: str, *, granularity: str, zone: str, start: str, end: str
) -> None:
    """What a chart needs to know whether a period is over; the ends are worked by hand."""
    asked = {
        "start": "2026-11-20T08:00:00Z", "end": "2026-11-20T10:00:00Z", "zone": zone,
        "granularity": granularity,
    }  # fmt: skip
    calendar = FiscalCalendar(pattern=Pattern.W445)
    with serve(calendar=calendar).client(acme) as client:
        (row,) = client.get("/api/v1/costs", params=asked).json()["rows"]
    assert (start, end) == (row["bucket_start"], row["bucket_end"])
