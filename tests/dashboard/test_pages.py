"""Each page, run by Streamlit's own test runner against a real HTTP server."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import course, ledger
from dashboard.i18n import translate
from tests.dashboard.conftest import COURSE, EDITS, GENERATION, NODE

TRACE = "0af7651916cd43dd8448eb211c80319c"
PAGES = (
    "overview", "cost_explorer", "changes", "unit_economics", "reconciliation", "budgets_policy",
    "traces", "data_quality", "gpu", "savings",
)  # fmt: skip

OpenPage = Callable[..., AppTest]


def words(app: AppTest) -> str:
    """Everything that the page says, without Markdown's escapes."""
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error]
    return re.sub(r"\\(.)", r"\1", "\n".join(str(part.value) for part in parts))


def tile(app: AppTest, label: str) -> Any:
    return next(metric for metric in app.metric if metric.label == label)


@pytest.mark.parametrize("page", PAGES)
def test_page_draws_without_an_error(open_page: OpenPage, page: str) -> None:
    assert not open_page(page).exception


def test_badge_says_how_new_the_numbers_are(open_page: OpenPage) -> None:
    """On the first run: the test runner drops an entrypoint's elements from a later one.

    The browser test sees the badge on every page.
    """
    assert "Data through 2026-11-20 10:07:00 UTC" in words(open_page("overview"))


def test_spend_tile_is_the_number_of_the_api(api: Any, open_page: OpenPage) -> None:
    truth = Decimal(api.total()) / 10**9
    assert f"${truth:,.2f}" == tile(open_page("overview"), "Spend").value


def test_a_window_that_no_data_reaches_says_since_when(api: Any, open_page: OpenPage) -> None:
    api.data_through = "2026-11-02T08:30:00+00:00"  # the window is of 13 to 20 November
    shown = tile(open_page("overview"), "Spend").value
    assert "no data since 2026-11-02 08:30:00" == shown


def test_shares_of_what_is_doubtful_are_percentages(open_page: OpenPage) -> None:
    page = open_page("data_quality")
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown == {
        "Unpriced tokens": "3.1 %",
        "Unattributed spend": "42 %",
        "Duplicate reports": "50 %",
        "Late": "< 0.1 %",
        "Clock ahead": "0.0 %",
        "Rejected": "\N{EN DASH}",
        "Price list age": "12 d",
    }


def test_overview_says_where_the_tightest_budgets_are_heading(open_page: OpenPage) -> None:
    """The course's own P10, P50 and P90 of the window's end; the tightest first."""
    page = open_page("overview")
    shown = next(
        table.value for table in page.dataframe if "Likely at the end" in table.value.columns
    )
    assert ["support monthly", "search monthly"] == list(shown["Budget"])
    assert ["$111.00", "$120.00", "$163.50", "$140.00 \N{EN DASH} $187.00", "2026-11-22"] == list(
        shown.iloc[0, 1:]
    )


def test_overview_without_a_budget_says_how_to_make_one(api: Any, open_page: OpenPage) -> None:
    api.budgets.clear()
    assert "No budgets yet. Create one with" in words(open_page("overview"))


def test_where_nothing_is_forecast_the_end_is_unknown() -> None:
    """Money and tokens; a window that lasts says so in words."""
    names = {key: key for key in course.HEADING_COLUMNS}
    say = partial(translate, "en")
    new = {**COURSE, "expected": [], "exhausted_at": None}
    lasts = {**COURSE, "exhausted_at": None}
    rows = course.heading_rows([("new", new), ("calm", lasts)], names, say=say, zone="UTC")
    assert ["\N{EN DASH}", "$163.50"] == rows.column("heading_likely").to_pylist()
    assert ["\N{EN DASH}", "not in this window"] == rows.column("heading_met").to_pylist()


def test_idle_gpu_time_stands_beside_the_spend(api: Any, open_page: OpenPage) -> None:
    """Of all that there is; of one model it is not known."""
    both = Decimal(api.total()) / 10**9 + 72
    said = words(open_page("overview"))
    assert f"Idle GPU time that no call carries: $72.00; with it **${both:,.2f}**." in said
    assert "Idle GPU time" not in words(open_page("overview", model="gpt-5"))


