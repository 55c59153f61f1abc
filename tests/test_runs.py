"""A run is stopped, killed, damaged, and continued: which checkpoint it takes, what it refuses, what it leaves."""

import contextlib
import dataclasses
import json
import shutil
import signal

import pytest
import torch
from helpers import Do, contents, left_by, make_run, names, start_python, stop_at, tiny

from cyclegan_lib import files
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError
from cyclegan_lib.runs import folder as runs
from cyclegan_lib.runs import log as logs
from cyclegan_lib.runs import resume
from cyclegan_lib.runs.checkpoint import read_facts, write_checkpoint
from cyclegan_lib.runs.folder import newest_whole, saved_epochs
from cyclegan_lib.runs.log import read_curves, read_history


@pytest.fixture(scope="module")
def peace(tiny_root, tmp_path_factory):
    """A run of 3 epochs of 3 steps that nothing happened to. Read-only."""
    torch.set_num_threads(1)
    config = tiny(tiny_root.parent, tmp_path_factory.mktemp("peace"), lambda_identity=5.0)
    make_run(config).run()
    return config


@pytest.fixture
def copied(peace, tmp_path):
    """Makes a copy of that run, of whose checkpoints only these are left, and its configuration."""

    def copy(*left, out=tmp_path / "copy", **changes):
        shutil.copytree(peace.output_root, out)
        config = dataclasses.replace(peace, output_root=out, **changes)
        for name in set(names(config.models_folder)) - set(left or names(config.models_folder)):
            (config.models_folder / f"{name}.safetensors").unlink()
        return config

    return copy


