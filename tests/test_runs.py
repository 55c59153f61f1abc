"""A run's folder: what is whole, what is passed over, and what is left when a save is killed anywhere."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from cyclegan_lib import files
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.weights import load_generators
from cyclegan_lib.runs import checkpoint as checkpoints
from cyclegan_lib.runs import folder as runs
from cyclegan_lib.runs.checkpoint import load_checkpoint, save_checkpoint
from cyclegan_lib.runs.folder import checkpoints_of, newest_whole, read_history, saved_epochs
from cyclegan_lib.train import Trainer, fit, train

ROOT = Path(__file__).resolve().parents[1]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if runs.NAME.fullmatch(path.name))


@pytest.fixture(scope="module")
def model():
    """Small networks that have made a step, so that the optimisers hold something."""
    torch.set_num_threads(1)
    model = CycleGAN(base_channels=4, num_residual=1)
    model.step(torch.zeros(1, 3, 24, 24), torch.ones(1, 3, 24, 24))
    return model


@pytest.fixture
def run_folder(tmp_path, model):
    """Three checkpoints: after epoch 1 (step 3), epoch 2 (step 6), and within epoch 3 (step 7)."""
    folder = tmp_path / "saved_models" / "run"
    for name, step in (("epoch_1", 3), ("epoch_2", 6), ("step_7", 7)):
        facts = {"channels": 3, "base_channels": 4, "num_residual": 1, "output_norm": "none", "step": step}
        save_checkpoint(folder / name, model, facts)
    return folder


# Whole or not


def test_the_newest_is_of_the_latest_step(run_folder, model):
    found, damaged = newest_whole(run_folder)
    assert (found.folder.name, found.step, damaged) == ("step_7", 7, {})
    assert saved_epochs(run_folder) == [1, 2]
    assert load_checkpoint(found.folder, model)["step"] == 7


@pytest.mark.parametrize("name", [*runs.FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "longer", "empty", "gone", "a folder"])
def test_a_damaged_checkpoint_is_named_and_passed_over(run_folder, name, damage):
    """Every file, in every way: the networks of a good disk are never mixed up with those of a bad one."""
    path = run_folder / "step_7" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "longer":
        path.write_bytes(content + b"\0")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "a folder":
        path.mkdir()
    found, damaged = newest_whole(run_folder)
    if name == "manifest.json" and damage in ("cut", "gone"):
        # Without its last newline it says the same, and without it a checkpoint is read as older ones are.
        assert found.step == 7 and not damaged
        return
    assert found.folder.name == "epoch_2"
    [(folder, reason)] = damaged.items()
    assert folder.name == "step_7" and "\n" not in reason and str(path) in reason


def test_two_damaged_ones_are_both_passed_over_and_then_there_is_none(run_folder):
    for number, name in enumerate(("step_7", "epoch_2", "epoch_1"), 1):
        (run_folder / name / "G_BA.safetensors").write_bytes(b"")
        found, damaged = newest_whole(run_folder)
        assert (
            len(damaged) == number
            and (found.folder.name if found else None) == (["epoch_2", "epoch_1", None])[number - 1]
        )


def test_a_manifest_that_was_made_up_is_refused(run_folder):
    path = run_folder / "step_7" / "manifest.json"
    content = json.loads(path.read_text())
    content["step"] = 700
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="manifest.json: damaged"):
        runs.read_checkpoint(path.parent)


@pytest.mark.parametrize("change", [
    {"files": {"../../secret": {"bytes": 1, "sha256": ""}}}, {"files": {}}, {"files": None}, {"settings": []},
    {"step": True}, {"step": -1}, {"more": 1},
])  # fmt: skip
def test_a_manifest_with_a_right_seal_and_wrong_content_is_refused(run_folder, change):
    path = run_folder / "step_7" / "manifest.json"
    content = {**json.loads(path.read_text()), **change}
    content.pop("sha256")
    path.write_text(json.dumps({**content, "sha256": runs.seal(content)}))
    with pytest.raises(UserError, match="manifest.json: damaged"):
        runs.read_checkpoint(path.parent)


def test_a_checkpoint_from_before_manifests_can_be_gone_on_from(run_folder, model):
    for path in run_folder.glob("*/manifest.json"):
        path.unlink()
    found, damaged = newest_whole(run_folder)
    assert found.step == 7 and not damaged and load_checkpoint(found.folder, model)["step"] == 7
    path = run_folder / "step_7" / "D_B.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert newest_whole(run_folder)[0].folder.name == "epoch_2"


def test_translating_takes_the_newest_whole_one_and_says_so(run_folder, capsys):
    (run_folder / "step_7" / "D_A.safetensors").write_bytes(b"")
    G, G_back = load_generators(run_folder)
    assert G is not None and G_back is not None
    assert "step_7/D_A.safetensors: damaged" in capsys.readouterr().err
    shutil.rmtree(run_folder / "epoch_1"), shutil.rmtree(run_folder / "epoch_2")
    with pytest.raises(UserError, match="no checkpoint in it"):
        load_generators(run_folder)


# Names and what stands in the way


def test_a_checkpoint_is_never_written_over_another(run_folder, model):
    """A run's end within epoch 2 has the name that the end of epoch 2 asks for: it takes that of its step."""
    before = contents(run_folder / "epoch_2")
    save_checkpoint(run_folder / "epoch_2", model, {"step": 8})
    assert names(run_folder) == ["epoch_1", "epoch_2", "step_6", "step_7"]
    assert contents(run_folder / "step_6") == before and runs.read_checkpoint(run_folder / "epoch_2").step == 8


