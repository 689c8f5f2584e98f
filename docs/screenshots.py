"""Take the pictures of the report that the documentation shows: `python docs/screenshots.py [REPORT]`.

Needs Debian's package `chromium` and a built project.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "images"
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 390, "height": 780}


def main(report: Path) -> None:
    """Write docs/images/*.png from a report."""
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

        def page_of(size: dict[str, int], scheme: str, language: str) -> Page:
            page = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce").new_page()  # type: ignore[arg-type]
            page.goto(report.resolve().as_uri())
            page.click(f"button[value={language}]")
            return page

        def take(page: Page, name: str, section: str = "top") -> None:
            page.evaluate("(id) => document.getElementById(id).scrollIntoView({behavior: 'instant'})", section)
            page.screenshot(path=FOLDER / f"{name}.png")

        light = page_of(WIDE, "light", "en")
        take(light, "report-light")
        take(light, "report-drops", "drops")
        take(light, "report-sources", "mix")
        light.select_option("#choose-state", "dropped")
        light.select_option("#choose-order", "near")
        light.locator("#document-list details summary").first.click()
        take(light, "report-documents", "documents")
        take(page_of(WIDE, "dark", "zh"), "report-dark", "funnel")
        take(page_of(NARROW, "light", "en"), "report-narrow", "signals")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("reports/index.html"))
