"""Controls → a pure drawing function. No mathematics and no training here.

Written to what ipywidgets 7.7 (Colab) and 8 share. Pictures are drawn into an `Image` widget:
an `Output` widget, and `interact`, which uses one, can hang a notebook that runs without a person.
"""

import functools
import html
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets as ipw
import torch

from cyclegan_lib.cyclegan import resolve_device
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import GENERATED, dataset_folder
from cyclegan_lib.pictures.collect import from_folders
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.pictures.translate import translate_image
from cyclegan_lib.pictures.weights import OFFICIAL_NAMES, load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study.floor import LARGEST_MEAN, closest_reachable, output_norm_floor
from cyclegan_lib.train import demo_config, fit
from cyclegan_lib.water2wine.dataset import SPLITS
from cyclegan_lib.water2wine.scenes import GLASSES, LIQUIDS, arranged_scene, render

WIDE = {"description_width": "150px"}


class Picture:
    """An `Image` widget to draw figures into.

    Args:
        width: in pixels; a fixed one stops flicker.
    """

    def __init__(self, width):
        self.widget = ipw.Image(format="png", layout=ipw.Layout(width=f"{width}px"))
        self.draw(plots.note("drawn here in a moment …"))

    def draw(self, figure):
        self.widget.value = plots.to_png(figure)


class TrainingControls:
    """What to train on, how long, and with which settings. `box` is the widget to show."""

    def __init__(self, data_root, output_root, minutes=2.0):
        self.data_root, self.output_root = Path(data_root), Path(output_root)
        line = dict(style=WIDE, layout=ipw.Layout(width="420px"))
        self.dataset = ipw.Dropdown(description="data set", **line)
        self.pixels = ipw.Dropdown(options=[64, 96, 128, 256], value=64, description="picture size", **line)
        self.unit = ipw.Dropdown(options=["minutes", "epochs"], value="minutes", description="train for", **line)
        self.amount = ipw.BoundedFloatText(minutes, min=0.1, max=10000, step=0.1, description="how many", **line)
        slider = dict(min=0, max=20, step=0.5, continuous_update=False, **line)
        self.lambda_cycle = ipw.FloatSlider(10, description="λ cycle", **slider)
        self.lambda_identity = ipw.FloatSlider(5, description="λ identity", **slider)
        self.output_norm = ipw.ToggleButtons(
            options=[(plots.NORM_NAMES[norm], norm) for norm in ("none", "instance")],
            value="none", description="last layer", style={**WIDE, "button_width": "230px"},
            layout=ipw.Layout(width="700px"),
        )  # fmt: skip
        self.find_datasets()
        self.box = ipw.VBox([
            self.dataset, self.pixels, self.unit, self.amount,
            self.lambda_cycle, self.lambda_identity, self.output_norm,
        ])  # fmt: skip

    def find_datasets(self, choose=GENERATED):
        """List the data sets that are there, and water2wine, which can be drawn; choose one."""
        found = {folder.parent.name for folder in self.data_root.glob(f"*/{next(iter(SPLITS))}")}
        self.dataset.options = [GENERATED, *sorted(found - {GENERATED})]
        self.dataset.value = choose

    def config(self, steps=None):
        """A `TrainConfig`: the demo's, with what the controls say.

        Runs are named after the data set and the last layer. One of the same settings goes on, if it
        was stopped; others are replaced. Minutes become steps by timing ten of them, unless the
        number of `steps` is given.
        """
        config = demo_config(
            dataset_name=self.dataset.value, img_height=self.pixels.value, img_width=self.pixels.value,
            lambda_cycle=self.lambda_cycle.value, lambda_identity=self.lambda_identity.value,
            output_norm=self.output_norm.value, data_root=self.data_root, output_root=self.output_root,
            run_name=f"playground_{self.dataset.value}_{self.output_norm.value}", overwrite=True, resume="auto",
            checkpoint_minutes=5,
        )  # fmt: skip
        if steps is None and self.unit.value == "epochs":
            return replace(config, num_epochs=max(1, round(self.amount.value)))
        return fit(config, steps=steps, minutes=self.amount.value)


