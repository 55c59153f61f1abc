import copy
import io
import zipfile

import numpy as np
import pytest
import torch
from helpers import stop_at
from PIL import Image

from cyclegan_lib.datasets import load_split
from cyclegan_lib.errors import UserError
from cyclegan_lib.models import Generator, init_weights
from cyclegan_lib.pictures import weights as weights_module
from cyclegan_lib.pictures.translate import translate_image
from cyclegan_lib.show import plots
from cyclegan_lib.show.training import SampleSheets, TrainingControls
from cyclegan_lib.show.widgets import (
    ConfoundingExplorer,
    FaultGame,
    FloorExplorer,
    OwnPictures,
    SceneExplorer,
    SheetExplorer,
    TrainingScrubber,
    TranslationExplorer,
    WeightsExplorer,
    case_of,
)
from cyclegan_lib.study.diagnose import REPAIRS
from cyclegan_lib.study.floor import LARGEST_MEAN, output_norm_floor
from cyclegan_lib.trainer import Trainer
from cyclegan_lib.water2wine.scenes import arranged_scene, render


def png(height, width, seed=0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_explorer_redraws_for_every_control(tiny_config):
    model, data = (trainer := Trainer(tiny_config())).model, trainer.data
    explorer = TranslationExplorer({"one": model, "other": model}, {domain: data.test(domain) for domain in "AB"})
    redraws(explorer, [(explorer.number, 2), (explorer.direction, "BtoA")])
    assert len(explorer.figure().axes) == 6


@pytest.mark.parametrize("version", [7, 8])
def test_two_uploads_become_a_data_set(tmp_path, version):
    own = OwnPictures(TrainingControls(tmp_path / "data", tmp_path))
    for i, domain in enumerate("AB"):
        content = png(150, 200, i)
        if version == 8:
            value = ({"name": "x.png", "content": memoryview(content)},)
        else:
            value = {"x.png": {"metadata": {"name": "x.png"}, "content": content}}
        own.uploads[domain] = type("Upload", (), {"value": value})
    own.button.click()
    assert "Made" in own.message.value and own.controls.dataset.value == "mine"
    assert len(list((tmp_path / "data" / "mine" / "trainB").glob("*.png"))) == 400


def test_two_uploads_arrive_as_a_browser_sends_them_to_the_ipywidgets_here(tmp_path):
    own = OwnPictures(TrainingControls(tmp_path / "data", tmp_path))
    for i, domain in enumerate("AB"):
        content, upload = memoryview(png(150, 200, i)), own.uploads[domain]
        facts = {"name": "x.png", "type": "image/png", "size": len(content)}
        in_7 = {"metadata": [{**facts, "lastModified": 0}], "data": [content], "_counter": 1}
        in_8 = {"value": [{**facts, "last_modified": 0, "content": content}]}
        upload.set_state(in_7 if hasattr(upload, "_counter") else in_8)
    own.button.click()
    assert "Made" in own.message.value, own.message.value


def test_two_paths_become_a_data_set(tmp_path):
    own = OwnPictures(TrainingControls(tmp_path / "data", tmp_path))
    for domain in "AB":
        (tmp_path / f"{domain}.png").write_bytes(png(150, 200))
        own.paths[domain].value = str(tmp_path / f"{domain}.png")
    own.name.value = "twice"
    own.button.click()
    assert own.controls.dataset.value == "twice"


def test_a_folder_and_an_uploaded_zip_become_a_data_set(tmp_path):
    own = OwnPictures(TrainingControls(tmp_path / "data", tmp_path))
    (tmp_path / "photographs").mkdir()
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        for i in range(4):
            (tmp_path / "photographs" / f"{i}.png").write_bytes(png(20, 30, i))
            archive.writestr(f"paintings/{i}.png", png(20, 30, 10 + i))
    own.paths["A"].value = str(tmp_path / "photographs")
    own.uploads["B"] = type("Upload", (), {"value": ({"name": "b.zip", "content": content.getvalue()},)})
    own.button.click()
    assert own.controls.dataset.value == "mine", own.message.value
    for domain, seeds in (("A", range(4)), ("B", range(10, 14))):
        found = [p.read_bytes() for p in (tmp_path / "data" / "mine").rglob("*.png") if p.parts[-2:-1] and
                 f"{domain}/" in p.relative_to(tmp_path / "data" / "mine").as_posix()]  # fmt: skip
        assert sorted(found) == sorted(png(20, 30, seed) for seed in seeds)


# A run's sheets, and weights


def test_a_runs_sheets_can_be_gone_through(tiny_config):
    config = tiny_config(sample_interval=1)
    Trainer(config, [SampleSheets(config)]).run()
    explorer = SheetExplorer(config.images_folder)
    assert explorer.epoch.options == (1, 2, 3) and explorer.epoch.value == 3
    for epoch in (3, 1):
        explorer.epoch.value = epoch
        shown, sheet = (
            np.asarray(Image.open(file).convert("RGB")).astype(int)
            for file in (
                io.BytesIO(explorer.picture.widget.value),
                config.images_folder / f"epoch_{epoch:03}.png",
            )
        )
        assert np.abs(shown - sheet).max() <= 1, "the sheet itself, pixel by pixel"


def test_of_a_run_that_was_stopped_the_last_sheet_is_shown(tiny_config):
    config = tiny_config(sample_interval=1)
    Trainer(config, [SampleSheets(config), stop_at(1)]).run()
    explorer = SheetExplorer(config.images_folder)
    assert explorer.epoch.options == ("step 1",)


def test_a_run_without_sheets_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no sample sheets there; train with --sample_interval 1"):
        SheetExplorer(tmp_path)


@pytest.fixture
def weights(tmp_path):
    """A generator's file in the official layout, and the generator."""
    torch.manual_seed(0)
    G = init_weights(Generator(3, 4, 2), 0.2).eval()
    torch.save(G.state_dict(), tmp_path / "mine.pth")
    return tmp_path / "mine.pth", G


def test_weights_are_loaded_and_translate_every_picture(weights):
    path, G = weights
    pictures = [Image.open(io.BytesIO(png(30, 41, seed))) for seed in range(2)]
    explorer = WeightsExplorer(pictures, [path])
    before = explorer.picture.widget.value
    assert len(explorer.figure().axes) == 1
    explorer.button.click()
    assert explorer.message.value == f"loaded {path}" and explorer.picture.widget.value != before
    [_, translated] = explorer.figure().axes
    assert np.array_equal(translated.images[0].get_array(), np.asarray(translate_image(G, pictures[0])))
    after = explorer.picture.widget.value
    explorer.number.value = 1
    assert explorer.picture.widget.value != after


def test_official_weights_are_downloaded_by_name(weights, site, tmp_path, monkeypatch):
    path, _ = weights
    folder, address = site
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights_module, "OFFICIAL", address + "/{name}.pth")
    explorer = WeightsExplorer([Image.open(io.BytesIO(png(20, 20)))])
    explorer.weights.value = "style_monet"
    explorer.button.click()
    assert "Not loaded" in explorer.message.value and "style_monet.pth" in explorer.message.value
    assert explorer.G is None
    (folder / "style_monet.pth").write_bytes(path.read_bytes())
    explorer.button.click()
    assert explorer.message.value == "loaded style_monet" and explorer.G is not None


