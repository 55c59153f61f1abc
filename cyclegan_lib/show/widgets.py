"""Controls → a pure drawing function, for what ipywidgets 7.7 (Colab) and 8 share.

Pictures are drawn into an `Image` widget: an `Output` widget, and `interact`, which uses one, can hang a notebook that
runs without a person.
"""

import functools
import html
import random
import tempfile
from pathlib import Path

import ipywidgets as ipw
import torch
from matplotlib.figure import Figure

from cyclegan_lib.cyclegan import resolve_device
from cyclegan_lib.errors import UserError
from cyclegan_lib.pictures.check import dataset_folder
from cyclegan_lib.pictures.collect import from_folders
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.pictures.translate import translate_image
from cyclegan_lib.pictures.weights import OFFICIAL_NAMES, load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study.diagnose import REPAIRS, diagnose, probed
from cyclegan_lib.study.floor import LARGEST_MEAN, closest_reachable, output_norm_floor
from cyclegan_lib.water2wine.scenes import GLASSES, LIQUIDS, arranged_scene, render


def labelled(description, width=520):
    """The options that every control has; its width is in pixels."""
    return dict(description=description, style={"description_width": "150px"}, layout={"width": f"{width}px"})


def slider(description, value, least, most, step, width=520):
    limits = dict(min=least, max=most, step=step, continuous_update=False)
    return ipw.FloatSlider(value, **limits, **labelled(description, width))


def stops(description, options, index=0):
    """A slider over some values, at the one with this index."""
    index = range(len(options))[index]
    return ipw.SelectionSlider(options=options, index=index, continuous_update=False, **labelled(description))


@torch.inference_mode()
def translated(generators, picture):
    """{name, on two lines: what its generator makes of the picture}."""
    return {name.replace(" at", "\nat"): G(picture[None])[0] for name, G in generators.items()}


def button(description, action, message, failure):
    """A button: what `action()` returns is shown in `message`, an `HTML`; or `failure` and the error."""

    def click(made):
        try:
            message.value = html.escape(action())
        except (UserError, OSError) as error:
            message.value = f"<b>{failure}</b> {html.escape(str(error))}"

    made = ipw.Button(description=description, button_style="primary")
    made.on_click(click)
    return made


class Picture:
    """An `Image` widget to draw figures into, of a `width` in pixels: a fixed one stops flicker."""

    def __init__(self, width):
        self.widget = ipw.Image(format="png", layout={"width": f"{width}px"})
        placeholder = Figure(figsize=(9, 0.4))
        placeholder.text(0.01, 0.5, "drawn here in a moment …", va="center", color="#555555")
        self.draw(placeholder)

    def draw(self, figure):
        self.widget.value = plots.to_png(figure)


class Explorer:
    """Controls above a picture, which is drawn again when one of them is moved. `box` is the widget to show.

    A subclass has a method `draw(values of the controls)` → figure. Code moves them, too: `explorer.fill.value = 0.3`.
    """

    def __init__(self, width, **controls):
        vars(self).update(controls)
        self.controls, self.picture = controls, Picture(width)
        for control in controls.values():
            control.observe(lambda change: self.redraw(), "value")
        self.redraw()
        self.box = ipw.VBox([*controls.values(), self.picture.widget])

    def figure(self):
        return self.draw(**{name: control.value for name, control in self.controls.items()})

    def redraw(self):
        self.picture.draw(self.figure())


class TranslationExplorer(Explorer):
    """Translations there and back by `models`, {name: `CycleGAN`}, of a picture of `real`, {"A": (N, C, H, W), "B"}."""

    def __init__(self, models, real):
        self.models, self.real = models, real
        direction = ipw.ToggleButtons(options=[("A → B", "AtoB"), ("B → A", "BtoA")], **labelled("direction"))
        super().__init__(620, direction=direction, number=stops("test picture", range(min(map(len, real.values())))))

    def draw(self, direction, number):
        first, second = direction[0], direction[-1]
        real = self.real[first][number][None]
        ways = {name.replace(" at", "\nat"): model.translate(real, direction) for name, model in self.models.items()}
        rows = {name: torch.cat([real, *way]) for name, way in ways.items()}
        columns = [f"real {first}", f"fake {second}", f"back to {first}"]
        return plots.picture_rows(rows, columns=columns, picture_inches=1.6)


