"""A run's folder: its checkpoints, the newest that is whole, pruning, and the lock.

saved_models/<run_name>/epoch_<N>.safetensors   a checkpoint after an epoch, and of the run's end
                        step_<S>.safetensors    one within an epoch: of Ctrl-C, or --checkpoint_minutes
                        history.jsonl           the losses, a line a step
                        config.json             the settings of the last start
"""

import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import CANNOT_SYNC
from cyclegan_lib.runs.checkpoint import read_checkpoint, read_facts

NAME = re.compile(r"(epoch|step)_([0-9]{1,18})\.safetensors")


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose facts were read; its tensors were not checked yet."""

    path: Path
    facts: dict

    @property
    def step(self):
        return self.facts["step"]

    @property
    def epoch(self):
        """The number in its name, if it is of an epoch; None if it was saved within one."""
        kind, number = NAME.fullmatch(self.path.name).groups()
        return int(number) if kind == "epoch" else None


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
    names = [NAME.fullmatch(path.name) for path in Path(run_folder).glob("epoch_*")]
    return sorted(int(name[2]) for name in names if name)


def remove_later(run_folder, step):
    """Remove the checkpoints of later steps than `step`, and damaged ones.

    The newest goes first: if this is killed, what is left is the beginning of the run all the same.
    Returns the names of those that were removed.
    """
    saved, damaged = checkpoints_of(run_folder)
    later = [*damaged, *(one.path for one in reversed(saved) if one.step > step)]
    for path in later:
        path.unlink()
    for path in Path(run_folder).glob(".*.partial"):  # of a process that was killed while it wrote
        path.unlink(missing_ok=True)
    return [path.name for path in later]


def remove_run(folder):
    """Delete a folder and all that is in it. It is renamed first: under its own name it is whole until it is gone."""
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def prune(run_folder, keep, is_spared, finished):
    """Delete the checkpoints that newer ones have made superfluous.

    Of those within epochs only such stay as are among the two newest of all, and none of a finished run. Of those of
    epochs the newest `keep` stay (0: all), and those for whose number `is_spared` is true.
    """
    saved, _ = checkpoints_of(run_folder)
    epochs = [one for one in saved if one.epoch is not None]
    superfluous = [one for one in (saved if finished else saved[:-2]) if one.epoch is None]
    if keep:
        newest_two = [] if finished else saved[-2:]
        superfluous += [one for one in epochs[:-keep] if not is_spared(one.epoch) and one not in newest_two]
    for one in superfluous:
        one.path.unlink()


@contextmanager
def lock(run_folder):
    """Refuse a run's folder in which another process trains. The system releases it when its process ends."""
    run_folder.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(run_folder.with_name(f".{run_folder.name}.lock"), timeout=0)
    try:
        with suppress(NotImplementedError):  # a file system without locks: Google Drive's, or a network's
            held.acquire()
    except Timeout:
        raise UserError(
            f"{run_folder}: another process trains there; wait for its end or give another --run_name"
        ) from None
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    try:
        yield
    finally:
        held.release()