@pytest.fixture
def generators():
    made = []
    for norm in ("instance", "none"):
        torch.manual_seed(0)
        made.append(init_weights(Generator(base_channels=4, num_residual=1, output_norm=norm), 0.2).eval())
    return dict(zip(("InstanceNorm at the output", "no norm at the output"), made, strict=True))


def redraws(explorer, changes):
    """Every control changes the picture, each time, and back again is the same picture."""
    first = explorer.picture.widget.value
    assert first[:4] == b"\x89PNG"
    for control, value in changes:
        before, was = explorer.picture.widget.value, control.value
        control.value = value
        assert explorer.picture.widget.value != before, control.description
        control.value = was
        assert explorer.picture.widget.value == before
    assert {control for control, _ in changes} == set(explorer.controls.values())
    assert all(control.description for control in explorer.controls.values())


def test_the_scene_explorer(generators):
    explorer = SceneExplorer(generators)
    redraws(explorer, [
        (explorer.brightness, 0.1), (explorer.tint, 0.7), (explorer.fill, 0.4), (explorer.glass, "wineglass"),
        (explorer.liquid, "wine"),
    ])  # fmt: skip


def test_the_scene_explorer_shows_what_refuses_and_what_follows(generators):
    explorer = SceneExplorer(generators)
    for explorer.brightness.value in (0.0, 1.0):
        figure = explorer.figure()
        names = [axes.get_title() for axes in figure.axes[:4]]
        assert names[0] == "the scene, with water" and names[-1] == "the answer: wine"
        means = np.array([line.get_xdata() for line in figure.axes[4].lines])  # (channel, picture)
        assert np.abs(means[:, 1]).max() <= LARGEST_MEAN
        assert np.abs(means[:, 0] - means[:, 3]).max() < 0.3


