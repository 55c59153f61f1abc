"""What a training shows of itself: sample sheets and loss curves, drawn by hooks."""

import sys

import torch

from cyclegan_lib.files import write_atomic
from cyclegan_lib.runs.folder import remove_run
from cyclegan_lib.runs.log import read_curves
from cyclegan_lib.show import plots
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.trainer import Hook

SHEET_PICTURES = 8  # test pictures of each side on a sample sheet, always the same


def training_floors(data, count=100):
    """{"A", "B"}: what an InstanceNorm at the output keeps the cycle losses above.

    `output_norm_floor` of the first training samples of an `UnpairedDataset`, cropped and flipped as they are.
    """
    samples = zip(*(data[n] for n in range(min(count, len(data)))), strict=True)
    return {domain: output_norm_floor(torch.stack(crops)) for domain, crops in zip("AB", samples, strict=True)}


class Drawer(Hook):
    """Observer: draws a training. What sample sheets and live curves have in common."""

    def start(self, trainer):
        self.pictures = [trainer.data.test(domain, SHEET_PICTURES) for domain in "AB"]
        has_norm = trainer.config.output_norm == "instance"
        self.floors = training_floors(trainer.data) if has_norm else None  # without the norm it has none

    def draw_sheet(self, trainer, title):
        return draw("the sample sheet", lambda: plots.picture_rows(trainer.model.sheet(*self.pictures), title))

    def draw_curves(self, trainer, title):
        folder = trainer.config.models_folder
        curves = lambda: plots.loss_curves(read_curves(folder, trainer.step), self.floors, title)  # noqa: E731
        return draw("the loss curves", curves)


def draw(what, make):
    """The figure that `make()` returns, as a PNG. If it fails, a warning and None: that must not end a training."""
    try:
        return plots.to_png(make())
    except Exception as error:
        print(f"warning: cannot draw {what} ({type(error).__name__}: {' '.join(str(error).split())})", file=sys.stderr)
        return None


class SampleSheets(Drawer):
    """Observer: writes generated_images/<run_name>/epoch_<NNN>.png and curves.png, every `sample_interval` epochs
    and at the end; where a training was stopped, step_<S>.png.

    It stands behind the hooks that resume a training and that write its history. Only the first of
    several processes has it.

    Raises:
        UserError: if a picture cannot be written, because the disk is full, say.
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
        self.folder.mkdir(parents=True, exist_ok=True)

    def after_epoch(self, trainer):
        interval = self.config.sample_interval
        if interval and trainer.epoch % interval == 0 and trainer.stopped:  # else `end` writes it
            self.write(trainer, f"epoch_{trainer.epoch:03d}")

    def end(self, trainer):
        self.write(trainer, f"step_{trainer.step}" if trainer.stopped else f"epoch_{trainer.epoch:03d}")

    def write(self, trainer, name):
        title = f"{self.config.name} after epoch {trainer.epoch} (test pictures)"
        pngs = {
            name: self.draw_sheet(trainer, title),
            "curves": self.draw_curves(trainer, f"{self.config.name}: losses"),
        }
        for name, png in pngs.items():
            if png:
                write_atomic(self.folder / f"{name}.png", png)
