"""The page that computes: its engine against PyTorch, its scenes against Python, and every control in a browser."""

import base64
import csv
import json
import re
import shutil
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_lib.cli import main
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_header, read_tensors
from cyclegan_lib.models import Generator
from cyclegan_lib.show import page
from cyclegan_lib.show.page import contents
from cyclegan_lib.study.floor import LARGEST_MEAN, output_norm_floor
from cyclegan_lib.study.tables import read_table
from cyclegan_lib.train import train
from cyclegan_lib.water2wine.scenes import GLASSES, LIQUIDS, arranged_scene, render, sample_scene

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import animation  # noqa: E402

COMMITTED = ROOT / "data" / "explorer.html"
KERNELS = sorted(page.HERE.glob("*.wat"))
PATIENCE = 60_000  # milliseconds for one state of the page; a busy machine does not reach it
REDRAWS = "Number(document.querySelector('#live').dataset.redraws || 0)"


def kept_generators():
    """(file, name) of every generator in data/ that the page's engine can run."""
    found = []
    for path in sorted(ROOT.glob("data/*/*.safetensors")):
        facts = read_header(path)
        if facts.get("output_norm") in ("none", "instance") and "buffers" not in facts:
            names = {key.split(".")[0] for key in read_tensors(path)[0]} & {"G_AB", "G_BA"}
            found += [(path, name) for name in sorted(names) or ["G_AB"]]
    return found


def in_float64(path, name):
    """A kept generator as PyTorch runs it, its 8-bit weights multiplied by their scales."""
    tensors, facts = read_tensors(path)
    own = {key.removeprefix(f"{name}."): value.double() for key, value in tensors.items() if key.startswith(name)}
    own = own or {key: value.double() for key, value in tensors.items()}
    scales = {key.removesuffix(".scale"): own.pop(key) for key in list(own) if key.endswith(".scale")}
    for key, scale in scales.items():
        own[key] = own[key] * scale.reshape(-1, 1, 1, 1)
    G = Generator(*(facts[key] for key in ("channels", "base_channels", "num_residual", "output_norm"))).double()
    G.load_state_dict(own)
    return G


@pytest.fixture(scope="module")
def empty(browser, tmp_path_factory):
    """A page with the shared scripts and no part, to call its functions."""
    path = tmp_path_factory.mktemp("page") / "empty.html"
    path.write_text(page.assemble([], {}))
    tab = browser.new_page()
    tab.goto(path.as_uri())
    yield tab
    tab.close()


# The engine, the scene and the floor


RUN = """([file, name, picture, size, isPlain]) => {
    const {Machine, Generator, readSafetensors} = cyclegan.engine
    const machine = new Machine(isPlain ? null : new WebAssembly.Module(cyclegan.wasm("engine")))
    const G = new Generator(machine, readSafetensors(cyclegan.bytes(file)), name)
    return Array.from(G.forward(Float32Array.from(picture), size))
}"""


@pytest.mark.parametrize("kernel", ["wasm", "plain"])
def test_the_engine_equals_pytorch_in_float64(kernel, empty):
    generators, rng = kept_generators(), np.random.default_rng(0)
    assert len(generators) > 30
    for i, (path, name) in enumerate(generators if kernel == "wasm" else generators[::9]):
        # 44: its eleven pixels in the middle are no whole number of the kernel's steps.
        size, file = (64, 44, 32)[i % 3], base64.b64encode(path.read_bytes()).decode()
        picture = np.float32(rng.uniform(-1, 1, (3, size, size)))
        found = empty.evaluate(RUN, [file, name, picture.ravel().tolist(), size, kernel == "plain"])
        with torch.inference_mode():
            expected = in_float64(path, name)(torch.from_numpy(picture).double()[None]).numpy().ravel()
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max(), (path.name, name)


@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.name)
def test_the_committed_bytes_are_what_the_text_assembles_to(source):
    wasmtime = pytest.importorskip("wasmtime")
    assert source.with_suffix(".wasm").read_bytes() == bytes(wasmtime.wat2wasm(source.read_text())), "make kernels"


