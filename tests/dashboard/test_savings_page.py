"""The savings page says what the API says, losses and unknowns too."""

from collections.abc import Callable
from typing import Any

from streamlit.testing.v1 import AppTest

from tests.dashboard.test_finance_pages import words

OpenPage = Callable[..., AppTest]
DASH = "\u2013"


def test_cache_figures_are_the_apis_and_a_loss_is_shown(api: Any, open_page: OpenPage) -> None:
    app = open_page("savings", team="support", range="30d")
    assert not app.exception
    assert {
        "Hit rate, tokens": "45 %",
        "Hit rate, calls": "42 %",
        "Gross read saving": "$2.43",
        "Write premium": "$3.58",
        "Net saving": "-$1.14",
    } == {tile.label: tile.value.replace("\\", "") for tile in app.metric}
    shown = app.dataframe[0].value
    assert ["support", "search", "unattributed"] == list(shown["Group"])
    assert ["$2.36", "-$3.50", DASH] == list(shown["Net saving"])
    assert ["42 %", "42 %", DASH] == list(shown["Hits, calls"])
    assert [0, 0, 7] == [int(str(n).replace(",", "")) for n in shown["Unknown calls"]]
    said = words(app)
    assert "Money is unknown of 7 calls that used the cache (12,000 tokens)" in said
    assert "3 calls without usage, 4 answered by a gateway's own cache" in said
    asked = [dict(params) for path, params in api.asked if path == "costs/cache"]
    assert {"group_by": "model", "filter.team": "support", "range": "30d"} == asked[0]


def test_the_page_speaks_spanish(open_page: OpenPage) -> None:
    app = open_page("savings", lang="es")
    assert "Caché de prompts" in words(app)
    assert "Ahorro neto" in [tile.label for tile in app.metric]


def test_a_switch_is_asked_of_the_api_with_the_pages_filters(api: Any, open_page: OpenPage) -> None:
    """Nothing is computed before it is asked for; the draft of the switch can be copied."""
    app = open_page("savings", team="support")
    assert [] == api.ordered
    app.text_input(key="what-if-target").set_value("openai/gpt-5-mini")
    app.number_input(key="what-if-ratio").set_value(1.15)
    app.button[0].click().run()
    assert not app.exception
    ((_, body),) = api.ordered
    assert {"provider": "openai", "model": "gpt-5-mini", "tokens_permille": 1_150} == body[
        "scenario"
    ]
    assert ({"team": ["support"]}, []) == (body["filters"], body["tenants"])
    said = words(app)
    assert "$10.00 would have been $8.00: -$2.00. Confidence: 90 % of the calls" in said
    assert "The quality of the other model's answers is not known" in said
    latency = app.dataframe[2].value
    assert [
        ("acme", "p50 900 · p95 9,200 ms (40 calls)", "-1,500 ms / +100 ms"), ("globex", DASH, DASH)
    ] == list(
        zip(*(latency[k] for k in ("Tenant", "The other model took", "Change, p50 / p95")), strict=True)
    )  # fmt: skip
    assert "They were not the same requests" in said
    features = app.dataframe[1].value
    assert [("answer", "-$2.00"), ("unattributed", DASH)] == list(
        zip(features["Feature"], features["Moved"], strict=True)
    )
    assert "rules:\n- id: switch" in [block.value for block in app.code]
    assert "Unknown for a filter: idle time is of whole pools" in said


def test_each_lever_says_its_formula_and_what_is_unknown(api: Any, open_page: OpenPage) -> None:
    app = open_page("savings")
    app.number_input(key="lever-cached").set_value(50)
    app.button[1].click().run()
    assert not app.exception
    asked = [body["scenario"] for _, body in api.ordered]
    assert [
        {"cache_permille": 500},
        {"service_tier": "batch"},
        {"max_input_tokens": 8_000},
    ] == asked
    said = words(app)
    assert 2 == said.count("$10.00 would have been $9.00: -$1.00")
    assert "Unknown: none of 100 calls has a price before and after" in said
    assert "Up to $72.00: the idle time of the pools" in said
    assert "openai-2026 from 2026-10-01: committed $500.00, used at contract prices $420.50" in said
    blocks = [block.value for block in app.code]
    assert "new cost = sum\ncache_permille = 500" in blocks
    assert 2 == sum("idle =" in block or "break-even:" in block for block in blocks)


def test_a_broken_cache_answer_leaves_the_rest_and_can_be_asked_again(
    api: Any, open_page: OpenPage
) -> None:
    """A retry asks the API anew; the answer is then kept, whatever else is clicked."""
    api.broken.add("costs/cache")
    app = open_page("savings")
    assert "Other levers" in words(app)
    assert [] == list(app.metric)
    api.broken.clear()
    app.button(key="retry-cache").click().run()
    assert "45 %" in [tile.value for tile in app.metric]
    app.number_input(key="lever-cached").set_value(50).run()
    assert 1 == [path for path, _ in api.asked].count("costs/cache")