def damage(path):
    """A bit of its last tensor, which the header knows nothing of."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def refused(config, match, **changes):
    """It is refused in one line, and nothing is changed."""
    before = contents(config.output_root)
    with pytest.raises(UserError, match=match) as caught:
        make_run(dataclasses.replace(config, **changes)).run()
    assert contents(config.output_root) == before and "\n" not in str(caught.value)


# What a run leaves


def test_the_history_has_a_line_a_step(peace):
    rows = read_history(peace.models_folder)
    assert all(list(row) == ["step", "epoch", "lr", *logs.LOSSES] for row in rows)
    assert [(row["step"], row["epoch"]) for row in rows] == [(step, 1 + (step - 1) // 3) for step in range(1, 10)]
    for row in rows:
        cycles = row["cycle_A"] + row["cycle_B"]
        assert row["loss_G"] == pytest.approx(2 * row["adversarial"] + 10 * cycles + 10 * row["identity"], rel=1e-4)


def test_the_same_command_gives_the_same_bytes(peace, tmp_path):
    make_run(dataclasses.replace(peace, output_root=tmp_path)).run()
    again, first = contents(tmp_path / "saved_models"), contents(peace.output_root / "saved_models")
    assert again.keys() == first.keys() and {path.name for path in first} == {
        ".tiny.lock", "config.json", "history.jsonl", *(f"epoch_{epoch}.safetensors" for epoch in (1, 2, 3)),
    }  # fmt: skip
    for path in first:
        assert path.name == "config.json" or again[path] == first[path], path


def test_a_checkpoint_and_the_folder_say_what_was_trained(peace):
    facts = read_facts(peace.models_folder / "epoch_2.safetensors")
    expected = dict(
        step=6, epoch=2, channels=3, base_channels=4, num_residual=1, output_norm="none", dataset_name="tiny",
        img_height=32, img_width=32, lambda_identity=5.0, precision="fp32", device="cpu", pictures=[6, 6], processes=1,
    )  # fmt: skip
    assert {name: facts[name] for name in expected} == expected
    assert not facts.keys() & {"output_root", "run_name", "num_workers", "sample_interval"}, "these change nothing"
    record = json.loads((peace.models_folder / "config.json").read_text())
    assert record["run_name"] is None and record.items() >= {k: expected[k] for k in list(expected)[2:]}.items()


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        (dict(keep_checkpoints=1), [4]), (dict(keep_checkpoints=3), [2, 3, 4]),
        (dict(keep_checkpoints=9), [1, 2, 3, 4]),
        (dict(checkpoint_interval=0), [4]), (dict(checkpoint_interval=3), [3, 4]),
    ],
)  # fmt: skip
def test_which_checkpoints_are_made_and_kept(tiny_config, changes, left):
    make_run(config := tiny_config(num_epochs=4, max_steps=12, batch_size=6, **changes)).run()
    assert saved_epochs(config.models_folder) == left


class Clock:
    """A step takes a minute."""

    def __init__(self, trainer):
        self.trainer = trainer

    def monotonic(self):
        return 60.0 * self.trainer.step


def test_minutes_change_nothing_but_what_is_kept(peace, tmp_path, monkeypatch):
    config = dataclasses.replace(peace, output_root=tmp_path, checkpoint_minutes=2, checkpoint_interval=2)
    saved, trainer = [], make_run(config)
    monkeypatch.setattr(resume, "time", Clock(trainer))
    trainer.hooks.append(Do(lambda trainer: saved.append(names(config.models_folder))))
    trainer.run()
    assert saved[1] == ["step_2"] and saved[3] == ["step_2", "step_4"]
    assert saved[5] == ["epoch_2", "step_4"] and saved[7] == ["epoch_2", "step_8"], "two are kept"
    assert names(config.models_folder) == ["epoch_2", "epoch_3"]
    assert left_by(config) == left_by(peace)


def test_the_history_is_on_the_disk_before_a_checkpoint_counts_its_steps(tiny_config, monkeypatch):
    config, done = tiny_config(num_epochs=1), []
    for module in (logs, files):
        plain = module.sync
        monkeypatch.setattr(module, "sync", lambda path, plain=plain: done.append(path.name) or plain(path))
    make_run(config).run()
    at = done.index(".epoch_1.safetensors.partial")
    assert "history.jsonl" in done[:at] and len(read_history(config.models_folder)) == 3


# Which checkpoint is the newest


@pytest.fixture(scope="module")
def model():
    return CycleGAN(base_channels=2, num_residual=1)


@pytest.fixture
def run_folder(tmp_path, model):
    """Three checkpoints: after epoch 1 (step 3), epoch 2 (step 6), and within epoch 3 (step 7)."""
    folder = tmp_path / "saved_models" / "run"
    folder.mkdir(parents=True)
    for name, step in (("epoch_1", 3), ("epoch_2", 6), ("step_7", 7)):
        write_checkpoint(folder / f"{name}.safetensors", model, {"step": step})
    return folder


def test_the_newest_is_of_the_latest_step(run_folder):
    (run_folder / "epoch_9.safetensors.bak").write_bytes(b"no checkpoint's name")
    found, damaged = newest_whole(run_folder)
    assert (found.path.stem, found.step, found.epoch, damaged) == ("step_7", 7, None, {})
    assert saved_epochs(run_folder) == [1, 2] and newest_whole(run_folder / "nowhere") == (None, {})


@pytest.mark.parametrize("how", ["facts", "tensors", "cut", "empty", "longer"])
def test_damaged_ones_are_named_and_passed_over(run_folder, how):
    for number, older in ((7, "epoch_2"), (2, "epoch_1"), (1, None)):
        path = run_folder / f"{'step' if number == 7 else 'epoch'}_{number}.safetensors"
        content = path.read_bytes()
        path.write_bytes({
            "facts": content.replace(b"step", b"stop"), "tensors": content[:-1] + bytes([content[-1] ^ 1]),
            "cut": content[:-1], "empty": b"", "longer": content + b"\0",
        }[how])  # fmt: skip
        found, damaged = newest_whole(run_folder)
        assert (found and found.path.stem) == older
        assert str(path) in damaged[path] and "\n" not in damaged[path]
    assert len(damaged) == 3


@pytest.mark.parametrize(
    ("keep", "finished", "left"),
    [
        (0, False, ["epoch_1", "epoch_2", "epoch_3", "step_10"]), (0, True, ["epoch_1", "epoch_2", "epoch_3"]),
        (1, False, ["epoch_3", "step_10"]), (1, True, ["epoch_3"]),
        (2, True, ["epoch_2", "epoch_3"]), (9, True, ["epoch_1", "epoch_2", "epoch_3"]),
    ],
)  # fmt: skip
def test_what_newer_ones_made_superfluous_goes(run_folder, model, keep, finished, left):
    """There are epochs 1 to 3 of three steps each, and steps 7, 8 and 10."""
    for name, step in (("step_8", 8), ("epoch_3", 9), ("step_10", 10)):
        write_checkpoint(run_folder / f"{name}.safetensors", model, {"step": step})
    runs.prune(run_folder, keep, finished)
    assert names(run_folder) == left


# Killed anywhere

KILLED = '''
import os, shutil, signal, sys
from pathlib import Path
from types import SimpleNamespace

import safetensors.torch, torch

from cyclegan_lib import files
from cyclegan_lib.config import TrainConfig
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.runs import folder as runs
from cyclegan_lib.runs.processes import Processes
from cyclegan_lib.runs.resume import Checkpoints

torch.set_num_threads(1)
folder, untouched = Path(sys.argv[1]) / "saved_models" / "run", Path(sys.argv[2])
model = CycleGAN(base_channels=2, num_residual=1)
allowed = None  # file operations until the process is killed; None: any number


def operation():
    global allowed
    if allowed is not None:
        allowed -= 1
        if allowed < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def watch(event, arguments):
    """Python tells of everything it does to a file; before it is done."""
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.listdir", "os.scandir"):
        operation()


def write_in_pieces(tensors, path, metadata):
    """What safetensors writes itself, in three pieces: it may be killed between them."""
    content = safetensors.torch.save(tensors, metadata)
    for piece in range(3):
        with open(path, "ab") as file:
            file.write(content[piece * len(content) // 3 : (piece + 1) * len(content) // 3])


def save(name):
    """As a run does at step 8: what the checkpoint makes superfluous goes; the name epoch_2 is taken."""
    log = SimpleNamespace(flush=lambda to_disk: None)
    resume = SimpleNamespace(processes=Processes("cpu"), settings={})
    config = TrainConfig(output_root=sys.argv[1], run_name="run", keep_checkpoints=1)
    trainer = SimpleNamespace(model=model, shown=model, step=8, epoch=2, stopped=True)
    Checkpoints(config, log, resume).save(trainer, name)


def killed_everywhere(what, check):
    """Before each of its file operations, and once not at all."""
    global allowed
    killed_at, count = True, -1
    while killed_at:
        count += 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(untouched, folder)
        child = os.fork()
        if not child:
            allowed = count
            what()
            os._exit(0)
        killed_at = os.waitpid(child, 0)[1]
        found, damaged = runs.newest_whole(folder)
        assert killed_at in (0, signal.SIGKILL), killed_at
        assert not damaged, (count, damaged)  # a half of anything never has a checkpoint's name
        check(killed_at, found, {path.stem for path in folder.glob("[a-z]*")})
    print(count)


def saved(killed_at, found, names):
    assert found.step in ((7, 8) if killed_at else (8,)), names
    runs.remove_later(folder, found.step)
    assert all(runs.NAME.fullmatch(path.name) for path in folder.iterdir()), list(folder.iterdir())


def removed(killed_at, found, names):
    order = ["epoch_1", "epoch_2", "step_7"]
    assert names == set(order[: len(names)]) and (killed_at or names == {"epoch_1"}), names


files.save_file = write_in_pieces
plain_sync = os.fsync
os.fsync = lambda handle: (operation(), plain_sync(handle))
sys.addaudithook(watch)
for name in ("step_8", "epoch_2", "epoch_3"):
    killed_everywhere(lambda: save(name), saved)
killed_everywhere(lambda: runs.remove_later(folder, 3), removed)
'''


def test_killed_before_any_file_operation_something_whole_is_left(run_folder, tmp_path):
    """Of a save, with earlier checkpoints beside it, and of a resume, which removes what is later."""
    process = start_python("-c", KILLED, tmp_path / "killed", run_folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    *saves, removal = map(int, out.split())
    assert len(saves) == 3 and min(saves) >= 12 and removal >= 4, out


# Continued


@pytest.mark.parametrize("stopped_at", [4, 6])
def test_auto_begins_continues_and_is_finished(peace, tmp_path, capsys, stopped_at):
    """Stopped within an epoch and at its end."""
    config = dataclasses.replace(peace, output_root=tmp_path, resume="auto")
    assert make_run(config, stop_at(stopped_at)).run().stopped
    name = {4: "step_4", 6: "epoch_2"}[stopped_at]
    capsys.readouterr()
    assert not make_run(config).run().stopped
    assert f"continuing from tiny/{name}, after step {stopped_at} of 9" in capsys.readouterr().out
    assert left_by(config) == left_by(peace) and names(config.models_folder) == ["epoch_1", "epoch_2", "epoch_3"]
    before = contents(tmp_path)
    trainer = make_run(config)
    assert not trainer.run().stopped and trainer.step == 9 and trainer.hook(resume.Checkpoints).path.stem == "epoch_3"
    assert "tiny/epoch_3: finished already, all 9 steps are done" in capsys.readouterr().out
    assert contents(tmp_path) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resume_on_every_device(peace, tmp_path, device, precision):
    changes = dict(device=device, precision=precision, resume="auto", checkpoint_interval=0)
    config = dataclasses.replace(peace, output_root=tmp_path, **changes)
    make_run(dataclasses.replace(config, run_name="whole")).run()
    for until in (2, 5, 9):
        make_run(config, stop_at(until)).run()
    whole, resumed = (read_history(tmp_path / "saved_models" / name) for name in ("whole", "tiny"))
    for one, other in zip(whole, resumed, strict=True):
        assert one == pytest.approx(other, rel=0 if device == "cpu" else 1e-2)


def test_start_from_continues_after_that_epoch_and_drops_what_is_later(peace, copied, capsys):
    config = copied(start_from=1)
    assert make_run(config, stop_at(4)).run().stopped
    assert "removed epoch_3.safetensors, epoch_2.safetensors: later than step 3" in capsys.readouterr().err
    assert names(config.models_folder) == ["epoch_1", "step_4"]
    assert [row["step"] for row in read_history(config.models_folder)] == [1, 2, 3, 4]
    make_run(config).run()
    assert left_by(config) == left_by(peace)


def test_start_from_says_what_cannot_be(copied):
    config = copied("epoch_1", "epoch_3")
    refused(config, r"tiny/epoch_7\.safetensors: no such file", start_from=7)
    damage(config.models_folder / "epoch_1.safetensors")
    refused(config, r"epoch_1\.safetensors: damaged", start_from=1)


def test_the_same_trainer_continues_where_it_was_interrupted(peace, tmp_path):
    """A notebook's cell that is run again; `overwrite` is for earlier runs, not for this one."""
    for changes in (dict(overwrite=True), dict(resume="auto"), {}):
        config = dataclasses.replace(peace, output_root=tmp_path / str(changes), **changes)
        trainer = make_run(config, stop_at(5))
        assert trainer.run().stopped and not trainer.run().stopped
        assert left_by(config) == left_by(peace), changes


