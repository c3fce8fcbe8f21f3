"""The console in a real browser, served by gunicorn over the sandbox's emulator."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import expect, sync_playwright

from app import create_app
from tests.console_world import (
    OTHER_RUN,
    closing_clients,
    environ_of,
    history,
    release_lease,
    serving_here,
    take_lease,
)
from tests.scenario import Scenario
from tests.service.test_console import KEY, LOCKED
from tests.test_app import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from bigquery.clients import Clients

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = next(filter(None, map(shutil.which, _NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="No browser: install Debian's package chromium, or Google Chrome."
)
MOST_BYTES: Final = 300_000
_SERIOUS: Final = {"serious", "critical"}
# Numbers of a large app: no page may get wider than a phone because of them.
_LARGE_NUMBERS: Final = """() => {
  for (const each of document.querySelectorAll("td.n, .figures td, .card-value"))
    each.textContent = "12,345,678";
}"""
_CONTRAST: Final = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """The history that the pages show."""
    with history(clients) as found:
        yield found


@pytest.fixture(scope="module")
def address(
    scenario: Scenario, sandbox_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of gunicorn. A run waits for the lease, so that a test can watch it."""
    environ = environ_of(scenario, sandbox_dir) | {"LEASE_WAIT_SECONDS": "30"}
    log = tmp_path_factory.mktemp("console") / "log"
    with serving(log, app="app:local()", **environ) as service:
        yield f"http://localhost:{service.port}"


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:  # noqa: ARG001 - closes before the service does
    """The machine's own Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass(slots=True)
class Tab:
    """A tab, and what went wrong in it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    bytes: int = 0


@contextmanager
def open_tab(browser: Browser, **options: Any) -> Iterator[Tab]:  # noqa: ANN401 - of a context
    """A new tab that records every error, violation of the content policy, and byte."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    tab = Tab(page=context.new_page())
    tab.page.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.page.on(
        "console",
        lambda message: tab.problems.append(message.text) if message.type == "error" else None,
    )
    session = context.new_cdp_session(tab.page)
    session.send("Network.enable")

    def count(loaded: dict[str, Any]) -> None:
        tab.bytes += int(loaded["encodedDataLength"])

    session.on("Network.loadingFinished", count)
    yield tab
    context.close()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab that several tests share."""
    with open_tab(browser) as found:
        yield found


