"""The printed link signs one browser in, once; pages say what the API says and do what it can."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]  # containers: no user namespace, small shm


@pytest.fixture(scope="module")
def page(chromium: str, system: Any) -> Iterator[Page]:
    """The one browser that the link signs in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(60_000)
        tab.goto(system.sign_in_url)
        _ran(tab)
        yield tab
        browser.close()


def test_first_sign_in_shows_the_apis_number_and_the_link_is_used_up(
    system: Any, team: str, chat: Any, page: Page
) -> None:
    for _ in range(3):
        sent = chat(team, model="gpt-4o", input_tokens=123_457, output_tokens=65_433)
        assert 200 == system.send(sent.body).status_code
    totals = system.wait_for(team, calls=3)
    # 2.50 and 10 USD per million tokens: OpenAI's price page for gpt-4o.
    by_hand = 3 * (123_457 * Decimal("2.5") + 65_433 * 10) / 10**6
    assert by_hand == Decimal(totals["cost_usd"])

    assert "token" not in page.url
    page.goto(f"{system.dashboard}/?range=24h&team={team}")
    _settled(page)
    assert f"${by_hand.quantize(Decimal('0.01'))}" == _tile(page, "Spend")
    assert "3" == _tile(page, "Calls")

    again = httpx.get(system.sign_in_url, trust_env=False)
    assert 401 == again.status_code
    assert "Ask for a new sign-in link: restart `controlplane up`" in again.text
    assert page.context.browser
    stranger = page.context.browser.new_context().new_page()
    stranger.goto(f"{system.dashboard}/?range=24h&team={team}")
    stranger.get_by_text(re.compile("sign.in", re.IGNORECASE)).first.wait_for()
    assert 0 == stranger.get_by_test_id("stMetric").count()


def test_a_policy_goes_back_with_one_click(system: Any, page: Page) -> None:
    """What the page shows of it is the diff of the API, and the hub publishes the old rules."""
    owner = system.make_key("service", "admin", "--all-tenants")
    first, second = (
        system.put("policy/rules", _rules(denied), key=owner, rollout="at_once")
        for denied in ("first-llm", "second-llm")
    )
    assert "second-llm" in system.ask("policy/rules", key=owner).text
    page.goto(f"{system.dashboard}/budgets_policy")
    _ran(page)
    went_back_to = f"{first['epoch']}.{first['gen']}"
    page.get_by_text("second-llm").first.wait_for()  # what would go, in the diff
    page.get_by_role("button", name=f"Go back to {went_back_to}").click()
    page.get_by_text(f"The rules of {went_back_to} are published as").wait_for()
    newest = system.ask("policy/generations", key=owner).json()["rows"][0]
    assert (second["gen"] + 1, "rollback") == (newest["gen"], newest["cause"])
    rules = system.ask("policy/rules", key=owner).text
    assert "first-llm" in rules
    assert "second-llm" not in rules


def _rules(denied: str) -> dict[str, Any]:
    return {"rules": [{"id": "no", "action": "deny", "match": {"provider": [denied]}}]}


def _ran(page: Page) -> None:
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def _settled(page: Page) -> None:
    _ran(page)
    page.get_by_text("Data through").wait_for()


def _tile(page: Page, name: str) -> str:
    tile = page.get_by_test_id("stMetric").filter(has_text=name).first
    return tile.get_by_test_id("stMetricValue").inner_text()