class LiveTraining:
    """A training callback: loss curves and samples that refresh while it trains.

    Args:
        every: seconds between two drawings; training waits while one is made.
    """

    def __init__(self, every=15):
        self.every, self.drawn = every, 0.0
        self.curves, self.samples = Picture(900), Picture(900)
        self.box = ipw.VBox([self.curves.widget, self.samples.widget])

    def __call__(self, trainer):
        at_end = trainer.step == trainer.total_steps
        if time.monotonic() - self.drawn < self.every and not at_end:
            return
        where = f"{plots.NORM_NAMES[trainer.config.output_norm]}: step {trainer.step} of {trainer.total_steps}"
        self.curves.draw(plots.loss_curves(trainer.curves, trainer.floors, where))
        self.samples.draw(plots.picture_rows(trainer.sheet(), where))
        self.drawn = time.monotonic()


class TranslationExplorer:
    """Choose a test picture and a direction; every trained network translates it and back.

    Args:
        models: {name: `CycleGAN`}.
        real: {"A": (N, C, H, W), "B": …}, the pictures to choose from.
    """

    def __init__(self, models, real):
        self.models, self.real = models, real
        names = {"A → B": "AtoB", "B → A": "BtoA"}
        self.direction = ipw.ToggleButtons(
            options=list(names.items()), description="direction", style=WIDE, layout=ipw.Layout(width="520px")
        )
        self.number = ipw.IntSlider(
            0, 0, min(map(len, real.values())) - 1, description="test picture", style=WIDE,
            continuous_update=False, layout=ipw.Layout(width="520px"),
        )  # fmt: skip
        self.controls = (self.direction, self.number)
        self.picture = Picture(620)
        self.box = _explorer(self)

    def figure(self):
        """The figure for what the controls say."""
        first, second = self.direction.value[0], self.direction.value[-1]
        real = self.real[first][self.number.value][None]
        rows = {}
        for name, model in self.models.items():
            fake, rec = model.translate(real, self.direction.value)
            rows[name.replace(" at", "\nat")] = [real[0], fake[0], rec[0]]
        columns = [f"real {first}", f"fake {second}", f"back to {first}"]
        rows = {name: torch.stack(pictures) for name, pictures in rows.items()}
        return plots.picture_rows(rows, columns=columns, picture_inches=1.6)

    def redraw(self):
        self.picture.draw(self.figure())


class OwnPictures:
    """Two pictures, or two folders or zips of them, uploaded or named by path → a data set, chosen in the controls.

    Two pictures are cut into crops; what is in folders or zips is taken as it is, some of it for testing.
    """

    def __init__(self, controls):
        self.controls = controls
        line = dict(style=WIDE, layout=ipw.Layout(width="520px"))
        self.uploads = {d: ipw.FileUpload(accept="image/*,.zip", description=f"upload {d}") for d in "AB"}
        self.paths = {
            d: ipw.Text(description=f"or a path, {d}", placeholder="photo.jpg, a folder or a zip", **line) for d in "AB"
        }
        self.name = ipw.Text("mine", description="name of the data set", **line)
        self.button = ipw.Button(description="make a data set", button_style="primary")
        self.message = ipw.HTML()
        self.button.on_click(lambda button: self.make())
        rows = [ipw.HBox([self.uploads[d], self.paths[d]]) for d in "AB"]
        self.box = ipw.VBox([*rows, self.name, self.button, self.message])

    def make(self):
        """Make the data set and say where it is, or what is wrong."""
        try:
            root = dataset_folder(self.controls.data_root, self.name.value.strip())
            sources = [self._source(domain) for domain in "AB"]
            several = any(source.is_dir() or source.suffix.lower() == ".zip" for source in sources)
            (from_folders if several else write_crops)(*sources, root)
        except (UserError, OSError) as error:
            self.message.value = f"<b>Not done.</b> {html.escape(str(error))}"
            return
        self.controls.find_datasets(choose=root.name)
        self.message.value = f"Made {root}. It is chosen in the controls above: run the training cells again."

    def _source(self, domain):
        """The uploaded file, saved where Pillow can open it, or the path that was typed."""
        uploaded = self.uploads[domain].value
        if not uploaded:
            typed = self.paths[domain].value.strip()
            if not typed:
                raise UserError(f"picture {domain} is missing: upload one or give its path")
            return Path(typed).expanduser()
        # ipywidgets 8: a tuple of dicts; 7: a dict of dicts by file name.
        file = next(iter(uploaded.values())) if isinstance(uploaded, dict) else uploaded[0]
        path = Path(tempfile.mkdtemp()) / Path(file.get("metadata", file)["name"]).name
        path.write_bytes(bytes(file["content"]))
        return path