def test_the_floor_explorer():
    pictures = torch.stack([render(arranged_scene(brightness), 32)[0] for brightness in (0.2, 0.8)])
    explorer = FloorExplorer(pictures)
    redraws(explorer, [(explorer.number, 1), (explorer.brightness, 0.4), (explorer.contrast, 0.5), (explorer.scale, 5)])
    explorer.brightness.value = 0.3
    picture = (pictures[:1] + 0.3).clamp(-1, 1)
    point = explorer.figure().axes[-1].lines[2].get_xydata()[0]
    assert point == pytest.approx([picture.mean().item(), output_norm_floor(picture)])
    explorer.scale.value = 5
    point = explorer.figure().axes[-1].lines[2].get_xydata()[0]
    assert point == pytest.approx([picture.mean().item(), output_norm_floor(picture, scale=5)])


def test_the_training_scrubber(generators):
    real, answers = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    by_step = {}
    for norm, G in zip(("instance", "none"), generators.values(), strict=True):
        late = copy.deepcopy(G)
        late.model[-1 if norm == "none" else -2].register_forward_pre_hook(lambda layer, z: z[0] * 3 + z[0] ** 2)
        by_step[norm] = {5: G, 10: late}
    curves = {norm: ([0, 5, 10], [0.6, 0.4, 0.3]) for norm in by_step}
    scrubber = TrainingScrubber(by_step, real, answers, curves, 0.2)
    assert scrubber.step.value == 10 and list(scrubber.step.options) == [5, 10]
    redraws(scrubber, [(scrubber.step, 5), (scrubber.number, 2)])
    titles = [axes.get_title() for axes in scrubber.figure().axes[:4]]
    assert titles == ["water", "InstanceNorm\nat the output", "no norm\nat the output", "the answer"]


def test_the_confounding_explorer_shows_the_chosen_network(tiny_root):
    real = load_split(tiny_root, "testA", (32, 32))
    networks = {what: {share: (lambda x, k=k, share=share: x * 0 + share - k) for share in (0.5, 0.8, 1.0)}
                for k, what in enumerate(("the wall", "the glass"))}  # fmt: skip
    explorer = ConfoundingExplorer(networks, real, -real)
    assert explorer.confounding.value == 1.0 and "the wall followed the liquid in 100%" in title_of(explorer)
    redraws(explorer, [(explorer.confounding, 0.8), (explorer.what, "the glass")])
    explorer.confounding.value, explorer.what.value = 0.8, "the glass"
    assert "the glass followed the liquid in 80%" in title_of(explorer)
    shown = [axes.get_images()[0].get_array() for axes in explorer.figure().axes if axes.get_images()]
    assert len(shown) == 3 * len(real)
    assert np.allclose(shown[len(real)], (0.8 - 1 + 1) / 2, atol=1e-6), "the second row is the network's"


def title_of(explorer):
    return explorer.figure().texts[-1].get_text()


GAMES = {"healthy": "nothing differs.", "fixed pairs": "", "no identity loss": "no curve. Repair: add one."}


def run_of(fault):
    """Rows, samples and a probe of a run with one of `GAMES`."""
    losses = dict(lr=1e-3, loss_G=4.6, cycle_A=0.2, cycle_B=0.2, loss_D=0.2, adversarial=0.3, identity=0.1)
    losses |= {"identity": None} if fault == "no identity loss" else {}
    rows = [{"step": step, **losses} for step in range(1, 31)]
    samples = {name: torch.full((4, 3, 32, 32), -0.5) for name in ("real_A", "fake_B", "rec_A", "real_B", "fake_A")}
    return rows, samples, dict(reached=[], mixed=[], unmoved=[], same_crops=0.04, same_pairs=fault == "fixed pairs")


@pytest.fixture
def game():
    return FaultGame(run_of, run_of("healthy"), GAMES)


def play(game, fault, answer, *tests):
    """Answer the next case that has this fault, after some tests. Returns what the game says."""
    game.case.value = next(n for n in range(1, 99) if case_of(n, GAMES) == fault and n not in game.reveals)
    for test in tests:
        game.tests[test].click()
    game.answer.value = answer
    game.button.click()
    return game.verdict


