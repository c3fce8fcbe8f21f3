"""The pictures of docs/images: the pages of the demo in a browser. `make screenshots`."""

from __future__ import annotations

import shutil
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sandbox.demo_history import played, serving
from sandbox.errors import SandboxError
from sandbox.palette import to_png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"
_PORT: Final = 8091
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_PHONE: Final = {"width": 360, "height": 740}
_DESK: Final = {"width": 1200, "height": 760}
_TALL: Final = {"width": 1200, "height": 1000}
# Picture, address, and how it is looked at. An address may be a link of another page.
_PICTURES: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("overview", "/", {"viewport": _TALL}),
    ("overview-dark", "/", {"viewport": _DESK, "color_scheme": "dark"}),
    ("overview-phone", "/", {"viewport": _PHONE, "device_scale_factor": 1.5}),
    ("explore", "/explore?column=sessions&split=country&step=week", {"viewport": _DESK}),
    ("funnel", "/explore?kind=funnel&of=people", {"viewport": _DESK}),
    ("retention", "/explore?kind=retention", {"viewport": _TALL}),
    ("session", "/sessions?flag=started_quiz&flag=joined_event > a session", {"viewport": _TALL}),
    ("person", "/person?id={person}", {"viewport": _DESK}),
    ("runs", "/runs", {"viewport": _DESK}),
    ("run", "/runs > full load", {"viewport": _TALL}),
    ("failed-run", "/runs > timed out", {"viewport": _DESK}),
    ("health", "/health-report", {"viewport": {"width": 1200, "height": 1300}}),
)
_PIXELS: Final = """async (address) => {
  const picture = await createImageBitmap(await (await fetch(address)).blob());
  const { width, height } = picture;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(picture, 0, 0);
  const bytes = canvas.getImageData(0, 0, width, height).data;
  const parts = [];
  for (let at = 0; at < bytes.length; at += 30000)
    parts.push(String.fromCharCode(...bytes.subarray(at, at + 30000)));
  return [btoa(parts.join("")), width, height];
}"""
# A user with many sessions, of whom an event tied a device.
_PERSON: Final = """SELECT p.person_id
FROM posthog_aggregated.persons AS p
JOIN posthog_aggregated.identities AS i ON i.user_id = p.user_id
ORDER BY p.session_count DESC, p.person_id
LIMIT 1"""


def take(browser: Browser, address: str, person: str) -> None:
    """Write every picture. `address`: of a console that has data; `person`: whose page is shown."""
    IMAGES.mkdir(exist_ok=True)
    for name, path, options in _PICTURES:
        context = browser.new_context(**options)
        page = context.new_page()
        first, _, link = path.partition(" > ")
        page.goto(f"{address}{first.format(person=person)}", wait_until="networkidle")
        if link:
            _follow(page, link)
        page.wait_for_timeout(300)
        (IMAGES / f"{name}.png").write_bytes(_smaller(browser, page.screenshot()))
        context.close()


def _smaller(browser: Browser, png: bytes) -> bytes:
    """The same picture in fewer colours; each pixel as the browser reads it."""
    page = browser.new_page()
    address = f"data:image/png;base64,{b64encode(png).decode()}"
    pixels, width, height = page.evaluate(_PIXELS, address)
    page.close()
    return to_png(b64decode(pixels), width, height)


def _follow(page: Page, link: str) -> None:
    """Follow the link to the first run with this text, or to the first session and its events."""
    if link == "a session":
        page.locator("main table a[href^='/session?']").first.click()
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
        (row,) = demo.client.query(_PERSON).result()
        take(browser, address, row["person_id"])
        browser.close()
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command line speaks


if __name__ == "__main__":
    sys.exit(main())
