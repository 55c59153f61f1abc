"""Notebooks with explorers in a real JupyterLab in a real browser.

Every wait is for a state, with a limit that a busy machine does not reach.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# One slider of each explorer.
SLIDERS = {
    "01_two_piles.ipynb": ("wall follows liquid",),
    "02_networks.ipynb": ("brightness", "kernel"),
    "05_output_norm.ipynb": ("wall: brightness", "brightness", "training step"),
    "06_data.ipynb": ("of the pictures",),
    "08_your_own_pictures.ipynb": ("picture",),
    "09_hidden.ipynb": ("level",),
}
GAME = "07_stuck_losses.ipynb"
PATIENCE = 300  # seconds, for each state; a notebook's cells all together have three times as long
CONTENT = """async image => {
    await image.decode()
    const digest = await crypto.subtle.digest('SHA-256', await (await fetch(image.src)).arrayBuffer())
    return Array.from(new Uint8Array(digest)).join()
}"""


def wait_until(condition, what):
    """Look at a condition, a function, again and again until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab on copies of the notebooks."""
    (tmp_path / "notebooks").mkdir()
    for notebook in (*SLIDERS, GAME):
        shutil.copy(ROOT / "notebooks" / notebook, tmp_path / "notebooks")
    for name in ("cyclegan_lib", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True",
               f"--ServerApp.root_dir={tmp_path}"]  # fmt: skip
    environment = {**os.environ, "CYCLEGAN_QUICK": "1", "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def answers():
        assert server.poll() is None, "JupyterLab did not start"
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
        except OSError:
            return False
        return True

    wait_until(answers, "JupyterLab does not answer")
    yield address
    server.terminate()
    server.wait(timeout=PATIENCE)


def run_all(browser, lab, notebook):
    """A page with the notebook, all of whose cells have run without an error."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{lab}/doc/tree/notebooks/{notebook}?reset")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 20")
    page.evaluate("""async () => {
        await window.jupyterapp.shell.currentWidget.sessionContext.ready
        window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.everyCellHasRun = true })
    }""")
    page.wait_for_function("window.everyCellHasRun", timeout=3000 * PATIENCE)
    outputs = page.evaluate("""() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap(
        cell => cell.outputs?.toJSON() ?? [])""")
    assert [output["evalue"] for output in outputs if output["output_type"] == "error"] == []
    return page


@pytest.mark.parametrize("notebook", SLIDERS)
def test_every_explorer_moves_by_keyboard(browser, lab, notebook):
    page = run_all(browser, lab, notebook)
    for label in SLIDERS[notebook]:
        box = output_with(page, label)
        picture, slider = box.locator("img"), box.locator(".widget-hslider", has=page.get_by_text(label, exact=True))
        before = picture.evaluate(CONTENT)
        slider.locator(".noUi-handle").press("ArrowLeft")
        wait_until(lambda: picture.evaluate(CONTENT) != before, f"the picture under {label!r} did not change")  # noqa: B023


def test_the_game_is_played_by_mouse(browser, lab):
    page = run_all(browser, lab, GAME)
    box = output_with(page, "case number")
    box.get_by_text("Case 1: a right answer now scores 4.").wait_for()
    assert box.locator("img").count() == 0, "nothing is shown yet"
    box.locator("input").first.fill("3")
    box.locator("input").first.press("Enter")
    box.get_by_text("Case 3: a right answer now scores 4.").wait_for()
    box.get_by_role("button", name="loss curves").click()
    box.locator("img").wait_for()
    box.get_by_role("button", name="probe").click()
    box.get_by_text("The probe:").wait_for()
    box.get_by_text("a right answer now scores 2.").wait_for()
    box.locator("select").select_option(label=box.locator("select option").all_inner_texts()[-1])
    box.get_by_role("button", name="this is it").click()
    box.get_by_text("What shows it:").wait_for()
    wait_until(lambda: box.locator("img").count() == 2, "the pictures are shown with the answer")
    box.get_by_text("diagnose, with all three tests:").wait_for()
    box.get_by_role("button", name="next case").click()
    box.get_by_text("Case 4: a right answer now scores 4.").wait_for()


def output_with(page, label):
    """The last output that has this label, scrolled to: cells that are out of sight are not drawn."""
    labels = page.get_by_text(label, exact=True)
    count = page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length")

    def is_drawn():
        for index in range(count):
            page.evaluate(f"window.jupyterapp.shell.currentWidget.content.scrollToItem({index}, 'start')")
            if labels.count():
                return True
        return False

    wait_until(is_drawn, f"no control {label!r} in the notebook")
    labels.last.scroll_into_view_if_needed()
    return page.locator(".jp-OutputArea-output", has=labels).last
