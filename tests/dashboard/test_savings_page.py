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