def test_the_scene_is_drawn_as_python_draws_it(empty):
    scenes = [sample_scene(np.random.default_rng([5, i]), LIQUIDS[i % 2]) for i in range(16)]
    assert {(scene.liquid, scene.glass) for scene in scenes} == {(a, b) for a in LIQUIDS for b in GLASSES}
    drawn = "scene => Array.from(cyclegan.scene.render(scene, 64))"
    pairs = [(scene, empty.evaluate(drawn, asdict(scene))) for scene in scenes]
    arranged = "given => Array.from(cyclegan.scene.render(cyclegan.scene.arrange(given), 64))"
    for given in [{}, dict(brightness=0.1, tint=-0.7, glass="wineglass", fill=0.3), dict(tint=1.0, liquid="wine")]:
        pairs.append((arranged_scene(**given), empty.evaluate(arranged, given)))
    for scene, found in pairs:
        difference = np.abs(np.reshape(found, (3, 64, 64)) - render(scene, 64)[0].numpy())
        assert difference.mean() * 127.5 < 1


def test_the_floor_is_the_package_s(empty):
    scenes = [render(sample_scene(np.random.default_rng([6, i]), LIQUIDS[i % 2]), 64)[0] for i in range(6)]
    halves = torch.cat([torch.ones(3, 64, 32), -torch.ones(3, 64, 32)], 2)
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures = torch.stack([*scenes, halves, noise, torch.full((3, 64, 64), 0.8), torch.full((3, 64, 64), -1.0)])
    pictures = ((pictures + 1) * 127.5).round() / 127.5 - 1
    found = empty.evaluate("channels => channels.map(cyclegan.floor.of)", pictures.flatten(0, 1).flatten(1).tolist())
    assert torch.tensor(found).sub(output_norm_floor(pictures, "none").flatten()).abs().max() < 1e-3
    assert empty.evaluate("cyclegan.floor.LARGEST_MEAN") == LARGEST_MEAN


# What is in the committed page


def test_the_page_is_one_small_file_that_needs_nothing():
    text = COMMITTED.read_text(encoding="utf-8")
    assert COMMITTED.stat().st_size < 8e6
    shown = re.sub(r"<script type=\"(application/json|text/plain)\".*?</script>", "", text, flags=re.S)
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<)]+", shown)) - {"http://www.w3.org/2000/svg"}
    repository = re.search(r'Repository = "(.*)"', (ROOT / "pyproject.toml").read_text())[1]
    assert addresses == {repository, f"{repository}/raw/main/data/ablation/explorer.png"}
    assert not re.search(r"<link|@import|url\(|src=|type=\"module\"|fetch\(", shown)
    assert all(f'name="{name}"' in shown for name in ("description", "viewport")) and 'property="og:image"' in shown
    assert sum(path.stat().st_size for path in (ROOT / "data" / "page").iterdir()) < 6e6