class SceneExplorer(Explorer):
    """Draw a scene; generators, {name: G_AB}, translate it at once, beside the answer."""

    def __init__(self, generators):
        self.generators = generators
        brightness, tint = slider("wall: brightness", 0.8, 0, 1, 0.05), slider("wall: blue … orange", 0, -1, 1, 0.1)
        fill = slider("fill level", 0.65, 0.3, 0.9, 0.05)
        glass = ipw.ToggleButtons(options=GLASSES, **labelled("glass"))
        liquid = ipw.ToggleButtons(options=LIQUIDS, **labelled("liquid"))
        super().__init__(860, brightness=brightness, tint=tint, fill=fill, glass=glass, liquid=liquid)

    def draw(self, brightness, tint, fill, glass, liquid):
        scenes = (arranged_scene(brightness, tint, glass, fill, poured) for poured in (liquid, "wine"))
        scene, answer = (render(arranged, 64)[0] for arranged in scenes)
        pictures = {f"the scene, with {liquid}": scene, **translated(self.generators, scene)}
        return plots.means_and_contrasts(pictures | {"the answer: wine": answer}, LARGEST_MEAN)


class FloorExplorer(Explorer):
    """Make a picture of some, (N, 3, H, W) in [-1, 1], brighter or flatter; see the closest that a norm allows."""

    def __init__(self, pictures):
        self.pictures = pictures
        self.curve = functools.lru_cache(maxsize=64)(self._curve)
        brightness, contrast = slider("brightness", 0, -1, 1, 0.05), slider("contrast", 1, 0, 2, 0.1)
        picture, scale = stops("picture", range(len(pictures))), slider("learned scale", 1, 1, 20, 1)
        super().__init__(920, number=picture, brightness=brightness, contrast=contrast, scale=scale)

    def changed(self, number, brightness, contrast):
        """A picture with its contrast scaled and `brightness` added: (1, 3, H, W)."""
        picture = self.pictures[number][None]
        middle = picture.mean((2, 3), keepdim=True)
        return (middle + contrast * (picture - middle) + brightness).clamp(-1, 1)

    def _curve(self, number, contrast, scale):
        """Means and floors of that picture from black to white."""
        shades = torch.cat([self.changed(number, shade, contrast) for shade in torch.linspace(-2, 2, 21).tolist()])
        return shades.mean((1, 2, 3)).tolist(), output_norm_floor(shades, "none", scale).mean(1).tolist()

    def draw(self, number, brightness, contrast, scale):
        picture = self.changed(number, brightness, contrast)
        here = picture.mean().item(), output_norm_floor(picture, scale=scale)
        curve = self.curve(number, contrast, scale)
        return plots.floor_view(picture[0], closest_reachable(picture, scale)[0], curve, *here, LARGEST_MEAN)


class TrainingScrubber(Explorer):
    """Go through a training: translations of a test picture of `real`, (N, 3, H, W) in [-1, 1], over the loss curves.

    `generators` are {output_norm: {step: G_AB}}, the same steps for each; `curves`, `floor`: see `training_moment`.
    """

    def __init__(self, generators, real, answers, curves, floor):
        self.generators, self.real, self.answers, self.curves, self.floor = generators, real, answers, curves, floor
        step = stops("training step", sorted(next(iter(generators.values()))), -1)
        super().__init__(860, step=step, number=stops("test picture", range(len(real))))

    def draw(self, step, number):
        water, answer = self.real[number], self.answers[number]
        now = {plots.NORM_NAMES[norm]: by_step[step] for norm, by_step in self.generators.items()}
        pictures = {"water": water, **translated(now, water), "the answer": answer}
        return plots.training_moment(pictures, self.curves, self.floor, step)