def test_spend_says_what_it_excludes(open_page: OpenPage) -> None:
    shown = words(open_page("overview"))
    assert "Spend excludes 338 unpriced requests / 1,521,000 tokens." in shown
    assert "Includes corrections" not in shown


def test_corrections_of_closed_months_are_named_where_they_are_in_a_sum(
    api: Any, open_page: OpenPage
) -> None:
    api.corrections = [
        {"period": "2026-09", "cost_usd": "12.5", "cost_nusd": "12500000000"},
        {"period": "2026-10", "cost_usd": "-0.003", "cost_nusd": "-3000000"},
    ]
    said = "Includes corrections of closed periods, booked in this range: 2026-09 +$12.50, 2026-10 -$0.0030"
    for page in ("overview", "cost_explorer"):
        assert said in words(open_page(page)).replace("\\", ""), page


def test_a_group_without_any_price_is_unknown_and_not_zero(open_page: OpenPage) -> None:
    shown = open_page("cost_explorer").dataframe[0].value
    costs = dict(zip(shown["Group"], shown["Cost"], strict=True))
    assert costs["legal"] == "–"  # noqa: RUF001 - the dash that the table shows
    assert costs["unattributed"].startswith("$")


def test_filters_of_the_url_reach_the_api(api: Any, open_page: OpenPage) -> None:
    app = open_page("cost_explorer", range="24h", group="model", team="search")
    shown = app.dataframe[0].value
    assert ["gpt-5-mini"] == list(shown["Group"])
    grouped = [asked for path, asked in api.asked if ("group_by", "model") in asked and path]
    assert [("range", "24h"), ("filter.team", "search"), ("group_by", "model")] in grouped


@pytest.mark.parametrize("value", ["bogus", "' OR 1=1", "9999d", "", "<script>"])
def test_invalid_filter_values_are_ignored(api: Any, open_page: OpenPage, value: str) -> None:
    app = open_page("overview", range=value, group=value, step=value, lang=value)
    assert not app.exception
    sent = {(name, v) for _, asked in api.asked for name, v in asked}
    assert ("range", "7d") in sent
    assert not {v for name, v in sent if name == "filter.team"}


@pytest.mark.parametrize("team", ["born-a-minute-ago", "' OR 1=1", "<script>"])
def test_a_team_without_calls_is_not_everybody(api: Any, open_page: OpenPage, team: str) -> None:
    """What is offered is some minutes old; a link to a newer team shows that team's numbers."""
    app = open_page("overview", range="24h", team=team)
    assert not app.exception
    asked = [asked for path, asked in api.asked if path.endswith("costs") and len(asked) > 2]
    assert asked
    assert all(("filter.team", team) in each for each in asked)


def test_a_panel_fails_alone_and_can_be_tried_again(api: Any, open_page: OpenPage) -> None:
    api.broken.add("costs")
    app = open_page("overview")
    assert not app.exception
    assert "This panel could not be loaded. the span store is away" in words(app)
    assert "Data through" in words(app)
    api.broken.clear()
    retry = next(button for button in app.button if button.key == "retry-tiles")
    retry.click().run()
    assert "could not be loaded" not in words(app)
    assert tile(app, "Spend")


def test_without_a_session_the_page_says_how_to_sign_in(open_page: OpenPage) -> None:
    app = open_page("overview", bearer=None)
    assert not app.exception
    assert "Open the sign-in link" in words(app)


def test_an_empty_system_says_how_to_send_the_first_span(api: Any, open_page: OpenPage) -> None:
    api.rows = []
    api.data_through = None
    app = open_page("overview")
    assert not app.exception
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in words(app)
    assert "No data yet" in words(app)


