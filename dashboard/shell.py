"""The entrypoint that every page runs inside: filters, navigation, freshness."""

from pathlib import Path

import streamlit as st

from dashboard import filters, freshness, settings, spoken
from dashboard.filters import Filters

PAGES = Path(__file__).parent / "pages"
# Tiles share a row as long as their words fit and wrap after that; columns of panels stand one
# below the other where the sidebar leaves too little width for two.
_STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding: 3.5rem 2rem 2rem; max-width: 1600px; }
[data-testid="stMetricValue"] { font-size: 1.3rem; }
[data-testid="stMetricLabel"] * { white-space: normal; overflow: visible; }
[data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"] [data-testid="stMetric"]) {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(10.25rem, 1fr));
}
[data-testid="stHorizontalBlock"] > [data-testid="stColumn"]:has([data-testid="stMetric"]) {
  width: auto; min-width: 0;
}
@media (max-width: 1200px) {
  [data-testid="stHorizontalBlock"]:not(:has([data-testid="stMetric"])) { flex-wrap: wrap; }
  [data-testid="stColumn"]:not(:has([data-testid="stMetric"])) { min-width: 100%; }
}
</style>"""


def draw() -> None:
    """Draw the frame and then the chosen page."""
    st.set_page_config(page_title="Inference control plane", page_icon="📊", layout="wide")
    st.html(_STYLE)
    told = settings.current()
    asked = filters.ask(told.language)
    # Beside the page and not above it: a row of ten would hide the last ones behind "more".
    chosen = st.navigation(_pages(asked), position="sidebar", expanded=True)
    freshness.badge(asked)
    st.caption(spoken.plain(asked.summary()))
    chosen.run()
    freshness.wait_for_first(asked)


def _pages(asked: Filters) -> list[st.Page]:
    return [
        st.Page(PAGES / f"{name}.py", title=asked.say(f"page_{name}"), icon=icon, default=first)
        for name, icon, first in (
            ("overview", ":material/dashboard:", True),
            ("cost_explorer", ":material/stacked_line_chart:", False),
            ("changes", ":material/waterfall_chart:", False),
            ("unit_economics", ":material/calculate:", False),
            ("savings", ":material/savings:", False),
            ("reconciliation", ":material/receipt_long:", False),
            ("budgets_policy", ":material/account_balance_wallet:", False),
            ("gpu", ":material/memory:", False),
            ("traces", ":material/account_tree:", False),
            ("data_quality", ":material/fact_check:", False),
        )
    ]


draw()