def test_a_damaged_one_does_not_stand_in_the_way(run_folder, model):
    (run_folder / "epoch_2" / "manifest.json").write_text("{")
    save_checkpoint(run_folder / "epoch_2", model, {"step": 8})
    assert names(run_folder) == ["epoch_1", "epoch_2", "step_7"] and newest_whole(run_folder)[0].step == 8


def test_going_on_removes_what_is_later_the_newest_first(run_folder, monkeypatch):
    order = []
    monkeypatch.setattr(runs, "remove", lambda folder: (order.append(folder.name), files.remove(folder)))
    (run_folder / ".epoch_9.partial").mkdir()
    assert runs.go_on_from(run_folder, 3) == order == ["step_7", "epoch_2"]
    assert [path.name for path in run_folder.iterdir()] == ["epoch_1"]


@pytest.mark.parametrize(
    ("keep", "spared", "finished", "left"),
    [
        (0, (), False, ["epoch_1", "epoch_2", "epoch_3", "step_10"]), (0, (), True, ["epoch_1", "epoch_2", "epoch_3"]),
        (1, (), False, ["epoch_3", "step_10"]), (1, (1,), True, ["epoch_1", "epoch_3"]),
        (2, (), True, ["epoch_2", "epoch_3"]), (9, (), True, ["epoch_1", "epoch_2", "epoch_3"]),
    ],
)  # fmt: skip
def test_what_is_superfluous_goes(run_folder, model, keep, spared, finished, left):
    """There: epochs 1 to 3 of three steps each, and steps 7, 8 and 10 (written last, before the end)."""
    for name, step in (("step_8", 8), ("epoch_3", 9), ("step_10", 10)):
        save_checkpoint(run_folder / name, model, {"step": step})
    runs.tidy(run_folder, keep, lambda epoch: epoch in spared, finished)
    assert names(run_folder) == left


def test_checkpoints_of_epochs_with_a_sheet_are_kept_where_sheets_are_rarer(tiny_config):
    config = tiny_config(num_epochs=6, keep_checkpoints=1, sample_interval=2)
    assert saved_epochs(train(config).config.models_folder) == [2, 4, 6]
    config = tiny_config(num_epochs=4, keep_checkpoints=1, sample_interval=1, run_name="every")
    assert saved_epochs(train(config).config.models_folder) == [4]


# Killed anywhere