def test_the_scripts_are_short_enough_to_be_read():
    lines = [line for path in page.HERE.glob("*.js") for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) <= 1790 and max(map(len, lines)) <= 120


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    first, second = (page.write_page(tmp_path / name, data_root=ROOT / "data") for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()
    # Another zlib may compress differently: compare what is in it.
    [new, old] = [re.split(r'(?<=id="live-data">)(.*?)(?=</script>)', path.read_text()) for path in (first, COMMITTED)]
    assert new[0] == old[0] and new[2] == old[2], "make explorer"
    new, old = json.loads(new[1]), json.loads(old[1])
    for name, kept in old.pop("files").items():
        unpacked = [zlib.decompress(base64.b64decode(packed)) for packed in (kept, new["files"].pop(name))]
        assert unpacked == [(ROOT / "data" / "page" / f"{name}.safetensors").read_bytes()] * 2, "make explorer"
    assert new.pop("files") == {} and new == old


def test_the_animation_loops_with_a_frame_a_step(tmp_path):
    (tmp_path / "ablation").mkdir()
    for arm in ("none", "instance"):
        shutil.copy(animation.ABLATION / f"{arm}_step_25.safetensors", tmp_path / "ablation")
    animation.main(tmp_path / "ablation")
    assert (tmp_path / "ablation" / "training.gif").is_file()
    path = ROOT / "data" / "ablation" / "training.gif"
    with Image.open(path) as image:
        steps = len(list(path.parent.glob("none_step_*.safetensors")))
        assert image.n_frames == steps and image.width > 800 and image.info["loop"] == 0


def test_the_sentences_say_what_the_tables_and_the_proof_say():
    text = {part: re.sub(r"\s+", " ", (page.HERE / f"{part}.html").read_text()) for part in page.PARTS}
    rows, history = (read_table(ROOT / "data" / "ablation" / f"{name}.csv") for name in ("scores", "history"))
    success = [row["success_rate"] for row in rows if (row["experiment"], row["arm"]) == ("output_norm", "instance")]
    said = f"In the five main runs with the layer, {min(success):.0%} to {max(success):.0%} of the test waters"
    assert len(success) == 5 and said.replace("%", "&nbsp;%") in text["live"]
    with_layer = [row for row in rows if re.match(r"instance( |$)|it stays", row["arm"])]
    assert min(row[f"cycle_{d}"] - row[f"floor_{d}"] for row in with_layer for d in "AB") > 0
    floor = rows[0]["floor_A"]
    for seed in range(3):
        cycle = {arm: {row["step"]: row["cycle_A"] for row in history if (row["arm"], row["seed"]) == (arm, seed)}
                 for arm in ("it stays", "taken out")}  # fmt: skip
        below = min(step for step, loss in cycle["taken out"].items() if step > 500 and loss < floor) - 500
        assert below in (100, 200) and cycle["taken out"][500] > cycle["it stays"][500]
    assert "After 100 to 200 steps the loss is below the floor" in text["evidence"]
    assert "It is never above 0.1921" in text["mechanism"] and LARGEST_MEAN == 0.1921
    share, low, high = 1 / 8, -2.66, 0.38
    assert "one number in eight at &minus;2.66 and all others at 0.38" in text["mechanism"]
    z = np.array([low] + 7 * [high])
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1) < 0.02 and abs(np.tanh(z).mean() - LARGEST_MEAN) < 0.003 and share
    halves = torch.cat([torch.ones(1, 1, 8, 8), -torch.ones(1, 1, 8, 8)], 2)
    assert f"its floor is {output_norm_floor(halves):.3f}" in text["mechanism"]
    last = [read_header(path)["step"] for path in (ROOT / "data" / "page").glob("demo_*.safetensors")]
    assert f"for {max(last):,} steps" in (page.HERE / "live.json").read_text()


# In a browser