class SheetExplorer:
    """Go through the sample sheets that a run left: the same test pictures, epoch by epoch.

    Args:
        folder: the run's, `generated_images/<run_name>`.

    Raises:
        UserError: if there are no sheets in it.
    """

    def __init__(self, folder):
        self.sheets = {int(path.stem.split("_")[1]): path for path in sorted(Path(folder).glob("epoch_*.png"))}
        if not self.sheets:
            raise UserError(f"{folder}: no sample sheets there; train with --sample_interval 1")
        self.epoch = ipw.SelectionSlider(
            options=sorted(self.sheets), value=max(self.sheets), description="after epoch", style=WIDE,
            continuous_update=False, layout=ipw.Layout(width="520px"),
        )  # fmt: skip
        self.controls = (self.epoch,)
        self.picture = Picture(860)
        self.box = _explorer(self)

    def figure(self):
        """The sheet of the epoch that the slider says."""
        return plots.picture_file(self.sheets[self.epoch.value])

    def redraw(self):
        self.picture.draw(self.figure())


class WeightsExplorer:
    """Load a generator, official weights by name too, and go through pictures with it, at their own size.

    Args:
        pictures: Pillow images.
        files: weights to choose from besides the official ones, which are downloaded when they are first loaded.
    """

    def __init__(self, pictures, files=()):
        self.pictures, self.G, self.loaded = pictures, None, None
        line = dict(style=WIDE, layout=ipw.Layout(width="520px"))
        self.weights = ipw.Dropdown(options=[*map(str, files), *OFFICIAL_NAMES], description="weights", **line)
        self.button = ipw.Button(description="load", button_style="primary")
        self.message = ipw.HTML("choose weights and load them")
        self.number = ipw.IntSlider(0, 0, len(pictures) - 1, description="picture", continuous_update=False, **line)
        self.picture = Picture(820)
        self.button.on_click(lambda button: self._load())
        self.number.observe(lambda change: self.redraw(), "value")
        self.redraw()
        self.box = ipw.VBox([
            ipw.HBox([self.weights, self.button]), self.message, self.number, self.picture.widget,
        ])  # fmt: skip

    def _load(self):
        self.message.value = html.escape(f"loading {self.weights.value} …")
        try:
            self.G = load_generator(self.weights.value).to(resolve_device("auto"))
        except (UserError, OSError) as error:
            self.message.value = f"<b>Not loaded.</b> {html.escape(str(error))}"
            return
        self.loaded = Path(self.weights.value).name
        self.message.value = html.escape(f"loaded {self.weights.value}")
        self.redraw()

    def figure(self):
        """The chosen picture, and what the network that was loaded makes of it."""
        image = self.pictures[self.number.value]
        pictures = {f"the picture, {image.width}×{image.height}": image}
        if self.G is not None:
            pictures[f"translated by {self.loaded}"] = translate_image(self.G, image)
        return plots.images_in_a_row(pictures)

    def redraw(self):
        self.picture.draw(self.figure())


class SceneExplorer:
    """Draw a scene; generators with and without the norm translate it at once, beside the answer.

    Args:
        generators: {name: G_AB}.
    """

    def __init__(self, generators):
        self.generators = generators
        line = dict(style=WIDE, layout=ipw.Layout(width="520px"))
        slider = dict(continuous_update=False, readout_format=".2f", **line)
        self.brightness = ipw.FloatSlider(0.8, min=0, max=1, step=0.05, description="wall: brightness", **slider)
        self.tint = ipw.FloatSlider(0, min=-1, max=1, step=0.1, description="wall: blue … orange", **slider)
        self.fill = ipw.FloatSlider(0.65, min=0.3, max=0.9, step=0.05, description="fill level", **slider)
        self.glass = ipw.ToggleButtons(options=GLASSES, description="glass", **line)
        self.liquid = ipw.ToggleButtons(options=LIQUIDS, description="liquid", **line)
        self.controls = (self.brightness, self.tint, self.fill, self.glass, self.liquid)
        self.picture = Picture(860)
        self.box = _explorer(self)

    def figure(self):
        """The figure for what the controls say. The answer is the same scene with wine."""
        scene = arranged_scene(
            self.brightness.value, self.tint.value, self.glass.value, self.fill.value, self.liquid.value
        )
        real_A = render(scene, 64)[0]
        pictures = {f"the scene, with {scene.liquid}": real_A}
        for name, G_AB in self.generators.items():
            pictures[name.replace(" at", "\nat")] = _apply(G_AB, real_A)
        pictures["the answer: wine"] = render(replace(scene, liquid="wine"), 64)[0]
        return plots.means_and_contrasts(pictures, LARGEST_MEAN)

    def redraw(self):
        self.picture.draw(self.figure())