KILLED = '''
import builtins, os, shutil, signal, sys
from pathlib import Path
import safetensors.torch, torch
from cyclegan_lib import files
from cyclegan_lib.runs import folder as runs
from cyclegan_lib.runs.checkpoint import save_checkpoint
from cyclegan_lib.cyclegan import CycleGAN

torch.set_num_threads(1)
folder, untouched = Path(sys.argv[1]), Path(sys.argv[2])
model = CycleGAN(base_channels=4, num_residual=1)
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


def save():
    """As a run does: step_5, and what it makes superfluous goes; the name epoch_2 is taken."""
    save_checkpoint(folder / NAME, model, {"step": STEP})
    runs.tidy(folder, 1, lambda epoch: False, False)


files.save_file = write_in_pieces
plain_sync = os.fsync
os.fsync = lambda handle: (operation(), plain_sync(handle))
sys.addaudithook(watch)
for NAME, STEP in (("step_8", 8), ("epoch_2", 8), ("epoch_3", 8)):
    killed_at, count = True, -1
    while killed_at:
        count += 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(untouched, folder)
        child = os.fork()
        if not child:
            allowed = count
            save()
            os._exit(0)
        killed_at = os.waitpid(child, 0)[1]
        found, damaged = runs.newest_whole(folder)
        there = [path.name for path in folder.iterdir()]
        assert killed_at in (0, signal.SIGKILL), killed_at
        assert not damaged, (NAME, count, damaged)  # a half of anything never has a checkpoint's name
        assert found.step in ((7, 8) if killed_at else (8,)), (NAME, count, there)
        runs.sweep(folder)
        assert all(runs.NAME.fullmatch(path.name) for path in folder.iterdir()), (NAME, count, there)
    print(NAME, count)
'''


def test_killed_at_every_file_operation_of_a_save_something_whole_is_left(run_folder, tmp_path):
    """Exhaustively: before each of them the process is killed once, with earlier checkpoints beside it."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, script, tmp_path / "run", run_folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert set(counts) == {"step_8", "epoch_2", "epoch_3"}
    assert all(int(count) > 60 for count in counts.values()), counts


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def test_every_file_is_on_the_disk_before_its_checkpoint_has_its_name(tiny_config, monkeypatch):
    """The order that a power cut asks for: bytes, then the manifest, then the folders' names."""
    done = []
    sync, rename = files.sync, runs.os.rename

    def synced(path):
        done.append(("sync", Path(path), contents(path) if Path(path).is_dir() else Path(path).read_bytes()))
        sync(path)

    def renamed(source, target):
        done.append(("rename", Path(source), contents(source)))
        rename(source, target)

    monkeypatch.setattr(files, "sync", synced)
    monkeypatch.setattr(runs, "sync", synced)
    monkeypatch.setattr(runs.os, "rename", renamed)
    trainer = train(tiny_config(num_epochs=1))
    [at] = [i for i, (what, path, _) in enumerate(done) if what == "rename" and path.name == ".epoch_1.partial"]
    partial, whole = done[at][1:]
    synced_before = [(path, content) for what, path, content in done[:at] if what == "sync"]
    for path, content in whole.items():
        hidden = ".manifest.json.partial" if path.name == "manifest.json" else path.name
        assert (partial / hidden, content) in synced_before, path
    assert synced_before[-1] == (partial, whole), "the folder's names"
    history = trainer.config.models_folder / "history.jsonl"
    assert (history, history.read_bytes()) in synced_before, "the history of its steps"
    assert done[at + 1][:2] == ("sync", trainer.config.models_folder)


# A disk that is full


@pytest.mark.parametrize("error", [SafetensorError("No space left on device"), OSError(28, "No space left on device")])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run_folder, model, monkeypatch, error):
    before = contents(run_folder)

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(UserError, match="epoch_2: cannot be written .*No space.*make room") as caught:
        save_checkpoint(run_folder / "epoch_2", model, {"step": 9})
    assert contents(run_folder) == before and "\n" not in str(caught.value)


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, "before")

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(UserError, match="file: cannot be written"):
        files.write_whole(path, "after")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


# Going on


def test_auto_begins_goes_on_and_is_finished(tiny_config, capsys):
    config = tiny_config(resume="auto")
    whole = train(dataclasses.replace(config, run_name="whole"))
    stop_at(trainer := Trainer(config), 4)
    assert trainer.run().stopped
    capsys.readouterr()
    again = train(config)
    assert "step_4, after step 4 of 9" in capsys.readouterr().out and again.step == 9
    for name in runs.FILES:
        one, other = (run.config.models_folder / "epoch_3" / name for run in (whole, again))
        assert one.read_bytes() == other.read_bytes(), name
    assert again.history == whole.history and names(config.models_folder) == ["epoch_1", "epoch_2", "epoch_3"]
    before = contents(config.output_root)
    calls = []
    third = Trainer(config).run(calls.append)
    assert "epoch_3: finished already, all 9 steps are done" in capsys.readouterr().out
    assert third.scores == again.scores and calls == [third] and not third.stopped
    assert contents(config.output_root) == before


