"""A whole training, with all hooks: `python -m cyclegan_lib.train`, or `train(TrainConfig(…))` in a notebook."""

import sys
import warnings

from cyclegan_lib import cli

if __name__ == "__main__":  # before torch is imported: `--help` answers at once
    cli.main(["train", *sys.argv[1:]])
    sys.exit()

import torch

from cyclegan_lib.config import TrainConfig
from cyclegan_lib.cyclegan import resolve_device
from cyclegan_lib.datasets import UnpairedDataset
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import prepare_dataset
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.runs.average import Average
from cyclegan_lib.runs.fast import make_deterministic, speed_up, workers_for
from cyclegan_lib.runs.log import Bar, Log, read_history
from cyclegan_lib.runs.processes import Processes
from cyclegan_lib.runs.resume import Checkpoints, Resume
from cyclegan_lib.runs.stop import StopOnSignal
from cyclegan_lib.show.training import SampleSheets, training_floors
from cyclegan_lib.study.diagnose import DIAGNOSED_PICTURES, diagnose, report
from cyclegan_lib.trainer import Trainer
from cyclegan_lib.water2wine.scores import Scores, score_table

FIRST_LOOK, WORTH_SHOWING = 3000, 40_000  # pictures of each side that a training sees: the plans of notebook 08


def train(config, hooks=(), show_bar=True):
    """Train as `config` says, with `hooks` after the usual ones. Returns the `Trainer`, finished or stopped.

    Of several processes none returns it: `accelerate.notebook_launcher` would send the networks to the notebook.
    Raises `UserError`, a line for each thing that is wrong with the options, the data or the folders; if another
    process trains this run, a loss is no longer finite, or the disk is full: what was saved before stays.
    """
    trainer, processes = make_trainer(config, hooks, show_bar)
    with processes.quietly():
        trainer.run()
    processes.close()
    return trainer if processes.count == 1 else None


def make_trainer(config, hooks=(), show_bar=True):
    """(the `Trainer` with all its hooks, the `Processes` that train). Checks everything that can be checked."""
    config.check()
    processes = Processes(resolve_device(config.device))
    with processes.quietly():
        if processes.count > 1 and config.output_norm == "batch":
            raise UserError("--output_norm batch: its statistics are of whole batches; start one process")
        resume, log = Resume(config, processes), Log(config, writes=processes.is_main)
        usual = [Average(config.average)] if config.average else []
        usual += [StopOnSignal(processes), resume, log, Checkpoints(config, log, resume)]
        if processes.is_main:
            usual += [Bar(log)] if show_bar else []
            usual += [SampleSheets(config), Scores(config), *hooks]
        with processes.rank_0_first():
            prepare_dataset(config.data_root, config.dataset_name, max(config.size))
        data = UnpairedDataset.from_config(config, read_picture)
        trainer = Trainer(config, usual, data=data, processes=processes if processes.count > 1 else None)
        check_autocast(trainer.model)
        speed_up(trainer.model)
        if config.deterministic:
            make_deterministic(trainer.model)
        if config.num_workers is None:
            trainer.num_workers = workers_for(data, trainer.device)
    return trainer, processes


def check_autocast(model):
    """Refuse a precision that this torch lacks on the device: bf16 on mps raises in torch 2.4, later it may warn."""
    try:
        with warnings.catch_warnings(action="error", category=UserWarning):
            model.autocast()
    except (RuntimeError, UserWarning):
        lacks = f"torch {torch.__version__} has none on this {model.device.type}; use fp32"
        raise UserError(f"--precision {model.precision}: {lacks}") from None


def command(args):
    """`cyclegan train`: exit code 130 if it was stopped."""
    trainer, processes = make_trainer(TrainConfig(**vars(args)))
    with processes.quietly():
        announce(trainer, processes.count)
        conclude(trainer.run())
    processes.close()
    return 130 if trainer.stopped else None


def announce(trainer, count):
    """Say what will be trained, on what."""
    config, (count_A, count_B) = trainer.config, (len(paths) for paths in trainer.data.paths.values())
    pictures = f"{count_A} + {count_B} training pictures at {config.img_width}×{config.img_height}"
    how = f"{trainer.device.type}, {trainer.model.precision}" + (f", {count} processes" if count > 1 else "")
    print(f"{config.name}: {pictures}, {trainer.total_steps} steps, {how}")
    seen, plans = trainer.total_steps * config.batch_size, f"{FIRST_LOOK:,} for a first look, {WORTH_SHOWING:,} to show"
    short = "; that is short, see --max_steps and --num_epochs" if seen < FIRST_LOOK else ""
    print(f"it will see about {seen:,} pictures of each side (notebook 08: {plans}){short}")
    if config.output_norm == "instance":
        floors = "on average cycle_A cannot go below about {A:.3f} nor cycle_B below about {B:.3f}"
        print(f"InstanceNorm at the output: {floors.format(**training_floors(trainer.data))}, however long this trains")


def conclude(trainer):
    """Say how it ended."""
    config, path, scores = trainer.config, trainer.hook(Checkpoints).path, trainer.hook(Scores)
    if trainer.stopped:
        print(f"\nstopped at step {trainer.step} of {trainer.total_steps}; saved {path}.")
        print("To continue, give the same options and --resume auto")
        return
    if scores is None:  # not the first of several processes
        return
    if scores.scores:
        print(score_table(scores.scores))
    history = read_history(config.models_folder)
    findings = diagnose(history, trainer.sheet(DIAGNOSED_PICTURES), None, config.gan_mode, trainer.total_steps)
    print(report(findings, trainer.step))
    took = f"trained for {trainer.seconds:.0f} s; " if trainer.losses else ""
    print(f"{took}networks in {path}, pictures in {config.images_folder}")
