"""A training as it is drawn: its controls, its sample sheets, its curves while it trains."""

import pytest
import torch
from PIL import Image

from cyclegan_lib.show import training
from cyclegan_lib.show.training import LiveTraining, SampleSheets, TrainingControls, training_floors
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.train import train
from cyclegan_lib.trainer import Hook, Trainer


@pytest.fixture
def controls(tiny_root, tmp_path):
    return TrainingControls(tiny_root.parent, tmp_path)


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


def test_minutes_become_steps(controls, monkeypatch):
    monkeypatch.setattr("cyclegan_lib.runs.timing.seconds_per_step", lambda trainer: 0.5)
    controls.dataset.value, controls.amount.value = "tiny", 2
    assert controls.config().max_steps == 240


def test_water2wine_is_drawn_before_it_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr("cyclegan_lib.runs.timing.seconds_per_step", lambda trainer: 1)
    assert TrainingControls(tmp_path / "data", tmp_path).config().max_steps == 120
    assert (tmp_path / "data" / "water2wine" / "scenes.json").is_file()


# A training is drawn


class Stop(Hook):
    def __init__(self, step):
        self.step = step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.stop()


def names_in(config):
    return sorted(path.name for path in config.images_folder.glob("*.png"))


@pytest.mark.parametrize(("interval", "epochs"), [(0, (3,)), (1, (1, 2, 3)), (2, (2, 3))])
def test_sheets_are_drawn_every_few_epochs_and_at_the_end(tiny_config, interval, epochs):
    config = tiny_config(sample_interval=interval)
    Trainer(config, [SampleSheets(config)]).run()
    assert names_in(config) == ["curves.png", *(f"epoch_{epoch:03}.png" for epoch in epochs)]


def test_a_resumed_run_leaves_the_sheets_of_one_that_was_never_stopped(tiny_config):
    config = tiny_config(sample_interval=1)
    config.images_folder.mkdir(parents=True)
    (config.images_folder / "epoch_009.png").write_bytes(b"of an earlier run")
    stop = Stop(5)
    trainer = Trainer(config, [stop, SampleSheets(config)]).run()
    assert names_in(config) == ["curves.png", "epoch_001.png", "step_5.png"]
    (config.images_folder / "epoch_002.png").write_bytes(b"of an epoch that is trained again")
    stop.step = 4
    trainer.hooks = [SampleSheets(config)]
    trainer.run()
    assert names_in(config) == ["curves.png", "epoch_001.png", "epoch_002.png", "epoch_003.png"]
    assert all(Image.open(config.images_folder / name).size > (500, 300) for name in names_in(config))


@pytest.mark.parametrize("hook", [SampleSheets, lambda config: LiveTraining(every=0)])
def test_a_figure_that_cannot_be_drawn_is_a_warning(tiny_config, hook, monkeypatch, capsys):
    def fail(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(training.plots, "picture_rows", fail)
    trainer = Trainer(tiny_config(), [hook(tiny_config())]).run()
    assert trainer.step == 9
    assert capsys.readouterr().err.splitlines() == ["warning: cannot draw the sample sheet (MemoryError: no room)"]


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_only_a_run_with_the_norm_shows_its_floor(tiny_config, norm, monkeypatch):
    floors, curves = [], training.plots.loss_curves
    monkeypatch.setattr(
        training.plots, "loss_curves", lambda rows, floor, title: floors.append(floor) or curves(rows, floor, title)
    )
    config = tiny_config(output_norm=norm)
    trainer = Trainer(config, [SampleSheets(config)]).run()
    assert floors == [training_floors(trainer.data) if norm == "instance" else None]


def test_floors_are_those_of_the_training_crops(tiny_config):
    data = Trainer(tiny_config()).data
    crops = torch.stack([data[n][1] for n in range(6)])
    assert training_floors(data)["B"] == pytest.approx(output_norm_floor(crops))


@pytest.mark.parametrize(("every", "drawings"), [(0, [25, 50, 60]), (1e9, [25, 60])])
def test_live_training_draws_now_and_then_and_at_the_end(tiny_config, every, drawings):
    live, drawn = LiveTraining(every), []

    class Watch(Hook):
        def after_step(self, trainer):
            pictures = [picture.widget.value for picture in (live.samples, live.curves)]
            if pictures != self.last:
                drawn.append(trainer.step)
            self.last = pictures

        def start(self, trainer):
            self.last = [picture.widget.value for picture in (live.samples, live.curves)]

        def end(self, trainer):
            self.after_step(trainer)

    train(tiny_config(num_epochs=20), [live, Watch()], show_bar=False)
    assert drawn == drawings


def test_drawing_leaves_the_training_as_it_is(tiny_config):
    config = tiny_config(num_epochs=9, sample_interval=1)
    watched = Trainer(config, [SampleSheets(config), LiveTraining(every=0)]).run()
    alone = Trainer(config).run()
    for name, network in watched.model.networks.items():
        for key, weights in network.state_dict().items():
            assert torch.equal(weights, alone.model.networks[name].state_dict()[key]), f"{name}.{key}"


def test_a_sheet_that_a_killed_run_had_not_drawn_is_drawn_when_it_continues(tiny_config):
    """The checkpoint is saved first: a run may be killed between the two."""
    config = tiny_config(sample_interval=1, resume="auto")
    train(config, show_bar=False)
    whole = {path.name: path.read_bytes() for path in config.images_folder.glob("*.png")}
    (config.models_folder / "epoch_3.safetensors").unlink()
    for epoch in (2, 3):
        (config.images_folder / f"epoch_{epoch:03d}.png").unlink()
    train(config, show_bar=False)
    assert {path.name: path.read_bytes() for path in config.images_folder.glob("*.png")} == whole