def stop_at(trainer, step):
    """Ctrl-C while this step is made."""
    plain = trainer.model.step

    def step_(real_A, real_B):
        if trainer.step + 1 == step:
            signal.raise_signal(signal.SIGINT)
        return plain(real_A, real_B)

    trainer.model.step = step_


def test_a_run_that_was_stopped_says_how_to_go_on_when_it_is_begun_again(tiny_config):
    config = tiny_config(checkpoint_interval=0)
    stop_at(trainer := Trainer(config), 2)
    trainer.run()
    with pytest.raises(UserError, match="give another --run_name, --resume auto to go on, or --overwrite"):
        Trainer(config)


def test_the_same_trainer_goes_on_where_it_was_interrupted(tiny_config):
    """A notebook's cell that is run again; `overwrite` is for earlier runs, not for this one."""
    whole = train(tiny_config(run_name="whole"))
    trainer = Trainer(tiny_config(overwrite=True))
    stop_at(trainer, 5)
    assert trainer.run().stopped and trainer.step == 5
    assert not trainer.run().stopped and trainer.history == whole.history
    for name in runs.FILES:
        one, other = (run.config.models_folder / "epoch_3" / name for run in (whole, trainer))
        assert one.read_bytes() == other.read_bytes(), name


def test_what_came_after_the_checkpoint_is_dropped_and_said(tiny_config, capsys):
    config = tiny_config(sample_interval=1)
    train(config)
    stop_at(trainer := Trainer(dataclasses.replace(config, start_from=1)), 4)
    trainer.run()
    assert "removed epoch_3, epoch_2: later than step 3" in capsys.readouterr().err
    assert names(config.models_folder) == ["epoch_1", "step_4"]
    assert [row["step"] for row in trainer.history] == [1, 2, 3, 4]
    sheets = {path.name for path in config.images_folder.glob("*_*.png")}
    assert sheets == {"epoch_001.png", "step_4.png"}
    train(dataclasses.replace(config, resume="auto"))
    sheets = {path.name for path in config.images_folder.glob("*_*.png")}
    assert sheets == {"epoch_001.png", "epoch_002.png", "epoch_003.png"}


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tiny_config, capsys):
    config = tiny_config(resume="auto")
    whole = train(config)
    after = contents(config.models_folder)
    (config.models_folder / "epoch_3" / "state.safetensors").write_bytes(b"late")
    shutil.rmtree(config.models_folder / "epoch_2")
    trainer = Trainer(config)
    said = capsys.readouterr()
    assert "epoch_3/state.safetensors: damaged" in said.err and "epoch_1, after step 3" in said.out
    assert trainer.run().history == whole.history and contents(config.models_folder) == after


def test_where_nothing_is_whole_nothing_is_overwritten(tiny_config):
    config = tiny_config(num_epochs=1, resume="auto")
    train(config)
    (config.models_folder / "epoch_1" / "D_B.safetensors").unlink()
    before = contents(config.output_root)
    with pytest.raises(UserError, match="no checkpoint in it is whole; .*--overwrite"):
        Trainer(config)
    assert contents(config.output_root) == before
    assert train(dataclasses.replace(config, overwrite=True)).step == 3


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tiny_config):
    config = tiny_config(resume="auto")
    train(config)
    for name in names(config.models_folder):
        shutil.rmtree(config.models_folder / name)
    for changes in (dict(lr=0.1), dict(resume="never"), dict(seed=1)):
        with pytest.raises(UserError, match="holds an earlier run"):
            Trainer(dataclasses.replace(config, **changes))
    assert train(config).step == 9


