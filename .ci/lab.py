"""data/demo/lab.png: the CycleGAN Lab after one of its experiments, for the notebooks. With --speed: steps a second.

The speed is that of a training which draws, at a batch of 64, with all losses on, in a headless Chromium, after a
second in which the browser compiles. The machine should have two idle cores.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from cyclegan_lib.show.page import assemble

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT, SECONDS = "inverted", 10


def step_of(page):
    return int(page.locator("#lab-step").inner_text())


def measure(page, width):
    """Print the steps a second of a window this wide."""
    page.locator("[data-key=buffer]").uncheck()  # an experiment of the list would stop after its steps
    page.locator("[data-key=buffer]").check()
    page.locator("#lab-play").click()
    time.sleep(1)
    first, began = step_of(page), time.perf_counter()
    time.sleep(SECONDS)
    speed = (step_of(page) - first) / (time.perf_counter() - began)
    print(f"{width} px wide: {speed:.0f} steps a second; load of the machine: {os.getloadavg()[0]:.1f}")


def photograph(page):
    """Run the experiment to its answer, and keep what stands above the switches."""
    page.locator("#lab-preset").select_option(EXPERIMENT)
    page.locator("#lab-play").click()
    page.wait_for_function(
        "document.querySelector('#lab-answer').innerText.includes('Your run at step 2000')", timeout=0
    )
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    first, last = (page.locator(name).bounding_box() for name in ("#lab .lab-grid", "#lab fieldset >> nth=0"))
    clip = dict(x=first["x"] - 10, y=first["y"] - 10, width=first["width"] + 20, height=last["y"] - first["y"])
    page.screenshot(path=ROOT / "data" / "demo" / "lab.png", clip=clip, full_page=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lab.html"
        path.write_text(assemble(["lab"], {}), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=next(filter(None, browsers)), args=["--no-sandbox"])
        for width in (390, 1280) if args.speed else (1180,):
            page = browser.new_page(viewport={"width": width, "height": 844})
            page.goto(path.as_uri())
            if args.speed:
                measure(page, width)
            else:
                photograph(page)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
