import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cyclegan_lib import train as train_module
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_tensors
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.runs.checkpoint import load_checkpoint
from cyclegan_lib.runs.folder import newest_whole, read_history, saved_epochs
from cyclegan_lib.train import TrainConfig, Trainer, demo_config, fit, learning_rate, parse_config, train

ROOT = Path(__file__).resolve().parents[1]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def checkpoint(run, epoch):
    return files(run.config.models_folder / f"epoch_{epoch}")


def networks(run, epoch):
    """A checkpoint but for its manifest, which knows how often one was to be made."""
    return {path: content for path, content in checkpoint(run, epoch).items() if path.suffix == ".safetensors"}


# Options


def test_the_students_options_have_their_names_and_defaults():
    config, _ = parse_config([])
    students = dict(
        start_from=0, num_epochs=200, dataset_name="horse2zebra", batch_size=10, img_height=256, img_width=256,
        channels=3, num_residual=9, lambda_cycle=10.0,
    )  # fmt: skip
    assert {name: getattr(config, name) for name in students} == students
    assert config == TrainConfig()


def test_every_option_can_be_given():
    for field in dataclasses.fields(TrainConfig):
        if field.default is False:
            config, _ = parse_config([f"--{field.name}"])
            assert getattr(config, field.name) is True
            continue
        other = {int: "24", float: "0.5"}.get(type(field.default), "3")
        if "choices" in field.metadata:
            other = str(next(c for c in field.metadata["choices"] if c != field.default))
        config, _ = parse_config([f"--{field.name}", other])
        assert str(getattr(config, field.name)) == other
        assert getattr(config, field.name) != field.default


def test_make_demo_is_the_demos_configuration():
    makefile = (ROOT / "Makefile").read_text()
    arguments = re.search(r"DEMO = ((?:.*\\\n)*.*)", makefile)[1].replace("\\\n", " ").split()
    assert parse_config(arguments)[0] == demo_config()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"batch_size": 0}, "batch_size"), ({"num_epochs": 0}, "num_epochs"), ({"img_height": 62}, "img_height.*62"),
        ({"img_width": 20}, "img_width.*20"), ({"lambda_cycle": -1.0}, "lambda_cycle.*-1"),
        ({"lambda_identity": float("nan")}, "lambda_identity"), ({"lr": 0.0}, "lr"), ({"lr": float("inf")}, "lr"),
        ({"decay_epoch": 9}, "decay_epoch.*9"), ({"max_steps": 0}, "max_steps"), ({"seed": -1}, "seed"),
        ({"run_name": "../x"}, "run_name"), ({"run_name": ".."}, "run_name"), ({"run_name": ""}, "run_name"),
        ({"dataset_name": "../x"}, "dataset_name"), ({"channels": 2}, "channels"),
        ({"output_norm": "layer"}, "output_norm.*layer"), ({"dataset_name": "nowhere"}, "nowhere/trainA"),
        ({"start_from": 7}, "start_from 7.*no checkpoint"), ({"precision": "fp16"}, "fp16"),
        ({"num_workers": -1}, "num_workers"), ({"num_workers": 10**9}, "num_workers"), ({"seed": 2**63}, "seed"),
        ({"base_channels": 10**6}, "base_channels"), ({"img_height": 10**6}, "img_height"),
        ({"sample_interval": -1}, "sample_interval"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_once_and_nothing_is_written(tiny_config, tmp_path, wrong, named):
    with pytest.raises(UserError, match=named):
        Trainer(tiny_config(**wrong))
    assert files(tmp_path) == {}


def test_all_wrong_options_are_named_together():
    with pytest.raises(UserError) as caught:
        TrainConfig(batch_size=0, lr=-1.0, img_width=30).check()
    assert len(str(caught.value).splitlines()) == 3


# What a run leaves


@pytest.fixture(scope="module")
def finished(tiny_root, tmp_path_factory):
    torch.set_num_threads(1)
    config = TrainConfig(
        dataset_name=tiny_root.name, data_root=tiny_root.parent, output_root=tmp_path_factory.mktemp("out"),
        img_height=32, img_width=32, batch_size=2, num_epochs=3, base_channels=4, num_residual=1, device="cpu",
        precision="fp32", sample_interval=2, checkpoint_interval=1, lambda_identity=5.0,
    )  # fmt: skip
    return train(config)


def test_the_history_has_a_line_a_step(finished):
    rows = read_history(finished.config.models_folder / "history.jsonl")
    names = ["step", "epoch", "lr", "loss_G", "loss_D", "adversarial", "cycle_A", "cycle_B", "identity"]
    assert all(list(row) == names for row in rows)
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["epoch"] for row in rows] == [1] * 3 + [2] * 3 + [3] * 3
    for row in rows:
        cycles, identity = row["cycle_A"] + row["cycle_B"], row["identity"]
        assert row["loss_G"] == pytest.approx(2 * row["adversarial"] + 10 * cycles + 5 * 2 * identity, rel=1e-4)


