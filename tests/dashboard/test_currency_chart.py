"""The explorer's chart in another currency than USD."""

from dashboard import charts, frames, money_rows
from tests.dashboard.finance_answers import CONVERTED


def test_a_chart_in_another_currency_names_it_and_draws_its_amounts() -> None:
    """Nothing of it says dollars; the day that the window cuts is partial, all others are last."""
    answer = {"currency": "EUR", **CONVERTED}
    marks = money_rows.currency_points(answer, other="all others")
    assert [
        ("2026-11-19T00:00:00.000000Z", 6.0, "6.00 EUR", "search", 0, False),
        ("2026-11-19T00:00:00.000000Z", 4.5, "4.50 EUR", "unattributed", 1, False),
        ("2026-11-20T00:00:00.000000Z", 5.0, "5.00 EUR", "search", 0, True),
        ("2026-11-20T00:00:00.000000Z", 1.0, "1.00 EUR", "all others", 2, True),
    ] == [(m.at, m.usd, m.cost, m.series, m.rank, m.partial) for m in marks]
    series = money_rows.currency_series(answer, other="all others")
    assert ["search", "unattributed", "all others"] == series
    titles = frames.titles(str)
    drawn = charts.area(marks, series=series, titles=titles, granularity="day", unit="EUR")
    (areas, _) = drawn.to_dict()["layer"]
    assert ("EUR", ",.4~r") == (
        areas["encoding"]["y"]["title"], areas["encoding"]["y"]["axis"]["format"]
    )  # fmt: skip
    assert "$" not in str(areas["encoding"])
    dollars = charts.area(marks, series=series, titles=titles, granularity="day").to_dict()
    assert "USD" == dollars["layer"][0]["encoding"]["y"]["title"]
