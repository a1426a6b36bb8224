"""The finance pages say what the API says."""

import re
from collections.abc import Callable
from typing import Any

from streamlit.testing.v1 import AppTest

OpenPage = Callable[..., AppTest]


def words(app: AppTest) -> str:
    """Everything that the page says, without Markdown's escapes."""
    parts = [*app.markdown, *app.caption, *app.info, *app.success]
    return re.sub(r"\\(.)", r"\1", "\n".join(str(part.value) for part in parts))


def test_the_change_and_its_terms_are_the_apis(open_page: OpenPage) -> None:
    """Only terms that moved have a column; what has no group is named so."""
    app = open_page("changes", group="team")
    assert not app.exception
    assert "From $400.00 to ≥ $530.00: +$130.00" in words(app)
    shown = app.dataframe[0].value
    assert ["support", "unattributed"] == list(shown["Group"])
    assert ["+$120.00", "-$30.50", "-$12.00", "+$48.00", "+$4.50"] == [
        shown[title][0] for title in ("Volume", "Model mix", "Cache", "Price", "New groups")
    ]
    assert "Retries" not in shown.columns
    assert [1000, 1000] == [int(str(n).replace(",", "")) for n in shown["Calls before"]]


def test_another_period_is_asked_of_the_api(api: Any, open_page: OpenPage) -> None:
    app = open_page("changes", range="mtd")
    asked = [dict(params) for path, params in api.asked if path == "costs/change"]
    assert {("mtd", "previous")} == {(one["range"], one["compare"]) for one in asked}
    assert not app.exception


def test_unit_costs_keep_their_denominators(open_page: OpenPage) -> None:
    """None is a dash with a reason, a metric has its gaps."""
    app = open_page("unit_economics")
    assert not app.exception
    shown = app.dataframe[0].value
    assert ["Request", "GPU hour", "Active user", "orders (acme)"] == list(shown["Per"])
    assert ["1,300", "0", "–", "212"] == list(shown["How many"])  # noqa: RUF001 - the dash
    assert ["$0.41", "–", "–", "$2.50"] == list(shown["Each"])  # noqa: RUF001 - the dash
    assert "users are counted over at most 31 days" in list(shown["Note"])
    assert "The top 1 of 3 make 50 % of $530.00, the top 2 make 80 %. Gini 0.47." in words(app)
    assert ["globex", "acme", "initech"] == list(app.dataframe[2].value["Group"])


def test_idle_time_is_a_row_and_its_rule_is_chosen(api: Any, open_page: OpenPage) -> None:
    """UX-14: own rows for a pool and for what has no owner; the rule asks the API; fixed needs weights."""
    app = open_page("unit_economics")
    shown = app.dataframe[1].value
    assert ["support", "unattributed", "idle GPU time, a100"] == list(shown["Owner"])
    assert ["$24.00", "≥ $7.50", "$72.00"] == list(shown["Total"])
    app.selectbox(key="showback-idle").select("proportional").run()
    shown = app.dataframe[1].value
    assert ["+$72.00", "$0.00", "-$72.00"] == list(shown["Part of idle time"])
    assert ["$96.00", "≥ $7.50", "$0.00"] == list(shown["Total"])
    assert "$103.50 in all, before and after." in words(app).replace("**", "")
    app.selectbox(key="showback-shared").select("fixed").run()
    assert "Write each owner's weight" in words(app)
    app.text_input(key="showback-shared-weights").input("search=3, ads=1").run()
    asked = next(params for path, params in reversed(api.asked) if path == "showback")
    assert [("by", "team"), ("shared", "fixed"), ("share", "search=3"), ("share", "ads=1"),
            ("idle", "proportional")] == [p for p in asked if p[0] != "range"]  # fmt: skip
    assert not app.exception


def test_a_kept_report_shows_its_residuals(open_page: OpenPage) -> None:
    """Cells that are equal are left out."""
    app = open_page("reconciliation")
    assert not app.exception
    said = words(app)
    assert "openai: billed $1,250.42, ours $1,200.17, difference +$50.25." in said
    assert "0.1 % unexplained, within the tolerance of 0.5 % or $1.00" in said
    assert "costs.json: 310 lines, 2 not used" in said
    shown = app.dataframe[0].value
    assert ["2026-10-03"] == list(shown["Day"])
    assert ["Not captured +$31.20"] == list(shown["Because"])


def test_finance_pages_speak_spanish(open_page: OpenPage) -> None:
    assert "Facturas frente al libro" in words(open_page("reconciliation", lang="es"))
    assert "De $400.00 a ≥ $530.00" in words(open_page("changes", lang="es"))


def test_commitments_say_what_is_used_left_and_owed(open_page: OpenPage) -> None:
    app = open_page("reconciliation")
    assert not app.exception
    shown = app.dataframe[1].value
    assert ["$79.50", "$0.00"] == list(shown["Shortfall"])
    assert ["$0.00", "$112.25"] == list(shown["Overage"])
    assert ["$500.00", "$612.25"] == list(shown["In effect"])


def test_days_in_another_currency_keep_their_rate(api: Any, open_page: OpenPage) -> None:
    """The first currency that has rates; a day without a rate has no amount."""
    app = open_page("reconciliation")
    assert "16.50 CHF" in words(app).replace("*", "")
    shown = app.dataframe[2].value
    assert ["\u2013", "16.50"] == [str(text) for text in shown["Amount"]]
    assert ["\u2013", "1.0909"] == [str(text) for text in shown["USD per unit"]]
    asked = [dict(params) for path, params in api.asked if path == "currencies/costs"]
    assert "CHF" == asked[0]["currency"]


def test_the_explorer_shows_a_chosen_currency_with_its_rates(api: Any, open_page: OpenPage) -> None:
    """USD until one is chosen; the question has the page's filters, and USD is said to be accounted."""
    app = open_page("cost_explorer")
    assert "USD is the accounting unit" in words(app)
    assert not [path for path, _ in api.asked if path == "currencies/costs"]
    app = open_page("cost_explorer", display="EUR", group="team", team="search")
    assert not app.exception
    assert "16.50 EUR" in words(app).replace("*", "")
    assert "Cost by team in EUR" in words(app)
    groups, days = app.dataframe[1].value, app.dataframe[2].value
    assert [("search", "$20.00", "11.00"), ("unattributed", "$10.00", "5.50")] == [
        tuple(row) for row in groups.itertuples(index=False)
    ]
    assert ["\u2013", "1.0909"] == [str(text) for text in days["USD per unit"]]
    asked, *again = [dict(params) for path, params in api.asked if path == "currencies/costs"]
    assert all(asked == one for one in again), "one answer for the chart and the table"
    assert {"currency": "EUR", "group_by": "team", "filter.team": "search"}.items() <= asked.items()