def test_checkpoints_are_whole_and_hold_no_time(finished):
    assert saved_epochs(finished.config.models_folder) == [1, 2, 3]
    for epoch in (1, 2, 3):
        names = {path.name for path in checkpoint(finished, epoch)}
        assert names == {f"{name}.safetensors" for name in ("G_AB", "G_BA", "D_A", "D_B", "state")} | {"manifest.json"}
    _, facts = read_tensors(finished.config.models_folder / "epoch_2" / "state.safetensors")
    assert facts["step"] == 6 and facts["epoch"] == 2
    with safe_open(finished.config.models_folder / "epoch_3" / "G_AB.safetensors", "pt") as file:
        saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    current = finished.model.G_AB.state_dict()
    assert saved.keys() == current.keys() and all(torch.equal(saved[key], current[key]) for key in saved)


def test_pictures_and_scores(finished):
    folder = finished.config.images_folder
    assert {path.name for path in folder.iterdir()} == {
        "epoch_002.png", "epoch_003.png", "curves.png", "scores.json",
    }  # fmt: skip
    scores = json.loads((folder / "scores.json").read_text())
    names = ("liquid_error", "background_error", "glass_error", "success_rate")
    assert set(scores) == {f"{b}{n}" for b in ("", "identity_", "mean_match_") for n in names} | {"seconds_training"}
    assert all(isinstance(value, float) for value in scores.values())


def test_the_run_remembers_its_configuration(finished):
    record = json.loads((finished.config.models_folder / "config.json").read_text())
    assert record["lambda_identity"] == 5.0 and record["precision"] == "fp32" and record["device"] == "cpu"
    assert record["floor_A"] == finished.floors["A"] > 0


def test_samples_are_of_the_same_test_pictures_on_an_absolute_scale(finished):
    rows = finished.sheet()
    assert list(rows) == ["real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B"]
    assert torch.equal(rows["real_A"], finished.test["A"][:8])
    assert torch.equal(finished.sheet()["fake_B"], rows["fake_B"])


def test_a_saved_generator_translates(finished):
    G = load_generator(finished.config.models_folder / "epoch_3" / "G_AB.safetensors")
    with torch.no_grad():
        assert torch.allclose(G(finished.test["A"]), finished.model.translate(finished.test["A"])[0], atol=1e-5)


