"""A training in pictures: its settings as controls, and hooks that draw sample sheets and loss curves."""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets as ipw
import torch

from cyclegan_lib.config import demo_config
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_atomic
from cyclegan_lib.pictures.check import GENERATED, prepare_dataset
from cyclegan_lib.runs.folder import remove_run
from cyclegan_lib.runs.log import FLUSH_STEPS, read_curves
from cyclegan_lib.runs.timing import fit
from cyclegan_lib.show import plots
from cyclegan_lib.show.widgets import Picture, labelled, slider
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.trainer import Hook


def training_floors(data, count=100):
    """{"A", "B"}: `output_norm_floor` of the first samples, crops and flips, of an `UnpairedDataset`."""
    samples = zip(*(data[n] for n in range(min(count, len(data)))), strict=True)
    return {domain: output_norm_floor(torch.stack(crops)) for domain, crops in zip("AB", samples, strict=True)}


class Drawer(Hook):
    """Observer: draws a training. What sample sheets and live curves have in common."""

    def start(self, trainer):
        self.pictures = [trainer.data.test(domain, 8) for domain in "AB"]  # always the same, as in `Trainer.sheet`
        has_norm = trainer.config.output_norm == "instance"
        self.floors = training_floors(trainer.data) if has_norm else None  # without the norm it has none

    def draw(self, trainer, sheet_title, curves_title):
        """(sample sheet, loss curves) as PNGs. None, with a warning, if one fails: that must not end a training."""
        folder, pngs = trainer.config.models_folder, {}
        for name, figure in {
            "sample sheet": lambda: plots.picture_rows(trainer.shown.sheet(*self.pictures), sheet_title),
            "loss curves": lambda: plots.loss_curves(read_curves(folder, trainer.step), self.floors, curves_title),
        }.items():
            try:
                pngs[name] = plots.to_png(figure())
            except Exception as error:
                pngs[name] = None
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                print(f"warning: cannot draw the {name} ({reason})", file=sys.stderr)
        return tuple(pngs.values())


class SampleSheets(Drawer):
    """Observer, behind `Resume` and `Log`: writes generated_images/<run_name>/epoch_<NNN>.png and curves.png, every
    `sample_interval` epochs and at the end; where a training was stopped, step_<S>.png.
    """

    def __init__(self, config):
        self.config, self.folder = config, config.images_folder

    def start(self, trainer):
        super().start(trainer)
        if trainer.step == 0:
            remove_run(self.folder)
        epochs = trainer.step // trainer.steps_per_epoch
        for path in self.folder.glob("*_*.png"):  # of a run that was stopped, or of epochs that are trained again
            kind, _, number = path.stem.partition("_")
            if kind == "step" or (kind == "epoch" and number.isdigit() and int(number) > epochs):
                path.unlink()
        if trainer.step and trainer.step % trainer.steps_per_epoch == 0:  # it was killed before it drew this one
            self.after_epoch(trainer)

    def after_epoch(self, trainer):
        interval = self.config.sample_interval
        if interval and trainer.epoch % interval == 0 and trainer.stopped:  # else `end` writes it
            self.write(trainer, f"epoch_{trainer.epoch:03d}")

    def end(self, trainer):
        self.write(trainer, f"step_{trainer.step}" if trainer.stopped else f"epoch_{trainer.epoch:03d}")

    def write(self, trainer, name):
        title = f"{self.config.name} after epoch {trainer.epoch} (test pictures)"
        pngs = self.draw(trainer, title, f"{self.config.name}: losses")
        for png, path in zip(pngs, (self.folder / f"{name}.png", self.folder / "curves.png"), strict=True):
            try:
                if png:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, png)
            except (UserError, OSError) as error:
                print(f"warning: {error}", file=sys.stderr)


class LiveTraining(Drawer):
    """Observer, behind a `Log`: draws loss curves and samples `every` so many seconds. `box` is the widget to show."""

    def __init__(self, every=15):
        self.every, self.drawn_at = every, -math.inf
        self.curves, self.samples = Picture(900), Picture(900)
        self.box = ipw.VBox([self.curves.widget, self.samples.widget])

    def after_step(self, trainer):
        if trainer.step % FLUSH_STEPS == 0 and time.monotonic() - self.drawn_at >= self.every:
            self.end(trainer)

    def end(self, trainer):
        title = f"{plots.NORM_NAMES[trainer.config.output_norm]}: step {trainer.step} of {trainer.total_steps}"
        for png, picture in zip(self.draw(trainer, title, title), (self.samples, self.curves), strict=True):
            picture.widget.value = png or picture.widget.value
        self.drawn_at = time.monotonic()


class TrainingControls:
    """What to train on, how long, and with which settings. `box` is the widget to show."""

    def __init__(self, data_root, output_root, minutes=2.0):
        self.data_root, self.output_root = Path(data_root), Path(output_root)
        self.dataset = ipw.Dropdown(**labelled("data set", 420))
        self.pixels = ipw.Dropdown(options=[64, 96, 128, 256], value=64, **labelled("picture size", 420))
        self.unit = ipw.Dropdown(options=["minutes", "epochs"], value="minutes", **labelled("train for", 420))
        self.amount = ipw.BoundedFloatText(minutes, min=0.1, max=10000, step=0.1, **labelled("how many", 420))
        self.lambda_cycle = slider("λ cycle", 10, 0, 20, 0.5, 420)
        self.lambda_identity = slider("λ identity", 5, 0, 20, 0.5, 420)
        names = [(plots.NORM_NAMES[norm], norm) for norm in ("none", "instance")]
        self.output_norm = ipw.ToggleButtons(options=names, **labelled("last layer", 700))
        self.output_norm.style.button_width = "230px"
        self.find_datasets()
        length = [self.dataset, self.pixels, self.unit, self.amount]
        self.box = ipw.VBox([*length, self.lambda_cycle, self.lambda_identity, self.output_norm])

    def find_datasets(self, choose=GENERATED):
        """List the data sets that are there, and water2wine, which can be drawn; choose one."""
        names = {folder.parent.name for folder in self.data_root.glob("*/trainA")}
        self.dataset.options = [GENERATED, *sorted(names - {GENERATED})]
        self.dataset.value = choose

    def config(self, steps=None):
        """A `TrainConfig`: the demo's, with what the controls say; minutes become steps, unless `steps` are given.

        A stopped run of the same settings continues; others of its name are replaced.
        """
        name, norm, side = self.dataset.value, self.output_norm.value, self.pixels.value
        config = demo_config(
            dataset_name=name, img_height=side, img_width=side, output_norm=norm, lambda_cycle=self.lambda_cycle.value,
            lambda_identity=self.lambda_identity.value, data_root=self.data_root, output_root=self.output_root,
            run_name=f"playground_{name}_{norm}", overwrite=True, resume="auto", checkpoint_minutes=5,
        )  # fmt: skip
        if steps is None and self.unit.value == "epochs":
            return replace(config, num_epochs=max(1, round(self.amount.value)))
        prepare_dataset(self.data_root, config.dataset_name, self.pixels.value)
        return fit(config, steps=steps, minutes=self.amount.value)
