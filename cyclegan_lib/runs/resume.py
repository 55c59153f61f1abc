"""Stop a training at any moment and continue it: it ends bit-identical, on the same machine with the same settings."""

import dataclasses
import hashlib
import json
import os
import platform
import sys
import time

import torch

from cyclegan_lib.config import TrainConfig
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import sync, write_atomic
from cyclegan_lib.runs import folder
from cyclegan_lib.runs.checkpoint import buffers_of, load_checkpoint, read_facts, states_of, write_checkpoint
from cyclegan_lib.runs.folder import Saved
from cyclegan_lib.runs.log import read_history, way_back
from cyclegan_lib.trainer import Hook

ON_RESUME = {field.name: field.metadata.get("on_resume", "warn") for field in dataclasses.fields(TrainConfig)}
SCHEDULE = ("num_epochs", "max_steps", "decay_epoch")  # the learning rate depends on these


class Resume(Hook):
    """Intervention: continues from a checkpoint, or begins a run; it alone may use the run's folder.

    Making it looks for the checkpoint and refuses to replace another run, before any picture is read. Of several
    `processes` the first alone writes. Raises `UserError` where the options do not say whether to continue or to
    replace what lies there, if a setting differs that may not, or if another process trains this run.
    """

    def __init__(self, config, processes):
        self.config, self.processes = config, processes
        self.folder = config.models_folder
        _check_writable(config)
        self.saved, self.newest = self._find(), self._newest_step()

    def start(self, trainer):
        self.settings = settings_of(trainer, self.processes)
        if self.processes.is_main:
            trainer.cleanup.enter_context(folder.lock(self.folder))
            self._refuse_a_newer_run(trainer)
        if trainer.step == 0 and self.saved:
            self._check_settings(trainer)
        if trainer.step == 0 and self.saved:
            read_history(self.folder, self.saved.step)  # if it is damaged: better to know now
            load_checkpoint(self.saved.path, trainer.model, self.processes.rank)
            trainer.step = self.saved.step
            self._announce(trainer)
        if self.processes.is_main:
            self._make_folder(trainer)

    def _find(self):
        """The `Saved` checkpoint to continue from; None to begin. Refuses to begin where another run is."""
        config, epochs = self.config, folder.saved_epochs(self.folder)
        if config.start_from:
            if config.start_from not in epochs:
                has = f"there are epochs {', '.join(map(str, epochs))}" if epochs else "there is no checkpoint yet"
                raise UserError(f"--start_from {config.start_from}: not in {self.folder}; {has}")
            path = self.folder / f"epoch_{config.start_from}.safetensors"
            return Saved(path, read_facts(path))
        damaged = {}
        if config.resume == "auto":
            saved, damaged = folder.newest_whole(self.folder)
            for reason in damaged.values():
                print(f"warning: {reason}; passed over", file=sys.stderr)
            if saved or (not damaged and (self.folder / "config.json").is_file()):  # killed before it could save
                return saved
        if not config.overwrite:
            self._refuse_an_earlier_run(epochs, damaged)
        return None

    def _refuse_an_earlier_run(self, epochs, damaged):
        if damaged:
            raise UserError(f"{self.folder}: no checkpoint in it is whole; give another --run_name, or --overwrite")
        for there in (self.folder, self.config.images_folder):
            if there.is_dir() and any(path.name[0] != "." for path in there.iterdir()):
                ways = ["--resume auto"] * bool(folder.checkpoints_of(self.folder)[0])
                ways += [f"--start_from {epoch}" for epoch in epochs[-1:]]
                go_on = f", {' or '.join(ways)} to continue" if ways else ""
                raise UserError(f"{there} holds an earlier run; give another --run_name{go_on}, or --overwrite")

    def _refuse_a_newer_run(self, trainer):
        """Another process may have trained since this was made."""
        newest = self._newest_step()
        if newest > max(self.newest, trainer.step):
            raise UserError(
                f"{self.folder}: another process has saved step {newest} meanwhile; begin again to continue"
            )

    def _newest_step(self):
        return max((one.step for one in folder.checkpoints_of(self.folder)[0]), default=0)

    def _check_settings(self, trainer):
        """Refuse what a checkpoint cannot be continued with; warn of what else has changed.

        With --overwrite a run of other settings is replaced.
        """
        before = self.saved.facts
        changed = {name: (before[name], is_) for name, is_ in self.settings.items() if before.get(name, is_) != is_}
        if changed and self.config.overwrite and not self.config.start_from:
            self.saved = None
            return
        for name, (was, is_) in changed.items():
            if ON_RESUME.get(name) == "refuse":
                raise UserError(f"--{name} {is_}: the run in {self.saved.path} had {was}; give that to continue")
            if name == "pictures":
                raise UserError(f"{trainer.data.root} has {is_} training pictures, and had {was}: not the same data")
            effect = "the learning rate follows another schedule" if name in SCHEDULE else "no longer exact"
            label = f"--{name}" if name in ON_RESUME else name
            step = self.saved.step
            print(f"warning: {label} is {is_} and was {was}: from step {step} on {effect}", file=sys.stderr)
        if self.saved.step >= trainer.total_steps and self.config.start_from:
            more = "give a larger --num_epochs or --max_steps to continue"
            raise UserError(f"{self.saved.path}: all {self.saved.step} steps are done; {more}")

    def _announce(self, trainer):
        name = f"{self.config.name}/{self.saved.path.stem}"
        if trainer.stopped:
            print(f"continuing from {name}, after step {trainer.step} of {trainer.total_steps}")
        else:
            print(f"{name}: finished already, all {trainer.step} steps are done")

    def _make_folder(self, trainer):
        if trainer.step:
            removed = folder.remove_later(self.folder, trainer.step)
            if removed:
                print(f"removed {', '.join(removed)}: later than step {trainer.step}, or damaged", file=sys.stderr)
        else:
            folder.remove_run(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        sync(self.folder.parent)
        record = dataclasses.asdict(self.config) | self.settings | {"python": platform.python_version()}
        write_atomic(self.folder / "config.json", json.dumps(record, indent=1, default=str) + "\n")


class Checkpoints(Hook):
    """Observer: saves the training as its options say, at its end, and when it is stopped; prunes old ones.

    `path` is the newest checkpoint. Raises `UserError` if a weight is not finite, or the disk is full; what was saved
    before stays.
    """

    def __init__(self, config, log, resume):
        self.config, self.log, self.resume, self.processes = config, log, resume, resume.processes
        self.path, self.saved_step = None, None

    def start(self, trainer):
        self.saved_at = time.monotonic()
        if self.resume.saved:
            self.path, self.saved_step = self.resume.saved.path, self.resume.saved.step

    def after_step(self, trainer):
        config, is_time = self.config, False
        if not trainer.stopped:  # `end` saves it
            return
        if config.checkpoint_minutes:
            seconds = time.monotonic() - self.saved_at
            is_time = self.processes.agree(seconds >= 60 * config.checkpoint_minutes)
        ends_epoch = trainer.step % trainer.steps_per_epoch == 0
        if ends_epoch and config.checkpoint_interval and trainer.epoch % config.checkpoint_interval == 0:
            self.save(trainer, f"epoch_{trainer.epoch}")
        elif is_time:
            self.save(trainer, f"step_{trainer.step}")

    def end(self, trainer):
        self.save(trainer, f"step_{trainer.step}" if trainer.stopped else f"epoch_{trainer.epoch}")

    def save(self, trainer, name):
        """Write a checkpoint of this name, unless this very step is saved already."""
        self.log.flush()
        _check_finite(trainer)
        self.saved_at = time.monotonic()
        if self.saved_step != trainer.step:
            self.saved_step = trainer.step
            buffers = self.processes.gather(buffers_of(trainer.model))
            if self.processes.is_main:
                self.log.sync()
                self.path = self.config.models_folder / f"{name}.safetensors"
                _keep_under_its_step(self.path)
                facts = {**self.resume.settings, "step": trainer.step, "epoch": trainer.epoch}
                write_checkpoint(self.path, trainer.model, facts, buffers)
        if self.processes.is_main:
            folder.prune(self.config.models_folder, self.config.keep_checkpoints, self._is_spared, not trainer.stopped)

    def _is_spared(self, epoch):
        """--keep_checkpoints spares epochs with a sample sheet, where sheets are rarer than checkpoints."""
        sheets, saved = self.config.sample_interval, self.config.checkpoint_interval
        return sheets > saved > 0 and epoch % sheets == 0


def settings_of(trainer, processes):
    """What a checkpoint says of how it was trained, {name: value}: what may not differ, or not without a warning."""
    options = {name: getattr(trainer.config, name) for name, rule in ON_RESUME.items() if rule in ("refuse", "warn")}
    pictures = [len(paths) for paths in trainer.data.paths.values()]
    return {
        **options, "device": trainer.device.type, "precision": trainer.model.precision, "pictures": pictures,
        "training_pictures": fingerprint(trainer.data), "processes": processes.count, "torch": torch.__version__,
    }  # fmt: skip


def fingerprint(data):
    """A hash of the training pictures as they were decoded; None if they are too many to be kept in memory."""
    if data.pictures is None:
        return None
    digest = hashlib.sha256()
    for pictures in data.pictures.values():
        digest.update(pictures.numpy())
    return digest.hexdigest()


def _check_writable(config):
    """Refuse folders that cannot be made."""
    for wanted in (config.models_folder, config.images_folder):
        there = next(parent for parent in (wanted.absolute(), *wanted.absolute().parents) if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            what = "cannot be written to" if there.is_dir() else "is a file"
            raise UserError(f"{there} {what}; {wanted} cannot be made, choose another --output_root")


def _keep_under_its_step(path):
    """Rename a checkpoint whose name is to be used again, so that both are whole at every moment."""
    if path.exists():
        try:
            path.rename(path.with_name(f"step_{read_facts(path)['step']}.safetensors"))
        except UserError:  # it is damaged
            path.unlink()


def _check_finite(trainer):
    """End where a weight is nan or infinite, or a number of Adam's, which would hold the weight for ever."""
    for part, state in states_of(trainer.model).items():
        if not all(value.isfinite().all() for value in state.values()):
            raise UserError(f"step {trainer.step}: {part} has numbers that are not finite; {way_back(trainer)}")
