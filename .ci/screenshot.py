"""data/ablation/explorer.png: a part of data/explorer.html, as a browser shows it, for the README and for previews."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]


def main():
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, browsers)), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 800}, color_scheme="light")
        page.goto((ROOT / "data" / "explorer.html").as_uri())
        page.wait_for_function("document.querySelector('#live').dataset.redraws > 0")
        first, last = (page.locator(f"#live {name}").bounding_box() for name in (".sticky", "[data-of=reads]"))
        clip = {"x": 0, "y": first["y"] - 10, "width": 1180, "height": last["y"] + last["height"] - first["y"] + 10}
        page.screenshot(path=ROOT / "data" / "ablation" / "explorer.png", clip=clip, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
