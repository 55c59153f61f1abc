"""data/demo/lab.png: the CycleGAN Lab after one of its experiments, for the notebooks."""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from cyclegan_lib.show.page import assemble

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "inverted"


def main():
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.html"
        path.write_text(assemble(["lab"], {}), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=next(filter(None, browsers)), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 844}, color_scheme="light")
        page.goto(path.as_uri())
        page.locator("#lab-preset").select_option(EXPERIMENT)
        page.locator("#lab-play").click()
        page.wait_for_function("document.querySelector('#lab-answer').innerText.includes('step 2000')", timeout=0)
        planes = page.locator("#lab-planes")
        box = planes.bounding_box()
        planes.click(position=dict(x=0.11 * box["width"], y=0.86 * box["height"]))  # a water before a dark wall
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        first, last = (page.locator(name).bounding_box() for name in ("#lab .lab-grid", "#lab fieldset >> nth=0"))
        clip = dict(x=first["x"] - 10, y=first["y"] - 10, width=first["width"] + 20, height=last["y"] - first["y"])
        page.screenshot(path=ROOT / "data" / "demo" / "lab.png", clip=clip, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