def test_auto_with_overwrite_replaces_a_run_of_other_settings_alone(tiny_config, capsys):
    config = tiny_config(resume="auto", overwrite=True)
    train(config)
    before = contents(config.models_folder)
    assert Trainer(dataclasses.replace(config, num_workers=1)).step == 9
    assert "finished already" in capsys.readouterr().out
    for changes in (dict(lr=0.1), dict(base_channels=6), dict(num_epochs=2), dict(batch_size=3)):
        assert Trainer(dataclasses.replace(config, **changes)).step == 0
        assert contents(config.models_folder) == before
    assert train(dataclasses.replace(config, num_epochs=2)).step == 6
    assert names(config.models_folder) == ["epoch_1", "epoch_2"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(base_channels=8), "--base_channels 8: .* had 4"), (dict(num_residual=2), "--num_residual 2: .* had 1"),
        (dict(img_height=48), "--img_height 48: .* had 32"), (dict(seed=3), "--seed 3: .* had 0"),
        (dict(batch_size=3), "--batch_size 3: .* had 2"), (dict(channels=1), "--channels 1: .* had 3"),
        (dict(output_norm="batch"), "--output_norm batch: .* had none"),
        (dict(discriminator_instance=True), "--discriminator_instance True: .* had False"),
    ],
)  # fmt: skip
def test_what_may_not_change_is_refused_by_name(tiny_config, change, named):
    config = tiny_config(num_epochs=1)
    train(config)
    before = contents(config.output_root)
    with pytest.raises(UserError, match=named):
        Trainer(dataclasses.replace(config, num_epochs=2, resume="auto", **change))
    assert contents(config.output_root) == before


def test_what_may_change_is_said_and_recorded(tiny_config, capsys):
    config = tiny_config(num_epochs=1, resume="auto")
    train(config)
    train(dataclasses.replace(config, num_epochs=2, sample_interval=1, num_workers=1))
    said = capsys.readouterr().err
    assert "warning: --num_epochs is 2 and was 1: from step 3 on the learning rate follows another schedule" in said
    assert "sample_interval" not in said and "num_workers" not in said
    trainer = train(dataclasses.replace(config, num_epochs=3, lr=1e-4, precision="bf16"))
    said = capsys.readouterr().err
    for text in ("--lr is 0.0001 and was 0.0002: from step 6 on no longer exact", "--precision is bf16 and was fp32"):
        assert text in said
    changes = [
        (3, "num_epochs", 1, 2), (3, "num_workers", None, 1), (3, "sample_interval", 0, 1),
        (6, "lr", 2e-4, 1e-4), (6, "num_epochs", 2, 3), (6, "num_workers", 1, None), (6, "precision", "fp32", "bf16"),
        (6, "sample_interval", 1, 0),
    ]  # fmt: skip
    found = [tuple(change[key] for key in ("step", "setting", "was", "is")) for change in trainer.changes]
    assert sorted(found) == changes
    record = json.loads((config.models_folder / "config.json").read_text())
    assert record["changes"] == trainer.changes == runs.read_checkpoint(trainer.checkpoint).changes
    assert record["precision"] == "bf16"


def test_a_change_that_was_never_saved_is_not_remembered(tiny_config):
    config = tiny_config(num_epochs=2, resume="auto", checkpoint_interval=0)
    stop_at(trainer := Trainer(config), 4)
    trainer.run()
    before = contents(config.models_folder / "step_4")
    killed = Trainer(dataclasses.replace(config, lr=0.1))
    killed._save_checkpoint = None  # as if it were killed there
    with pytest.raises(TypeError):
        killed.run()
    assert contents(config.models_folder / "step_4") == before
    assert train(config).changes == []


def test_other_pictures_of_the_same_names_are_said(tiny_config, tiny_root, tmp_path, capsys):
    config = tiny_config(num_epochs=1)
    train(config)
    shutil.copytree(tiny_root, tmp_path / "data" / "tiny")
    one, other = (tmp_path / "data" / "tiny" / "trainA" / name for name in ("0000.png", "0001.png"))
    one.write_bytes(other.read_bytes())
    Trainer(dataclasses.replace(config, data_root=tmp_path / "data", num_epochs=2, resume="auto"))
    assert "warning: training_pictures is" in capsys.readouterr().err


