"""The explorer without a kernel: `cyclegan page` makes one HTML page out of the experiment.

    data/explorer.html          everything inside: two flipbooks of small pictures, the curves, the figure
    data/ablation/training.gif  both arms training side by side

Whatever the page can show is drawn here beforehand; its script only picks. Every number in its text
is read from the tables. The same tables and networks give the same bytes, on one machine with one number of threads.
"""

import base64
import io
import itertools
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_atomic
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study.experiments import MAIN_ARMS
from cyclegan_lib.study.floor import LARGEST_MEAN
from cyclegan_lib.study.statistics import mean_and_interval
from cyclegan_lib.study.tables import read_table
from cyclegan_lib.water2wine.scenes import GLASSES, arranged_scene, counterfactual, render, sample_scene, to_image

SIZE = 64
# testA/<number>.png, chosen for their walls, which differ.
TEST_PICTURES = {17: "pale green wall", 20: "dark blue wall", 9: "pink wall",
                 3: "black wall", 27: "green wall", 33: "dark red wall"}  # fmt: skip
BRIGHTNESSES = [i / 10 for i in range(11)]
TINTS = {"grey": 0, "blue": -1, "orange": 1}
SHOWN = ("water", "instance", "none", "answer")  # side by side, in this order
CAPTIONS = {"water": "the water", "answer": "the answer", **{arm: plots.NORM_NAMES[arm] for arm in MAIN_ARMS}}
DOMAINS = {"A": "water → wine → water", "B": "wine → water → wine"}
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the same on every machine
PAGE = Path(__file__).with_suffix(".html")  # the page, with {{names}} for what is filled in


def load_networks(folder):
    """The kept networks of the two main arms: {arm: {step: G_AB}}, the steps that both have, sorted."""
    paths = {arm: Path(folder).glob(f"{arm}_step_*.safetensors") for arm in MAIN_ARMS}
    by_step = {arm: {int(path.stem.rpartition("_")[2]): path for path in found} for arm, found in paths.items()}
    steps = sorted(set.intersection(*map(set, by_step.values())))
    if not steps:
        raise UserError(f"{folder}: no networks there; cyclegan ablation trains and keeps them")
    return {arm: {step: load_generator(by_step[arm][step]) for step in steps} for arm in MAIN_ARMS}


def load_table(path):
    """The rows of the experiment `output_norm` in a table of the ablation."""
    rows = [row for row in read_table(path) if row.get("experiment") == "output_norm"]
    for arm in MAIN_ARMS:
        if rows and not rows[0].keys() >= {"seed", "step" if path.name == "history.csv" else "steps", "cycle_A"}:
            raise UserError(f"{path}: columns are missing; cyclegan ablation writes it")
        if not any(row["arm"] == arm and row["seed"] == 0 for row in rows):
            raise UserError(f"{path}: nothing there of {arm}, seed 0; cyclegan ablation adds it")
    return rows


@torch.inference_mode()
def translations(scenes, generators):
    """Scenes → {name: (N, 3, 64, 64) in [-1, 1]}: the water, what each generator makes of it, the answer."""
    water = torch.stack([render(scene, SIZE)[0] for scene in scenes])
    answer = torch.stack([render(counterfactual(scene), SIZE)[0] for scene in scenes])
    return {"water": water, **{arm: G(water) for arm, G in generators.items()}, "answer": answer}


def training(networks):
    """{step: the test pictures and what both arms make of them at that step}."""
    scenes = [sample_scene(np.random.default_rng([0, 2, i]), "water") for i in TEST_PICTURES]
    return {step: translations(scenes, {arm: G[step] for arm, G in networks.items()}) for step in networks["none"]}


def in_base64(content):
    return base64.b64encode(content).decode()