class ConfoundingExplorer(Explorer):
    """Test pictures, (N, 3, H, W) in [-1, 1], translated by {what followed the liquid: {how often, 0.5 to 1: G_AB}}."""

    def __init__(self, generators, real, answers):
        self.generators, self.real, self.answers = generators, real, answers
        shares = [(f"in {share:.0%}", share) for share in sorted(next(iter(generators.values())))]
        what = ipw.ToggleButtons(options=list(generators), **labelled("followed the liquid"))
        super().__init__(860, what=what, confounding=stops("of the pictures", shares, -1))

    def draw(self, what, confounding):
        with torch.inference_mode():
            fakes = self.generators[what][confounding](self.real)
        rows = {"water": self.real, "its translation": fakes, "the answer": self.answers}
        title = f"Trained where {what} followed the liquid in {confounding:.0%} of the pictures"
        return plots.picture_rows(rows, title)


class SheetExplorer(Explorer):
    """Go through the sample sheets in a run's `generated_images/<run_name>`. `UserError` if there are none."""

    def __init__(self, folder):
        self.sheets = {int(path.stem.split("_")[1]): path for path in sorted(Path(folder).glob("epoch_*.png"))}
        self.sheets |= {path.stem.replace("_", " "): path for path in Path(folder).glob("step_*.png")}
        if not self.sheets:
            raise UserError(f"{folder}: no sample sheets there; train with --sample_interval 1")
        super().__init__(860, epoch=stops("after epoch", list(self.sheets), -1))

    def draw(self, epoch):
        return plots.picture_file(self.sheets[epoch])


class WeightsExplorer(Explorer):
    """Load a generator, from `files` or an official one (downloaded), and go through Pillow images with it."""

    def __init__(self, pictures, files=()):
        self.pictures, self.G, self.loaded = pictures, None, None
        self.weights = ipw.Dropdown(options=[*map(str, files), *OFFICIAL_NAMES], **labelled("weights"))
        self.message = ipw.HTML("choose weights and load them")
        self.button = button("load", self._load, self.message, "Not loaded.")
        super().__init__(820, number=stops("picture", range(len(pictures))))
        self.box = ipw.VBox([ipw.HBox([self.weights, self.button]), self.message, self.box])

    def _load(self):
        name = self.weights.value
        self.message.value = html.escape(f"loading {name} …")
        self.G, self.loaded = load_generator(name).to(resolve_device("auto")), Path(name).name
        self.redraw()
        return f"loaded {name}"

    def draw(self, number):
        image = self.pictures[number]
        images = {f"the picture, {image.width}×{image.height}": image}
        if self.G is not None:
            images[f"translated by {self.loaded}"] = translate_image(self.G, image)
        return plots.images_in_a_row(images)


class OwnPictures:
    """Two pictures, to cut into crops, or two folders or zips of pictures → a data set, chosen in `controls`."""

    def __init__(self, controls):
        self.controls = controls
        self.uploads = {d: ipw.FileUpload(accept="image/*,.zip", description=f"upload {d}") for d in "AB"}
        self.paths = {d: ipw.Text(placeholder="a picture, folder or zip", **labelled(f"or a path, {d}")) for d in "AB"}
        self.name, self.message = ipw.Text("mine", **labelled("name of the data set")), ipw.HTML()
        self.button = button("make a data set", self._make, self.message, "Not done.")
        rows = [ipw.HBox([self.uploads[d], self.paths[d]]) for d in "AB"]
        self.box = ipw.VBox([*rows, self.name, self.button, self.message])

    def _make(self):
        root = dataset_folder(self.controls.data_root, self.name.value.strip())
        sources = [self._source(domain) for domain in "AB"]
        several = any(source.is_dir() or source.suffix.lower() == ".zip" for source in sources)
        (from_folders if several else write_crops)(*sources, root)
        self.controls.find_datasets(choose=root.name)
        return f"Made {root}. It is chosen in the controls above: run the training cells again."

    def _source(self, domain):
        """The uploaded file, saved where Pillow can open it, or the path that was typed."""
        uploaded, typed = self.uploads[domain].value, self.paths[domain].value.strip()
        if not uploaded and typed:
            return Path(typed).expanduser()
        if not uploaded:
            raise UserError(f"picture {domain} is missing: upload one or give its path")
        # ipywidgets 8: a tuple of dicts; 7: a dict of dicts by file name.
        file = next(iter(uploaded.values())) if isinstance(uploaded, dict) else uploaded[0]
        path = Path(tempfile.mkdtemp()) / Path(file.get("metadata", file)["name"]).name
        path.write_bytes(bytes(file["content"]))
        return path


