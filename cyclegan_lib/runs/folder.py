"""A training run's folder: its checkpoints and which of them are whole, its history, its lock.

    saved_models/<run_name>/epoch_<N>/      a checkpoint after an epoch, as asked for, and the run's end
                            step_<S>/       one within an epoch: of Ctrl-C, or of --checkpoint_minutes
                            history.jsonl   the losses, a line a step
                            config.json     how it was trained last

A checkpoint is written under a hidden name, put onto the disk, and gets its own name at last, when the
history of its steps is on the disk too. So whatever is killed when, under such a name stands a whole
checkpoint. A disk may break all the same, and Google Drive uploads a folder's files in any order and
later than it says: each checkpoint has a manifest with the sizes and hashes of its files, nothing is
gone on from that does not agree with it, and the one before the newest is kept.
"""

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import CANNOT_SYNC, named, read_facts, read_tensors, remove, sync, write_whole

NAME = re.compile("(epoch|step)_([0-9]{1,18})")
FILES = tuple(f"{name}.safetensors" for name in ("G_AB", "G_BA", "D_A", "D_B", "state"))
LOSSES = ("loss_G", "loss_D", "adversarial", "cycle_A", "cycle_B", "identity")  # of a row of `history.jsonl`


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint's manifest says.

    Attributes:
        step: steps that were done.
        settings: {name: value} of the run then.
        changes: what was changed on the way there: dicts of "step", "setting", "was" and "is".
        files: {file name: {"bytes", "sha256"}}; None for an older checkpoint, which has no manifest.
    """

    folder: Path
    step: int
    settings: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)
    files: dict | None = None

    @property
    def is_of_epoch(self):
        return self.folder.name.startswith("epoch_")

    @property
    def epoch(self):
        """The number in the name of one that is of an epoch."""
        return int(self.folder.name.removeprefix("epoch_"))

    def verify(self):
        """Raise a `UserError` that names the first file that is not what was saved."""
        if self.files is None:
            for name in FILES:
                read_tensors(self.folder / name)
            return
        for name, saved in self.files.items():
            path = self.folder / name
            if not path.is_file():
                raise UserError(f"{path}: missing; {self.folder} is not whole")
            there = path.stat().st_size
            if there != saved["bytes"]:
                raise UserError(f"{path}: damaged, {there:,} bytes of {saved['bytes']:,} are there")
            if hash_of(path) != saved["sha256"]:
                raise UserError(f"{path}: damaged, its bytes are not those that were saved")


def write_manifest(folder, step, settings, changes):
    """Seal a checkpoint whose files are written: have them put onto the disk, and say what they are."""
    folder = Path(folder)
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": hash_of(path)}
    content = {"step": step, "settings": settings, "changes": changes, "files": files}
    write_whole(folder / "manifest.json", json.dumps({**content, "sha256": seal(content)}, indent=1) + "\n")
    sync(folder)


def read_checkpoint(folder):
    """The `Checkpoint` in a folder; its files are not looked at yet.

    Raises:
        UserError: naming the file that says what is in it, if that is missing or damaged.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.exists():
        facts = read_facts(folder / "state.safetensors")
        if not is_count(facts.get("step")):
            raise UserError(f"{folder / 'state.safetensors'}: not the state of a training run")
        return Checkpoint(folder, facts["step"], facts)
    try:
        if not path.is_file():
            raise ValueError
        content = json.loads(path.read_bytes())
        if content.pop("sha256") != seal(content) or not is_count(content["step"]):
            raise ValueError
        if content["files"].keys() != set(FILES) or not isinstance(content["settings"], dict):
            raise ValueError
        return Checkpoint(folder, **content)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path}: damaged") from None


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def seal(content):
    """A hash of a manifest's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_of(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()


def install(partial, folder):
    """Give a checkpoint that was written as `partial` its name.

    Never onto a folder that is there: that fails, or on Google Drive makes "epoch_3 (1)" of it. A
    checkpoint that has the name takes that of its step, so both are whole at every moment.
    """
    if folder.exists():
        try:
            aside = folder.with_name(f"step_{read_checkpoint(folder).step}")
        except UserError:
            aside = folder
        if aside.exists():
            remove(folder)
        else:
            os.rename(folder, aside)
    os.rename(partial, folder)
    sync(folder.parent)


def checkpoints_of(run_folder):
    """(the `Checkpoint`s in a run's folder, oldest first, and why others cannot be read: {folder: a line})."""
    found, damaged = [], {}
    for folder in Path(run_folder).glob("*_*"):
        if NAME.fullmatch(folder.name) and folder.is_dir():
            try:
                found.append(read_checkpoint(folder))
            except UserError as error:
                damaged[folder] = str(error)
    return sorted(found, key=lambda one: (one.step, one.is_of_epoch)), damaged


def newest_whole(run_folder):
    """(the newest `Checkpoint` that is whole, or None; why those passed over are not: {folder: a line})."""
    found, damaged = checkpoints_of(run_folder)
    for one in reversed(found):
        try:
            one.verify()
        except UserError as error:
            damaged[one.folder] = str(error)
        else:
            return one, damaged
    return None, damaged


def saved_epochs(run_folder):
    """The epochs that `--start_from` can go on from, sorted."""
    folders = [folder for folder in Path(run_folder).glob("epoch_*") if (folder / "state.safetensors").is_file()]
    return sorted(int(found[2]) for folder in folders if (found := NAME.fullmatch(folder.name)))


def go_on_from(run_folder, step):
    """Remove the checkpoints that a run leaves behind which goes on from `step`: later and damaged ones.

    The newest goes first: if this is killed, what is left is the beginning of the run all the same.
    Returns the names of those that were removed.
    """
    found, damaged = checkpoints_of(run_folder)
    later = [one.folder for one in reversed(found) if one.step > step]
    for folder in (*damaged, *later):
        remove(folder)
    sweep(run_folder)
    return [folder.name for folder in (*damaged, *later)]


def sweep(run_folder):
    """Delete what a process left that was killed while it wrote or deleted."""
    for path in Path(run_folder).glob(".*"):
        if path.suffix in (".partial", ".removed"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def tidy(run_folder, keep, is_spared, finished):
    """Delete the checkpoints that newer ones have made superfluous.

    Within epochs only those stay that are among the two newest of all, and none of a finished run.

    Args:
        keep: so many of the newest of epochs stay; 0: all.
        is_spared: of an epoch's number, whether its checkpoint stays anyway.
    """
    found, _ = checkpoints_of(run_folder)
    epochs = [one for one in found if one.is_of_epoch]
    superfluous = [one for one in (found if finished else found[:-2]) if not one.is_of_epoch]
    if keep:
        superfluous += [one for one in epochs[:-keep] if not is_spared(one.epoch)]
    for one in superfluous:
        remove(one.folder)


class History:
    """`history.jsonl`, a line a step, and TensorBoard if asked for.

    Losses wait on the device as tensors: reading each one at once would make the device wait.

    Args:
        step: where the run goes on; what the file has of later steps is dropped.
        skips: whether some losses may be no number: fp16's scaler skips such a step, and goes on.
        writes: False in the processes of a training that only look for what has diverged.
    """

    def __init__(self, run_folder, step=0, skips=False, tensorboard=False, writes=True):
        self.path = Path(run_folder) / "history.jsonl"
        self.waiting, self.board, self.diverged, self.skips, self.writes = [], None, None, skips, writes
        self.has_gaps = False
        if not writes:
            return
        rows = read_history(self.path, step)
        self.has_gaps = [row["step"] for row in rows] != list(range(1, step + 1))
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=step + 1)

    def add(self, step, epoch, lr, losses):
        self.waiting.append(({"step": step, "epoch": epoch, "lr": lr}, losses))

    def flush(self):
        """Write what waits, up to a row that is not finite: that is `diverged` then. Returns its means, for the bar."""
        rows = []
        for row, losses in self.waiting:
            values = {name: None if losses[name] is None else losses[name].item() for name in LOSSES}
            rows.append({**row, **values})
        self.waiting = []
        finite = [all(is_finite(row[name]) for name in LOSSES) for row in rows]
        if not all(finite) and not (self.skips and any(finite)):
            self.diverged = rows[finite.index(False)]
            rows = rows[: finite.index(False)]
        if self.writes:
            with named(self.path), open(self.path, "a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        if self.board:
            for row in rows:
                for name in ("lr", *LOSSES):
                    if row[name] is not None:
                        self.board.add_scalar(name, row[name], row["step"])
        shown = [name for name in LOSSES if rows and rows[0][name] is not None]
        return {name: f"{sum(row[name] for row in rows) / len(rows):.3f}" for name in shown}

    def sync(self):
        """Have what is written put onto the disk."""
        with named(self.path):
            sync(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.flush()
        if self.board:
            self.board.close()


def is_finite(loss):
    return loss is None or math.isfinite(loss)


def read_history(path, last=math.inf):
    """The rows of a `history.jsonl` up to step `last`: a list of dicts, empty if there is no such file.

    A last line without its end, from a process that was killed while writing, is left out.

    Raises:
        UserError: naming the first line that is damaged, if it stands before step `last`.
    """
    return list(_history_rows(Path(path), last))


def read_curves(path, steps, most=4000):
    """At most so many rows for a history of so many steps: means of as many rows as that takes.

    A figure has no use for more, and its memory would grow with the run.
    """
    rows, group = _history_rows(Path(path)), math.ceil(steps / most)
    if group <= 1:
        return list(rows)
    return [_mean_row(piece) for piece in iter(lambda: list(itertools.islice(rows, group)), [])]


def _mean_row(rows):
    """The last of some rows of a history, with the means of the losses that are there."""
    means = {}
    for name in LOSSES:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return {**rows[-1], **means}


def _history_rows(path, last=math.inf):
    """The rows of `read_history`, one by one."""
    if not path.is_file():
        return
    done = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") or done >= last:
                return
            try:
                row = json.loads(line)
                done = row["step"]
                if not is_count(done):
                    raise ValueError
            except (ValueError, TypeError, KeyError, RecursionError):
                raise UserError(f"{path}: line {number} is damaged; delete it and what follows to go on") from None
            if done > last:
                return
            yield {sys.intern(name): value for name, value in row.items()}  # else each row has names of its own


@contextmanager
def only_process(run_folder):
    """Refuse a run's folder in which another process trains. The system drops the lock with its process."""
    run_folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_folder.with_name(f".{run_folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{run_folder}: another process trains there; wait for its end or give another --run_name"
        ) from None
    except NotImplementedError:  # a file system without locks: Google Drive's, or a network's
        pass
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    try:
        yield
    finally:
        lock.release()