def test_an_end_within_an_epoch_does_not_stand_in_the_way(peace, tmp_path):
    """At step 5 it ends as epoch_2, a name that step 6 asks for: the earlier one takes that of its step."""
    config = dataclasses.replace(peace, output_root=tmp_path, resume="auto", decay_epoch=3)
    make_run(dataclasses.replace(config, max_steps=5)).run()
    assert names(config.models_folder) == ["epoch_1", "epoch_2"]
    between = []
    make_run(config, Do(lambda trainer: between.extend(names(config.models_folder)), 6)).run()
    assert between == ["epoch_1", "epoch_2", "step_5"] and newest_whole(config.models_folder)[0].step == 9
    assert names(config.models_folder) == ["epoch_1", "epoch_2", "epoch_3"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(peace, copied, capsys):
    config = copied("epoch_1", "epoch_3", resume="auto")
    damage(config.models_folder / "epoch_3.safetensors")
    make_run(config).run()
    said = capsys.readouterr()
    assert "epoch_3.safetensors: damaged" in said.err and "passed over" in said.err
    assert "epoch_1, after step 3" in said.out and left_by(config) == left_by(peace)


def test_where_nothing_is_whole_nothing_is_overwritten(copied):
    config = copied("epoch_3", resume="auto")
    damage(config.models_folder / "epoch_3.safetensors")
    refused(config, "tiny holds an earlier run; give another --run_name, or --overwrite")
    assert make_run(dataclasses.replace(config, overwrite=True, num_epochs=1)).run().step == 3


def test_an_earlier_run_is_not_overwritten_unless_asked(copied):
    config = copied()
    refused(config, "holds an earlier run; give --resume auto to continue, another --run_name, or --overwrite")
    before = contents(config.output_root)
    trainer = make_run(dataclasses.replace(config, overwrite=True, num_epochs=1, lambda_identity=0.0))
    assert contents(config.output_root) == before, "overwritten before training"
    trainer.run()
    assert names(config.models_folder) == ["epoch_1"] and len(read_history(config.models_folder)) == 3
    shutil.rmtree(config.models_folder)
    config.images_folder.mkdir(parents=True)
    (config.images_folder / "epoch_001.png").write_bytes(b"a picture of it")
    refused(config, "generated_images.*holds an earlier run; give another --run_name, or --overwrite")


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(peace, copied):
    config = copied(resume="auto")
    for path in config.models_folder.glob("*.safetensors"):
        path.unlink()
    refused(config, "holds an earlier run", resume="never")
    make_run(dataclasses.replace(config, num_workers=1)).run()
    assert left_by(config) == left_by(peace)


def test_auto_with_overwrite_replaces_a_run_of_other_settings_alone(copied, capsys):
    config = copied(resume="auto", overwrite=True)
    assert make_run(dataclasses.replace(config, num_workers=1, sample_interval=2), Do(pytest.fail)).run().step == 9
    assert "finished already" in capsys.readouterr().out
    seen = []
    for changes in (dict(lr=0.1), dict(base_channels=6), dict(batch_size=3), dict(num_epochs=2)):
        trainer = make_run(dataclasses.replace(config, **changes), Do(lambda t: seen.append(t.step)), stop_at(1))
        trainer.run()
        assert seen.pop() == 1 and names(config.models_folder) == ["step_1"]


# What may change, and what may not


@pytest.mark.parametrize(
    ("name", "value", "had"),
    [
        ("base_channels", 8, 4), ("num_residual", 2, 1), ("img_height", 48, 32), ("img_width", 48, 32), ("seed", 3, 0),
        ("batch_size", 3, 2), ("channels", 1, 3), ("output_norm", "batch", "none"),
        ("discriminator_instance", True, False),
    ],
)  # fmt: skip
def test_what_may_not_change_is_refused_by_name(copied, name, value, had):
    config = copied(resume="auto", num_epochs=4)
    refused(config, f"--{name} {value}: the run in .*epoch_3.* had {had}; give that to continue", **{name: value})
    refused(config, f"--{name} {value}: ", resume="never", start_from=1, **{name: value})


def test_what_may_change_is_said_and_recorded(copied, capsys):
    config = copied(resume="auto")
    changes = dict(num_epochs=4, sample_interval=1, num_workers=1, lr=1e-4, precision="bf16")
    make_run(dataclasses.replace(config, **changes)).run()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert sorted(said) == [
        "warning: --lr is 0.0001 and was 0.0002: from step 9 on no longer exact",
        "warning: --num_epochs is 4 and was 3: from step 9 on the learning rate follows another schedule",
        "warning: --precision is bf16 and was fp32: from step 9 on no longer exact",
    ]
    record = json.loads((config.models_folder / "config.json").read_text())
    facts = read_facts(config.models_folder / "epoch_4.safetensors")
    assert record["precision"] == facts["precision"] == "bf16" and record["lr"] == facts["lr"] == 1e-4


def test_another_number_of_pictures_is_refused(copied, tiny_root, tmp_path):
    config = copied(resume="auto", num_epochs=4, data_root=tmp_path)
    shutil.copytree(tiny_root, tmp_path / "tiny")
    (tmp_path / "tiny" / "trainA" / "0000.png").unlink()
    refused(config, r"pictures \[5, 6\]: the run in .*epoch_3.* had \[6, 6\]; give that to continue")


def test_folders_that_cannot_be_made_are_named(tiny_config, tmp_path):
    (tmp_path / "saved_models").write_text("a file")
    refused(tiny_config(), "saved_models: no folder that can be written to; choose another --output_root")


# One process a run


def test_a_second_process_on_the_same_run_is_refused_and_changes_nothing(peace, tmp_path):
    config, tried = dataclasses.replace(peace, output_root=tmp_path), []

    def second(trainer):
        changes = dict(overwrite=True, num_epochs=2)
        refused(config, "saved_models/tiny: another process trains there; .* another --run_name", **changes)
        tried.append(trainer.step)

    make_run(config, Do(second, 4)).run()
    assert tried == [4] and left_by(config) == left_by(peace)
    make_run(dataclasses.replace(config, overwrite=True, num_epochs=1)).run()  # when the first has ended


def test_what_another_process_saved_meanwhile_is_not_undone(peace, tmp_path):
    config = dataclasses.replace(peace, output_root=tmp_path, resume="auto")
    begins = [make_run(config), make_run(dataclasses.replace(config, resume="never"))]
    stopped = make_run(dataclasses.replace(config, resume="never"), stop_at(4))
    stopped.run()
    late, early = make_run(config), make_run(config)
    early.run()
    before = contents(tmp_path)
    for trainer in (late, stopped, *begins):
        with pytest.raises(UserError, match="another process has saved a later step meanwhile"):
            trainer.run()
    assert contents(tmp_path) == before


# Ctrl-C


class Interrupts:
    """A signal between the two updates of a step."""

    def __init__(self, trainer, step, number):
        self.trainer, self.at, self.number, self.update = trainer, step, number, trainer.model.update

    def __call__(self, optimizer, loss):
        self.update(optimizer, loss)
        if self.trainer.step + 1 == self.at and optimizer is self.trainer.model.optimizer_G:
            signal.raise_signal(self.number)


def test_ctrl_c_stops_after_the_step_and_the_handler_is_put_back(peace, tmp_path):
    config = dataclasses.replace(peace, output_root=tmp_path, resume="auto", checkpoint_interval=0)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number, step in ((signal.SIGINT, 2), (signal.SIGTERM, 5)):
        trainer = make_run(config)
        trainer.model.update = Interrupts(trainer, step, number)
        assert trainer.run().stopped and trainer.step == step
        assert newest_whole(config.models_folder)[0].path.stem == f"step_{step}"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    make_run(config).run()
    assert left_by(config) == left_by(peace)


@pytest.mark.parametrize("moment", ["training", "saving"])
def test_a_second_ctrl_c_ends_it_at_once_and_spares_what_was_saved(copied, monkeypatch, moment):
    config = copied("epoch_1", resume="auto")
    before = contents(config.output_root)

    def twice(trainer):
        signal.raise_signal(signal.SIGINT)
        if moment == "training":
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it was swallowed")
        plain = files.save_file

        def save_file(tensors, partial, metadata):
            plain(tensors, partial, metadata)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(files, "save_file", save_file)

    handler = signal.getsignal(signal.SIGINT)
    trainer = make_run(config)
    trainer.hooks.insert(0, Do(twice, 4))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    after = contents(config.output_root)
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= {"config.json", "history.jsonl"} and signal.getsignal(signal.SIGINT) is handler
    assert newest_whole(config.models_folder)[0].path.stem == "epoch_1"
    monkeypatch.undo()
    assert make_run(config).run().step == 9, "the lock was let go"


# History


def test_a_history_with_a_damaged_end_can_be_continued(peace, copied):
    """After a power cut a file may end in zeros: what the checkpoint has counted stands before them."""
    config = copied("epoch_2", resume="auto")
    path = config.models_folder / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + b"\0" * 100 + b"\n")
    refused(config, "line 6 is damaged")
    path.write_bytes(b"".join(lines[:7]) + b"\0" * 100 + b"\n{]\n")
    make_run(config).run()
    assert left_by(config) == left_by(peace)