@pytest.mark.parametrize(
    ("basis", "said", "other"),
    [
        ("list", "list prices", "contracted prices"),
        ("contracted", "contracted prices", "list prices"),
    ],
)
def test_figures_say_the_basis_that_the_api_says(
    api: Any, open_page: OpenPage, *, basis: str, said: str, other: str
) -> None:
    """UX-C13: never list prices where a contract priced."""
    api.basis = basis
    help_text = tile(open_page("overview"), "Spend").help
    assert f"USD at {said}" in help_text
    total = words(open_page("cost_explorer"))
    assert said in total
    assert other not in help_text + total
    assert "USD at contracted prices" in words(open_page("unit_economics")).replace("\\", "")


def test_spanish_catalogue_is_used_when_asked(open_page: OpenPage) -> None:
    app = open_page("overview", lang="es")
    assert tile(app, "Gasto")
    assert "Datos hasta" in words(app)


def test_duplicates_are_shown_by_who_reported_and_who_bills(api: Any, open_page: OpenPage) -> None:
    app = open_page("data_quality", range="24h", team="search")
    assert (
        "1,253 reports do not bill: 2,500,009 input and 40,001 output tokens, $12.50 not counted"
        in words(app).replace("**", "")
    )
    shown = app.dataframe[0].value
    assert ["app · openllmetry", "app · vllm"] == list(shown["Reported by"])
    assert ["gateway · litellm-proxy", "– · –"] == list(shown["Billed by"])  # noqa: RUF001 - the dash
    assert ["$12.50", "–"] == list(shown["Cost"])  # noqa: RUF001 - the dash; no price is not free
    assert ["gateway"] == list(app.dataframe[1].value["Emitter"])
    assert ("data-quality/duplicates", [("range", "24h")]) in api.asked


def test_what_is_missing_is_said_with_its_estimate(open_page: OpenPage) -> None:
    app = open_page("data_quality", range="24h")
    said = words(app).replace("**", "")
    assert "batch_job (acme): nothing for 90 minutes, after a steady flow. Missing: $12.50" in said
    assert "came an hour late or more." in said
    accounts, counters = (frame.value for frame in app.dataframe[2:4])
    sent = accounts.iloc[0, 3:8].tolist()  # received, stored, of which late, duplicates, rejected
    assert [130, 120, 2, 7, 3] == [int(str(n).replace(",", "")) for n in sent]
    assert ["acme"] == list(accounts["Tenant"])  # a gateway of many tenants has a row for each
    assert ["1 invalid_trace_id, 2 malformed_span"] == list(accounts["Rejected for"])
    assert [False] == list(accounts["Silent"])
    assert ["vllm"] == list(counters["Emitter"])
    assert ["$0.50"] == list(counters["Missing cost"])
    differs = "gateway (acme): 4 of 10 calls of m say they cost 3 USD, we price them 2 USD."
    assert differs in said
    assert f"{differs} Missing" not in said


def test_gpu_lines_say_who_used_a_pool_and_what_was_idle(open_page: OpenPage) -> None:
    app = open_page("gpu", range="24h")
    assert "$96.00 in all, idle time included" in words(app).replace("**", "")
    lines, bills = (frame.value for frame in app.dataframe[:2])
    assert ["acme", "–"] == list(lines["Tenant"])  # noqa: RUF001 - the dash
    assert ["support", "idle"] == list(lines["Team"])
    assert ["a100", "a100"] == list(lines["Pool"])
    assert ["high"] == list(bills["Confidence"])


def test_trace_shows_what_is_billed_and_why_the_rest_is_not(open_page: OpenPage) -> None:
    app = open_page("traces", trace=TRACE)
    assert "$0.012 billed · 3 spans" in words(app).replace("**", "")
    reports = app.dataframe[0].value
    assert ["outranked_by_proxy", ""] == list(reports["Reason"])
    assert ["exact", "exact"] == list(reports["Price found by"])


