"""data/explorer.html, the explorer without a kernel: one HTML page out of the experiment. `make explorer`.

Everything is inside: two flipbooks of small pictures, the curves, the figure. All its pictures are
drawn here; its script only picks. Every number in its text is read from the tables.
The same tables and networks give the same bytes, on one machine with one number of threads.
"""

import base64
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_atomic
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study.experiments import MAIN_ARMS
from cyclegan_lib.study.floor import LARGEST_MEAN
from cyclegan_lib.study.tables import by_arm, read_table
from cyclegan_lib.water2wine.scenes import GLASSES, arranged_scene, counterfactual, render, sample_scene, to_image

ABLATION = Path(__file__).resolve().parents[1] / "data" / "ablation"
SIZE = 64
# testA/<number>.png, chosen for their walls, which differ.
TEST_PICTURES = {17: "pale green wall", 20: "dark blue wall", 9: "pink wall",
                 3: "black wall", 27: "green wall", 33: "dark red wall"}  # fmt: skip
BRIGHTNESSES = [i / 10 for i in range(11)]
TINTS = {"grey": 0, "blue": -1, "orange": 1}
SHOWN = ("water", "instance", "none", "answer")  # side by side, in this order
CAPTIONS = {"water": "the water", "answer": "the answer", **{arm: plots.NORM_NAMES[arm] for arm in MAIN_ARMS}}
DOMAINS = {"A": "water → wine → water", "B": "wine → water → wine"}
PAGE = Path(__file__).with_suffix(".html")  # the page, with {{names}} for what is filled in


def load_networks(folder):
    """The kept networks of the two main arms: {arm: {step: G_AB}}, the steps that both have, sorted."""
    kept = [{int(path.stem.split("_")[-1]) for path in folder.glob(f"{arm}_step_*.safetensors")} for arm in MAIN_ARMS]
    steps = sorted(set.intersection(*kept))
    if not steps:
        raise UserError(f"{folder}: no networks there; cyclegan ablation trains and keeps them")
    return {arm: {n: load_generator(folder / f"{arm}_step_{n}.safetensors") for n in steps} for arm in MAIN_ARMS}


def load_table(path):
    """The rows of the experiment `output_norm` in a table of the ablation."""
    rows = [row for row in read_table(path) if row.get("experiment") == "output_norm"]
    if rows and not rows[0].keys() >= {"seed", "step" if path.name == "history.csv" else "steps", "cycle_A"}:
        raise UserError(f"{path}: columns are missing; cyclegan ablation writes it")
    for arm in MAIN_ARMS:
        if not any(row["arm"] == arm and row["seed"] == 0 for row in rows):
            raise UserError(f"{path}: nothing there of {arm}, seed 0; cyclegan ablation adds it")
    return rows


@torch.inference_mode()
def translations(scenes, generators):
    """Scenes → {name: (N, 3, 64, 64) in [-1, 1]}: the water, what each generator makes of it, the answer."""
    water = torch.stack([render(scene, SIZE)[0] for scene in scenes])
    answer = torch.stack([render(counterfactual(scene), SIZE)[0] for scene in scenes])
    return {"water": water, **{arm: G(water) for arm, G in generators.items()}, "answer": answer}


def explorer_data(moments, last, history, floor):
    """All that the page's script picks from, JSON-able. A picture is its place in `pictures`: PNGs in base64.

    `training` is [step][test picture][as in SHOWN], `curves` {arm: [[step, cycle loss of A]]}, and `scenes`
    {"tint glass": [brightness] → `pictures` and their channels' `means`, as in SHOWN}.
    """
    album = {}

    def places(shown, i):
        found = []
        for name in SHOWN:
            to_image(shown[name][i]).save(buffer := io.BytesIO(), format="png", optimize=True)
            found.append(album.setdefault(base64.b64encode(buffer.getvalue()).decode(), len(album)))
        return found

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


def evidence_figure(ends, domain, floor):
    """How every run's cycle loss of a domain ended, beside the floor. Half as wide as a page: for phones."""
    figure = Figure(figsize=(4.4, 1.1 + 0.5 * len(ends)), layout="constrained")
    axes = figure.subplots()
    for row, (arm, columns) in enumerate(ends.items()):
        (values, (mean, half)), colour = columns[f"cycle_{domain}"], plots.colour_of_arm(arm)
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=8, alpha=0.6)
        axes.errorbar([mean], [row], xerr=[half], fmt="|", color=colour, markersize=18, linewidth=2.5)
        axes.text(0.006, row - 0.4, f"{plots.NORM_NAMES.get(arm, arm)}: {mean:.3f}", fontsize=9, va="center")
    axes.axvline(floor, color="black", linestyle="--", linewidth=1.5)
    axes.set_title(f"{DOMAINS[domain]}: the floor with the norm is {floor:.3f}", fontsize=10)
    axes.set(ylim=(len(ends) - 0.5, -0.75), xlim=(0, None), yticks=[], xlabel=f"cycle loss of {domain} at the end")
    return figure


