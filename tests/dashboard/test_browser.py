"""The dashboard as a browser sees it: the real server, a real Chromium, no other host."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from socket import create_server
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None
)
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]  # containers: no user namespace, small shm
START_SECONDS = 120
PAGES = (
    "Cost explorer", "Why it moved", "Unit economics", "Reconciliation", "Budgets & policy", "Traces",
    "Overview",
)  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server(steady_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run `python -m dashboard` on a free port until the module's tests end."""
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    said = {
        "CONTROLPLANE_DASHBOARD_API_URL": steady_api.url,
        "CONTROLPLANE_DASHBOARD_PORT": str(port),
    }
    command = [sys.executable, "-m", "dashboard"]
    with (tmp_path_factory.mktemp("dashboard") / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **said}, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_it_serves(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_it_serves(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the dashboard did not start")


@pytest.fixture
def page(browser: Browser, server: str, steady_api: Any) -> Iterator[Page]:
    """Open a signed-in tab; the test fails on any request to another host or CSP violation."""
    context = browser.new_context(viewport={"width": 2000, "height": 1000})
    context.set_default_timeout(60_000)
    tab = context.new_page()
    elsewhere: list[str] = []
    refused: list[str] = []

    def seen(request: Request) -> None:
        if not request.url.startswith((server, "data:", "blob:")):
            elsewhere.append(request.url)

    tab.on("request", seen)
    tab.on(
        "console",
        lambda said: refused.append(said.text) if "Content Security Policy" in said.text else None,
    )
    steady_api.sign_in_tokens.add("once")
    tab.goto(f"{server}/sign-in?token=once")
    settled(tab)
    yield tab
    context.close()
    assert elsewhere == []
    assert refused == []


def settled(page: Page) -> None:
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.get_by_text("Data through").wait_for()


def spend(page: Page) -> str:
    tile = page.get_by_test_id("stMetric").filter(has_text="Spend").first
    return tile.get_by_test_id("stMetricValue").inner_text()


def dollars(api: Any, **wanted: str) -> str:
    return f"${Decimal(api.total(**wanted)) / 10**9:,.2f}"


def test_spend_equals_the_api_and_the_token_leaves_the_address(steady_api: Any, page: Page) -> None:
    assert "token" not in page.url
    assert dollars(steady_api) == spend(page)
    page.reload()
    settled(page)
    assert dollars(steady_api) == spend(page)  # the session outlives a reload


def test_filters_stay_in_the_url_on_every_page_and_back(
    steady_api: Any, page: Page, server: str
) -> None:
    page.goto(f"{server}/?range=30d&group=model&team=search")
    settled(page)
    assert dollars(steady_api, team="search") == spend(page)
    for name in PAGES:
        link = page.get_by_role("link", name=name)
        path = urlsplit(link.get_attribute("href") or "").path
        link.click()
        page.wait_for_url(partial(_is_at, path))  # the page before has the same filters
        settled(page)
    assert dollars(steady_api, team="search") == spend(page)
    page.go_back()
    page.wait_for_url("**/traces?*")
    assert "range=30d" in page.url


def _is_at(path: str, url: str) -> bool:
    return urlsplit(url).path == path and all(
        part in url for part in ("range=30d", "group=model", "team=search")
    )


def test_a_link_shows_the_same_number_in_a_fresh_tab(
    steady_api: Any, page: Page, server: str
) -> None:
    page.goto(f"{server}/?tenant=acme")
    settled(page)
    shared = page.context.new_page()
    shared.goto(page.url)
    settled(shared)
    assert dollars(steady_api, tenant="acme") == spend(page) == spend(shared)


def test_values_nobody_offers_leave_the_url(page: Page, server: str) -> None:
    page.goto(f"{server}/?range=bogus&group=%3Cscript%3E&team=nobody")
    settled(page)
    page.wait_for_url(lambda url: "bogus" not in url and "script" not in url)
    assert page.get_by_test_id("stException").count() == 0


def test_choosing_a_call_opens_its_waterfall(page: Page, server: str) -> None:
    page.goto(f"{server}/traces")
    settled(page)
    # Cells are drawn on a canvas: the first column of the first row is the selector.
    grid = page.get_by_test_id("stDataFrame").first
    grid.click(position={"x": 18, "y": 52})
    page.get_by_text("Trace 0af7651916cd43dd8448eb211c80319c").wait_for()
    assert "trace=0af7651916cd43dd8448eb211c80319c" in page.url
    page.get_by_label("Waterfall of 3 spans").first.wait_for()


def test_a_used_sign_in_link_is_refused(page: Page, server: str) -> None:
    del page  # it has used the token
    answer = httpx.get(f"{server}/sign-in", params={"token": "once"}, trust_env=False)
    assert answer.status_code == 401


def test_every_response_carries_the_security_headers(server: str) -> None:
    for path in ("/", "/health", "/sign-in?token=wrong", "/no/such/page"):
        headers = httpx.get(f"{server}{path}", trust_env=False).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_another_host_name_is_refused(server: str) -> None:
    answer = httpx.get(server, headers={"host": "evil.example"}, trust_env=False)
    assert answer.status_code >= 400