def test_recorded_text_is_asked_for_only_when_it_is_opened(open_page: OpenPage, api: Any) -> None:
    app = open_page("traces", trace=TRACE)
    assert f"traces/{TRACE}/content" not in [path for path, _ in api.asked]
    app = app.toggle(key="show-content").set_value(True).run()
    assert ["Write to [email] about [card]", "# Not a heading\n<b>not bold</b>"] == [
        code.value for code in app.code
    ]
    said = words(app).replace("\\", "")
    assert "2 texts, redacted before they were stored and deleted after 7 days" in said
    assert "taken out: email, card" in said
    assert "kept until 2026-11-" in said


def test_recording_that_is_off_says_how_to_turn_it_on(open_page: OpenPage, api: Any) -> None:
    rows, meta = api.tables[f"traces/{TRACE}/content"]()
    off = (rows.slice(0, 0), {**meta, "capture": False})
    api.tables[f"traces/{TRACE}/content"] = lambda: off
    app = open_page("traces", trace=TRACE).toggle(key="show-content").set_value(True).run()
    assert not app.exception
    assert "Recording is off" in words(app)


@pytest.mark.parametrize("trace", ["0" * 32, "../../etc/passwd", "<b>x</b>"])
def test_an_unknown_trace_is_a_sentence(open_page: OpenPage, trace: str) -> None:
    app = open_page("traces", trace=trace)
    assert not app.exception
    assert "Not found" in words(app)
    assert "Newest calls" in words(app)


def test_budget_sentence_holds_every_part(open_page: OpenPage) -> None:
    said = words(open_page("budgets_policy"))
    assert (
        "$120.00 limit + $0.00 debt = $90.00 settled and enforced + $0.00 settled, not proven + "
        "$21.00 spent around enforcement + $4.00 leased + $5.00 free"
    ) in said
    assert said.index("support monthly") < said.index("search monthly")  # the tightest first


def test_a_budget_shows_where_it_goes_and_who_edited_it(open_page: OpenPage, api: Any) -> None:
    app = open_page("budgets_policy")
    said = words(app).replace("\\", "")
    assert (
        "$111.00 of $120.00 spent. By the end of the window $163.50 is likely to be spent, between "
        "$140.00 (P10) and $187.00 (P90). At this pace the limit is met on 2026-11-22 06:00:00 UTC. "
        "Thresholds crossed: 50 %, 80 %."
    ) in said
    edits = app.dataframe[0].value
    assert ["changed", "made"] == list(edits["Edit"])
    assert ["limit: 100 → 120", ""] == list(edits["What"])
    assert ["dana", "ana"] == list(edits["By"])
    app.selectbox(key="course-of").set_value("search monthly").run()
    assert ("budgets/search%20monthly/course", []) in api.asked  # the fake's ids are names


def test_refused_calls_name_the_budget_or_the_rule(open_page: OpenPage) -> None:
    _edits, refused, *_ = open_page("budgets_policy").dataframe
    assert ["search monthly", "no-gpt-5"] == list(refused.value["Refused by"])
    assert ["no room left", "denied by a rule"] == list(refused.value["Why"])
    assert [1_234, 7] == list(refused.value["Calls"])
    assert ["2026-11-20 09:30:00", "2026-11-20 08:00:00"] == list(refused.value["Last"])


def test_a_budget_shows_what_was_told_of_it_alone(open_page: OpenPage, api: Any) -> None:
    assert "No alert of this budget is known." in words(open_page("budgets_policy"))
    st.cache_data.clear()
    told = {
        "labels": {"alertname": "BudgetThreshold", "budget_id": "support monthly"},
        "annotations": {"summary": "80 % of $120 used"},
        "since": "2026-11-16T12:00:00Z", "state": "resolved",
    }  # fmt: skip
    other = {**told, "labels": {"alertname": "BudgetThreshold", "budget_id": "search monthly"}}
    api.alerts = [other, told]
    shown = open_page("budgets_policy").dataframe[1].value
    assert [["2026-11-16 12:00:00", "resolved", "80 % of $120 used"]] == shown.values.tolist()