@pytest.fixture
def visit(browser):
    """Opens a page from its file with the network off; at the end no error and no request may have been seen."""
    contexts, wrong = [], []

    def open_page(path, width=1280, before=None, **options):
        context = browser.new_context(viewport={"width": width, "height": 840}, **options)
        contexts.append(context)
        context.set_offline(True)
        context.set_default_timeout(PATIENCE)
        if before:
            context.add_init_script(before)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        inside = ("data:", "blob:", "file:", "about:")
        tab.on("request", lambda request: None if request.url.startswith(inside) else wrong.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def wait_for_redraw(tab, count=0):
    tab.wait_for_function(f"{REDRAWS} > {count}")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("part", ["mechanism", "live", "evidence"])
def test_every_control_works_by_keyboard_and_mouse(part, width, visit):
    tab = visit(COMMITTED, width)
    wait_for_redraw(tab)
    section = tab.locator(f"#{part}")
    look = f"""() => [...document.querySelectorAll('#{part} canvas, #{part} svg, #{part} span')].map(
        seen => seen.toDataURL ? seen.toDataURL() : seen.innerHTML).join()"""

    def changes(act, what):
        before, count = tab.evaluate(look), tab.evaluate(REDRAWS)
        act()
        if part == "live":
            wait_for_redraw(tab, count)
        tab.wait_for_function(f"before => ({look})() !== before", arg=before)
        assert tab.evaluate(look) != before, what

    for slider in section.locator("input[type=range]:visible").all():
        name = slider.get_attribute("name")
        value = slider.input_value()
        key = "ArrowLeft" if value == slider.get_attribute("max") else "ArrowRight"
        changes(lambda: slider.press(key), name)  # noqa: B023
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        changes(lambda: tab.mouse.click(box["x"] + box["width"] * 0.05, box["y"] + box["height"] / 2), name)  # noqa: B023
    for select in section.locator("select:visible").all():
        assert select.locator("option").count() > 1
        changes(lambda: select.press("ArrowDown"), select.get_attribute("name"))  # noqa: B023
        changes(lambda: select.select_option(index=0), select.get_attribute("name"))  # noqa: B023
    for question in section.locator(".question").all():
        answer = question.locator(".answer")
        assert not answer.is_visible()
        question.locator("button").first.press("Enter")
        assert answer.is_visible() and answer.locator("b").inner_text() == "Not so."
        question.locator("[data-right]").click()
        assert answer.locator("b").inner_text() == "Right."
    for details in section.locator("details").all():
        details.locator("summary").press("Enter")
        assert details.get_attribute("open") is not None
        details.locator("summary").click()
        assert details.get_attribute("open") is None


def test_the_training_plays_to_its_end(visit):
    tab = visit(COMMITTED)
    wait_for_redraw(tab)
    moment, button = tab.locator("#live [name=moment]"), tab.locator("#live [name=play]")
    button.press("Enter")
    assert moment.input_value() == "0" and button.get_attribute("aria-pressed") == "true"
    tab.wait_for_function("document.querySelector('#live [name=play]').getAttribute('aria-pressed') === 'false'")
    assert moment.input_value() == moment.get_attribute("max")


def test_with_the_layer_no_mean_leaves_the_band(visit):
    tab = visit(COMMITTED)
    wait_for_redraw(tab)
    for liquid in ("AB", "BA"):
        tab.locator("#live [name=direction]").select_option(liquid)
        for brightness in ("0", "0.5", "1"):
            count = tab.evaluate(REDRAWS)
            tab.locator("#live [name=brightness]").fill(brightness)
            wait_for_redraw(tab, count)
            band = tab.locator("#live [data-of=means] rect").first.evaluate(
                "band => [Number(band.getAttribute('x')), Number(band.getAttribute('width'))]")  # fmt: skip
            places = tab.locator("#live [data-of=means] circle[stroke='var(--instance)']").evaluate_all(
                "dots => dots.map(dot => Number(dot.getAttribute('cx')))")  # fmt: skip
            assert len(places) == 6 and all(band[0] - 0.1 <= x <= band[0] + band[1] + 0.1 for x in places)


def test_your_own_photograph_gets_its_floor_and_is_translated(visit, tmp_path):
    pixels = np.random.default_rng(0).integers(90, 250, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    expected = output_norm_floor(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1)
    tab = visit(COMMITTED)
    wait_for_redraw(tab)
    count = tab.evaluate(REDRAWS)
    tab.locator("#mechanism input[type=file]").set_input_files(tmp_path / "mine.png")
    said = tab.get_by_text("Your picture’s floor: ")
    said.wait_for()
    assert abs(float(re.search(r"floor: ([0-9.]+)\.", said.inner_text())[1]) - expected) < 1e-3
    wait_for_redraw(tab, count)
    own = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 64, 64).data)"
    shown = np.reshape(tab.locator("#live canvas").first.evaluate(own), (64, 64, 4))[..., :3]
    assert np.abs(shown - pixels.astype(int)).max() <= 1
    (tmp_path / "no.png").write_text("no picture")
    tab.locator("#live input[type=file]").set_input_files(tmp_path / "no.png")
    tab.locator("#live").get_by_text("cannot read this file").wait_for()
    count = tab.evaluate(REDRAWS)
    tab.locator("#live [name=back]").click()
    wait_for_redraw(tab, count)


@pytest.mark.parametrize("missing", ["Worker", "WebAssembly", "DecompressionStream"])
def test_without_what_it_likes_to_use_it_falls_back(missing, visit):
    tab = visit(COMMITTED, before=f"delete window.{missing}")
    if missing == "DecompressionStream":
        tab.locator("#live [data-of=still]").wait_for()
        assert "do not run in this browser" in tab.locator("#live [data-of=error]").inner_text()
    else:
        wait_for_redraw(tab)
        count = tab.evaluate(REDRAWS)
        tab.locator("#live [name=brightness]").press("ArrowLeft")
        wait_for_redraw(tab, count)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_is_wider_than_the_screen_and_everything_has_a_name(width, scheme, visit):
    tab = visit(COMMITTED, width, color_scheme=scheme)
    wait_for_redraw(tab)
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    unnamed = """[...document.querySelectorAll('input, select, button, canvas, svg[data-of], img')].filter(seen =>
        !(seen.labels?.length || seen.textContent.trim() || seen.getAttribute('aria-label') || seen.alt))"""
    assert tab.evaluate(f"{unnamed}.map(seen => seen.outerHTML.slice(0, 80))") == []
    dark = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("part", ["mechanism", "live"])
