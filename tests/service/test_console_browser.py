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
# As a large app has them: no page gets wider than a phone by its numbers.
_LARGE_NUMBERS: Final = """() => {
  for (const each of document.querySelectorAll("td.n, .figures td, .card-value"))
    each.textContent = "12,345,678";
}"""
_CONTRAST: Final = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """What there is to see."""
    with history(clients) as found:
        yield found


@pytest.fixture(scope="module")
def address(
    scenario: Scenario, sandbox_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where gunicorn serves the console. A run waits for the lease, so that it can be watched."""
    environ = environ_of(scenario, sandbox_dir) | {"LEASE_WAIT_SECONDS": "30"}
    log = tmp_path_factory.mktemp("console") / "log"
    with serving(log, app="app:local()", **environ) as service:
        yield f"http://localhost:{service.port}"


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:  # noqa: ARG001 - it ends first: it keeps connections
    """The machine's own Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass(slots=True)
class Look:
    """A tab, and what went wrong in it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    bytes: int = 0


@contextmanager
def looking(browser: Browser, **options: Any) -> Iterator[Look]:  # noqa: ANN401 - of a context
    """A new tab that notes every error, refusal of the policy and byte."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    look = Look(page=context.new_page())
    look.page.on("pageerror", lambda error: look.problems.append(str(error)))
    look.page.on(
        "console",
        lambda said: look.problems.append(said.text) if said.type == "error" else None,
    )
    session = context.new_cdp_session(look.page)
    session.send("Network.enable")

    def count(loaded: dict[str, Any]) -> None:
        look.bytes += int(loaded["encodedDataLength"])

    session.on("Network.loadingFinished", count)
    yield look
    context.close()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Look]:
    """One tab for many pages."""
    with looking(browser) as look:
        yield look