def test_a_course_is_drawn_as_what_is_left() -> None:
    """A limit of 120: 111 spent leaves 9, and P90 of 187 is 67 below nothing."""
    names = {"left": "left", "expected": "likely", "ideal": "evenly"}
    drawn = course.lines(COURSE, names, zone="Europe/Madrid")
    assert [120.0, 0.0] == [one["amount"] for one in drawn if one["line"] == "evenly"]
    assert (120.0, 9.0) == tuple(
        [one["amount"] for one in drawn if one["line"] == "left"][end] for end in (0, -1)
    )
    # Midnight of UTC is one o'clock in Madrid; a chart's scale knows no zone but UTC.
    at = "2026-12-01T01:00:00.000000Z"
    cone = course.cone(COURSE, zone="Europe/Madrid")
    assert {"at": at, "low": -67.0, "high": -20.0} == cone[-1]
    assert at == drawn[-1]["at"]


def test_all_times_of_the_budgets_page_are_in_one_zone_that_it_names(
    api: Any, open_page: OpenPage
) -> None:
    """UX-C05: Tokyo, nine hours ahead of what the API says, whatever a budget's own zone is."""
    api.zone = "Asia/Tokyo"
    api.alerts = [{
        "labels": {"alertname": "BudgetThreshold", "budget_id": "support monthly"},
        "annotations": {"summary": "80 % of $120 used"},
        "since": "2026-11-16T12:00:00Z", "state": "resolved",
    }]  # fmt: skip
    app = open_page("budgets_policy")
    said = words(app)
    assert "Times are in Asia/Tokyo" in said
    assert "the limit is met on 2026-11-22 15:00:00 Asia/Tokyo" in said
    edits, alerts, refused, generations, nodes, *_ = (frame.value for frame in app.dataframe)
    assert ["2026-11-16 21:00:00"] == list(alerts["Since"])
    assert "2026-11-20 18:30:00" == refused["Last"][0]
    for at, shown in (
        (EDITS["rows"][0]["at"], edits["When"][0]),
        (GENERATION["issued_at"], generations["Published"][0]),
        (NODE["seen_at"], nodes["Last seen"][0]),
    ):
        tokyo = datetime.fromisoformat(str(at)).astimezone(UTC) + timedelta(hours=9)
        assert tokyo.strftime("%Y-%m-%d %H:%M:%S") == shown


def test_a_budget_of_tokens_is_told_in_tokens_and_a_rerate_has_its_own_term() -> None:
    """The words of the catalog, filled with the API's own figures."""
    told = {
        "unit": "tokens",
        "limit": "1500",
        "debt": "0",
        "settled_enforced": "1300",
        "settled_unproven": "0",
        "observed_unenforced": "0",
        "restated": "-100",
        "leased": "20",
        "free": "280",
    }
    said = ledger.sentence(told, partial(translate, "en"))
    assert said.startswith("1,500 tokens limit + 0 tokens debt = 1,300 tokens settled and enforced")
    assert "-100 tokens restated + 20 tokens leased + 280 tokens free" in said


def test_overview_counts_budgets_near_their_limit_and_shows_alerts(open_page: OpenPage) -> None:
    app = open_page("overview")
    assert tile(app, "Budgets near limit").value == "1 / 2"
    assert tile(app, "Open alerts").value == "1"
    assert "Team support: $4.20 in 15 min, $0.61 expected" in words(app)


def test_a_node_that_refused_a_generation_says_why(open_page: OpenPage) -> None:
    _edits, _refused, generations, nodes, *_ = open_page("budgets_policy").dataframe
    assert list(generations.value["Generation"]) == ["1.4"]
    assert list(nodes.value["State"]) == ["refused"]
    assert list(nodes.value["Expected"]) == ["1.4"]
    assert list(nodes.value["Applied"]) == ["1.3"]
    assert list(nodes.value["Reason"]) == ["unknown field `canary`"]