def serious_violations(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    """The serious accessibility problems that axe-core finds."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    axe_options = options or {"resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", axe_options)
    return [
        f"{each['id']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
    ]


def first_link(page: Page, beginning: str) -> str:
    """The address of the first link that begins with this."""
    link = page.locator(f"main a[href^='{beginning}']").first.get_attribute("href")
    assert link is not None
    return link


PAGES: Final = {
    "/": "This week",
    "/explore?column=engaged_seconds&measure=median&split=lib&step=week": "Median engaged seconds",
    "/explore?kind=funnel&of=people": "Funnel of people",
    "/explore?kind=retention": "Who comes back",
    "/sessions?flag=is_engaged": "Sessions",
    "/runs": "Runs",
    "/runs/new": "New run",
    "/health-report": "Would a run find what it needs?",
    "/sign-in": "Sign in",
    "/nowhere": "There is nothing here",
}


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_accessible(tab: Tab, address: str, path: str) -> None:
    """It has its text and no error, and can be read by everybody, on a phone and in dark mode."""
    check_page(tab, address + path, PAGES[path], is_missing=path == "/nowhere")


def check_page(tab: Tab, url: str, text: str, *, is_missing: bool = False) -> None:
    """Check everything that must hold for any page."""
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    tab.problems.clear()
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == (404 if is_missing else 200)
    expect(page.get_by_role("main")).to_contain_text(text)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert "UTC" in page.inner_text("footer")
    charts = page.locator("figure.chart").count()
    expect(page.locator("figure.chart canvas")).to_have_count(charts)
    assert serious_violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert serious_violations(page, _CONTRAST) == []
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate(_LARGE_NUMBERS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    problems = [each for each in tab.problems if not (is_missing and "404" in each)]
    assert problems == []


def test_links_lead_from_a_session_to_its_events_and_person(tab: Tab, address: str) -> None:
    """From the list to a session, its events and its person; each page is checked."""
    tab.page.goto(f"{address}/sessions?flag=started_quiz&first=2026-01-01")
    session = first_link(tab.page, "/session?")
    check_page(tab, f"{address}{session}&events", "started_quiz")
    tab.page.set_viewport_size({"width": 1280, "height": 900})
    tab.page.goto(address + session)
    expect(tab.page.locator(".events li.ours").first).to_be_visible()  # loaded without a click
    tab.page.locator("#column-started_quiz .from a").first.click()
    event = tab.page.locator(".events li:target")
    expect(event).to_be_in_viewport()
    expect(event).to_contain_text("start_quiz")
    person = first_link(tab.page, "/person?")
    check_page(tab, address + person, "Latest sessions")


def test_the_first_page_is_small(browser: Browser, address: str) -> None:
    """Without a cache it loads under 300 kB, and nothing from another host."""
    with open_tab(browser) as tab:
        hosts: set[str] = set()
        tab.page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.page.goto(address, wait_until="networkidle")
        assert 50_000 < tab.bytes < MOST_BYTES
        assert hosts == {address.split("/")[2]}
        shown = tab.page.locator("figure.chart canvas")
        assert shown.count() == 2


def test_a_large_screen_is_used(tab: Tab, address: str) -> None:
    """On a 4K screen the text is larger, and the page is not a narrow strip."""
    page = tab.page
    page.set_viewport_size({"width": 3840, "height": 2160})
    page.goto(address)
    assert page.locator("main").bounding_box()["width"] > 0.65 * 3840  # type: ignore[index]
    size = "each => parseFloat(getComputedStyle(each).fontSize)"
    assert page.locator("main .card-title").first.evaluate(size) >= 22
    # The page may hear late of the window's size, and draws its charts anew then.
    drawn = "() => document.querySelector('figure.chart canvas')?.getBoundingClientRect().%s > %d"
    page.wait_for_function(drawn % ("width", 0.6 * 3840))
    page.wait_for_function(drawn % ("height", 400))


def test_the_page_of_a_failed_run_says_what_to_do(tab: Tab, address: str) -> None:
    """The list says that it failed; its page has the error and the request that repeats it."""
    tab.page.goto(f"{address}/runs")
    row = tab.page.locator("tr", has_text="failed")
    expect(row).to_contain_text("force")
    failed = row.locator("a").first.get_attribute("href")
    check_page(tab, f"{address}{failed}", "It ended with an error.")
    expect(tab.page.get_by_role("main")).to_contain_text('curl -X POST "$SERVICE_URL/run"')


def test_a_runs_rows_add_up(tab: Tab, address: str) -> None:
    """The parts of its bar fill it, and the rows of its table add up to the last one."""
    tab.page.goto(f"{address}/runs")
    good = tab.page.locator("tr", has_text="succeeded").last.locator("a").first
    check_page(tab, f"{address}{good.get_attribute('href')}", "rows read or counted")
    tab.page.reload()
    widths = tab.page.eval_on_selector_all(
        ".accounts rect", "found => found.map(each => Number(each.getAttribute('width')))"
    )
    assert sum(widths) == pytest.approx(100, abs=0.1)
    texts = tab.page.locator("section:has(.accounts) td:nth-child(2)").all_inner_texts()
    counts = [int(text.replace(",", "")) for text in texts]
    assert sum(counts[:-1]) == counts[-1] > 0


def test_explore_changes_at_once(tab: Tab, address: str) -> None:
    """A choice changes the chart, the heading and the address without reloading the page."""
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{address}/explore")
    page.evaluate("window.kept = true")
    page.select_option("#column", "is_bounce")
    expect(page.locator("#what")).to_have_text(re.compile("Share with is bounce"))
    expect(page.locator("figure.chart canvas")).to_have_count(1)
    assert "column=is_bounce" in page.url
    assert page.evaluate("window.kept")
    page.reload()
    expect(page.locator("#what")).to_have_text(re.compile("Share with is bounce"))


def test_a_run_is_started_and_watched(browser: Browser, address: str, scenario: Scenario) -> None:
    """One button starts it; the page shows its step without reloading, then its report.

    It waits for a lease that somebody else holds, whom the page names before the start.
    """
    with open_tab(browser) as tab:
        page = tab.page
        page.clock.install()
        take_lease(scenario)
        try:
            page.goto(f"{address}/runs")
            expect(page.locator("#live-more")).to_contain_text(OTHER_RUN)
            expect(page.locator("#live-more")).to_contain_text("the lease expires at")
            page.get_by_role("button", name="Start a run").click()
            for _ in range(20):  # the page polls every 2 s or 4 s: skip the wait
                page.clock.fast_forward(4000)
                if page.locator("#live a").count():
                    break
                page.wait_for_timeout(100)
            expect(page.locator("#live-more")).to_contain_text("Step lease")
            expect(page.locator("#live a")).to_contain_text("sessions: lease")
        finally:
            release_lease(scenario)
        page.wait_for_url(re.compile(r"/runs/[0-9]{8}T[0-9]{6}_[0-9a-f]{8}$"), timeout=30_000)
        expect(page.locator(".status").first).to_have_text("succeeded")
        assert tab.problems == []


def test_a_full_load_needs_confirmation(browser: Browser, address: str, scenario: Scenario) -> None:
    """The page says what it does and costs, and no run has started."""
    with open_tab(browser) as tab:
        before = len(scenario.query("SELECT run_id FROM {d}.etl_runs"))
        tab.page.goto(f"{address}/runs/new")
        tab.page.get_by_label("Full load").check()
        tab.page.get_by_role("button", name="Start", exact=True).click()
        question = tab.page.locator("section", has_text="Before it starts")
        expect(question).to_contain_text("reads the whole history")
        expect(question).to_contain_text("By BigQuery's dry run")
        expect(question).to_contain_text("The last run of this kind took")
        assert len(scenario.query("SELECT run_id FROM {d}.etl_runs")) == before


def test_another_site_cannot_start_a_run(
    browser: Browser, address: str, scenario: Scenario
) -> None:
    """Its page sends the form that starts a run, and is refused because of its origin."""
    form = f'<form method="post" action="{address}/runs/new"><button>Win a prize</button></form>'
    before = len(scenario.query("SELECT run_id FROM {d}.etl_runs"))
    with open_tab(browser) as tab:
        tab.page.route(
            "http://elsewhere.example/",
            lambda route: route.fulfill(body=form, content_type="text/html"),
        )
        tab.page.goto("http://elsewhere.example/")
        tab.page.get_by_role("button").click()
        expect(tab.page.get_by_role("main")).to_contain_text("A page of another origin may not")
    assert len(scenario.query("SELECT run_id FROM {d}.etl_runs")) == before


def test_a_browser_signs_in_with_the_key(browser: Browser) -> None:
    """It gets the sign-in page first, and with the right key the page that it requested."""
    with serving_here(create_app(LOCKED)) as address, open_tab(browser) as tab:
        page = tab.page
        page.goto(f"{address}/runs/new")
        assert serious_violations(page) == []
        page.get_by_label("The service's key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("The key is wrong.")
        page.get_by_label("The service's key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{address}/runs/new")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{address}/sign-in")


def test_an_empty_warehouse_leads_to_the_first_run(
    browser: Browser, clients: Clients, sandbox_dir: Path
) -> None:
    """By a link on the first page."""
    with Scenario(clients=clients) as empty:
        service = create_app(environ_of(empty, sandbox_dir), is_local=True)
        with closing_clients(service), serving_here(service) as address, open_tab(browser) as tab:
            check_page(tab, address, "There is nothing to see yet")
            tab.page.get_by_role("link", name="Start the first run").click()
            expect(tab.page.get_by_role("heading", level=1)).to_have_text("New run")


def test_the_console_works_without_javascript(browser: Browser, address: str) -> None:
    """Tables and forms work, and a run can be started."""
    with open_tab(browser, java_script_enabled=False) as tab:
        page = tab.page
        page.goto(address)
        page.locator("summary", has_text="As a table").first.click()
        expect(page.locator("#sessions-table tbody tr")).to_have_count(90)
        page.goto(f"{address}/explore")
        page.select_option("#column", "event_count")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#what")).to_have_text("Sum of event count, each day")
        page.goto(f"{address}/runs")
        page.get_by_role("button", name="Start a run").click()
        assert re.search(r"/runs/[0-9T]{15}_[0-9a-f]{8}$", page.url), page.inner_text("main")
        expect(page.get_by_role("main")).to_contain_text("nothing new")


def test_the_console_can_be_used_by_keyboard(tab: Tab, address: str) -> None:
    """The first Tab offers to skip to the content, and the focus is visible."""
    page = tab.page
    page.goto(address)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{address}/#main")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_css("outline-style", "solid")


def test_a_chart_shows_the_values_of_its_table(tab: Tab, address: str) -> None:
    """The chart's legend has the value of the table's last row."""
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(address)
    last = page.locator("#sessions-table tbody tr").last
    shown = page.locator("figure.chart .u-legend .u-value").nth(1)
    expect(shown).to_have_text(last.locator("td").first.text_content() or "no cell")
    vendored = json.loads(
        page.evaluate("fetch('/static/vendor/vendored.json').then(a => a.text())")
    )
    assert {each["package"] for each in vendored} == {"htmx.org", "uplot"}
