"""The training loop: `python -m cyclegan_lib.train`, or `train(TrainConfig(…))` in a notebook."""

import dataclasses
import functools
import json
import math
import os
import platform
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from cyclegan_lib import checkpoints, plots
from cyclegan_lib.cli import Parser, UserError, out_of_range, plain_name
from cyclegan_lib.cyclegan import DEVICES, PRECISIONS, CycleGAN, resolve_device, resolve_precision
from cyclegan_lib.datasets import BatchNumbers, UnpairedDataset, load_split, prepare_dataset, training_batches
from cyclegan_lib.diagnose import DIAGNOSED_PICTURES, diagnose, report
from cyclegan_lib.losses import GAN_MODES
from cyclegan_lib.metrics import SCORES, Water2WineTest, output_norm_floor
from cyclegan_lib.models import OUTPUT_NORMS

SHEET_PICTURES = 8  # test pictures of each side on a sample sheet, always the same
FLUSH_STEPS = 25  # losses wait on the device for so long before they are read and written
# What a checkpoint cannot be continued with if it changes.
FIXED = (
    "dataset_name", "img_height", "img_width", "channels", "base_channels", "num_residual",
    "output_norm", "discriminator_instance", "batch_size", "seed",
)  # fmt: skip
LOSSES = ("loss_G", "loss_D", "adversarial", "cycle_A", "cycle_B", "identity")  # of a row of `history.jsonl`
RANGES = {
    "start_from": (0, 10**6), "num_epochs": (1, 10**6), "batch_size": (1, 10**4), "num_residual": (1, 100),
    "base_channels": (1, 1024), "seed": (0, 2**31), "num_workers": (0, 128), "sample_interval": (0, 10**6),
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

    start_from: int = option(0, "go on after this epoch's checkpoint; 0: from the beginning")
    num_epochs: int = option(200, "an epoch is once through the larger of the two sides")
    dataset_name: str = option("horse2zebra", "a folder in data_root; water2wine is drawn if it isn't there")
    batch_size: int = option(10, "pictures of each side in a step")
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
    num_workers: int = option(0, "processes that load pictures")
    sample_interval: int = option(1, "epochs between two sample sheets; 0: only at the end")
    checkpoint_interval: int = option(10, "epochs between two checkpoints; 0: only at the end")
    keep_checkpoints: int = option(0, "keep so many of the newest checkpoints and delete older ones; 0: keep all")
    max_steps: int | None = option(None, "end after so many steps, lr decayed by then (default: no limit)", type=int)
    data_root: Path = option(Path("data"), "the folder of data sets", type=Path)
    output_root: Path = option(Path("."), "where saved_models and generated_images go", type=Path)
    run_name: str | None = option(None, "the run's folder in both (default: the data set's name)", type=str)
    overwrite: bool = option(False, "replace an earlier run of this name")
    device: str = option("auto", "auto: cuda, mps or cpu, the first there is", choices=DEVICES)
    tensorboard: bool = option(False, "write the losses for TensorBoard too (needs tensorboard)")

    def check(self):
        """Raise a `UserError`, a line for each option that cannot be."""
        wrong = out_of_range(self, RANGES)
        for name in ("lambda_adversarial", "lambda_cycle", "lambda_identity"):
            if not 0 <= getattr(self, name) < math.inf:
                wrong.append(f"--{name} must be a number from 0 on, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            wrong.append(f"--lr must be a number above 0, not {self.lr}")
        for name in ("img_height", "img_width"):
            size = getattr(self, name)
            if size % 4 or not 24 <= size <= 8192:
                wrong.append(f"--{name} must be a multiple of 4, from 24 to 8192, not {size}")
        if self.max_steps is not None and self.max_steps < 1:
            wrong.append(f"--max_steps must be at least 1, not {self.max_steps}")
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
        step, epoch, total_steps, steps_per_epoch: where it is; step counts those that are done.
        test: {"A", "B"}: up to 100 test pictures of each side, (N, channels, H, W).
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
        self._check_folders()
        self.root = prepare_dataset(config.data_root, config.dataset_name, max(config.size))
        self.data = UnpairedDataset(self.root, config.size, config.channels, config.seed, not config.no_augment)
        self.test = {d: load_split(self.root, f"test{d}", config.size, config.channels, 100) for d in "AB"}
        self.counts = [len(paths) for paths in self.data.paths.values()]
        names = (
            "channels", "base_channels", "num_residual", "output_norm", "discriminator_instance",
            "lambda_adversarial", "lambda_cycle", "lambda_identity", "gan_mode", "lr", "no_init", "seed",
        )  # fmt: skip
        settings = {name: getattr(config, name) for name in names}
        self.model = CycleGAN(**settings, device=self.device, precision=self.precision)
        self.steps_per_epoch = math.ceil(len(self.data) / config.batch_size)
        self.total_steps = config.num_epochs * self.steps_per_epoch
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self.step, self.stopped, self.scores = 0, False, None
        if config.start_from:
            self._go_on()

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

        Args:
            callback: called with this `Trainer` now and then (every 25 steps and every epoch),
                to draw something, say. It must leave the model as it is.

        Raises:
            UserError: if another process trains this run, or if a loss or a weight is no longer a
                finite number; what was saved before stays.
        """
        with _only_process(self.config.models_folder):
            self._make_folders()
            return self._train(callback, show_bar)

    def _train(self, callback, show_bar):
        config, began = self.config, time.perf_counter()
        log = _Log(config, self.step, self.precision)
        pinned = self.device == "cuda"
        batches = training_batches(
            self.data, config.batch_size, self.step, self.total_steps, config.num_workers, pinned
        )
        with log, _StopSignals() as stop, _bar(self, show_bar) as bar:
            for real_A, real_B in batches:
                real_A = real_A.to(self.device, non_blocking=pinned)
                real_B = real_B.to(self.device, non_blocking=pinned)
                lr = learning_rate(config, self.step, self.total_steps, self.steps_per_epoch)
                self.model.set_lr(lr)
                losses = self.model.step(real_A, real_B)
                self.step += 1
                log.add(self.step, self.epoch, lr, losses)
                bar.update()
                ends_epoch = self.step % self.steps_per_epoch == 0
                if self.step % FLUSH_STEPS == 0 or ends_epoch or stop.asked or self.step == self.total_steps:
                    bar.set_description(f"epoch {self.epoch}/{config.num_epochs}", refresh=False)
                    bar.set_postfix(log.flush())
                    self._stop_if_diverged(log.diverged)
                    if callback:
                        callback(self)
                if ends_epoch and self.step < self.total_steps:
                    self._end_epoch()
                if stop.asked:
                    break
            bar.close()
            log.flush()
            self._stop_if_diverged(log.diverged)
            self.stopped = self.step < self.total_steps
            self.seconds_training = time.perf_counter() - began
            self._save_checkpoint()
            self._save_pictures()
        if not self.stopped:
            self._save_scores()
        return self

    def _stop_if_diverged(self, row):
        """End where a loss of a history row is nan or infinite; None if all were finite."""
        if row is None:
            return
        loss, value = next((name, row[name]) for name in LOSSES if not _is_finite(row[name]))
        [numbers] = BatchNumbers(self.data, self.config.batch_size, row["step"] - 1, row["step"])
        pictures = ", ".join(f"train{d}/{self.data.path(d, n).name}" for d in "AB" for n in numbers)
        raise UserError(f"step {row['step']}: {loss} is {value}, on {pictures}; {self._way_back()}")

    def _way_back(self):
        epochs = checkpoints.saved_epochs(self.config.models_folder)
        there = f"--start_from {epochs[-1]} goes on from before" if epochs else "nothing had been saved before"
        return f"{there}; try a lower --lr (it was {self.config.lr:g}) or --precision fp32"

    def _check_folders(self):
        """Refuse folders that cannot be made, another run's, and a start_from with nothing there."""
        config = self.config
        for folder in (config.models_folder, config.images_folder):
            there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                what = "cannot be written to" if there.is_dir() else "is a file"
                raise UserError(f"{there} {what}; {folder} cannot be made, choose another --output_root")
        epochs = checkpoints.saved_epochs(config.models_folder)
        if config.start_from and config.start_from not in epochs:
            has = f"there are epochs {', '.join(map(str, epochs))}" if epochs else "there is no checkpoint yet"
            raise UserError(f"--start_from {config.start_from}: not in {config.models_folder}; {has}")
        if not config.start_from and not config.overwrite:
            for folder in (config.models_folder, config.images_folder):
                if folder.exists() and any(folder.iterdir()):
                    last = f", --start_from {epochs[-1]} to go on" if epochs else ""
                    raise UserError(f"{folder} holds an earlier run; give another --run_name{last}, or --overwrite")
        if config.tensorboard:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError:
                raise UserError("--tensorboard needs a package: pip install tensorboard") from None

    def _go_on(self):
        folder = self.config.models_folder / f"epoch_{self.config.start_from}"
        _, facts = checkpoints.read_tensors(folder / "state.safetensors")
        for name in FIXED:
            if name in facts and facts[name] != getattr(self.config, name):
                here = getattr(self.config, name)
                raise UserError(f"--{name} {here}: the run in {folder} had {facts[name]}; give that to go on")
        if facts.get("pictures", self.counts) != self.counts:
            had = facts["pictures"]
            raise UserError(f"{self.root} has {self.counts} training pictures, and had {had}: not the same data")
        self.step = checkpoints.load_checkpoint(folder, self.model)["step"]
        if self.step >= self.total_steps:
            more = "give a larger --num_epochs or --max_steps to go on"
            raise UserError(f"{folder}: all {self.step} steps are done; {more}")

    def _make_folders(self):
        config = self.config
        for folder in (config.models_folder, config.images_folder):
            if config.overwrite and not config.start_from:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
        record = {field_.name: getattr(config, field_.name) for field_ in dataclasses.fields(config)}
        record |= {
            "device": self.device, "precision": self.precision, "floor_A": self.floors["A"],
            "floor_B": self.floors["B"], "torch": torch.__version__, "python": platform.python_version(),
        }  # fmt: skip
        (config.models_folder / "config.json").write_text(json.dumps(record, indent=1, default=str) + "\n")

    def _end_epoch(self):
        config = self.config
        if config.sample_interval and self.epoch % config.sample_interval == 0:
            self._save_pictures()
        if config.checkpoint_interval and self.epoch % config.checkpoint_interval == 0:
            self._save_checkpoint()

    def _save_checkpoint(self):
        for name, network in self.model.networks.items():
            if not all(weights.isfinite().all() for weights in network.parameters()):
                raise UserError(f"step {self.step}: {name} has weights that are not finite; {self._way_back()}")
        facts = {name: getattr(self.config, name) for name in FIXED}
        facts |= {"step": self.step, "epoch": self.epoch, "pictures": self.counts}
        folder = self.config.models_folder
        checkpoints.save_checkpoint(folder / f"epoch_{self.epoch}", self.model, facts)
        if self.config.keep_checkpoints:
            earlier = [epoch for epoch in checkpoints.saved_epochs(folder) if epoch < self.epoch]
            for epoch in earlier[: len(earlier) + 1 - self.config.keep_checkpoints]:
                shutil.rmtree(folder / f"epoch_{epoch}")

    def _save_pictures(self):
        folder = self.config.images_folder
        sheet = plots.picture_rows(self.sheet(), f"{self.config.name} after epoch {self.epoch} (test pictures)")
        (folder / f"epoch_{self.epoch:03d}.png").write_bytes(plots.to_png(sheet))
        curves = plots.loss_curves(self.history, self.floors, f"{self.config.name}: losses")
        (folder / "curves.png").write_bytes(plots.to_png(curves))

    def _save_scores(self):
        if not (self.root / "scenes.json").is_file():
            return
        test = Water2WineTest(self.root, self.config.size, self.config.channels)
        fake_B, _ = self.model.translate(test.real["A"], "AtoB")
        fake_A, _ = self.model.translate(test.real["B"], "BtoA")
        self.scores = {**test.scores(fake_B, fake_A), **test.baselines()}
        self.scores["seconds_training"] = round(self.seconds_training, 1)
        path = self.config.images_folder / "scores.json"
        path.write_text(json.dumps(self.scores, indent=1) + "\n")


class _Log:
    """`history.jsonl`, a line a step, and TensorBoard if asked for.

    Losses wait on the device as tensors: reading each one at once would make the device wait.
    """

    def __init__(self, config, step, precision):
        self.path = config.models_folder / "history.jsonl"
        self.waiting, self.board, self.diverged = [], None, None
        self.skips = precision == "fp16"  # its scaler skips a step that overflows, and goes on
        rows = [row for row in read_history(self.path) if row["step"] <= step] if step else []
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(config.models_folder / "tensorboard"), purge_step=step + 1)

    def add(self, step, epoch, lr, losses):
        self.waiting.append(({"step": step, "epoch": epoch, "lr": lr}, losses))

    def flush(self):
        """Write what waits, up to a row that is not finite: that is `diverged` then. Returns its means, for the bar."""
        rows = []
        for row, losses in self.waiting:
            values = {name: None if losses[name] is None else losses[name].item() for name in LOSSES}
            rows.append({**row, **values})
        self.waiting = []
        finite = [all(_is_finite(row[name]) for name in LOSSES) for row in rows]
        if not all(finite) and not (self.skips and any(finite)):
            self.diverged = rows[finite.index(False)]
            rows = rows[: finite.index(False)]
        with open(self.path, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        if self.board:
            for row in rows:
                for name in ("lr", *LOSSES):
                    if row[name] is not None:
                        self.board.add_scalar(name, row[name], row["step"])
        shown = [name for name in LOSSES if rows and rows[0][name] is not None]
        return {name: f"{sum(row[name] for row in rows) / len(rows):.3f}" for name in shown}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.flush()
        if self.board:
            self.board.close()


def _is_finite(loss):
    return loss is None or math.isfinite(loss)


def read_history(path):
    """The rows of a `history.jsonl`: a list of dicts, empty if there is no such file.

    A last line without its end, from a process that was killed while writing, is left out.
    """
    path = Path(path)
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        try:
            if line.endswith("\n"):
                rows.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}: line {number} is damaged; delete it and what follows to go on") from None
    return rows


@contextmanager
def _only_process(folder):
    """Refuse a run's folder in which another process trains. The system drops the lock with its process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: another process trains there; wait for its end or give another --run_name"
        ) from None
    except NotImplementedError:  # a file system without locks, a network's say
        pass
    try:
        yield
    finally:
        lock.release()


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
    """Train as `config` says. Returns the finished, or interrupted, `Trainer`."""
    return Trainer(config).run(callback)


def fit(config, steps=None, minutes=None):
    """The same run, but of so many steps, or of as many as this machine does in so many minutes.

    For the latter ten steps are timed, on a model that is thrown away.
    """
    trainer = Trainer(dataclasses.replace(config, num_epochs=1, max_steps=None))
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
        count_A, count_B = trainer.counts
        print(
            f"{config.name}: {count_A} + {count_B} training pictures at {config.img_width}×{config.img_height}, "
            f"{trainer.total_steps} steps, {trainer.device}, {trainer.precision}"
        )
        if config.output_norm == "instance":
            print(
                f"InstanceNorm at the output: on average cycle_A cannot go below {trainer.floors['A']:.3f} "
                f"nor cycle_B below {trainer.floors['B']:.3f}, however long this trains"
            )
        trainer.run()
    checkpoint = config.models_folder / f"epoch_{trainer.epoch}"
    if trainer.stopped:
        print(
            f"\nstopped at step {trainer.step} of {trainer.total_steps}; saved {checkpoint}. "
            f"To go on, give the same options and --start_from {trainer.epoch}"
        )
        raise SystemExit(130)
    if trainer.scores:
        print(score_table(trainer.scores))
    print(report(trainer.diagnosis(), trainer.step))
    print(f"trained for {trainer.seconds_training:.0f} s; networks in {checkpoint}, pictures in {config.images_folder}")


def score_table(scores):
    """`scores.json` as a table: the translation beside doing nothing and matching the means."""
    lines = [f"{'on the test pictures':22}{'CycleGAN':>10}{'do nothing':>12}{'match means':>13}"]
    for name in SCORES:
        values = scores[name], scores[f"identity_{name}"], scores[f"mean_match_{name}"]
        lines.append(f"{name:22}{values[0]:10.3f}{values[1]:12.3f}{values[2]:13.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
