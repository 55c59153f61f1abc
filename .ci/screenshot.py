"""data/ablation/explorer.png: the upper part of data/explorer.html, as a browser shows it, for the README."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]


def main():
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, browsers)), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 800})
        page.goto((ROOT / "data" / "explorer.html").as_uri())
        page.locator("#step").press("End")  # the last training step
        page.locator("#brightness").press("End")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        first, last = page.locator("h2").first.bounding_box(), page.locator("#means").bounding_box()
        clip = {"x": 0, "y": first["y"] - 10, "width": 1180, "height": last["y"] + last["height"] - first["y"] + 20}
        page.screenshot(path=ROOT / "data" / "ablation" / "explorer.png", clip=clip, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