def test_a_part_is_one_frame_in_a_notebook(part, visit, tmp_path):
    cell = page.page_part(part, height=400, data_root=ROOT / "data")
    path = tmp_path / "cell.html"
    path.write_text(f"<!DOCTYPE html><body>{cell.data}</body>")
    tab = visit(path)
    frame = tab.frame_locator("iframe")
    frame.locator(f"#{part} canvas").first.wait_for()
    tab.wait_for_function("document.querySelector('iframe').clientHeight > 600")
    if part == "live":
        tab.wait_for_function(
            "document.querySelector('iframe').contentDocument.querySelector('#live').dataset.redraws > 0"
        )


# Your own run


@pytest.fixture(scope="module")
def runs(tiny_root, tmp_path_factory):
    """{kind: a trained run's folder}: one that a page can run, and one that it can only show."""
    from helpers import tiny

    out = tmp_path_factory.mktemp("runs")
    kinds = {"live": {}, "batch": {"output_norm": "batch"}}
    configs = [tiny(tiny_root.parent, out, run_name=name, num_epochs=1, **changes) for name, changes in kinds.items()]
    for config in configs:
        train(config)
    return {name: out / "saved_models" / name for name in kinds}


def test_your_own_run_gets_a_page(runs, tiny_root, tmp_path, visit):
    output = tmp_path / "mine.html"
    main(["page", str(runs["live"]), "--data_root", str(tiny_root.parent), "--output", str(output)])
    tab = visit(output)
    wait_for_redraw(tab)
    assert tab.locator("#live h2").inner_text() == f"Your run: {runs['live']}"
    assert (
        tab.locator("#live [data-of=history]").is_visible() and not tab.locator("#live [name=brightness]").is_visible()
    )
    assert tab.locator("#live canvas").count() == 3
    assert not tab.locator("#live .drop, #live [name=moment]").locator("visible=true").count()  # 32 pixels, one moment
    look = "[...document.querySelectorAll('#live canvas')].map(canvas => canvas.toDataURL()).join()"
    for control, key in (("number", "ArrowRight"), ("direction", "ArrowDown")):
        before, count = tab.evaluate(look), tab.evaluate(REDRAWS)
        tab.locator(f"#live [name={control}]").press(key)
        wait_for_redraw(tab, count)
        assert tab.evaluate(look) != before


def test_a_run_that_no_page_can_run_is_drawn(runs, tiny_root, tmp_path, visit):
    output = page.write_page(tmp_path / "mine.html", runs["batch"], tiny_root.parent)
    tab = visit(output)
    tab.locator("#live [data-of=still]").wait_for()
    assert "norm at the output: batch" in tab.locator("#live [data-of=error]").inner_text()


# Errors


@pytest.mark.parametrize(
    "missing", ["page/demo_none_step_1800.safetensors", "ablation/history.csv", "ablation/scores.csv"]
)
def test_a_missing_file_is_named_in_one_line(missing, tmp_path, capsys):
    for name in ("page", "ablation", "demo"):
        shutil.copytree(ROOT / "data" / name, tmp_path / name)
    (tmp_path / missing).unlink()
    with pytest.raises(SystemExit) as exit_:
        main(["page", "--data_root", str(tmp_path), "--output", str(tmp_path / "explorer.html")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and error.startswith(f"error: {tmp_path / missing}")
    assert not (tmp_path / "explorer.html").exists()


def test_what_cannot_be_a_page_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.*folder is not there"):
        page.write_page(tmp_path / "nowhere" / "explorer.html")
    with pytest.raises(UserError, match="is a folder"):
        page.write_page(tmp_path)
    with pytest.raises(UserError, match="not a checkpoint of a training"):
        contents.run(ROOT / "data" / "ablation" / "none_step_25.safetensors", ROOT / "data")
    table = tmp_path / "scores.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["experiment", "arm", "seed"], ["surgery", "it stays", 0]])
    with pytest.raises(UserError, match="scores.csv: missing, or without"):
        contents.evidence(tmp_path)