def explorer_data(moments, last, history, floor):
    """All that the page's script picks from, JSON-able.

    Args:
        moments: what `training` returns.
        last: {arm: G_AB}, to translate the drawn scenes.
        history: rows of history.csv.
        floor: of the same pictures as the losses in it.

    Returns:
        a dict: `pictures` (PNGs in base64, each once; everywhere else a picture is its place in there), `steps`
        and `training` ([step][test picture][as in SHOWN]), `scenes` ({"tint glass": [brightness] → `pictures` and
        `means`, as in SHOWN}), `curves` ({arm: [[step, cycle loss of A]]}), `floor`, and `bound`.
    """
    album = {}

    def place(picture):
        to_image(picture).save(buffer := io.BytesIO(), format="png", optimize=True)
        return album.setdefault(in_base64(buffer.getvalue()), len(album))

    def places(shown, i):
        return [place(shown[name][i]) for name in SHOWN]

    scenes = {}
    for tint, glass in itertools.product(TINTS, GLASSES):
        shown = translations([arranged_scene(b, TINTS[tint], glass) for b in BRIGHTNESSES], last)
        means = torch.stack([shown[name].double().mean((2, 3)) for name in SHOWN], 1).mul(1e4).round().div(1e4).tolist()
        scenes[f"{tint} {glass}"] = [{"pictures": places(shown, i), "means": of_i} for i, of_i in enumerate(means)]
    first = [row for row in history if row["seed"] == 0]
    curves = {arm: [[int(row["step"]), row["cycle_A"]] for row in first if row["arm"] == arm] for arm in MAIN_ARMS}
    pages = [[places(shown, i) for i in range(len(TEST_PICTURES))] for shown in moments.values()]
    data = {"steps": list(moments), "training": pages, "scenes": scenes, "curves": curves, "floor": floor}
    return data | {"bound": LARGEST_MEAN, "pictures": list(album)}


def endings(scores, column):
    """{arm: the values of its seeds}, in the order of the table."""
    found = {}
    for row in scores:
        found.setdefault(row["arm"], []).append(row[column])
    return found


def evidence_figure(scores, domain):
    """How every run's cycle loss of a domain ended, beside the floor. Half as wide as a page: for phones."""
    found, floor = endings(scores, f"cycle_{domain}"), scores[0][f"floor_{domain}"]
    figure = Figure(figsize=(4.4, 1.1 + 0.5 * len(found)), layout="constrained")
    axes = figure.subplots()
    for row, (arm, values) in enumerate(found.items()):
        mean, half = mean_and_interval(values)
        axes.plot(values, [row] * len(values), "o", color=plots.colour_of_arm(arm), markersize=8, alpha=0.6)
        axes.errorbar([mean], [row], xerr=[half], fmt="|", color=plots.colour_of_arm(arm), markersize=18, linewidth=2.5)
        axes.text(0.006, row - 0.4, f"{plots.NORM_NAMES.get(arm, arm)}: {mean:.3f}", fontsize=9, va="center")
    axes.axvline(floor, color="black", linestyle="--", linewidth=1.5)
    axes.set_title(f"{DOMAINS[domain]}: the floor with the norm is {floor:.3f}", fontsize=10)
    axes.set(ylim=(len(found) - 0.5, -0.75), xlim=(0, None), yticks=[], xlabel=f"cycle loss of {domain} at the end")
    return figure


