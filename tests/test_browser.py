"""Notebooks with explorers in a real JupyterLab in a real browser."""

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
    "05_output_norm.ipynb": ("wall: brightness", "brightness", "training step"),
    "06_data.ipynb": ("of the pictures",),
    "08_your_own_pictures.ipynb": ("picture",),
}
GAME = "07_stuck_losses.ipynb"


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
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, "JupyterLab did not start"
            time.sleep(0.2)
    yield address
    server.terminate()
    server.wait(timeout=30)


def run_all(browser, lab, notebook):
    """A page with the notebook, all of whose cells have run without an error."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/doc/tree/notebooks/{notebook}?reset")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 20",
                           timeout=90_000)  # fmt: skip
    page.evaluate("""async () => {
        await window.jupyterapp.shell.currentWidget.sessionContext.ready
        window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.everyCellHasRun = true })
    }""")
    page.wait_for_function("window.everyCellHasRun", timeout=400_000)
    errors = page.evaluate("""() => window.jupyterapp.shell.currentWidget.content.model.cells
        ? [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap(cell => cell.outputs
            ? cell.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue) : [])
        : ['no cells']""")
    assert errors == []
    return page


@pytest.mark.parametrize("notebook", SLIDERS)
def test_every_explorer_moves_by_keyboard(browser, lab, notebook):
    page = run_all(browser, lab, notebook)
    for label in SLIDERS[notebook]:
        scroll_to(page, label)
        box = page.locator(".jp-OutputArea-output", has=page.get_by_text(label, exact=True)).last
        picture = box.locator("img")
        before = picture.screenshot()
        box.locator(".widget-hslider", has=page.get_by_text(label, exact=True)).locator(".noUi-handle").press(
            "ArrowLeft"
        )
        deadline = time.monotonic() + 30
        while picture.screenshot() == before:
            assert time.monotonic() < deadline, f"the picture under {label!r} did not change"
            time.sleep(0.2)


def test_the_game_is_played_by_mouse(browser, lab):
    page = run_all(browser, lab, GAME)
    scroll_to(page, "case number")
    box = page.locator(".jp-OutputArea-output", has=page.get_by_text("case number", exact=True)).last
    box.locator("input").first.fill("3")
    box.locator("input").first.press("Enter")
    before = box.locator("img").screenshot()
    box.get_by_role("button", name="train it").click()
    box.get_by_text("trained: look at it").wait_for(timeout=60_000)
    assert box.locator("img").screenshot() != before
    box.get_by_role("button", name="probe").click()
    box.get_by_text("leaves gradients in").wait_for(timeout=10_000)
    answers = [name for name in box.locator("select option").all_inner_texts() if name]
    said = []
    for name in answers:
        box.locator("select").select_option(label=name)
        judged = box.get_by_text(f"right! It is: {name}").or_(box.get_by_text(f"not {name}: look again"))
        judged.wait_for(timeout=10_000)
        said.append(judged.inner_text())
    assert sum(text.startswith("right!") for text in said) == 1


def scroll_to(page, label):
    """Cells that are out of sight are not drawn: go through the notebook until the label is there."""
    count = page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length")
    for index in range(count):
        page.evaluate(f"window.jupyterapp.shell.currentWidget.content.scrollToItem({index}, 'start')")
        if page.get_by_text(label, exact=True).count():
            page.get_by_text(label, exact=True).last.scroll_into_view_if_needed()
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"no control {label!r} in the notebook")
