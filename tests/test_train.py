"""`train()` and the command: all hooks together, what they print, and what they leave."""

import dataclasses
import json
import re
import shutil
import signal
import warnings

import pytest
import torch
from helpers import contents, left_by, names, options, start, stop_at, tiny, wait_for
from notebook_cells import NUMBERED, code_cells

from cyclegan_lib.cli import main
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError
from cyclegan_lib.models import Generator
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.runs.checkpoint import read_network
from cyclegan_lib.runs.fast import InstanceNorm
from cyclegan_lib.runs.log import read_history
from cyclegan_lib.train import announce, check_autocast, make_trainer, train
from cyclegan_lib.trainer import Hook, Trainer
from cyclegan_lib.water2wine.scores import Scores


@pytest.fixture(scope="module")
def finished(tiny_root, tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("out")
    return train(tiny(tiny_root.parent, out, sample_interval=2, lambda_identity=5.0), show_bar=False)


def pictures(config):
    return {path.name: path.read_bytes() for path in config.images_folder.glob("*.png")}


# Made


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"batch_size": 0}, "--batch_size"), ({"run_name": "../x"}, "--run_name"), ({"precision": "fp16"}, "fp16"),
        ({"dataset_name": "nowhere"}, "nowhere/trainA"), ({"start_from": 7}, "epoch_7.safetensors: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_written(tiny_config, tmp_path, wrong, named):
    with pytest.raises(UserError, match=named):
        train(tiny_config(**wrong))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("trouble", [RuntimeError("no autocast for mps"), UserWarning("it is disabled")])
def test_a_precision_that_this_torch_lacks_on_the_device_is_refused(monkeypatch, trouble):
    """As on mps in torch 2.4, which raises, and in later ones, which warn and go on in float32."""
    model = CycleGAN(base_channels=4, num_residual=1, precision="bf16")
    check_autocast(model)

    def autocast(device, dtype):
        if isinstance(trouble, UserWarning):
            return warnings.warn(trouble, stacklevel=2)
        raise trouble

    monkeypatch.setattr(torch, "autocast", autocast)
    with pytest.raises(UserError, match=r"--precision bf16: torch \S+ has none on this cpu; use fp32"):
        check_autocast(model)
    model.precision = "fp32"
    check_autocast(model)


def test_it_is_the_trainer_made_faster_with_its_hooks(tiny_config, tmp_path):
    class Last(Hook):
        def end(self, trainer):
            seen.append(trainer.hook(Scores).scores.keys())

    seen, last = [], Last()
    trainer, processes = make_trainer(tiny_config(), [last])
    assert contents(tmp_path) == {}, "nothing before it runs"
    assert processes.count == 1 and trainer.processes is None and trainer.num_workers == 0
    assert trainer.hooks[-1] is last and trainer.data.read is read_picture
    assert type(trainer.model.G_AB.model[2]) is InstanceNorm
    assert type(Trainer(tiny_config()).model.G_AB.model[2]) is torch.nn.InstanceNorm2d
    trainer.run()
    assert len(seen) == 1 and "liquid_error" in seen[0], "behind all others"


def test_it_trains_what_the_textbook_trains(finished):
    textbook, seen = Trainer(finished.config), []

    class Losses(Hook):
        def after_step(self, trainer):
            seen.append({name: loss.item() for name, loss in trainer.losses.items()})

    textbook.hooks.append(Losses())
    textbook.run()
    for row, losses in zip(read_history(finished.config.models_folder), seen, strict=True):
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-2), row


# What it leaves


def test_pictures_and_scores(finished):
    folder = finished.config.images_folder
    assert {path.name for path in folder.iterdir()} == {
        "epoch_002.png", "epoch_003.png", "curves.png", "scores.json",
    }  # fmt: skip
    scores = json.loads((folder / "scores.json").read_text())
    of = ("liquid_error", "background_error", "glass_error", "success_rate")
    assert set(scores) == {f"{b}{n}" for b in ("", "identity_", "mean_match_") for n in of} | {"seconds_training"}
    assert all(isinstance(value, float) for value in scores.values()) and finished.hook(Scores).scores == scores


