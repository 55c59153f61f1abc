"""What several tests need: small runs, as hooks and as commands, and what they leave."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from cyclegan_lib.config import TrainConfig
from cyclegan_lib.runs.folder import NAME, newest_whole
from cyclegan_lib.runs.log import Log, read_history
from cyclegan_lib.runs.processes import Processes
from cyclegan_lib.runs.resume import Checkpoints, Resume
from cyclegan_lib.runs.stop import StopOnSignal
from cyclegan_lib.trainer import Hook, Trainer

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds in which something has to happen


def gradient(height=40, width=40):
    """A colour picture (H, W, 3) whose every pixel says where it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)], -1).astype(np.uint8)


def tiny(data_root, output_root, /, **changes):
    """The configuration of a run of seconds: 3 epochs of 3 steps on the data set `tiny`."""
    config = dict(
        dataset_name="tiny", data_root=data_root, output_root=output_root, img_height=32, img_width=32, batch_size=2,
        num_epochs=3, base_channels=4, num_residual=1, device="cpu", precision="fp32", sample_interval=0,
        checkpoint_interval=1,
    )  # fmt: skip
    return TrainConfig(**{**config, **changes})


class Do(Hook):
    """Calls `action(trainer)` after a step; after each where none is named."""

    def __init__(self, action, step=None):
        self.action, self.step = action, step

    def after_step(self, trainer):
        if self.step in (None, trainer.step):
            self.action(trainer)


def stop_at(step):
    return Do(Trainer.stop, step)


def make_run(config, *hooks, **arguments):
    """A trainer that logs, saves and resumes as `train` does, without its bar, pictures and scores."""
    processes = Processes(config.device)
    resume, log = Resume(config, processes), Log(config)
    return Trainer(
        config, [StopOnSignal(processes), resume, log, Checkpoints(config, log, resume), *hooks], **arguments
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def names(folder):
    """The checkpoints in a run's folder, without their ending."""
    return sorted(path.stem for path in Path(folder).iterdir() if NAME.fullmatch(path.name))


def left_by(config):
    """What has to be the same in two runs of one training: the last checkpoint, which is whole, and the history."""
    newest, damaged = newest_whole(config.models_folder)
    assert not damaged
    return newest.path.name, newest.path.read_bytes(), (config.models_folder / "history.jsonl").read_bytes()


def options(config):
    """The command line of a configuration."""
    given = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            given += [f"--{field.name}"] if value is True else [f"--{field.name}", str(value)]
    return given


def start_python(*arguments, **kwargs):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT, **kwargs,
    )  # fmt: skip


def start(config, **kwargs):
    """The command that trains, as a process."""
    return start_python("-m", "cyclegan_lib.train", *options(config), **kwargs)


def finish(config):
    process = start(config)
    _, errors = process.communicate(timeout=5 * PATIENCE)
    assert process.returncode == 0, errors


def wait_for(config, step, process):
    """Until the history has this step. Returns whether the process still runs."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        rows = read_history(config.models_folder)
        if rows and rows[-1]["step"] >= step:
            break
        assert time.monotonic() < deadline, "it does not train"
        time.sleep(0.002)
    return process.poll() is None
