import io

import numpy as np
import pytest
from PIL import Image

from cyclegan_lib.train import Trainer, train
from cyclegan_lib.widgets import LiveTraining, OwnPictures, TrainingControls, TranslationExplorer


@pytest.fixture
def controls(tiny_root, tmp_path):
    return TrainingControls(tiny_root.parent, tmp_path)


def png(height, width, seed=0):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_controls_list_the_data_sets_and_water2wine(controls):
    assert controls.dataset.options == ("water2wine", "tiny")
    assert controls.dataset.value == "water2wine"


def test_every_control_has_an_effect(controls, tmp_path):
    controls.dataset.value = "tiny"
    plain = controls.config(steps=3)
    assert plain.max_steps == 3 and plain.output_root == tmp_path and plain.dataset_name == "tiny"
    for control, value, field in [
        (controls.pixels, 96, "img_height"), (controls.pixels, 96, "img_width"),
        (controls.lambda_cycle, 3.0, "lambda_cycle"), (controls.lambda_identity, 1.0, "lambda_identity"),
        (controls.output_norm, "instance", "output_norm"),
    ]:  # fmt: skip
        control.value = value
        assert getattr(controls.config(steps=3), field) == value != getattr(plain, field)
    controls.unit.value, controls.amount.value = "epochs", 5
    assert controls.config().num_epochs == 5 and controls.config().max_steps is None


def test_minutes_become_steps(controls):
    controls.dataset.value = "tiny"
    controls.amount.value = 0.1
    assert controls.config().max_steps >= 1


def test_live_training_draws_while_it_trains(tiny_config):
    live = LiveTraining(every=0)
    drawn = []

    def callback(trainer):
        live(trainer)
        drawn.append((live.curves.widget.value, live.samples.widget.value))

    train(tiny_config(), callback=callback)
    assert len(drawn) == 3 and len(set(drawn)) == 3
    assert all(picture[:4] == b"\x89PNG" for pair in drawn for picture in pair)


def test_live_training_draws_seldom_but_always_at_the_end(tiny_config):
    live = LiveTraining(every=1e9)
    live.drawn = float("inf")
    train(tiny_config(), callback=live)
    assert live.curves.widget.value[:4] == b"\x89PNG"


def test_drawing_leaves_the_training_as_it_is(tiny_config):
    watched = train(tiny_config(run_name="watched"), callback=LiveTraining(every=0))
    alone = train(tiny_config(run_name="alone"))
    assert watched.history == alone.history


def test_explorer_redraws_for_every_control(tiny_config):
    trainer = Trainer(tiny_config())
    explorer = TranslationExplorer({"one": trainer.model, "other": trainer.model}, trainer.test)
    pictures = [explorer.picture.widget.value]
    explorer.number.value = 2
    pictures.append(explorer.picture.widget.value)
    explorer.direction.value = "BtoA"
    pictures.append(explorer.picture.widget.value)
    assert len(set(pictures)) == 3
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


def test_two_paths_become_a_data_set(tmp_path):
    own = OwnPictures(TrainingControls(tmp_path / "data", tmp_path))
    for domain in "AB":
        (tmp_path / f"{domain}.png").write_bytes(png(150, 200))
        own.paths[domain].value = str(tmp_path / f"{domain}.png")
    own.name.value = "twice"
    own.button.click()
    assert own.controls.dataset.value == "twice"


@pytest.mark.parametrize(("name", "path", "said"), [
    ("mine", "", "picture A is missing"), ("../x", "", "not a path"), ("mine", "nowhere.jpg", "nowhere.jpg"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_the_notebook(tmp_path, name, path, said):
    own = OwnPictures(TrainingControls(tmp_path / "data", tmp_path))
    own.name.value, own.paths["A"].value, own.paths["B"].value = name, path, path
    own.button.click()
    assert "Not done" in own.message.value and said in own.message.value
    assert not (tmp_path / "data").exists()