def test_history_is_read_up_to_a_step_and_a_last_line_without_its_end_is_left_out(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)) + '{"ste')
    for last in range(5):
        assert [row["step"] for row in read_history(tmp_path, last)] == list(range(1, min(last, 3) + 1))
    assert read_history(path) == read_history(tmp_path, 4) and read_history(tmp_path / "nowhere") == []


@pytest.mark.parametrize("line", ["\0\0", "{", "[]", '{"step": "2"}', "{}", "[" * 10**5])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "history.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(UserError, match=r"history\.jsonl: line 2 is damaged"):
        read_history(tmp_path)


def test_curves_of_a_long_run_are_means_and_no_more_rows_than_asked_for(tmp_path):
    rows = [{"step": step, **dict.fromkeys(logs.LOSSES, float(step)), "identity": None} for step in range(1, 11)]
    rows[0]["identity"] = 7.0  # as if its λ had been set to 0 then
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curves(tmp_path, 10, most=10) == rows == read_history(tmp_path)
    found = read_curves(tmp_path, 10, most=4)
    assert [(row["step"], row["cycle_A"], row["identity"]) for row in found] == [
        (3, 2.0, 7.0), (6, 5.0, None), (9, 8.0, None), (10, 10.0, None),
    ]  # fmt: skip