def prose(scores, steps):
    """The numbers in the page's text, and the texts for pictures, by the name they have in PAGE."""
    ends = by_arm(scores, "output_norm", ("cycle_A", "cycle_B", "loss_D", "colour_accuracy"))
    counts = {arm: len(columns["cycle_A"][0]) for arm, columns in ends.items()}
    seeds = {arm: f"{count} seed{'s' * (count > 1)}" for arm, count in counts.items()}

    def with_interval(arm, column):
        _, (mean, half) = ends[arm][column]
        return f"{mean:.3f}" if counts[arm] == 1 else f"{mean:.3f} ± {half:.3f}"

    values = {"bound": LARGEST_MEAN, "step": steps[-1], "steps": int(scores[0]["steps"])}
    for arm in MAIN_ARMS:
        cycle_A, colours = (ends[arm][column][1][0] for column in ("cycle_A", "colour_accuracy"))
        share = 100 * (cycle_A / scores[0]["floor_A"] - 1)
        below = sum(row[f"cycle_{d}"] < row[f"floor_{d}"] for row in scores if row["arm"] == arm for d in DOMAINS)
        values |= {
            f"cycle_{arm}": with_interval(arm, "cycle_A"),
            f"loss_D_{arm}": with_interval(arm, "loss_D"),
            f"colour_{arm}_means": f"{100 * colours:.0f}\u00a0%",
            f"share_{arm}": f"{abs(share):.0f}\u00a0% {'above' if share >= 0 else 'below'}",
            f"below_{arm}": f"{below} of {len(DOMAINS) * counts[arm]}",
            f"seeds_{arm}": seeds[arm],
        }
    for domain, way in DOMAINS.items():
        losses = {arm: f"{with_interval(arm, f'cycle_{domain}')} ({seeds[arm]})" for arm in ends}
        arms = "; ".join(f"{plots.NORM_NAMES.get(arm, arm)} {loss}" for arm, loss in losses.items())
        floor = scores[0][f"floor_{domain}"]
        alt = f"A dot for every run. {way}, cycle loss at the end: {arms}. The floor is {floor:.3f}."
        png = base64.b64encode(plots.to_png(evidence_figure(ends, domain, floor), dpi=160)).decode()
        values |= {f"floor_{domain}": f"{floor:.3f}", f"figure_{domain}": png, f"figure_{domain}_alt": alt}
    return values


def build(moments, last, history, scores):
    """The page, as a string. Arguments as for `explorer_data`, and the rows of scores.csv."""
    data = explorer_data(moments, last, history, scores[0]["floor_A"])
    values = prose(scores, data["steps"]) | {"last": len(moments) - 1, "brightest": len(BRIGHTNESSES) - 1}
    tests = [f"{name} (testA/{number:04d}.png)" for number, name in TEST_PICTURES.items()]
    for name, texts in {"tests": tests, "tints": TINTS, "glasses": GLASSES}.items():
        values[name] = "".join(f"<option>{text}</option>" for text in texts)
    # Four captioned pictures in a row; the script changes them, so these are the first.
    first_scene = next(iter(data["scenes"].values()))[0]
    for strip, places in {"training": data["training"][0][0], "wall": first_scene["pictures"]}.items():
        values[strip] = "".join(
            f'<figure class="{name}"><img id="{strip}-{name}" alt="{CAPTIONS[name]}" src="data:image/png;base64,'
            f'{data["pictures"][place]}"><figcaption>{CAPTIONS[name]}</figcaption></figure>'
            for name, place in zip(SHOWN, places, strict=True)
        )
    for arm in MAIN_ARMS:
        values |= {f"colour_{arm}": plots.COLOURS[arm], f"name_{arm}": plots.NORM_NAMES[arm]}
    data |= {"shown": SHOWN, "captions": CAPTIONS, "brightnesses": BRIGHTNESSES}
    values["data"] = json.dumps(data | {"colours": plots.COLOURS, "channels": plots.CHANNELS})
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), PAGE.read_text(encoding="utf-8"))


def training_moments(networks):
    """What `load_networks` finds → {step: `translations` of TEST_PICTURES}."""
    scenes = [sample_scene(np.random.default_rng([0, 2, i]), "water") for i in TEST_PICTURES]
    return {step: translations(scenes, {arm: G[step] for arm, G in networks.items()}) for step in networks["none"]}


def main(ablation=ABLATION, output=ABLATION.parent / "explorer.html"):
    """Write the page. A `UserError` names what is missing or damaged."""
    history, scores = (load_table(ablation / f"{name}.csv") for name in ("history", "scores"))
    networks = load_networks(ablation)
    last = {arm: G[max(G)] for arm, G in networks.items()}
    write_atomic(output, build(training_moments(networks), last, history, scores))


if __name__ == "__main__":
    main()