def test_the_sheet_is_of_the_first_test_pictures(finished):
    rows, test = finished.sheet(), finished.data.test("A", 8)
    assert torch.equal(rows["real_A"], test) and torch.equal(finished.sheet()["fake_B"], rows["fake_B"])
    tensors, facts = read_network(finished.config.models_folder / "epoch_3.safetensors", "G_AB")
    G = Generator(facts["channels"], facts["base_channels"], facts["num_residual"], facts["output_norm"])
    G.load_state_dict(tensors)
    with torch.no_grad():
        assert torch.allclose(G(test), rows["fake_B"], atol=1e-5), "a saved generator translates"


def test_the_same_command_gives_the_same_files(finished, tmp_path):
    config = dataclasses.replace(finished.config, output_root=tmp_path, resume="auto")
    assert train(config, [stop_at(5)], show_bar=False).stopped
    assert set(pictures(config)) == {"step_5.png", "curves.png"} and not (config.images_folder / "scores.json").exists()
    train(config, show_bar=False)
    assert left_by(config) == left_by(finished.config) and pictures(config) == pictures(finished.config)
    before = contents(tmp_path)
    assert train(config, show_bar=False).hook(Scores).scores == json.loads(
        (config.images_folder / "scores.json").read_text()
    )
    assert contents(tmp_path) == before, "a finished run is left as it is"


def test_what_came_after_the_checkpoint_is_dropped_with_its_pictures(finished, tmp_path):
    shutil.copytree(finished.config.output_root, tmp_path / "copy")
    config = dataclasses.replace(finished.config, output_root=tmp_path / "copy", sample_interval=1)
    train(dataclasses.replace(config, start_from=2), [stop_at(7)], show_bar=False)
    assert set(pictures(config)) == {"epoch_002.png", "step_7.png", "curves.png"}
    assert names(config.models_folder) == ["epoch_1", "epoch_2", "step_7"]
    train(dataclasses.replace(config, overwrite=True, num_epochs=1, dataset_name="tiny"), show_bar=False)
    assert set(pictures(config)) == {"epoch_001.png", "curves.png"} and names(config.models_folder) == ["epoch_1"]


# The command


def test_the_command_trains_and_prints_the_scores(tiny_config):
    config = tiny_config(num_epochs=1, output_norm="instance")
    process = start(config)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "tiny: 6 + 6 training pictures at 32×32, 3 steps, cpu, fp32\n" in out and "cannot go below about 0." in out
    for said in ("liquid_error", "success_rate", f"networks in {config.models_folder}/epoch_1.safetensors"):
        assert said in out
    assert "Traceback" not in err
    for shown in ("epoch 1/1", "loss_G", "cycle_A", "step/s"):
        assert shown in err


def test_ctrl_c_saves_and_says_how_to_continue(tiny_config):
    config = tiny_config(num_epochs=4000, checkpoint_interval=0)
    process = start(config)
    assert wait_for(config, 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err, err
    step = int(re.search(r"step_(\d+)\.safetensors\.\nTo continue, give the same options and --resume auto", out)[1])
    assert len(read_history(config.models_folder)) == step and names(config.models_folder) == [f"step_{step}"]
    trainer = train(dataclasses.replace(config, resume="auto"), [stop_at(step + 1)], show_bar=False)
    assert trainer.step == step + 1


def test_a_finished_run_is_shown_again(finished, capsys):
    main(["train", *options(dataclasses.replace(finished.config, resume="auto"))])
    out = capsys.readouterr().out
    assert "finished already, all 9 steps are done" in out and "liquid_error" in out and "trained for" not in out


def test_a_learning_rate_that_is_far_too_large_ends_in_one_line(tiny_config, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", *options(tiny_config(lr=1e30, num_epochs=30))])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and len(re.findall(r"^error: step \d+: .* is (?:nan|inf)", errors, re.M)) == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize(("steps", "seen", "short"), [(342, "1,368", True), (750, "3,000", False)])
def test_a_training_says_how_many_pictures_it_will_see_and_how_that_compares(tiny_config, capsys, steps, seen, short):
    trainer, _ = make_trainer(tiny_config(batch_size=4, num_epochs=1000, max_steps=steps))
    announce(trainer, 1)
    said = capsys.readouterr().out
    assert f"it will see about {seen} pictures of each side (notebook 08: 3,000 for a first look, 40,000" in said
    assert ("that is short, see --max_steps" in said) == short
    plans = next(cell.source for cell in code_cells(NUMBERED[7]) if "PLANS = {" in cell.source)
    assert "64, 4, 750" in plans and "128, 1, 40_000" in plans, "the same plans"