def test_bar_shows_the_step_the_epoch_and_the_losses(tiny_config, capfd):
    trainer = make_run(tiny_config(max_steps=40, num_epochs=30), stop_at(31))
    trainer.hooks.append(logs.Bar(trainer.hook(logs.Log)))
    trainer.run()
    err = capfd.readouterr().err
    assert "31/40" in err and "epoch 10/30" in err and "loss_G=" in err


# Numbers that are not finite


def spoil(step, change):
    """Intervention: changes the model without gradients after a step, before the other hooks see it."""

    @torch.no_grad()
    def action(trainer):
        change(trainer.model)

    return Do(action, step)


def test_a_loss_that_is_not_finite_ends_the_run_and_spares_what_was_saved(peace, tmp_path):
    config = dataclasses.replace(peace, output_root=tmp_path)
    trainer = make_run(config, spoil(7, lambda model: model.G_AB.model[1].weight.fill_(float("inf"))))
    with pytest.raises(UserError) as ended:
        trainer.run()
    pictures = [f"train{d}/{trainer.data.path(d, n).name}" for d in "AB" for n in (14, 15)]  # batches of 2
    said = str(ended.value)
    assert said.startswith(f"step 8: loss_G is nan, on {', '.join(pictures)}; ") and "\n" not in said
    assert "--resume auto continues from the last checkpoint" in said and "--lr" in said
    assert names(config.models_folder) == ["epoch_1", "epoch_2"]
    assert [row["step"] for row in read_history(config.models_folder)] == list(range(1, 8))
    make_run(dataclasses.replace(config, resume="auto")).run()
    assert left_by(config) == left_by(peace)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.D_B.model[0].bias.fill_(float("nan")), "D_B has numbers"),
        # Gradients of 1e30 leave finite weights, which would never move again.
        (
            lambda model: next(iter(model.optimizer_D.state.values()))["exp_avg_sq"].fill_(float("inf")),
            "optimizer_D has numbers",
        ),
    ],
)
def test_weights_and_moments_that_are_not_finite_are_not_saved(tiny_config, change, said):
    trainer = make_run(config := tiny_config(num_epochs=1))
    trainer.hooks.insert(0, spoil(3, change))  # after the last loss was taken
    with pytest.raises(UserError, match=f"step 3: {said} that are not finite; --resume auto continues"):
        trainer.run()
    assert names(config.models_folder) == []


@pytest.mark.parametrize("infinite", [[2], [4, 5, 6], [3, 4, 5, 6]])
def test_a_step_that_overflows_in_fp16_is_skipped_and_many_in_a_row_end_the_run(tiny_config, infinite, monkeypatch):
    """Its scaler takes no such step and goes on. Four in a row end it, whatever epochs the log is written after."""
    monkeypatch.setattr("cyclegan_lib.runs.log.FLUSH_STEPS", 4)

    def overflow(trainer):
        trainer.model.precision = "fp16"
        if trainer.step in infinite:
            trainer.losses = {**trainer.losses, "loss_G": torch.tensor(float("inf"))}

    trainer = make_run(config := tiny_config())
    trainer.hooks.insert(0, Do(overflow))
    trainer.model.autocast = contextlib.nullcontext
    if len(infinite) < 4:
        assert trainer.run().step == 9
        assert [row["step"] for row in read_history(config.models_folder) if row["loss_G"] == float("inf")] == infinite
    else:
        with pytest.raises(UserError, match="step 6: loss_G is inf"):
            trainer.run()