def with_interval(values):
    """Mean and 95 % interval over seeds, as "0.150 ± 0.012"; of one seed, its value."""
    mean, half = mean_and_interval(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {half:.3f}"


def prose(scores, steps):
    """The numbers in the page's text, and the texts for pictures, by the name they have in PAGE."""
    values = {"bound": LARGEST_MEAN, "step": steps[-1], "steps": int(scores[0]["steps"])}
    seeds = {arm: f"{len(found)} seed{'s' * (len(found) > 1)}" for arm, found in endings(scores, "seed").items()}
    for arm in MAIN_ARMS:
        cycle_A, loss_D, colours = (endings(scores, name)[arm] for name in ("cycle_A", "loss_D", "colour_accuracy"))
        below = [row[f"cycle_{d}"] < row[f"floor_{d}"] for row in scores if row["arm"] == arm for d in DOMAINS]
        share = mean_and_interval(cycle_A)[0] / scores[0]["floor_A"] - 1
        values |= {
            f"cycle_{arm}": with_interval(cycle_A),
            f"loss_D_{arm}": with_interval(loss_D),
            f"colour_{arm}_means": f"{100 * mean_and_interval(colours)[0]:.0f}\u00a0%",
            f"share_{arm}": f"{abs(100 * share):.0f}\u00a0% {'above' if share >= 0 else 'below'}",
            f"below_{arm}": f"{sum(below)} of {len(below)}",
            f"seeds_{arm}": seeds[arm],
        }
    for domain, way in DOMAINS.items():
        losses, floor = endings(scores, f"cycle_{domain}"), f"{scores[0][f'floor_{domain}']:.3f}"
        arms = "; ".join(
            f"{plots.NORM_NAMES.get(arm, arm)} {with_interval(found)} ({seeds[arm]})" for arm, found in losses.items()
        )
        alt = f"A dot for every run. {way}, cycle loss at the end: {arms}. The floor is {floor}."
        png = in_base64(plots.to_png(evidence_figure(scores, domain), dpi=160))
        values |= {f"floor_{domain}": floor, f"figure_{domain}": png, f"figure_{domain}_alt": alt}
    return values


def strip(prefix, pictures):
    """Four captioned pictures in a row; the script changes them, so these are the first."""
    return "".join(
        f'<figure class="{name}"><img id="{prefix}-{name}" alt="{CAPTIONS[name]}" '
        f'src="data:image/png;base64,{picture}"><figcaption>{CAPTIONS[name]}</figcaption></figure>'
        for name, picture in zip(SHOWN, pictures, strict=True)
    )


def build(moments, last, history, scores):
    """The page, as a string. Arguments as for `explorer_data`, and the rows of scores.csv."""
    data = explorer_data(moments, last, history, scores[0]["floor_A"])
    album, wall = data["pictures"], f"{next(iter(TINTS))} {GLASSES[0]}"
    menus = {"tests": [f"{name} (testA/{number:04d}.png)" for number, name in TEST_PICTURES.items()]}
    menus |= {"tints": TINTS, "glasses": GLASSES}
    values = {menu: "".join(f"<option>{name}</option>" for name in names) for menu, names in menus.items()}
    values |= prose(scores, data["steps"]) | {
        "last": len(data["steps"]) - 1, "brightest": len(BRIGHTNESSES) - 1,
        "training": strip("training", [album[i] for i in data["training"][0][0]]),
        "wall": strip("wall", [album[i] for i in data["scenes"][wall][0]["pictures"]]),
        "colour_none": plots.COLOURS["none"], "colour_instance": plots.COLOURS["instance"],
        "name_none": plots.NORM_NAMES["none"], "name_instance": plots.NORM_NAMES["instance"],
        "data": json.dumps(data | {"shown": SHOWN, "captions": CAPTIONS, "brightnesses": BRIGHTNESSES,
                                   "colours": plots.COLOURS, "channels": plots.CHANNELS}),
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), PAGE.read_text(encoding="utf-8"))


def frame(shown, step, steps, zoom=2, gap=6, line=26, head=52):
    """One moment of training as a Pillow image: a row for each of SHOWN under its name, the step above."""
    side, count = zoom * SIZE, len(TEST_PICTURES)
    width = gap + count * (side + gap)
    image = Image.new("RGB", (width, head + len(SHOWN) * (line + side) + gap), "white")
    draw = ImageDraw.Draw(image)
    bold = ImageFont.truetype(FONTS / "DejaVuSans-Bold.ttf", 22)
    plain = ImageFont.truetype(FONTS / "DejaVuSans.ttf", 17)
    draw.text((gap, 6), f"training step {step} of {steps}", "black", bold)
    draw.rectangle((gap, head - 14, width - gap - 1, head - 8), "#dddddd")
    draw.rectangle((gap, head - 14, gap + (width - 2 * gap - 1) * step // steps, head - 8), "#555555")
    for row, name in enumerate(SHOWN):
        top = head + row * (line + side)
        draw.rectangle((gap, top + 5, gap + 13, top + 18), plots.COLOURS.get(name, "#777777"))
        draw.text((gap + 21, top + 2), CAPTIONS[name], "black", plain)
        for i, picture in enumerate(shown[name]):
            enlarged = to_image(picture).resize((side, side), Image.Resampling.NEAREST)
            image.paste(enlarged, (gap + i * (side + gap), top + line))
    return image


def write_gif(frames, path, seconds=0.7, pause=3.0):
    """An animation that loops, its last frame held. One palette for all frames, so that nothing flickers."""
    film = Image.fromarray(np.concatenate([np.asarray(image) for image in frames]))
    palette = film.quantize(256, kmeans=3)  # without k-means the weave loses its colours
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    duration = [round(1000 * seconds)] * len(rest) + [round(1000 * pause)]
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)


def command(args):
    """`cyclegan page`: the page and the animation.

    Raises:
        UserError: naming the file that is missing or damaged, or the folder that is not there.
    """
    animation = args.ablation / "training.gif"
    for path in (args.output, animation):
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'its folder is not there'}")
    history, scores = (load_table(args.ablation / f"{name}.csv") for name in ("history", "scores"))
    networks = load_networks(args.ablation)
    moments, last = training(networks), {arm: G[max(G)] for arm, G in networks.items()}
    write_atomic(args.output, build(moments, last, history, scores))
    write_gif([frame(shown, step, max(moments)) for step, shown in moments.items()], animation)
    for path in (args.output, animation):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
