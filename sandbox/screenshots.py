"""The pictures of docs/images: the pages of the demo in a browser. `make screenshots`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox.demo_history import played, serving
from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"
_PORT: Final = 8091
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_PHONE: Final = {"width": 390, "height": 780}
_DESK: Final = {"width": 1280, "height": 860}
# Picture, address, and how it is looked at. An address may be a link of another page.
_PICTURES: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("overview", "/", {"viewport": _DESK}),
    ("overview-dark", "/", {"viewport": _DESK, "color_scheme": "dark"}),
    ("overview-phone", "/", {"viewport": _PHONE, "device_scale_factor": 2}),
    ("explore", "/explore?column=sessions&split=country&step=week", {"viewport": _DESK}),
    ("funnel", "/explore?kind=funnel&of=people", {"viewport": _DESK}),
    ("retention", "/explore?kind=retention", {"viewport": _DESK}),
    ("runs", "/runs", {"viewport": _DESK}),
    ("run", "/runs > succeeded", {"viewport": {"width": 1280, "height": 1300}}),
    ("failed-run", "/runs > timed out", {"viewport": _DESK}),
    ("session", "/sessions?flag=started_quiz&flag=joined_event > a session", {"viewport": _DESK}),
    ("health", "/health-report", {"viewport": {"width": 1280, "height": 1100}}),
)


def take(browser: Browser, address: str) -> None:
    """Every picture, of a console with something to see."""
    IMAGES.mkdir(exist_ok=True)
    for name, path, options in _PICTURES:
        context = browser.new_context(**options)
        page = context.new_page()
        first, _, link = path.partition(" > ")
        page.goto(f"{address}{first}", wait_until="networkidle")
        if link:
            _follow(page, link)
        page.wait_for_timeout(300)
        page.screenshot(path=IMAGES / f"{name}.png")
        context.close()


def _follow(page: Page, link: str) -> None:
    """Go on to the run of a status, or to the first session with its events."""
    if link == "a session":
        page.locator("main table a[href^='/session?']").first.click()
        page.get_by_role("link", name="Read the events").click()
        page.wait_for_selector("ol.events")
    else:
        page.locator("tr", has_text=link).first.locator("a").first.click()
    page.wait_for_load_state("networkidle")


def main() -> int:
    """Play the demo, and take the pictures."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        message = "There is no browser: install Debian's package chromium, or Google Chrome."
        raise SandboxError(message)
    with (
        played(_say) as demo,
        serving(demo, _PORT) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        take(browser, address)
        browser.close()
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command line speaks


if __name__ == "__main__":
    sys.exit(main())
