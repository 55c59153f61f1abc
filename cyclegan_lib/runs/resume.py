"""Stop a training at any moment and continue it: it ends bit-identical, on the same machine with the same settings."""

import dataclasses
import functools
import json
import os
import sys
import time
from contextlib import suppress

import torch

from cyclegan_lib.config import TrainConfig
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import sync, write_atomic
from cyclegan_lib.runs import folder
from cyclegan_lib.runs.checkpoint import buffers_of, load_checkpoint, read_facts, states_of, write_checkpoint
from cyclegan_lib.runs.log import DIVERGED, read_history
from cyclegan_lib.runs.stop import save_on_error
from cyclegan_lib.trainer import Hook

ON_RESUME = {field.name: field.metadata.get("on_resume", "warn") for field in dataclasses.fields(TrainConfig)}
SCHEDULE = ("num_epochs", "max_steps", "decay_epoch")  # the learning rate depends on these


def averaged(trainer):
    """The model with averaged generators, or None where nothing is averaged."""
    return None if trainer.shown is trainer.model else trainer.shown


class Resume(Hook):
    """Intervention: continues from a checkpoint, or begins a run; it alone may use the run's folder.

    Making it looks for the checkpoint and refuses to replace another run, before any picture is read. Of several
    `processes` the first alone writes. Raises `UserError` where the options do not say whether to continue or to
    replace what lies there, if a setting differs that may not, or if another process trains this run.
    """

    def __init__(self, config, processes):
        self.config, self.processes, self.folder = config, processes, config.models_folder
        for wanted in (config.models_folder, config.images_folder):
            there = next(parent for parent in (wanted.absolute(), *wanted.absolute().parents) if parent.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                raise UserError(f"{there}: no folder that can be written to; choose another --output_root")
        self.saved, self.seen = self._find(), folder.checkpoints_of(self.folder)[0]

    def start(self, trainer):
        kept = {name: getattr(self.config, name) for name, rule in ON_RESUME.items() if rule in ("refuse", "warn")}
        self.settings = {  # what a checkpoint says of how it was trained
            **kept, "device": trainer.device.type, "precision": trainer.model.precision,
            "pictures": [len(paths) for paths in trainer.data.paths.values()],
            "processes": self.processes.count, "torch": torch.__version__,
        }  # fmt: skip
        if self.processes.is_main:
            trainer.cleanup.callback(folder.lock(self.folder).release)
            new = [one.step for one in folder.checkpoints_of(self.folder)[0] if one not in self.seen]
            if max(new, default=0) > trainer.step:
                raise UserError(f"{self.folder}: another process has saved a later step meanwhile; begin again")
        if trainer.step == 0 and self.saved:
            self._continue(trainer)
        if not self.processes.is_main:
            return
        if trainer.step == 0:
            folder.remove_run(self.folder)
        elif removed := folder.remove_later(self.folder, trainer.step):
            print(f"removed {', '.join(removed)}: later than step {trainer.step}, or damaged", file=sys.stderr)
        self.folder.mkdir(parents=True, exist_ok=True)
        sync(self.folder.parent)
        record = json.dumps(dataclasses.asdict(self.config) | self.settings, indent=1, default=str)
        write_atomic(self.folder / "config.json", record + "\n")

    def _find(self):
        """The checkpoint to continue from, a `folder.Saved`; None to begin. Refuses to begin where another run is."""
        config = self.config
        if config.start_from:
            path = self.folder / f"epoch_{config.start_from}.safetensors"
            return folder.Saved(path, read_facts(path))
        if config.resume == "auto":
            saved, damaged = folder.newest_whole(self.folder)
            for reason in damaged.values():
                print(f"warning: {reason}; passed over", file=sys.stderr)
            if saved or (not damaged and (self.folder / "config.json").is_file()):  # killed before it could save
                return saved
        for there in (self.folder, config.images_folder):
            if not config.overwrite and there.is_dir() and any(path.name[0] != "." for path in there.iterdir()):
                go_on = "--resume auto to continue, " if there == self.folder and config.resume == "never" else ""
                raise UserError(f"{there} holds an earlier run; give {go_on}another --run_name, or --overwrite")
        return None

    def _continue(self, trainer):
        """Load the checkpoint. Refuses settings that may not differ, warns of others; --overwrite begins anew."""
        saved, config = self.saved, self.config
        changed = [name for name, value in self.settings.items() if saved.facts.get(name, value) != value]
        if changed and config.overwrite and not config.start_from:
            self.saved = None
            return
        for name in changed:
            rule, was, value = ON_RESUME.get(name), saved.facts[name], self.settings[name]
            label = f"--{name}" if rule else name
            if rule == "refuse" or name == "pictures":
                raise UserError(f"{label} {value}: the run in {saved.path} had {was}; give that to continue")
            effect = "the learning rate follows another schedule" if name in SCHEDULE else "no longer exact"
            print(f"warning: {label} is {value} and was {was}: from step {saved.step} on {effect}", file=sys.stderr)
        read_history(self.folder, saved.step)  # if it is damaged: better to know before anything is removed
        load_checkpoint(saved.path, trainer.model, self.processes.rank, averaged(trainer))
        trainer.step = saved.step
        name = f"{config.name}/{saved.path.stem}"
        if trainer.stopped:
            print(f"continuing from {name}, after step {trainer.step} of {trainer.total_steps}")
        else:
            print(f"{name}: finished already, all {trainer.step} steps are done")


class Checkpoints(Hook):
    """Observer: saves the training as its options say, at its end, and when it is stopped; prunes old ones.

    `path` is the newest checkpoint. Raises `UserError` if a weight is not finite, the disk is full, or as
    `save_on_error` says; what was saved before stays.
    """

    def __init__(self, config, log, resume):
        self.config, self.log, self.resume, self.processes = config, log, resume, resume.processes
        self.path, self.saved_step = None, None

    def start(self, trainer):
        trainer.cleanup.push(functools.partial(save_on_error, self, trainer))
        self.saved_at = time.monotonic()
        if self.resume.saved:
            self.path, self.saved_step = self.resume.saved.path, self.resume.saved.step

    def after_step(self, trainer):
        if not trainer.stopped:  # `end` saves it
            return
        interval, minutes = self.config.checkpoint_interval, self.config.checkpoint_minutes
        is_time = minutes and self.processes.agree(time.monotonic() - self.saved_at >= 60 * minutes)
        if interval and trainer.step % (interval * trainer.steps_per_epoch) == 0:
            self.save(trainer, f"epoch_{trainer.epoch}")
        elif is_time:
            self.save(trainer, f"step_{trainer.step}")

    def end(self, trainer):
        self.save(trainer, f"step_{trainer.step}" if trainer.stopped else f"epoch_{trainer.epoch}")

    def save(self, trainer, name):
        """Write a checkpoint of this name, unless this very step is saved already."""
        self.log.flush(to_disk=True)
        for part, state in states_of(trainer.model).items():  # Adam's numbers too: they would hold a weight for ever
            if not all(value.isfinite().all() for value in state.values()):
                raise UserError(f"step {trainer.step}: {part} has numbers that are not finite; {DIVERGED}")
        self.saved_at = time.monotonic()
        if self.saved_step != trainer.step:
            self.saved_step = trainer.step
            buffers = self.processes.gather(buffers_of(trainer.model))
            if self.processes.is_main:
                self.path = self.config.models_folder / f"{name}.safetensors"
                with suppress(UserError):  # there is none of this name, or it is damaged; one that is whole stays
                    self.path.rename(self.path.with_name(f"step_{read_facts(self.path)['step']}.safetensors"))
                facts = {**self.resume.settings, "step": trainer.step, "epoch": trainer.epoch}
                write_checkpoint(self.path, trainer.model, facts, buffers, averaged(trainer))
        if self.processes.is_main:
            folder.prune(self.config.models_folder, self.config.keep_checkpoints, not trainer.stopped)
