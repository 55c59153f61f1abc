"""The losses of a training: `history.jsonl` and the progress bar."""

import itertools
import json
import math
import sys
from pathlib import Path

from tqdm.auto import tqdm

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import sync, write_atomic, write_errors
from cyclegan_lib.trainer import Hook

LOSSES = ("loss_G", "loss_D", "adversarial", "cycle_A", "cycle_B", "identity")  # of a row of `history.jsonl`
DIVERGED = "--resume auto continues from the last checkpoint, if there is one; try a lower --lr or --precision fp32"
FLUSH_STEPS = 25  # losses stay on the device for so long before they are read and written


class Log(Hook):
    """Observer: writes `history.jsonl`, a line a step, and ends a training whose loss is not finite.

    Losses wait on the device as tensors: reading each one at once would make the device wait. Of several processes one
    `writes`. `fresh` are the rows that were written after this step, mostly none.
    """

    def __init__(self, config, writes=True):
        self.path, self.writes = config.models_folder / "history.jsonl", writes
        self.waiting, self.fresh, self.overflows = [], [], 0

    def start(self, trainer):
        self.trainer = trainer
        if self.writes:
            rows = read_history(self.path, trainer.step)
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows))
            trainer.cleanup.callback(self.flush)

    def after_step(self, trainer):
        self.waiting.append(({"step": trainer.step, "epoch": trainer.epoch, "lr": trainer.lr}, trainer.losses))
        self.fresh = []
        if trainer.step % FLUSH_STEPS == 0 or trainer.step % trainer.steps_per_epoch == 0 or not trainer.stopped:
            self.flush()

    def end(self, trainer):
        self.fresh = []
        self.flush()

    def flush(self, to_disk=False):
        """Write the rows that wait. A `UserError` names the first step, loss and pictures that are not finite."""
        rows = []
        for row, losses in self.waiting:
            rows.append(row | {name: None if losses[name] is None else losses[name].item() for name in LOSSES})
        count = len(rows)
        most = FLUSH_STEPS if self.trainer.model.precision == "fp16" else 1  # its scaler skips a step that overflows
        for number, row in enumerate(rows):
            self.overflows = 0 if all(math.isfinite(row[name] or 0) for name in LOSSES) else self.overflows + 1
            if self.overflows == most:
                count = number
                break
        self.waiting, self.fresh = [], self.fresh + rows[:count]
        if self.writes:
            with write_errors(self.path):
                with open(self.path, "a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows[:count])
                if to_disk:
                    sync(self.path)
        if count < len(rows):
            row, data = rows[count], self.trainer.data
            loss = next(name for name in LOSSES if not math.isfinite(row[name] or 0))
            numbers = self.trainer.batch_numbers[row["step"] - 1]
            files = ", ".join(f"train{domain}/{data.path(domain, n).name}" for domain in "AB" for n in numbers)
            raise UserError(f"step {row['step']}: {loss} is {row[loss]}, on {files}; {DIVERGED}")


class Bar(Hook):
    """Observer: a bar over the whole run, with the means of the losses that `log` has just written."""

    def __init__(self, log):
        self.log = log

    def start(self, trainer):
        bar = tqdm(total=trainer.total_steps, initial=trainer.step, unit="step", smoothing=0, dynamic_ncols=True)
        self.bar = trainer.cleanup.enter_context(bar)

    def after_step(self, trainer):
        self.bar.update()
        if self.log.fresh:
            self.bar.set_description(f"epoch {trainer.epoch}/{trainer.config.num_epochs}", refresh=False)
            means = mean_row(self.log.fresh)
            self.bar.set_postfix({name: f"{means[name]:.3f}" for name in LOSSES if means[name] is not None})

    def end(self, trainer):
        self.bar.close()


def read_history(path, last=math.inf):
    """The rows of a `history.jsonl`, or of the one in a run's folder, up to step `last`: dicts, [] without a file.

    A last line that was cut off is left out. A `UserError` names a damaged one, if it stands before step `last`.
    """
    return list(_history_rows(Path(path), last))


def read_curves(path, steps, most=4000):
    """At most so many rows for a history of so many steps, means of several each: enough for a figure."""
    rows, group = _history_rows(Path(path)), max(1, math.ceil(steps / most))
    return [mean_row(piece) for piece in iter(lambda: list(itertools.islice(rows, group)), [])]


def mean_row(rows):
    """The last of some rows of a history, with the means of the losses that are there."""
    means = {}
    for name in LOSSES:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return {**rows[-1], **means}


def _history_rows(path, last=math.inf):
    """The rows of `read_history`, one by one."""
    path = path / "history.jsonl" if path.is_dir() else path
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") or number > last:
                return
            try:
                row = json.loads(line)
                is_later = row["step"] > last
            except (ValueError, TypeError, KeyError, RecursionError):
                raise UserError(f"{path}: line {number} is damaged; delete it and what follows to continue") from None
            if is_later:
                return
            yield {sys.intern(name): value for name, value in row.items()}  # else each row has names of its own