def case_of(number, faults):
    """The fault of a case, the same for everybody. Each fault comes once before one comes again."""
    rounds, place = divmod(number - 1, len(faults))
    return random.Random(rounds).sample(sorted(faults), len(faults))[place]


class FaultGame:
    """Name the hidden fault of a finished training with as few of three tests as you can. `box` is the widget to show.

    Args:
        kept: fault → (history, samples, what `probe` returned) of a run with it.
        healthy: the same three of the healthy run that is shown beside it.
        cases: {fault: what shows it and its repair, or "" where `diagnose` and `REPAIRS` say both}.
    """

    def __init__(self, kept, healthy, cases):
        self.kept, self.healthy, self.cases, self.seen = kept, healthy, cases, functools.cache(self._seen)
        self.used, self.reveals, self.points, self.its_points, self.silent = {}, {}, 0, 0, set()
        self.case = ipw.BoundedIntText(1, min=1, max=999, **labelled("case number", 250))
        self.tests = {name: ipw.Button(description=name) for name in ("loss curves", "pictures", "probe")}
        self.answer = ipw.Dropdown(options=["", *sorted(cases)], **labelled("the fault is", 420))
        self.button, self.next = (ipw.Button(description=name) for name in ("this is it", "next case"))
        self.message, self.evidence = ipw.HTML(), ipw.VBox()
        self.case.observe(lambda change: self._show(), "value")
        for test in self.tests.values():
            test.on_click(self._use)
        self.button.on_click(self._judge)
        self.next.on_click(lambda button: setattr(self.case, "value", self.case.value + 1))
        rows = (self.case, self.next), tuple(self.tests.values()), (self.answer, self.button)
        self.box = ipw.VBox([*map(ipw.HBox, rows), self.message, self.evidence])
        self._show()

    @property
    def verdict(self):
        """What is said of this case, and the score."""
        number, count = self.case.value, len(self.reveals)
        now = f"Case {number}: a right answer now scores {4 - len(self.used[number])}."
        score = (
            f"Your score: {self.points} of {4 * count}. diagnose, with all three tests: {self.its_points} of {count}"
        )
        silent = f"; it is silent on {', '.join(sorted(self.silent))}" if self.silent else ""
        return f"{self.reveals.get(number, now)}\n{score}{silent}."

    def _show(self):
        number = self.case.value
        used, solved = self.used.setdefault(number, set()), number in self.reveals
        for name, test in self.tests.items():
            test.disabled = solved or name in used
        self.answer.disabled = self.button.disabled = solved
        self.message.value = html.escape(self.verdict).replace("\n", "<br>")
        self.evidence.children = tuple(self.seen(number, name) for name in self.tests if solved or name in used)

    def _seen(self, number, test):
        """A widget with what a test shows of a case."""
        run = self.kept(case_of(number, self.cases))
        if test == "probe":
            found = "; ".join(finding.evidence for finding in probed(run[2])) or "nothing unusual"
            return ipw.HTML(html.escape(f"The probe: {found}."))
        part, draw = (1, plots.pictures_beside_healthy) if test == "pictures" else (0, plots.curves_beside_healthy)
        picture = Picture(936)
        picture.draw(draw(run[part], self.healthy[part], f"Case {number}: {test}"))
        return picture.widget

    def _use(self, test):
        self.used[self.case.value].add(test.description)
        self._show()

    def _judge(self, button):
        number, answer, fault = self.case.value, self.answer.value, case_of(self.case.value, self.cases)
        if not answer or number in self.reveals:
            return
        findings = diagnose(*self.kept(fault), total_steps=self.healthy[0][-1]["step"])
        found = {finding.fault: finding.evidence for finding in findings}
        points = (4 - len(self.used[number])) * (answer == fault)
        why = self.cases[fault] or f"{found[fault]}. Repair: {REPAIRS[fault]}."
        said = "right, it is" if points else f"not {answer}: it is"
        self.reveals[number] = f"Case {number}: {said} {fault} ({points} of 4 points). What shows it: {why}"
        self.points, self.its_points = self.points + points, self.its_points + (next(iter(found), "healthy") == fault)
        self.silent |= set() if found else {fault} - {"healthy"}
        self.answer.value = ""
        self._show()
