"""The training loop: `python -m cyclegan_lib.train`, or `train(TrainConfig(…))` in a notebook."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from cyclegan_lib.cyclegan import DEVICES, PRECISIONS, CycleGAN, has_compiler, resolve_device, resolve_precision
from cyclegan_lib.datasets import BatchNumbers, UnpairedDataset, load_split, training_batches, workers_for
from cyclegan_lib.errors import Parser, UserError, out_of_range, plain_name
from cyclegan_lib.files import remove, sync, write_whole
from cyclegan_lib.losses import GAN_MODES
from cyclegan_lib.models import OUTPUT_NORMS
from cyclegan_lib.pictures.check import prepare_dataset
from cyclegan_lib.runs import checkpoint as checkpoints
from cyclegan_lib.runs import folder as runs
from cyclegan_lib.runs.folder import LOSSES, History, is_finite, read_curves, read_history
from cyclegan_lib.runs.processes import Processes
from cyclegan_lib.show import plots
from cyclegan_lib.study.diagnose import DIAGNOSED_PICTURES, diagnose, report
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.water2wine.scores import SCORES, Water2WineTest

RESUME = ("never", "auto")
SHEET_PICTURES = 8  # test pictures of each side on a sample sheet, always the same
FLUSH_STEPS = 25  # losses wait on the device for so long before they are read and written
# What a checkpoint cannot be continued with if it changes.
FIXED = (
    "dataset_name", "img_height", "img_width", "channels", "base_channels", "num_residual",
    "output_norm", "discriminator_instance", "batch_size", "seed",
)  # fmt: skip
# What of the options is not of a run itself: where it lies, and how it is begun.
WHERE = ("start_from", "resume", "overwrite", "data_root", "output_root", "run_name")
# What leaves the numbers as they are, and what only the learning rate of later steps depends on.
HARMLESS = (
    "num_workers", "sample_interval", "checkpoint_interval", "checkpoint_minutes", "keep_checkpoints", "tensorboard",
)  # fmt: skip
SCHEDULE = ("num_epochs", "max_steps", "decay_epoch")
RANGES = {
    "start_from": (0, 10**6), "num_epochs": (1, 10**6), "batch_size": (1, 10**4), "num_residual": (1, 100),
    "base_channels": (1, 1024), "seed": (0, 2**31), "sample_interval": (0, 10**6),
    "checkpoint_interval": (0, 10**6), "keep_checkpoints": (0, 10**6),
}  # fmt: skip


def option(default, help, **kwargs):  # noqa: A002  (argparse's word)
    """A field of `TrainConfig` that is a command-line option too."""
    return field(default=default, metadata={"help": help, **kwargs})


@dataclass
class TrainConfig:
    """Everything that decides a training run; a command-line option for each.

    The first nine have the names and defaults of the student's script, which are the paper's
    but for the batch size (1 in the paper). The others' defaults are the paper's too.
    """

    start_from: int = option(0, "go on after this epoch's checkpoint, whatever --resume says; 0: do not")
    num_epochs: int = option(200, "an epoch is once through the larger of the two sides")
    dataset_name: str = option("horse2zebra", "a folder in data_root; water2wine is drawn if it isn't there")
    batch_size: int = option(10, "pictures of each side in a step, those of all processes together")
    img_height: int = option(256, "pixels, a multiple of 4")
    img_width: int = option(256, "pixels, a multiple of 4")
    channels: int = option(3, "3: colour, 1: grey", choices=(1, 3))
    num_residual: int = option(9, "residual blocks in a generator")
    lambda_cycle: float = option(10.0, "weight of the cycle loss")
    lambda_identity: float = option(0.0, "weight of the identity loss; 5 is common, 0 leaves it out")
    output_norm: str = option("none", "normalisation before the generator's tanh", choices=OUTPUT_NORMS)
    discriminator_instance: bool = option(False, "an InstanceNorm on the discriminators' first layer too")
    lambda_adversarial: float = option(1.0, "weight of the adversarial loss; the paper's is 1, 0 leaves it out")
    base_channels: int = option(64, "width of the networks' first layers")
    lr: float = option(2e-4, "learning rate of Adam, until the decay")
    decay_epoch: int | None = option(None, "epoch after which lr falls linearly to 0 (default: half way)", type=int)
    gan_mode: str = option("lsgan", "adversarial loss: least squares, or cross-entropy", choices=GAN_MODES)
    no_init: bool = option(False, "keep PyTorch's default initialisation instead of N(0, 0.02)")
    no_augment: bool = option(False, "show training pictures whole and as they are: no random crop, no flip")
    seed: int = option(0, "decides weights, order, crops and flips")
    precision: str = option("auto", "auto: what the device is good at", choices=PRECISIONS)
    compile: bool = option(False, "compile the networks first, for hours of training (needs a C++ compiler or Triton)")
    num_workers: int | None = option(None, "processes that load pictures (default: as many as it takes)", type=int)
    sample_interval: int = option(1, "epochs between two sample sheets; 0: only at the end")
    checkpoint_interval: int = option(10, "epochs between two checkpoints; 0: only at the end")
    checkpoint_minutes: float = option(0.0, "minutes between two checkpoints, within epochs too; 0: none of these")
    keep_checkpoints: int = option(
        0, "keep so many of the newest epochs' checkpoints, and those of epochs with a sample sheet where these are "
        "rarer; 0: keep all"
    )  # fmt: skip
    max_steps: int | None = option(None, "end after so many steps, lr decayed by then (default: no limit)", type=int)
    data_root: Path = option(Path("data"), "the folder of data sets", type=Path)
    output_root: Path = option(Path("."), "where saved_models and generated_images go", type=Path)
    run_name: str | None = option(None, "the run's folder in both (default: the data set's name)", type=str)
    resume: str = option("never", "auto: go on after the newest whole checkpoint, if there is one", choices=RESUME)
    overwrite: bool = option(False, "replace an earlier run of this name (with --resume auto: if its settings differ)")
    device: str = option("auto", "auto: cuda, mps or cpu, the first there is", choices=DEVICES)
    tensorboard: bool = option(False, "write the losses for TensorBoard too (needs tensorboard)")

    def check(self):
        """Raise a `UserError`, a line for each option that cannot be."""
        wrong = out_of_range(self, RANGES)
        for name in ("lambda_adversarial", "lambda_cycle", "lambda_identity"):
            if not 0 <= getattr(self, name) < math.inf:
                wrong.append(f"--{name} must be a number from 0 on, not {getattr(self, name)}")
        if not 0 <= self.checkpoint_minutes < math.inf:
            wrong.append(f"--checkpoint_minutes must be a number from 0 on, not {self.checkpoint_minutes}")
        if not 0 < self.lr < math.inf:
            wrong.append(f"--lr must be a number above 0, not {self.lr}")
        for name in ("img_height", "img_width"):
            size = getattr(self, name)
            if size % 4 or not 24 <= size <= 8192:
                wrong.append(f"--{name} must be a multiple of 4, from 24 to 8192, not {size}")
        if self.max_steps is not None and self.max_steps < 1:
            wrong.append(f"--max_steps must be at least 1, not {self.max_steps}")
        if self.num_workers is not None and not 0 <= self.num_workers <= 128:
            wrong.append(f"--num_workers must be 0 to 128, not {self.num_workers}")
        if self.decay_epoch is not None and not 0 <= self.decay_epoch <= self.num_epochs:
            wrong.append(f"--decay_epoch must be 0 to --num_epochs ({self.num_epochs}), not {self.decay_epoch}")
        for name in ("dataset_name",) if self.run_name is None else ("dataset_name", "run_name"):
            try:
                plain_name(name, getattr(self, name))
            except UserError as error:
                wrong.append(str(error))
        for option_ in dataclasses.fields(self):
            choices = option_.metadata.get("choices")
            if choices and getattr(self, option_.name) not in choices:
                allowed = ", ".join(map(str, choices))
                wrong.append(f"--{option_.name} must be one of {allowed}, not {getattr(self, option_.name)!r}")
        if wrong:
            raise UserError("\n".join(wrong))

    @property
    def name(self):
        return self.run_name or self.dataset_name

    @property
    def models_folder(self):
        return Path(self.output_root) / "saved_models" / self.name

    @property
    def images_folder(self):
        return Path(self.output_root) / "generated_images" / self.name

    @property
    def size(self):
        return self.img_height, self.img_width


def demo_config(**changes):
    """The small configuration of `make demo`: water2wine at 64 pixels, minutes on two cores.

    The paper's method and its 70×70 discriminator; narrower networks, four residual blocks for
    six, batches of 4, a larger learning rate and an identity loss.
    """
    demo = dict(
        dataset_name="water2wine", img_height=64, img_width=64, batch_size=4, num_epochs=18,
        base_channels=16, num_residual=4, lambda_identity=5.0, lr=5e-4, sample_interval=3,
        checkpoint_interval=0,
    )  # fmt: skip
    return TrainConfig(**{**demo, **changes})


def learning_rate(config, step, total_steps, steps_per_epoch):
    """The learning rate of a step (from 0): constant, then in a line to zero, which ends the run.

    The paper, section 4: 100 epochs constant, 100 epochs of decay; here by the step.
    """
    start = total_steps / 2 if config.decay_epoch is None else config.decay_epoch * steps_per_epoch
    if step < start or start >= total_steps:
        return config.lr
    return config.lr * (total_steps - step) / (total_steps - start)


class Trainer:
    """One training run. Making it checks everything that can be checked; `run` trains.

    Nothing is written before `run`.

    Attributes:
        model: the `CycleGAN`.
        processes: the `Processes` that train it, this one among them.
        step, epoch, total_steps, steps_per_epoch: where it is; step counts those that are done.
        test: {"A", "B"}: up to 100 test pictures of each side, (N, channels, H, W).
        checkpoint: the folder of the newest checkpoint, once there is one.
        changes: which settings were changed on the way, see `runs.Checkpoint`.
        stopped: whether `run` was interrupted before its end.
        scores: after `run` on water2wine: what `scores.json` holds; else None.

    Raises:
        UserError: a line for each thing that is wrong with the options or the data.
    """

    def __init__(self, config):
        config.check()
        self.config = config
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        self.processes = Processes(self.device)
        with self.processes.quietly():
            self._prepare()

    def _prepare(self):
        config = self.config
        self._check_together()
        self._check_folders()
        found = self._find_checkpoint()
        with self.processes.one_after_another():
            self.root = prepare_dataset(config.data_root, config.dataset_name, max(config.size))
        self.data = UnpairedDataset(self.root, config.size, config.channels, config.seed, not config.no_augment)
        self.test = {d: load_split(self.root, f"test{d}", config.size, config.channels, 100) for d in "AB"}
        self.counts = [len(paths) for paths in self.data.paths.values()]
        self.steps_per_epoch = math.ceil(len(self.data) / config.batch_size)
        self.total_steps = config.num_epochs * self.steps_per_epoch
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        if found and config.overwrite and not config.start_from and self._differences(found).keys() - set(HARMLESS):
            found = None
        self.step, self.stopped, self.scores = 0, False, None
        self.checkpoint, self.changes, self._saved_step = None, [], None
        if found:
            self._check_settings(found)
        names = (
            "channels", "base_channels", "num_residual", "output_norm", "discriminator_instance",
            "lambda_adversarial", "lambda_cycle", "lambda_identity", "gan_mode", "lr", "no_init", "seed",
        )  # fmt: skip
        settings = {name: getattr(config, name) for name in names}
        self.model = CycleGAN(**settings, device=self.device, precision=self.precision, compiled=config.compile)
        if found:
            self._go_on(found)

    @functools.cached_property
    def floors(self):
        """{"A", "B"}: what an InstanceNorm at the output would keep the cycle losses above.

        `metrics.output_norm_floor` of the first 100 training samples, crops and all.
        """
        samples = (self.data[n] for n in range(min(100, len(self.data))))
        crops = zip("AB", zip(*samples, strict=True), strict=True)
        return {domain: output_norm_floor(torch.stack(pictures)) for domain, pictures in crops}

    @property
    def epoch(self):
        """The epoch of the last step done, from 1."""
        return max(1, math.ceil(self.step / self.steps_per_epoch))

    @property
    def history(self):
        """All rows of `history.jsonl` so far."""
        return read_history(self.config.models_folder / "history.jsonl")

    @property
    def curves(self):
        """The history for `plots.loss_curves`: of a long run, means of some steps each."""
        return read_curves(self.config.models_folder / "history.jsonl", self.step)

    def sheet(self, count=SHEET_PICTURES):
        """Rows of a sample sheet: the same test pictures every time, there and back."""
        real_A, real_B = (self.test[domain][:count] for domain in "AB")
        fake_B, rec_A = self.model.translate(real_A, "AtoB")
        fake_A, rec_B = self.model.translate(real_B, "BtoA")
        return {
            "real_A": real_A, "fake_B": fake_B, "rec_A": rec_A,
            "real_B": real_B, "fake_A": fake_A, "rec_B": rec_B,
        }  # fmt: skip

    def diagnosis(self):
        """Which known faults the run shows so far: a list of `diagnose.Finding`."""
        samples = self.sheet(DIAGNOSED_PICTURES)
        return diagnose(self.history, samples, None, self.config.gan_mode, self.total_steps)

    def run(self, callback=None, show_bar=True):
        """Train to the end, or until Ctrl-C, which saves first. Returns this `Trainer`.

        Where it was stopped, `run` again goes on.

        Args:
            callback: in the main process called with this `Trainer` now and then (every 25 steps and every epoch),
                to draw something, say. It must leave the model as it is.

        Raises:
            UserError: if another process trains this run, if a loss or a weight is no longer a
                finite number, or the disk is full; what was saved before stays.
        """
        if not self.processes.is_main:
            return self._train(None, show_bar=False)
        with runs.only_process(self.config.models_folder):
            self._make_folders()
            return self._train(callback, show_bar)

    def _train(self, callback, show_bar):
        config, began, first, others = self.config, time.perf_counter(), self.step, self.processes
        self._log = log = History(
            config.models_folder, first, self.precision == "fp16", config.tensorboard, others.is_main
        )
        if log.has_gaps:
            print(f"warning: {log.path} does not have all of the {first} steps that were done", file=sys.stderr)
        pinned = self.device == "cuda"
        workers = workers_for(self.data, self.device) if config.num_workers is None else config.num_workers
        batches = training_batches(
            self.data, config.batch_size, first, self.total_steps, workers, pinned, others.rank, others.count
        )
        batches.worker_init_fn = _leave_signals_to_the_trainer
        self._saved_at = time.monotonic()
        with log, _StopSignals() as stop, _bar(self, show_bar) as bar:
            for real_A, real_B in batches:
                real_A = real_A.to(self.device, non_blocking=pinned)
                real_B = real_B.to(self.device, non_blocking=pinned)
                lr = learning_rate(config, self.step, self.total_steps, self.steps_per_epoch)
                self.model.set_lr(lr)
                _, weight = batches.batch_sampler.share(self.step)
                if others.count > 1:
                    self.model.before_update = functools.partial(others.sum_gradients, weight=weight)
                losses = others.sum_losses(self.model.step(real_A, real_B), weight)
                self.step += 1
                log.add(self.step, self.epoch, lr, losses)
                bar.update()
                is_last = self.step == self.total_steps
                is_asked_to_stop, is_time_to_save = others.agree(stop.asked, self._is_time_to_save())
                ends_epoch = self.step % self.steps_per_epoch == 0
                if self.step % FLUSH_STEPS == 0 or ends_epoch or is_asked_to_stop or is_last:
                    bar.set_description(f"epoch {self.epoch}/{config.num_epochs}", refresh=False)
                    bar.set_postfix(log.flush())
                    self._stop_if_diverged(log.diverged)
                    if callback:
                        callback(self)
                if ends_epoch and not is_last:
                    self._end_epoch()
                if is_asked_to_stop:
                    break
                if is_time_to_save and not is_last:
                    self._save_checkpoint(f"step_{self.step}")
            bar.close()
            self.stopped = self.step < self.total_steps
            self.seconds_training = time.perf_counter() - began
            if self.step > first:
                self._save_checkpoint(f"step_{self.step}" if self.stopped else f"epoch_{self.epoch}")
            elif callback:  # it was finished already: draw it all the same
                callback(self)
            self._save_pictures(f"step_{self.step}" if self.stopped else f"epoch_{self.epoch:03d}")
        if not self.stopped and others.is_main:
            self._save_scores(anew=self.step > first)
        return self

    def _stop_if_diverged(self, row):
        """End where a loss of a history row is nan or infinite; None if all were finite."""
        if row is None:
            return
        loss, value = next((name, row[name]) for name in LOSSES if not is_finite(row[name]))
        [numbers] = BatchNumbers(self.data, self.config.batch_size, row["step"] - 1, row["step"])
        pictures = ", ".join(f"train{d}/{self.data.path(d, n).name}" for d in "AB" for n in numbers)
        raise UserError(f"step {row['step']}: {loss} is {value}, on {pictures}; {self._way_back()}")

    def _stop_if_not_finite(self):
        """End where a weight is nan or infinite, or a number of Adam's, which would hold the weight for ever."""
        model = self.model
        tensors = {name: list(network.state_dict().values()) for name, network in model.networks.items()}
        for name in ("optimizer_G", "optimizer_D"):
            states = getattr(model, name).state.values()
            tensors[name] = [value for state in states for value in state.values() if torch.is_tensor(value)]
        for name, values in tensors.items():
            if not all(value.isfinite().all() for value in values):
                what = "numbers" if name.startswith("optimizer") else "weights"
                raise UserError(f"step {self.step}: {name} has {what} that are not finite; {self._way_back()}")

    def _way_back(self):
        found, _ = runs.checkpoints_of(self.config.models_folder)
        there = f"--resume auto goes on from {found[-1].folder.name}" if found else "nothing had been saved before"
        return f"{there}; try a lower --lr (it was {self.config.lr:g}) or --precision fp32"

    def _check_together(self):
        """Refuse what several processes cannot train, and what cannot be compiled."""
        count, config = self.processes.count, self.config
        if config.batch_size < count:
            raise UserError(
                f"--batch_size {config.batch_size} for {count} processes: each needs a picture of every batch"
            )
        if count > 1 and config.output_norm == "batch":
            raise UserError("--output_norm batch: its statistics are of whole batches; start one process")
        if config.compile and not has_compiler(self.device):
            what = "Triton (pip install triton)" if self.device == "cuda" else "a C++ compiler (g++ or clang++, say)"
            raise UserError(f"--compile needs {what}, and there is none here; train without it")

    def _check_folders(self):
        """Refuse folders that cannot be made, and packages that are not there."""
        config = self.config
        for folder in (config.models_folder, config.images_folder):
            there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                what = "cannot be written to" if there.is_dir() else "is a file"
                raise UserError(f"{there} {what}; {folder} cannot be made, choose another --output_root")
        if config.tensorboard:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError:
                raise UserError("--tensorboard needs a package: pip install tensorboard") from None

    def _find_checkpoint(self):
        """The `runs.Checkpoint` to go on from, None to begin. Refuses to begin where another run is."""
        config, folder = self.config, self.config.models_folder
        epochs = runs.saved_epochs(folder)
        if config.start_from:
            if config.start_from not in epochs:
                has = f"there are epochs {', '.join(map(str, epochs))}" if epochs else "there is no checkpoint yet"
                raise UserError(f"--start_from {config.start_from}: not in {folder}; {has}")
            found = runs.read_checkpoint(folder / f"epoch_{config.start_from}")
            found.verify()
            return found
        if config.resume == "auto":
            found, damaged = runs.newest_whole(folder)
            for reason in damaged.values():
                print(f"warning: {reason}; passed over", file=sys.stderr)
            if found or self._had_begun(damaged):
                return found
            if damaged and not config.overwrite:
                raise UserError(f"{folder}: no checkpoint in it is whole; give another --run_name, or --overwrite")
        for there in (folder, config.images_folder):
            if not config.overwrite and there.is_dir() and any(path.name[0] != "." for path in there.iterdir()):
                ways = ["--resume auto"] * bool(runs.checkpoints_of(folder)[0])
                ways += [f"--start_from {epoch}" for epoch in epochs[-1:]]
                go_on = f", {' or '.join(ways)} to go on" if ways else ""
                raise UserError(f"{there} holds an earlier run; give another --run_name{go_on}, or --overwrite")
        return None

    def _had_begun(self, damaged):
        """Whether a run of the same options was killed in these folders before its first checkpoint."""
        try:
            record = json.loads((self.config.models_folder / "config.json").read_text())
            same = all(record[name] == value for name, value in self._options().items() if name not in HARMLESS)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return same and not damaged

    def _options(self):
        """The options that are the run's own, {name: value}, with what "auto" stands for."""
        options = {field_.name: getattr(self.config, field_.name) for field_ in dataclasses.fields(self.config)}
        options |= {"device": self.device, "precision": self.precision}
        return {name: value for name, value in options.items() if name not in WHERE}

    @functools.cached_property
    def settings(self):
        """All that a checkpoint's manifest says of how it was trained, {name: value}."""
        data = {"pictures": self.counts, "training_pictures": fingerprint(self.data), "processes": self.processes.count}
        return {**self._options(), **data, "torch": torch.__version__}

    def _differences(self, found):
        """{setting: (what it was in a checkpoint, what it is)}, where these differ."""
        there = found.settings
        return {name: (there[name], is_) for name, is_ in self.settings.items() if there.get(name, is_) != is_}

    def _check_settings(self, found):
        """Refuse what a checkpoint cannot be gone on with; say and remember what else has changed."""
        for name, (was, is_) in self._differences(found).items():
            if name in FIXED:
                raise UserError(f"--{name} {is_}: the run in {found.folder} had {was}; give that to go on")
            if name == "pictures":
                raise UserError(f"{self.root} has {is_} training pictures, and had {was}: not the same data")
            self.changes.append({"step": found.step, "setting": name, "was": was, "is": is_})
            if name not in HARMLESS:
                effect = "the learning rate follows another schedule" if name in SCHEDULE else "no longer exact"
                label = f"--{name}" if hasattr(self.config, name) else name
                print(f"warning: {label} is {is_} and was {was}: from step {found.step} on {effect}", file=sys.stderr)
        self.changes = found.changes + self.changes
        if found.step >= self.total_steps and self.config.start_from:
            more = "give a larger --num_epochs or --max_steps to go on"
            raise UserError(f"{found.folder}: all {found.step} steps are done; {more}")

    def _go_on(self, found):
        read_history(self.config.models_folder / "history.jsonl", found.step)  # if it is damaged: better to know now
        checkpoints.load_checkpoint(found.folder, self.model, self.processes.rank)
        self.step, self.checkpoint, self._saved_step = found.step, found.folder, found.step
        if self.step < self.total_steps:
            print(f"going on from {self.config.name}/{found.folder.name}, after step {self.step} of {self.total_steps}")
        else:
            print(f"{self.config.name}/{found.folder.name}: finished already, all {self.step} steps are done")

    def _make_folders(self):
        config = self.config
        self._refuse_a_newer_run()
        if self.step:
            removed = runs.go_on_from(config.models_folder, self.step)
            if removed:
                print(f"removed {', '.join(removed)}: later than step {self.step}, or damaged", file=sys.stderr)
            self._remove_later_pictures()
        else:
            remove(config.images_folder)
            remove(config.models_folder)
        config.models_folder.mkdir(parents=True, exist_ok=True)
        sync(config.models_folder.parent)
        record = {field_.name: getattr(config, field_.name) for field_ in dataclasses.fields(config)}
        record |= self.settings
        record |= {"changes": self.changes, "python": platform.python_version()}
        record |= {f"floor_{domain}": floor for domain, floor in self.floors.items()}
        write_whole(config.models_folder / "config.json", json.dumps(record, indent=1, default=str) + "\n")
        config.images_folder.mkdir(parents=True, exist_ok=True)

    def _refuse_a_newer_run(self):
        """Refuse to go on, or to begin, from before what another process has saved since this was made."""
        config = self.config
        if config.overwrite or config.start_from or (self.step and config.resume == "never"):
            return
        found = runs.newest_whole(config.models_folder)[0] if self.step else self._find_checkpoint()
        if found and found.step > self.step:
            raise UserError(f"{found.folder}: another process has saved this meanwhile; begin again to go on from it")

    def _remove_later_pictures(self):
        """Remove the sheets of a run that was stopped, and of epochs that are trained again."""
        done = self.step // self.steps_per_epoch
        for path in self.config.images_folder.glob("*_*.png"):
            kind, _, number = path.stem.partition("_")
            if kind == "step" or (kind == "epoch" and number.isdigit() and int(number) > done):
                path.unlink()

    def _end_epoch(self):
        config = self.config
        if config.sample_interval and self.epoch % config.sample_interval == 0:
            self._save_pictures(f"epoch_{self.epoch:03d}")
        if config.checkpoint_interval and self.epoch % config.checkpoint_interval == 0:
            self._save_checkpoint(f"epoch_{self.epoch}")

    def _is_time_to_save(self):
        minutes = self.config.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes

    def _save_checkpoint(self, name):
        """Save under this name, unless this very step is saved already."""
        config = self.config
        self._log.flush()
        self._stop_if_diverged(self._log.diverged)
        self._stop_if_not_finite()
        if self._saved_step != self.step:
            buffers = self.processes.gather(checkpoints.buffers_of(self.model))
        self._saved_at = time.monotonic()
        if not self.processes.is_main:
            self._saved_step = self.step
            return
        self._log.sync()
        facts = {name_: getattr(config, name_) for name_ in FIXED}
        facts |= {"step": self.step, "epoch": self.epoch, "pictures": self.counts}
        if self._saved_step != self.step:
            folder = config.models_folder / name
            checkpoints.save_checkpoint(folder, self.model, facts, self.settings, self.changes, buffers)
            self.checkpoint, self._saved_step = folder, self.step
        runs.tidy(config.models_folder, config.keep_checkpoints, self._is_spared, self.step == self.total_steps)

    def _is_spared(self, epoch):
        """--keep_checkpoints spares epochs with a sample sheet, where sheets are rarer than checkpoints."""
        sheets, saved = self.config.sample_interval, self.config.checkpoint_interval
        return sheets > saved > 0 and epoch % sheets == 0

    def _save_pictures(self, name):
        if not self.processes.is_main:
            return
        folder = self.config.images_folder
        sheet = plots.picture_rows(self.sheet(), f"{self.config.name} after epoch {self.epoch} (test pictures)")
        write_whole(folder / f"{name}.png", plots.to_png(sheet))
        curves = plots.loss_curves(self.curves, self.floors, f"{self.config.name}: losses")
        write_whole(folder / "curves.png", plots.to_png(curves))

    def _save_scores(self, anew):
        path = self.config.images_folder / "scores.json"
        if not (self.root / "scenes.json").is_file():
            return
        if not anew and path.is_file():
            self.scores = json.loads(path.read_text())
            return
        test = Water2WineTest(self.root, self.config.size, self.config.channels)
        fake_B, _ = self.model.translate(test.real["A"], "AtoB")
        fake_A, _ = self.model.translate(test.real["B"], "BtoA")
        self.scores = {**test.scores(fake_B, fake_A), **test.baselines()}
        self.scores["seconds_training"] = round(self.seconds_training, 1)
        write_whole(path, json.dumps(self.scores, indent=1) + "\n")