class FloorExplorer:
    """Make a picture brighter or flatter; see the closest one that a norm at the output allows.

    Args:
        pictures: (N, 3, H, W) in [-1, 1] to choose from, any pictures.
    """

    def __init__(self, pictures):
        self.pictures = pictures
        line = dict(style=WIDE, layout=ipw.Layout(width="520px"))
        slider = dict(continuous_update=False, readout_format=".2f", **line)
        self.number = ipw.IntSlider(0, 0, len(pictures) - 1, description="picture", continuous_update=False, **line)
        self.brightness = ipw.FloatSlider(0, min=-1, max=1, step=0.05, description="brightness", **slider)
        self.contrast = ipw.FloatSlider(1, min=0, max=2, step=0.1, description="contrast", **slider)
        self.controls = (self.number, self.brightness, self.contrast)
        self.curve = functools.lru_cache(maxsize=64)(self._curve)
        self.picture = Picture(920)
        self.box = _explorer(self)

    def changed(self, brightness):
        """The chosen picture with its contrast scaled and `brightness` added: (1, 3, H, W)."""
        picture = self.pictures[self.number.value][None]
        middle = picture.mean((2, 3), keepdim=True)
        return (middle + self.contrast.value * (picture - middle) + brightness).clamp(-1, 1)

    def _curve(self, number, contrast):
        """Means and floors of that picture from black to white."""
        pictures = torch.cat([self.changed(brightness.item()) for brightness in torch.linspace(-2, 2, 21)])
        return pictures.mean((1, 2, 3)).tolist(), output_norm_floor(pictures, "none").mean(1).tolist()

    def figure(self):
        """The figure for what the controls say."""
        picture = self.changed(self.brightness.value)
        curve = self.curve(self.number.value, self.contrast.value)
        return plots.floor_view(
            picture[0], closest_reachable(picture)[0], curve, picture.mean().item(), output_norm_floor(picture),
            LARGEST_MEAN,
        )  # fmt: skip

    def redraw(self):
        self.picture.draw(self.figure())


class TrainingScrubber:
    """Go through a training: both arms' translations of a test picture, over the loss curves.

    Args:
        generators: {output_norm: {step: G_AB}}, the same steps for each.
        real, answers: (N, 3, H, W) in [-1, 1], test pictures and their counterfactuals.
        curves, floor: as for `plots.training_moment`.
    """

    def __init__(self, generators, real, answers, curves, floor):
        self.generators, self.real, self.answers = generators, real, answers
        self.curves, self.floor = curves, floor
        line = dict(style=WIDE, layout=ipw.Layout(width="520px"), continuous_update=False)
        steps = sorted(next(iter(generators.values())))
        self.step = ipw.SelectionSlider(options=steps, value=steps[-1], description="training step", **line)
        self.number = ipw.IntSlider(0, 0, len(real) - 1, description="test picture", **line)
        self.controls = (self.step, self.number)
        self.picture = Picture(860)
        self.box = _explorer(self)

    def figure(self):
        """The figure for what the controls say."""
        real_A = self.real[self.number.value]
        pictures = {"water": real_A}
        for norm, by_step in self.generators.items():
            pictures[plots.NORM_NAMES[norm].replace(" at", "\nat")] = _apply(by_step[self.step.value], real_A)
        pictures["the answer"] = self.answers[self.number.value]
        return plots.training_moment(pictures, self.curves, self.floor, self.step.value)

    def redraw(self):
        self.picture.draw(self.figure())