def serious(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    """What axe-core finds that would keep somebody out."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    wanted = options or {"resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", wanted)
    return [
        f"{each['id']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
    ]


def first_link(page: Page, beginning: str) -> str:
    """The address of the first link that begins so."""
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
def test_every_page_is_for_everybody(tab: Look, address: str, path: str) -> None:
    """It says what it should, without an error, to all eyes, on a phone and in the dark."""
    check_page(tab, address + path, PAGES[path], is_missing=path == "/nowhere")


def check_page(look: Look, url: str, said: str, *, is_missing: bool = False) -> None:
    """Everything that must hold of any page."""
    page = look.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    look.problems.clear()
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == (404 if is_missing else 200)
    expect(page.get_by_role("main")).to_contain_text(said)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert "UTC" in page.inner_text("footer")
    charts = page.locator("figure.chart").count()
    expect(page.locator("figure.chart canvas")).to_have_count(charts)
    assert serious(page) == []
    page.emulate_media(color_scheme="dark")
    assert serious(page, _CONTRAST) == []
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate(_LARGE_NUMBERS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    problems = [each for each in look.problems if not (is_missing and "404" in each)]
    assert problems == []


def test_a_sessions_page_and_its_persons(tab: Look, address: str) -> None:
    """From the list to a session, to its events, to its person: each page as all the others."""
    tab.page.goto(f"{address}/sessions?flag=started_quiz&first=2026-01-01")
    session = first_link(tab.page, "/session?")
    check_page(tab, f"{address}{session}&events", "started_quiz")
    tab.page.set_viewport_size({"width": 1280, "height": 900})
    tab.page.goto(address + session)
    expect(tab.page.locator(".events li.ours").first).to_be_visible()  # it was read by itself
    tab.page.locator("#column-started_quiz .from a").first.click()
    event = tab.page.locator(".events li:target")
    expect(event).to_be_in_viewport()
    expect(event).to_contain_text("start_quiz")
    person = first_link(tab.page, "/person?")
    check_page(tab, address + person, "Latest sessions")


def test_the_first_page_is_light(browser: Browser, address: str) -> None:
    """All of it, without any cache, is under 300 kB; nothing comes from elsewhere."""
    with looking(browser) as look:
        hosts: set[str] = set()
        look.page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        look.page.goto(address, wait_until="networkidle")
        assert 50_000 < look.bytes < MOST_BYTES
        assert hosts == {address.split("/")[2]}
        shown = look.page.locator("figure.chart canvas")
        assert shown.count() == 2


def test_a_large_screen_is_used(tab: Look, address: str) -> None:
    """On 4K letters grow, and the page is not a narrow strip."""
    page = tab.page
    page.set_viewport_size({"width": 3840, "height": 2160})
    page.goto(address)
    assert page.locator("main").bounding_box()["width"] > 0.65 * 3840  # type: ignore[index]
    size = "each => parseFloat(getComputedStyle(each).fontSize)"
    assert page.locator("main .card-title").first.evaluate(size) >= 22
    chart = page.locator("figure.chart canvas").first.bounding_box()
    assert chart is not None
    assert chart["width"] > 0.6 * 3840
    assert chart["height"] > 400


def test_a_failed_run_says_what_to_do(tab: Look, address: str) -> None:
    """The list says that it failed; its page gives the error, and the request that repeats it."""
    tab.page.goto(f"{address}/runs")
    row = tab.page.locator("tr", has_text="failed")
    expect(row).to_contain_text("force")
    failed = row.locator("a").first.get_attribute("href")
    check_page(tab, f"{address}{failed}", "It ended with an error.")
    expect(tab.page.get_by_role("main")).to_contain_text('curl -X POST "$SERVICE_URL/run"')


def test_a_runs_rows_add_up(tab: Look, address: str) -> None:
    """The bar of a run's page is whole, and its table sums to its last line."""
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


def test_explore_changes_at_once(tab: Look, address: str) -> None:
    """A choice changes the picture, the address and the table, without loading the page."""
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
    """One button starts it; it shows its step without loading, then its report.

    It waits for the lease, which somebody else holds: before the start the page says who.
    """
    with looking(browser) as look:
        page = look.page
        page.clock.install()
        take_lease(scenario)
        try:
            page.goto(f"{address}/runs")
            expect(page.locator("#live-more")).to_contain_text(OTHER_RUN)
            expect(page.locator("#live-more")).to_contain_text("the lease expires at")
            page.get_by_role("button", name="Start a run").click()
            for _ in range(20):  # the page asks every 2 s, and every 4 s: here at once
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
        assert look.problems == []


def test_a_full_load_is_asked_about(browser: Browser, address: str, scenario: Scenario) -> None:
    """It says what it does and costs, and nothing has started."""
    with looking(browser) as look:
        before = len(scenario.query("SELECT run_id FROM {d}.etl_runs"))
        look.page.goto(f"{address}/runs/new")
        look.page.get_by_label("Full load").check()
        look.page.get_by_role("button", name="Start", exact=True).click()
        sure = look.page.locator("section", has_text="Before it starts")
        expect(sure).to_contain_text("reads the whole history")
        expect(sure).to_contain_text("By BigQuery's dry run")
        expect(sure).to_contain_text("The last run of this kind took")
        assert len(scenario.query("SELECT run_id FROM {d}.etl_runs")) == before


def test_another_site_starts_nothing(browser: Browser, address: str, scenario: Scenario) -> None:
    """A page of another origin sends the form that starts a run: it is refused by its origin."""
    form = f'<form method="post" action="{address}/runs/new"><button>Win a prize</button></form>'
    before = len(scenario.query("SELECT run_id FROM {d}.etl_runs"))
    with looking(browser) as look:
        look.page.route(
            "http://elsewhere.example/",
            lambda route: route.fulfill(body=form, content_type="text/html"),
        )
        look.page.goto("http://elsewhere.example/")
        look.page.get_by_role("button").click()
        expect(look.page.get_by_role("main")).to_contain_text("A page of another origin may not")
    assert len(scenario.query("SELECT run_id FROM {d}.etl_runs")) == before


def test_signing_in(browser: Browser) -> None:
    """Whoever is not signed in sees the sign-in page; the right key leads on."""
    with serving_here(create_app(LOCKED)) as address, looking(browser) as look:
        page = look.page
        page.goto(f"{address}/runs/new")
        assert serious(page) == []
        page.get_by_label("The service's key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("The key is wrong.")
        page.get_by_label("The service's key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{address}/runs/new")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{address}/sign-in")


def test_an_empty_warehouse(browser: Browser, clients: Clients, sandbox_dir: Path) -> None:
    """The first page leads to the first run."""
    with Scenario(clients=clients) as empty:
        service = create_app(environ_of(empty, sandbox_dir), is_local=True)
        with closing_clients(service), serving_here(service) as address, looking(browser) as look:
            check_page(look, address, "There is nothing to see yet")
            look.page.get_by_role("link", name="Start the first run").click()
            expect(look.page.get_by_role("heading", level=1)).to_have_text("New run")


def test_without_javascript(browser: Browser, address: str) -> None:
    """Tables, forms and a run work all the same."""
    with looking(browser, java_script_enabled=False) as look:
        page = look.page
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


def test_a_keyboard_is_enough(tab: Look, address: str) -> None:
    """The first key leads to the content, and what has the focus can be seen."""
    page = tab.page
    page.goto(address)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.keyboard.press("Tab")
    outline = page.locator(":focus").evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline == "solid"


def test_a_chart_draws_its_table(tab: Look, address: str) -> None:
    """What the browser draws is what the table holds."""
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
