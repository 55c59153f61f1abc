"""A run's folder: its checkpoints, the newest that is whole, pruning, and the lock.

saved_models/<run_name>/epoch_<N>.safetensors   a checkpoint after an epoch, and of the run's end
                        step_<S>.safetensors    one within an epoch: of Ctrl-C, or --checkpoint_minutes
                        history.jsonl           the losses, a line a step
                        config.json             the settings of the last start
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cyclegan_lib.errors import UserError
from cyclegan_lib.runs.checkpoint import read_checkpoint, read_facts

NAME = re.compile(r"(epoch|step)_([0-9]{1,18})\.safetensors")


@dataclass
class Saved:
    """A checkpoint whose facts were read, and no tensor yet. `epoch` is None if it was saved within one."""

    path: Path
    facts: dict

    def __post_init__(self):
        kind, number = NAME.fullmatch(self.path.name).groups()
        self.step, self.epoch = self.facts["step"], int(number) if kind == "epoch" else None


def checkpoints_of(run_folder):
    """([`Saved`, oldest first], why others cannot be read: {path: a line})."""
    saved, damaged = [], {}
    for path in Path(run_folder).glob("*_*.safetensors"):
        if NAME.fullmatch(path.name):
            try:
                saved.append(Saved(path, read_facts(path)))
            except UserError as error:
                damaged[path] = str(error)
    return sorted(saved, key=lambda one: (one.step, one.epoch is not None)), damaged


def newest_whole(run_folder):
    """(the newest `Saved` whose tensors are what was saved, or None; why newer ones are not: {path: a line})."""
    saved, damaged = checkpoints_of(run_folder)
    for one in reversed(saved):
        try:
            read_checkpoint(one.path)
        except UserError as error:
            damaged[one.path] = str(error)
        else:
            return one, damaged
    return None, damaged


def saved_epochs(run_folder):
    """The epochs that `--start_from` can continue from, sorted."""
    return sorted(int(name[2]) for path in Path(run_folder).glob("epoch_*") if (name := NAME.fullmatch(path.name)))


def remove_later(run_folder, step):
    """Remove the checkpoints of later steps than `step`, and damaged and half-written ones. Returns their names."""
    saved, damaged = checkpoints_of(run_folder)
    # The newest goes first: if this is killed, what is left is the beginning of the run all the same.
    later = [*damaged, *(one.path for one in reversed(saved) if one.step > step)]
    for path in (*later, *Path(run_folder).glob(".*.partial")):
        path.unlink()
    return [path.name for path in later]


def remove_run(folder):
    """Delete a folder and all that is in it. It is renamed first: under its own name it is whole until it is gone."""
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def prune(run_folder, keep, finished):
    """Keep the newest `keep` checkpoints of epochs (0: all), and of all the two newest until the run is `finished`."""
    saved, _ = checkpoints_of(run_folder)
    kept = [one for one in saved if one.epoch is not None][-keep:]  # from -0 on: all
    kept += [] if finished else saved[-2:]
    for one in saved:
        if one not in kept:
            one.path.unlink()


def lock(run_folder):
    """The held lock of a run's folder; the system releases it with this process. A `UserError` if another has it."""
    run_folder.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(run_folder.with_name(f".{run_folder.name}.lock"))
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{run_folder}: another process trains there; wait, or give another --run_name") from None
    except (OSError, NotImplementedError):  # a file system without locks: Google Drive's, or a network's
        pass
    return held
