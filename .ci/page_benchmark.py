"""How fast data/explorer.html is in a headless Chromium on this machine: data/page/speed.json."""

import json
import os
import shutil
import time
from pathlib import Path

from benchmark import machine_name
from playwright.sync_api import sync_playwright

DATA = Path(__file__).resolve().parents[1] / "data"
PAGE = DATA / "explorer.html"
SECONDS = 8
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def drag(tab, slider):
    """Redraws a second while the mouse drags a slider to and fro."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    count = "Number(document.querySelector('#live').dataset.redraws)"
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    before, began, n = tab.evaluate(count), time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        n += 1
        share = abs(n % 200 - 100) / 100
        tab.mouse.move(box["x"] + box["width"] * (0.05 + 0.9 * share), box["y"] + box["height"] / 2)
    seconds = time.perf_counter() - began
    redraws = tab.evaluate(count) - before
    tab.mouse.up()
    return redraws / seconds


def training_speed(tab):
    """Steps a second of the Lab, all losses on and a batch of 64, while it draws."""
    tab.locator("#lab").scroll_into_view_if_needed()
    tab.locator("#lab [data-key=buffer]").uncheck()  # an experiment of the list would stop after its steps
    tab.locator("#lab [data-key=buffer]").check()
    tab.locator("#lab-play").click()
    time.sleep(2)  # the browser compiles
    step = "Number(document.querySelector('#lab-step').textContent)"
    before, began = tab.evaluate(step), time.perf_counter()
    time.sleep(SECONDS)
    speed = (tab.evaluate(step) - before) / (time.perf_counter() - began)
    tab.locator("#lab-play").click()
    return speed


def main():
    names = ("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, names)))
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(PAGE.as_uri())
        tab.wait_for_function("document.querySelector('#live').dataset.redraws > 0")
        paint = tab.evaluate(PAINT)
        found = {"machine": machine_name("cpu")}
        found |= {"megabytes": round(PAGE.stat().st_size / 1e6, 2), "first_paint_ms": round(paint)}
        found |= {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
        found["redraws_per_second"] = round(drag(tab, tab.locator("#live [name=brightness]")), 1)
        for width in (1280, 390):
            tab.set_viewport_size({"width": width, "height": 900})
            found[f"lab_steps_per_second_at_{width}_px"] = round(training_speed(tab))
        browser.close()
    print(json.dumps(found, indent=1))
    (DATA / "page" / "speed.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