def test_the_cases_are_the_same_for_everybody_and_each_fault_comes_once_a_round():
    faults = [f"fault {n}" for n in range(15)]
    order = [case_of(number, faults) for number in range(1, 61)]
    assert order == [case_of(number, faults[::-1]) for number in range(1, 61)]
    rounds = [order[start : start + 15] for start in range(0, 60, 15)]
    assert all(sorted(some) == sorted(faults) for some in rounds) and len(set(map(tuple, rounds))) == 4
    assert order[:3] == ["fault 8", "fault 14", "fault 7"], "the same after an update of Python"


def test_a_case_begins_with_nothing_but_its_number(game):
    assert game.evidence.children == () and game.answer.value == ""
    assert game.verdict.startswith("Case 1: a right answer now scores 4.")
    assert not any(fault in game.message.value for fault in GAMES)
    assert not any(control.disabled for control in (*game.tests.values(), game.answer, game.button))


def test_a_test_costs_a_point_once_and_what_it_showed_stays(game):
    game.case.value = next(n for n in range(1, 9) if case_of(n, GAMES) == "fixed pairs")
    for _ in range(2):
        game.tests["probe"].click()
    [said] = game.evidence.children
    assert "100% of the A have the same B" in said.value and "fixed pairs" not in said.value
    assert "now scores 3." in game.verdict and game.tests["probe"].disabled and not game.tests["pictures"].disabled
    game.tests["pictures"].click()
    picture, still = game.evidence.children
    assert still is said and bytes(picture.value).startswith(b"\x89PNG") and "now scores 2." in game.verdict
    game.next.click()
    assert game.evidence.children == () and "now scores 4." in game.verdict
    game.case.value -= 1
    assert game.evidence.children == (picture, said), "and going away and back does not refund it"


def test_the_probe_of_a_healthy_case_says_so(game):
    play(game, "healthy", "", "probe")
    assert game.evidence.children[0].value == "The probe: nothing unusual." and not game.reveals


def test_a_right_answer_scores_one_and_one_for_each_test_that_was_not_used(game):
    for used, points in ((), 4), (("probe",), 3), (("probe", "pictures"), 2), (game.tests, 1):
        before = game.points
        said = play(game, "fixed pairs", "fixed pairs", *used)
        assert game.points - before == points and f"right, it is fixed pairs ({points} of 4 points)" in said
    assert "Your score: 10 of 16. diagnose, with all three tests: 4 of 4." in game.verdict


def test_the_reveal_names_the_fault_its_evidence_and_its_repair(game):
    said = play(game, "fixed pairs", "healthy", "loss curves")
    assert "not healthy: it is fixed pairs (0 of 4 points)" in said and "Your score: 0 of 4." in said
    assert "100% of the A have the same B" in said and f"Repair: {REPAIRS['fixed pairs']}" in said
    assert len(game.evidence.children) == 3 and game.answer.value == "", "with all of the evidence"
    assert all(control.disabled for control in (*game.tests.values(), game.answer, game.button))
    game.answer.value = "fixed pairs"
    game.button.click()
    assert game.verdict == said and game.points == 0, "there is one answer"
    game.next.click()
    assert "fixed pairs" not in game.verdict and not game.button.disabled


def test_the_game_says_where_diagnose_is_silent(game):
    assert "silent" not in play(game, "healthy", "healthy")
    said = play(game, "no identity loss", "no identity loss", "loss curves")
    assert said.endswith(
        "Your score: 7 of 8. diagnose, with all three tests: 1 of 2; it is silent on no identity loss."
    )
    assert "right, it is no identity loss (3 of 4 points). What shows it: no curve. Repair: add one." in said


def test_the_figures_of_the_game_say_what_a_run_has_not():
    healthy, case = run_of("healthy"), run_of("no identity loss")
    figure = plots.curves_beside_healthy(case[0], healthy[0], "Case 1")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert len(panels) == 6
    for name, axes in panels.items():
        missing = name == "identity loss"
        curves = [line for line in axes.lines if line.get_label() in ("this run", "a healthy run")]
        assert len(curves) == 2 - missing and ("this run has none" in [t.get_text() for t in axes.texts]) == missing
    case[1]["fake_A"][3] = 0.5
    shown = [axes.get_images()[0].get_array() for axes in plots.pictures_beside_healthy(case[1], healthy[1], "").axes]
    assert len(shown) == 5 * 9 and np.allclose(shown[-1], 0.75) and np.allclose(shown[-6], 0.25)