def fingerprint(data):
    """A hash of the training pictures as they were decoded; None if there are too many to hold them in memory."""
    if data.pictures is None:
        return None
    found = hashlib.sha256()
    for pictures in data.pictures.values():
        found.update(pictures.numpy())
    return found.hexdigest()


class _StopSignals:
    """Within it, Ctrl-C and SIGTERM only set `asked`: training stops between two steps and saves."""

    def __enter__(self):
        self.asked, self.before = False, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number, frame):
        self.asked = True

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _leave_signals_to_the_trainer(number):
    """In a process that loads pictures. Ctrl-C in a terminal, or a machine that shuts down, tells all processes of
    a command to end: if these did, the trainer could not save.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


def _bar(trainer, show):
    """A bar over the whole run. Its ETA is steady: it goes by the mean speed so far."""
    return tqdm(
        total=trainer.total_steps, initial=trainer.step, unit="step", smoothing=0, dynamic_ncols=True, disable=not show
    )


def parse_config(argv=None):
    """Command line → (TrainConfig, the parser): an option for every field, with its default."""
    parser = Parser(prog="python -m cyclegan_lib.train", description="Train a CycleGAN.")
    for field_ in dataclasses.fields(TrainConfig):
        arguments = dict(field_.metadata, default=field_.default)
        if field_.default is False:
            arguments["action"] = "store_true"
        else:
            arguments.setdefault("type", type(field_.default))
        parser.add_argument(f"--{field_.name}", **arguments)
    return TrainConfig(**vars(parser.parse_args(argv))), parser


def train(config, callback=None):
    """Train as `config` says. Returns the finished, or interrupted, `Trainer`.

    `accelerate.notebook_launcher(train, (config,), num_processes=2)` trains on two GPUs. It would send
    what each process returns, networks and all, to the notebook: of several, none returns anything.
    """
    trainer = Trainer(config).run(callback)
    trainer.processes.close()
    return trainer if trainer.processes.count == 1 else None


def fit(config, steps=None, minutes=None):
    """The same run, but of so many steps, or of as many as this machine does in so many minutes.

    For the latter ten steps are timed, on a model that is thrown away.
    """
    over = config.overwrite or config.resume == "auto"
    trainer = Trainer(dataclasses.replace(config, num_epochs=1, max_steps=None, resume="never", overwrite=over))
    if steps is None:
        for batch in training_batches(trainer.data, config.batch_size, 0, 13):
            trainer.model.step(*(pictures.to(trainer.device) for pictures in batch))["loss_D"].item()
            trainer.step += 1
            if trainer.step == 3:  # the first ones are slow
                began = time.perf_counter()
        steps = max(1, int(60 * minutes / ((time.perf_counter() - began) / 10)))
    return dataclasses.replace(config, max_steps=steps, num_epochs=math.ceil(steps / trainer.steps_per_epoch))


def main(argv=None):
    config, parser = parse_config(argv)
    with parser.one_line_errors():
        trainer = Trainer(config)
        if trainer.processes.is_main:
            announce(trainer)
        was_finished = trainer.step >= trainer.total_steps
        trainer.run()
        trainer.processes.close()
    with trainer.processes.quietly():
        conclude(trainer, was_finished)


def announce(trainer):
    """Say what will be trained, on what."""
    config, (count_A, count_B), count = trainer.config, trainer.counts, trainer.processes.count
    together = f", {count} processes" if count > 1 else ""
    print(
        f"{config.name}: {count_A} + {count_B} training pictures at {config.img_width}×{config.img_height}, "
        f"{trainer.total_steps} steps, {trainer.device}, {trainer.precision}{together}"
    )
    if count == 1 and "ACCELERATE_MIXED_PRECISION" in os.environ:
        print(
            "warning: accelerate launch started one process; if more were asked for, use "
            "torchrun --nproc_per_node 2 -m cyclegan_lib.train with the same options", file=sys.stderr,
        )  # fmt: skip
    if config.output_norm == "instance":
        print(
            f"InstanceNorm at the output: on average cycle_A cannot go below {trainer.floors['A']:.3f} "
            f"nor cycle_B below {trainer.floors['B']:.3f}, however long this trains"
        )


def conclude(trainer, was_finished):
    """Say how it ended; with exit code 130 if it was stopped."""
    if not trainer.processes.is_main and not trainer.stopped:
        return
    if trainer.stopped:
        print(
            f"\nstopped at step {trainer.step} of {trainer.total_steps}; saved {trainer.checkpoint}. "
            "To go on, give the same options and --resume auto"
        )
        raise SystemExit(130)
    if trainer.scores:
        print(score_table(trainer.scores))
    print(report(trainer.diagnosis(), trainer.step))
    took = "" if was_finished else f"trained for {trainer.seconds_training:.0f} s; "
    print(f"{took}networks in {trainer.checkpoint}, pictures in {trainer.config.images_folder}")


def score_table(scores):
    """`scores.json` as a table: the translation beside doing nothing and matching the means."""
    lines = [f"{'on the test pictures':22}{'CycleGAN':>10}{'do nothing':>12}{'match means':>13}"]
    for name in SCORES:
        values = scores[name], scores[f"identity_{name}"], scores[f"mean_match_{name}"]
        lines.append(f"{name:22}{values[0]:10.3f}{values[1]:12.3f}{values[2]:13.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