def test_minutes_change_nothing_but_what_is_kept(tiny_config, monkeypatch):
    """A clock on which a step takes a minute."""
    plain = train(tiny_config(run_name="plain", checkpoint_interval=2))
    config = tiny_config(run_name="minutes", checkpoint_interval=2, checkpoint_minutes=2)
    saved, trainer = [], Trainer(config)
    save = checkpoints.save_checkpoint
    monkeypatch.setattr("cyclegan_lib.train.time.monotonic", lambda: 60.0 * trainer.step)
    monkeypatch.setattr(
        checkpoints, "save_checkpoint", lambda folder, *rest: (saved.append(folder.name), save(folder, *rest))
    )
    trainer.run()
    assert saved == ["step_2", "step_4", "epoch_2", "step_8", "epoch_3"]
    assert names(config.models_folder) == names(plain.config.models_folder) == ["epoch_2", "epoch_3"]
    for name in runs.FILES:
        one, other = (run.config.models_folder / "epoch_3" / name for run in (plain, trainer))
        assert one.read_bytes() == other.read_bytes(), name
    assert plain.history == trainer.history


def test_another_process_that_went_on_meanwhile_is_not_undone(tiny_config):
    config = tiny_config(resume="auto")
    stop_at(trainer := Trainer(config), 4)
    trainer.run()
    late, early = Trainer(config), Trainer(config)
    early.run()
    before = contents(config.output_root)
    with pytest.raises(UserError, match="epoch_3: another process has saved this meanwhile"):
        late.run()
    assert contents(config.output_root) == before


def test_fit_times_a_new_model_where_a_run_is_to_go_on(tiny_config):
    config = tiny_config(resume="auto")
    train(config)
    before = contents(config.output_root)
    assert fit(config, steps=7) == dataclasses.replace(config, max_steps=7, num_epochs=3)
    assert contents(config.output_root) == before


# History


def test_a_history_with_a_damaged_end_can_be_gone_on_with(tiny_config):
    """After a power cut a file may end in zeros: what the checkpoint has counted stands before them."""
    config = tiny_config()
    whole = train(config)
    shutil.rmtree(config.models_folder / "epoch_3")
    path = config.models_folder / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_bytes("".join(lines[:7]).encode() + b"\0" * 100 + b"\n{]\n")
    assert train(dataclasses.replace(config, resume="auto")).history == whole.history
    path.write_bytes("".join(lines[:5]).encode() + b"\0" * 100 + b"\n")
    shutil.rmtree(config.models_folder / "epoch_3")
    with pytest.raises(UserError, match="line 6 is damaged"):
        train(dataclasses.replace(config, resume="auto"))


def test_a_history_that_lacks_steps_is_said(tiny_config, capsys):
    config = tiny_config()
    train(config)
    shutil.rmtree(config.models_folder / "epoch_3")
    (config.models_folder / "history.jsonl").unlink()
    trainer = train(dataclasses.replace(config, resume="auto"))
    assert "history.jsonl does not have all of the 6 steps" in capsys.readouterr().err
    assert [row["step"] for row in trainer.history] == [7, 8, 9]


def test_history_is_read_up_to_a_step(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)))
    for last in range(5):
        assert [row["step"] for row in read_history(path, last)] == list(range(1, min(last, 3) + 1))


def test_curves_of_a_long_run_are_means_and_no_more_rows_than_asked_for(tmp_path):
    path = tmp_path / "history.jsonl"
    rows = [{"step": step, **dict.fromkeys(runs.LOSSES, float(step)), "identity": None} for step in range(1, 11)]
    rows[0]["identity"] = 7.0  # as if its λ had been set to 0 then
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert runs.read_curves(path, 10, most=10) == rows == read_history(path)
    found = runs.read_curves(path, 10, most=4)
    assert [(row["step"], row["cycle_A"], row["identity"]) for row in found] == [
        (3, 2.0, 7.0), (6, 5.0, None), (9, 8.0, None), (10, 10.0, None),
    ]  # fmt: skip


# Numbers that are no numbers


def test_adams_numbers_that_overflow_are_not_saved(tiny_config):
    """Gradients of 1e30 leave finite weights, which would never move again."""
    trainer = Trainer(tiny_config(num_epochs=1))

    def spoil(trainer):
        next(iter(trainer.model.optimizer_D.state.values()))["exp_avg_sq"].fill_(float("inf"))

    with pytest.raises(UserError, match="step 3: optimizer_D has numbers that are not finite"):
        trainer.run(spoil)
    assert not checkpoints_of(trainer.config.models_folder)[0]