def test_a_roll_out_says_how_far_it_is_and_why_it_went_back(api: Any, open_page: OpenPage) -> None:
    assert "No rules have been rolled out in stages." in words(open_page("budgets_policy"))
    api.rollout = {
        "state": "reverted",
        "reason": "2 of 2 chosen nodes refuse it.",
        "stage": 0,
        "stable": "1.3",
        "candidate": "1.4",
        "nodes": ["gw-1", "gw-2"],
        "stage_since": "2026-11-20T10:00:00Z",
    }
    said = words(open_page("budgets_policy"))
    assert (
        "Generation 1.4 in place of 1.3: stage 1 since 2026-11-20 10:00:00, on gw-1, gw-2." in said
    )
    assert "2 of 2 chosen nodes refuse it." in said


def test_who_spends_too_fast_is_named_with_what_is_done_about_it(
    api: Any, open_page: OpenPage
) -> None:
    """By the id where it may be seen, else by the hash."""
    assert "Nobody spends too fast." in words(open_page("budgets_policy"))
    st.cache_data.clear()
    quota = {
        "tenant": "acme", "per": "user_id", "name": "user_3fa2", "value": None, "spent_usd": "6.5",
        "limit_usd": "5", "window_seconds": 600, "since": "2026-11-20T10:00:00Z",
        "until": "2026-11-20T10:15:00Z",
    }  # fmt: skip
    api.quotas = [quota, {**quota, "per": "api_key", "value": "batch", "window_seconds": 90}]
    _edits, _refused, held, *_ = open_page("budgets_policy").dataframe
    times = ["2026-11-20 10:00:00", "2026-11-20 10:15:00"]
    assert [
        ["acme", "user user_3fa2", "$6.50 in 10 min", "$5.00", *times],
        ["acme", "key batch", "$6.50 in 1.5 min", "$5.00", *times],
    ] == held.value.values.tolist()


def test_savings_and_experiments_are_shown(open_page: OpenPage) -> None:
    """With the counterfactual in words, and what may be said of each arm."""
    app = open_page("budgets_policy")
    said = words(app)
    assert "$12.50 saved by 1,200 rerouted calls. Not known for 3 of them" in said
    *_, savings, experiments = app.dataframe
    assert ["$15.00"] == list(savings.value["Would have cost"])
    assert ["asked (control)", "small"] == list(experiments.value["Arm"])
    assert ["$0.012", "$0.0021, lower than the control"] == list(experiments.value["Cost per call"])
    assert "1,490 ms, not decided" == experiments.value["Latency"][1]


def test_a_policy_is_reverted_with_one_click_after_its_effect_was_shown(
    open_page: OpenPage, api: Any
) -> None:
    assert "There is no earlier generation." in words(open_page("budgets_policy"))
    st.cache_data.clear()
    api.generations = [GENERATION, {**GENERATION, "gen": 3}, {**GENERATION, "gen": 2}]
    app = open_page("budgets_policy")
    assert ["-  action: block"] == [code.value for code in app.code]
    assert ("policy/diff", [("scope", "default"), ("from", "1.4"), ("to", "1.3")]) in api.asked
    assert [] == api.ordered
    app.button(key="revert-do").click().run()
    wanted = {"scope": "default", "to": "1.3", "message": "Back to 1.3, from the dashboard"}
    assert [("policy/rollback", wanted)] == api.ordered
    assert ["The rules of 1.3 are published as 1.5."] == [one.value for one in app.success]
    app.run()
    assert 1 == len(api.ordered)
    api.broken.add("policy/rollback")
    app.button(key="revert-do").click().run()
    assert not app.exception
    assert "needs policy:write" in words(app)


def test_shadow_rules_say_what_they_would_have_done(open_page: OpenPage, api: Any) -> None:
    assert "No rule is in shadow" in words(open_page("budgets_policy"))
    st.cache_data.clear()
    api.shadow = {
        "calls": 2_000, "changed_calls": 150, "blocked_calls": 40, "unknown_cost_calls": 3,
        "cost_before_usd": "90", "cost_after_usd": "72.5",
    }  # fmt: skip
    app = open_page("budgets_policy", range="24h")
    assert (
        "150 of 2,000 calls would have been others, 40 of them blocked: $72.50 instead of $90.00. "
        "Not known for 3 of them"
    ) in words(app)
    assert ("shadow", [("range", "24h"), ("limit", "0")]) in api.asked