class ConfoundingExplorer:
    """What networks make of the same pictures, that were trained where something followed the liquid more or less.

    Args:
        generators: {what followed: {how often, 0.5 to 1: G_AB}}.
        real, answers: (N, 3, H, W) in [-1, 1], a row of test pictures and their counterfactuals.
    """

    def __init__(self, generators, real, answers):
        self.generators, self.real, self.answers = generators, real, answers
        line = dict(style=WIDE, layout=ipw.Layout(width="520px"))
        self.what = ipw.ToggleButtons(options=list(generators), description="followed the liquid", **line)
        shares = sorted(next(iter(generators.values())))
        names = [(f"in {share:.0%}", share) for share in shares]
        self.confounding = ipw.SelectionSlider(
            options=names, value=shares[-1], description="of the pictures", continuous_update=False, **line
        )
        self.controls = (self.what, self.confounding)
        self.picture = Picture(860)
        self.box = _explorer(self)

    def figure(self):
        """The figure for what the controls say."""
        G_AB = self.generators[self.what.value][self.confounding.value]
        with torch.inference_mode():
            rows = {"water": self.real, "its translation": G_AB(self.real), "the answer": self.answers}
        title = f"Trained where {self.what.value} followed the liquid in {self.confounding.value:.0%} of the pictures"
        return plots.picture_rows(rows, title)

    def redraw(self):
        self.picture.draw(self.figure())


class FaultGame:
    """Trainings with a hidden fault: look at curves, pictures and a probe, and name it. `box` is the widget to show.

    Args:
        play: a function (case number, callback for `Trainer.run`) → (name of the fault, history,
            samples, probe).
        healthy: (history, samples) of a healthy run, to show beside.
        names: of the faults to choose from.
    """

    def __init__(self, play, healthy, names):
        self.play, self.healthy, self.evidence = play, healthy, None
        line = dict(style=WIDE, layout=ipw.Layout(width="420px"))
        self.case = ipw.BoundedIntText(1, min=1, max=999, description="case number", **line)
        self.train = ipw.Button(description="train it", button_style="primary")
        self.probe = ipw.Button(description="probe")
        self.answer = ipw.Dropdown(options=["", *names], value="", description="the fault is", **line)
        self.message = ipw.HTML("choose a case and train it")
        self.picture = Picture(936)
        self.train.on_click(lambda button: self._train())
        self.probe.on_click(lambda button: self._probe())
        self.answer.observe(lambda change: self._judge(), "value")
        self.box = ipw.VBox([
            ipw.HBox([self.case, self.train, self.probe]), self.answer, self.message, self.picture.widget,
        ])  # fmt: skip

    @property
    def verdict(self):
        """What is said now, without its markup."""
        return html.unescape(self.message.value)

    def figure(self):
        """The case beside a healthy run."""
        return plots.beside_healthy(*self.evidence[:2], *self.healthy, f"Case {self.case.value}: which fault is it?")

    def _say(self, text):
        self.message.value = html.escape(text)

    def _train(self):
        self.answer.value, self.evidence = "", None
        self.truth, *self.evidence = self.play(
            self.case.value, lambda trainer: self._say(f"step {trainer.step} of {trainer.total_steps}")
        )
        self._say("trained: look at it, probe it, and name the fault")
        self.picture.draw(self.figure())

    def _probe(self):
        if self.evidence is None:
            self._say("train a case first")
            return
        probe = self.evidence[2]
        self._say(
            f"the discriminators' step leaves gradients in: {', '.join(probe['reached']) or 'no generator'}; "
            f"a picture's batch changes what is said of it by: {', '.join(probe['mixed']) or 'no network'}; "
            f"a step does not change: {', '.join(probe['unmoved']) or 'no network, all change'}; in the next epoch "
            f"{probe['same_crops']:.0%} of the pictures come with the same crop, "
            f"{probe['same_pairs']:.0%} with the same partner"
        )

    def _judge(self):
        if not self.answer.value:
            return
        if self.evidence is None:
            self._say("train a case first")
        elif self.answer.value == self.truth:
            self._say(f"right! It is: {self.truth}")
        else:
            self._say(f"not {self.answer.value}: look again")


@torch.inference_mode()
def _apply(G, picture):
    return G(picture[None])[0]


def _explorer(explorer):
    """Controls above the picture; whichever is moved, it is drawn again."""
    for control in explorer.controls:
        control.observe(lambda change: explorer.redraw(), "value")
    explorer.redraw()
    return ipw.VBox([*explorer.controls, explorer.picture.widget])