def test_a_file_that_does_not_say_its_architecture_is_named(tmp_path):
    path = tmp_path / "G.safetensors"
    save_file({"model.1.bias": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="G.safetensors.*architecture"):
        load_generator(path)


def test_the_same_command_gives_the_same_files(finished, tmp_path):
    again = train(dataclasses.replace(finished.config, output_root=tmp_path))
    for epoch in (1, 2, 3):
        assert checkpoint(again, epoch) == checkpoint(finished, epoch)
    for folder, name in (("models_folder", "history.jsonl"), ("images_folder", "epoch_003.png")):
        one, other = (getattr(run.config, folder) / name for run in (finished, again))
        assert one.read_bytes() == other.read_bytes()


def test_an_earlier_run_is_not_overwritten_unless_asked(finished):
    before = files(finished.config.output_root)
    with pytest.raises(UserError, match="earlier run.*start_from 3"):
        Trainer(finished.config)
    Trainer(dataclasses.replace(finished.config, overwrite=True))
    assert files(finished.config.output_root) == before, "overwritten before training"


def test_overwrite_removes_the_earlier_run(tiny_config):
    train(tiny_config(num_epochs=2))
    run = train(tiny_config(num_epochs=1, overwrite=True))
    assert saved_epochs(run.config.models_folder) == [1]
    assert len(run.history) == 3


# Every option has an effect


def losses_of(config):
    run = train(config)
    return [row["loss_G"] for row in run.history], run


@pytest.mark.parametrize(
    "change",
    [
        {"lambda_cycle": 3.0}, {"lambda_identity": 2.0}, {"output_norm": "instance"}, {"output_norm": "batch"},
        {"output_norm": "instance_affine"}, {"base_channels": 6}, {"num_residual": 2}, {"lr": 2e-3},
        {"gan_mode": "vanilla"}, {"no_init": True}, {"seed": 1}, {"batch_size": 3}, {"img_height": 40},
        {"img_width": 40}, {"channels": 1}, {"precision": "bf16"}, {"decay_epoch": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_the_training(tiny_config, change):
    plain, _ = losses_of(tiny_config(num_epochs=1, run_name="plain"))
    changed, run = losses_of(tiny_config(num_epochs=1, run_name="changed", **change))
    assert plain != changed
    assert all(torch.isfinite(torch.tensor(changed)))


def test_what_does_not_change_the_training(tiny_config):
    plain, _ = losses_of(tiny_config(run_name="plain"))
    workers, _ = losses_of(tiny_config(run_name="workers", num_workers=2))
    assert plain == workers


def test_max_steps(tiny_config):
    run = train(tiny_config(max_steps=4))
    assert [row["step"] for row in run.history] == [1, 2, 3, 4]
    assert run.history[-1]["lr"] < run.config.lr
    assert saved_epochs(run.config.models_folder) == [1, 2]


@pytest.mark.parametrize(("interval", "epochs"), [(0, [3]), (1, [1, 2, 3]), (2, [2, 3])])
def test_intervals(tiny_config, interval, epochs):
    run = train(tiny_config(sample_interval=interval, checkpoint_interval=interval))
    assert saved_epochs(run.config.models_folder) == epochs
    sheets = sorted(path.name for path in run.config.images_folder.glob("epoch_*.png"))
    assert sheets == [f"epoch_{epoch:03d}.png" for epoch in epochs]


def test_tensorboard(tiny_config):
    run = train(tiny_config(num_epochs=1, tensorboard=True))
    assert list((run.config.models_folder / "tensorboard").iterdir())


def test_tensorboard_that_is_not_there_is_said_at_once(tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        Trainer(tiny_config(tensorboard=True))


@pytest.mark.parametrize(("decay", "start"), [(None, 50), (8, 80), (0, 0), (10, 100)])
def test_the_schedule(decay, start):
    config = TrainConfig(num_epochs=10, decay_epoch=decay, lr=1.0)
    rates = [learning_rate(config, step, 100, 10) for step in range(100)]
    for step, rate in enumerate(rates):
        expected = 1.0 if step <= start or start == 100 else (100 - step) / (100 - start)
        assert rate == pytest.approx(expected)
    assert all(rate > 0 for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_water2wine_is_drawn_when_it_is_missing(tiny_config, tmp_path, monkeypatch):
    drawn = []

    def draw(root, size):  # as write_dataset does
        drawn.append(size)
        shutil.copytree(tiny_config().data_root / "tiny", root)

    monkeypatch.setattr("cyclegan_lib.datasets.write_dataset", draw)
    Trainer(tiny_config(dataset_name="water2wine", data_root=tmp_path / "data"))
    assert drawn == [32]


def test_training_larger_than_the_drawing_is_said(tiny_config, capsys):
    Trainer(tiny_config(img_height=64, img_width=64))
    assert "drawn at 32 pixels" in capsys.readouterr().err


def test_fit_counts_steps(tiny_config):
    assert fit(tiny_config(), steps=7).max_steps == 7 and fit(tiny_config(), steps=7).num_epochs == 3
    fitted = fit(tiny_config(), minutes=0.05)
    assert fitted.max_steps >= 1 and fitted.num_epochs == -(-fitted.max_steps // 3)


# Stopping and going on


def test_going_on_after_an_epoch_ends_with_the_same_bits(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished.config.output_root, out)
    for epoch in (2, 3):
        shutil.rmtree(out / "saved_models" / finished.config.name / f"epoch_{epoch}")
    resumed = train(dataclasses.replace(finished.config, output_root=out, start_from=1))
    for epoch in (2, 3):
        assert checkpoint(resumed, epoch) == checkpoint(finished, epoch)
    assert resumed.history == finished.history


def test_interrupted_in_the_middle_of_an_epoch_and_resumed(finished, tmp_path):
    config = dataclasses.replace(finished.config, output_root=tmp_path, checkpoint_interval=0)
    trainer = Trainer(config)
    plain_step = trainer.model.step

    def step(real_A, real_B):
        if trainer.step == 4:  # the second step of epoch 2
            signal.raise_signal(signal.SIGINT)
        return plain_step(real_A, real_B)

    trainer.model.step = step
    stopped = trainer.run()
    assert stopped.stopped and stopped.step == 5 and stopped.epoch == 2 and stopped.scores is None
    assert stopped.checkpoint == config.models_folder / "step_5"
    resumed = train(dataclasses.replace(config, resume="auto"))
    assert not resumed.stopped
    assert networks(resumed, 3) == networks(finished, 3)
    assert resumed.history == finished.history


def test_the_interrupt_handler_is_put_back(tiny_config):
    before = signal.getsignal(signal.SIGINT)
    train(tiny_config(num_epochs=1))
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_with_another_architecture_names_the_difference(finished):
    with pytest.raises(UserError, match="base_channels 8.*had 4"):
        Trainer(dataclasses.replace(finished.config, start_from=1, base_channels=8))


def test_a_finished_run_says_so(finished):
    with pytest.raises(UserError, match="larger --num_epochs or --max_steps"):
        Trainer(dataclasses.replace(finished.config, start_from=3))


def test_an_unknown_epoch_says_what_there_is(finished):
    with pytest.raises(UserError, match="start_from 7.*1, 2, 3"):
        Trainer(dataclasses.replace(finished.config, start_from=7))


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    shutil.copytree(finished.config.output_root, tmp_path / "copy")
    config = dataclasses.replace(finished.config, output_root=tmp_path / "copy", start_from=2)
    path = config.models_folder / "epoch_2" / "D_A.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="epoch_2/D_A.safetensors"):
        Trainer(config)


# As a command


def command(*arguments, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cyclegan_lib.train", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **kwargs,
    )  # fmt: skip


def options(config):
    given = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            given += [f"--{field.name}"] if value is True else [f"--{field.name}", value]
    return given


def test_the_command_trains_and_prints_the_scores(tiny_config, tmp_path):
    process = command(*options(tiny_config(num_epochs=1)))
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "liquid_error" in out and "success_rate" in out and "saved_models" in out
    for name in ("epoch 1/1", "loss_G", "cycle_A", "step/s"):
        assert name in err


def test_ctrl_c_saves_and_says_how_to_go_on(tiny_config, tmp_path):
    config = tiny_config(num_epochs=4000, checkpoint_interval=0)
    process = command(*options(config))
    history = config.models_folder / "history.jsonl"
    deadline = time.monotonic() + 120
    while not read_history(history) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    step = int(re.search(r"step_(\d+)\. To go on, give the same options and --resume auto", out)[1])
    _, facts = read_tensors(config.models_folder / f"step_{step}" / "state.safetensors")
    assert facts["step"] == step == len(read_history(history))
    assert Trainer(dataclasses.replace(config, resume="auto")).step == step


def test_a_second_ctrl_c_while_it_saves_changes_nothing(tiny_config, monkeypatch):
    trainer = Trainer(tiny_config(checkpoint_interval=0))
    save = trainer._save_checkpoint
    monkeypatch.setattr(trainer, "_save_checkpoint", lambda name: (signal.raise_signal(signal.SIGINT), save(name)))
    plain_step = trainer.model.step
    trainer.model.step = lambda *batch: (signal.raise_signal(signal.SIGINT), plain_step(*batch))[1]
    assert trainer.run().stopped
    found, damaged = newest_whole(trainer.config.models_folder)
    assert found.step == 1 and not damaged


def test_a_data_set_that_changed_is_not_gone_on_with(finished, tiny_root, tmp_path):
    shutil.copytree(tiny_root, tmp_path / "tiny")
    (tmp_path / "tiny" / "trainA" / "0000.png").unlink()
    with pytest.raises(UserError, match=r"\[5, 6\].*had \[6, 6\]"):
        Trainer(dataclasses.replace(finished.config, data_root=tmp_path, start_from=1))


@pytest.mark.parametrize("line", ["\0\0\n", "{\n"])
def test_a_damaged_history_is_named(finished, tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n' + line)
    with pytest.raises(UserError, match="line 2 is damaged"):
        read_history(path)
    path.write_text('{"step": 1}\n{"ste')
    assert read_history(path) == [{"step": 1}]


# Losses that are no longer numbers


def diverging(trainer, step):
    """Make the generators' weights infinite just before a step of a training."""
    plain = trainer.model.step

    def step_(real_A, real_B):
        if trainer.step + 1 == step:
            with torch.no_grad():
                trainer.model.G_AB.model[1].weight.fill_(float("inf"))
        return plain(real_A, real_B)

    trainer.model.step = step_
    return trainer


def test_a_loss_that_is_no_number_ends_the_run_and_spares_what_was_saved(tiny_config):
    config = tiny_config(num_epochs=4)  # of 3 steps, with a checkpoint each
    trainer = diverging(Trainer(config), step=8)
    with pytest.raises(UserError) as ended:
        trainer.run()
    names = [f"train{d}/{trainer.data.path(d, n).name}" for d in "AB" for n in (14, 15)]  # batches of 2
    said = str(ended.value)
    assert re.match(r"step 8: loss_G is nan, on ", said) and "\n" not in said
    assert ", ".join(names) in said and "--resume auto goes on from epoch_2" in said and "--lr" in said
    assert saved_epochs(config.models_folder) == [1, 2]
    assert [row["step"] for row in read_history(config.models_folder / "history.jsonl")] == list(range(1, 8))
    again = Trainer(dataclasses.replace(config, start_from=2)).run()
    assert again.step == 12 and len(again.history) == 12


def test_weights_that_are_no_numbers_are_not_saved(tiny_config):
    config = tiny_config(num_epochs=1)
    trainer = Trainer(config)

    def spoil(trainer):  # after the last loss has been read
        with torch.no_grad():
            trainer.model.D_B.model[0].bias.fill_(float("nan"))

    with pytest.raises(UserError, match="step 3: D_B has weights that are not finite; nothing had been saved before"):
        trainer.run(spoil)
    assert saved_epochs(config.models_folder) == []


def test_a_learning_rate_that_is_far_too_large_ends_in_one_line(tiny_config, capsys):
    config = tiny_config(lr=1e30, num_epochs=30)
    with pytest.raises(SystemExit) as ended:
        train_module.main([str(text) for text in options(config)])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and re.search(r"^error: step \d+: .* is (nan|inf)", errors, re.M)
    assert "Traceback" not in errors


# One process a run


def test_a_second_process_on_the_same_run_is_refused_and_changes_nothing(tiny_config, tmp_path):
    config = tiny_config(num_epochs=1)
    refused = []

    def second(trainer):
        before = files(tmp_path)
        for changes in (dict(overwrite=True), dict(overwrite=True, num_epochs=2)):
            with pytest.raises(UserError, match="another process trains there; .* give another --run_name") as error:
                Trainer(dataclasses.replace(config, **changes)).run()
            refused.append(str(error.value))
        assert files(tmp_path) == before

    Trainer(config).run(second)
    assert refused and str(config.models_folder) in refused[0]
    Trainer(dataclasses.replace(config, overwrite=True)).run()  # when the first has ended, it goes


def test_the_lock_ends_with_a_killed_process(tiny_config, tmp_path):
    config = tiny_config(num_epochs=10**4, checkpoint_interval=0)
    first = command(*options(config))
    history = config.models_folder / "history.jsonl"
    deadline = time.monotonic() + 120
    while not read_history(history):
        assert first.poll() is None and time.monotonic() < deadline, "it did not train"
        time.sleep(0.05)
    with pytest.raises(UserError, match="another process trains there"):
        Trainer(dataclasses.replace(config, overwrite=True)).run()
    first.kill()
    first.communicate()
    assert Trainer(dataclasses.replace(config, overwrite=True, num_epochs=1)).run().step == 3


# Checkpoints


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3, 4]), (1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])])
def test_only_the_newest_checkpoints_are_kept_if_so_asked(tiny_config, keep, left):
    config = tiny_config(num_epochs=4, keep_checkpoints=keep)
    Trainer(config).run()
    assert saved_epochs(config.models_folder) == left


def test_a_checkpoint_of_another_precision_can_be_gone_on_from(tiny_config):
    """An fp16 run's scaler from a run without one: as if a machine with a GPU goes on where one without ended."""
    config = tiny_config(num_epochs=1)
    Trainer(config).run()
    trainer = Trainer(dataclasses.replace(config, num_epochs=2, start_from=1))
    trainer.model.scaler = torch.amp.GradScaler("cpu", enabled=True)
    scale = trainer.model.scaler.get_scale()
    load_checkpoint(config.models_folder / "epoch_1", trainer.model)
    assert trainer.model.scaler.is_enabled() and trainer.model.scaler.get_scale() == scale
