"""The explorer without a kernel: `python -m cyclegan_lib.page` makes one HTML page out of the experiment.

    data/explorer.html          everything inside: two flipbooks of small pictures, the curves, the figure
    data/ablation/training.gif  both arms training side by side

Whatever the page can show is drawn here beforehand; its script only picks. Every number in its text
is read from the tables. The same tables and networks give the same bytes.
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

from cyclegan_lib import plots
from cyclegan_lib.ablation import MAIN_ARMS, read_table
from cyclegan_lib.checkpoints import load_generator
from cyclegan_lib.cli import Parser, UserError
from cyclegan_lib.metrics import LARGEST_MEAN, mean_and_interval
from cyclegan_lib.scenes import GLASSES, arranged_scene, counterfactual, render, sample_scene, to_image

SIZE = 64
# testA/<number>.png, chosen for their walls, which differ.
TEST_PICTURES = {17: "pale green wall", 20: "dark blue wall", 9: "pink wall",
                 3: "black wall", 27: "green wall", 33: "dark red wall"}  # fmt: skip
BRIGHTNESSES = [i / 10 for i in range(11)]
TINTS = {"grey": 0, "blue": -1, "orange": 1}
SHOWN = ("water", "instance", "none", "answer")  # side by side, in this order
CAPTIONS = {"water": "the water", "answer": "the answer", **{arm: plots.NORM_NAMES[arm] for arm in MAIN_ARMS}}
DOMAINS = {"A": "water → wine → water", "B": "wine → water → wine"}


def load_networks(folder):
    """The kept networks of the two main arms: {arm: {step: G_AB}}, the steps that both have, sorted."""
    paths = {arm: {} for arm in MAIN_ARMS}
    for arm, found in paths.items():
        for path in Path(folder).glob(f"{arm}_step_*.safetensors"):
            found[int(path.stem.rpartition("_")[2])] = path
    steps = sorted(set.intersection(*map(set, paths.values())))
    if not steps:
        raise UserError(f"{folder}: no networks there; python -m cyclegan_lib.ablation trains and keeps them")
    return {arm: {step: load_generator(found[step]) for step in steps} for arm, found in paths.items()}


def load_table(path):
    """The rows of the experiment `output_norm` in a table of the ablation."""
    rows = [row for row in read_table(path) if row.get("experiment") == "output_norm"]
    for arm in MAIN_ARMS:
        if not any(row["arm"] == arm and row["seed"] == 0 for row in rows):
            raise UserError(f"{path}: nothing there of {arm}, seed 0; python -m cyclegan_lib.ablation adds it")
    return rows


@torch.inference_mode()
def translations(scenes, generators):
    """Scenes → {name: (N, 3, 64, 64) in [-1, 1]}: the water, what each generator makes of it, the answer."""
    water, answer = (torch.stack([render(scene, SIZE)[0] for scene in drawn])
                     for drawn in (scenes, map(counterfactual, scenes)))  # fmt: skip
    return {"water": water, **{arm: G(water) for arm, G in generators.items()}, "answer": answer}


def training(networks):
    """{step: the test pictures and what both arms make of them at that step}."""
    scenes = [sample_scene(np.random.default_rng([0, 2, i]), "water") for i in TEST_PICTURES]
    return {step: translations(scenes, {arm: G[step] for arm, G in networks.items()}) for step in networks["none"]}


def in_base64(content):
    return base64.b64encode(content).decode()


def to_png(picture):
    buffer = io.BytesIO()
    to_image(picture).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def explorer_data(moments, last, history, floor):
    """All that the page's script picks from, JSON-able.

    Args:
        moments: what `training` returns.
        last: {arm: G_AB}, to translate the drawn scenes.
        history: rows of history.csv.
        floor: of the same pictures as the losses in it.

    Returns:
        a dict: `pictures` (PNGs in base64, each once; everywhere else a picture is its place in
        there), `steps` and `training` ([step][test picture][as in SHOWN]), `scenes` ({"tint glass":
        [brightness] → `pictures` and `means`, channel means, as in SHOWN}), `curves` ({arm:
        [[step, cycle loss of A]]}), `floor`, and `bound`.
    """
    album = {}

    def places(shown, i):
        pngs = [in_base64(to_png(shown[name][i])) for name in SHOWN]
        return [album.setdefault(png, len(album)) for png in pngs]

    scenes = {}
    for tint, glass in itertools.product(TINTS, GLASSES):
        shown = translations([arranged_scene(b, TINTS[tint], glass) for b in BRIGHTNESSES], last)
        means = torch.stack([shown[name].double().mean((2, 3)) for name in SHOWN], 1).mul(1e4).round().div(1e4).tolist()
        scenes[f"{tint} {glass}"] = [{"pictures": places(shown, i), "means": of_i} for i, of_i in enumerate(means)]
    curves = {arm: [[int(row["step"]), row["cycle_A"]] for row in history if row["arm"] == arm and row["seed"] == 0]
              for arm in MAIN_ARMS}  # fmt: skip
    pages = [[places(shown, i) for i in range(len(TEST_PICTURES))] for shown in moments.values()]
    return {"steps": list(moments), "training": pages, "scenes": scenes, "curves": curves, "floor": floor,
            "bound": LARGEST_MEAN, "pictures": list(album)}  # fmt: skip


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
        axes.plot(values, [row] * len(values), "o", color=plots.COLOURS[arm], markersize=8, alpha=0.6)
        axes.errorbar([mean], [row], xerr=[half], fmt="|", color=plots.COLOURS[arm], markersize=18, linewidth=2.5)
        axes.text(0.006, row - 0.4, f"{plots.NORM_NAMES[arm]}: {mean:.3f}", fontsize=9, va="center")
    axes.axvline(floor, color="black", linestyle="--", linewidth=1.5)
    axes.set_title(f"{DOMAINS[domain]}: the floor with the norm is {floor:.3f}", fontsize=10)
    axes.set(ylim=(len(found) - 0.5, -0.75), xlim=(0, None), yticks=[], xlabel=f"cycle loss of {domain} at the end")
    return figure


def below(scores, arm):
    """How many runs of an arm ended below the floor, in words: "0 of 10"."""
    rows = [row for row in scores if row["arm"] == arm]
    losses = [row[f"cycle_{d}"] < row[f"floor_{d}"] for row in rows for d in DOMAINS]
    return f"{sum(losses)} of {len(losses)}"


def with_interval(values):
    """Mean and 95 % interval over seeds, as "0.150 ± 0.012"; of one seed, its value."""
    mean, half = mean_and_interval(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {half:.3f}"


def seeds(count):
    return "1 seed" if count == 1 else f"{count} seeds"


def prose(scores, steps):
    """The numbers in the page's text, and the texts for pictures, by the name they have in PAGE."""
    values = {"bound": LARGEST_MEAN, "step": steps[-1], "steps": int(scores[0]["steps"])}
    values |= {f"floor_{d}": f"{scores[0][f'floor_{d}']:.3f}" for d in DOMAINS}
    for arm in MAIN_ARMS:
        ended = {column: endings(scores, column)[arm] for column in ("cycle_A", "loss_D", "colour_accuracy")}
        share = mean_and_interval(ended["cycle_A"])[0] / scores[0]["floor_A"] - 1
        values |= {
            f"cycle_{arm}": with_interval(ended["cycle_A"]), f"loss_D_{arm}": with_interval(ended["loss_D"]),
            f"colour_{arm}_means": f"{100 * mean_and_interval(ended['colour_accuracy'])[0]:.0f}\u00a0%",
            f"share_{arm}": f"{abs(100 * share):.0f}\u00a0% {'above' if share >= 0 else 'below'}",
            f"below_{arm}": below(scores, arm), f"seeds_{arm}": seeds(len(ended["cycle_A"])),
        }  # fmt: skip
    for domain in DOMAINS:
        losses = endings(scores, f"cycle_{domain}")
        arms = "; ".join(f"{plots.NORM_NAMES[arm]} {with_interval(found)} ({seeds(len(found))})"
                         for arm, found in losses.items())  # fmt: skip
        values[f"figure_{domain}"] = in_base64(plots.to_png(evidence_figure(scores, domain), dpi=160))
        values[f"figure_{domain}_alt"] = f"A dot for every run. {DOMAINS[domain]}, cycle loss at the end: {arms}. " \
                                         f"The floor is {values[f'floor_{domain}']}."  # fmt: skip
    return values


def options(names):
    return "".join(f"<option>{name}</option>" for name in names)


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
    values = prose(scores, data["steps"]) | {
        "last": len(data["steps"]) - 1, "brightest": len(BRIGHTNESSES) - 1,
        "tests": options(f"{name} (testA/{number:04d}.png)" for number, name in TEST_PICTURES.items()),
        "tints": options(TINTS), "glasses": options(GLASSES),
        "training": strip("training", [album[i] for i in data["training"][0][0]]),
        "wall": strip("wall", [album[i] for i in data["scenes"][wall][0]["pictures"]]),
        "colour_none": plots.COLOURS["none"], "colour_instance": plots.COLOURS["instance"],
        "name_none": plots.NORM_NAMES["none"], "name_instance": plots.NORM_NAMES["instance"],
        "data": json.dumps(data | {"shown": SHOWN, "captions": CAPTIONS, "brightnesses": BRIGHTNESSES,
                                   "colours": plots.COLOURS, "channels": plots.CHANNELS}),
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), PAGE)


def font(size, weight=""):
    """The font that comes with matplotlib: the same on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{weight}.ttf", size)


def frame(shown, step, steps, zoom=2, gap=6, line=26, head=52):
    """One moment of training as a Pillow image: a row for each of SHOWN under its name, the step above."""
    side, count = zoom * SIZE, len(TEST_PICTURES)
    width = gap + count * (side + gap)
    image = Image.new("RGB", (width, head + len(SHOWN) * (line + side) + gap), "white")
    draw = ImageDraw.Draw(image)
    draw.text((gap, 6), f"training step {step} of {steps}", "black", font(22, "-Bold"))
    draw.rectangle((gap, head - 14, width - gap - 1, head - 8), "#dddddd")
    draw.rectangle((gap, head - 14, gap + (width - 2 * gap - 1) * step // steps, head - 8), "#555555")
    for row, name in enumerate(SHOWN):
        top = head + row * (line + side)
        draw.rectangle((gap, top + 5, gap + 13, top + 18), plots.COLOURS.get(name, "#777777"))
        draw.text((gap + 21, top + 2), CAPTIONS[name], "black", font(17))
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


def main(argv=None):
    parser = Parser(prog="python -m cyclegan_lib.page", description="The explorer as one HTML page, without a kernel.")
    parser.add_argument("--ablation", type=Path, default=Path("data/ablation"),
                        help="the experiment's folder; training.gif is written there, too")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("data/explorer.html"), help="the page to write")
    args = parser.parse_args(argv)
    with parser.one_line_errors():
        history, scores = (load_table(args.ablation / f"{name}.csv") for name in ("history", "scores"))
        networks, animation = load_networks(args.ablation), args.ablation / "training.gif"
        moments, last = training(networks), {arm: G[max(G)] for arm, G in networks.items()}
        args.output.write_text(build(moments, last, history, scores), encoding="utf-8")
        write_gif([frame(shown, step, max(moments)) for step, shown in moments.items()], animation)
    for path in (args.output, animation):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Why does one InstanceNorm at the output spoil a CycleGAN?</title>
<style>
:root { color-scheme: light; --side: 160px; --gap: .8rem; --columns: 2;
  --none: {{colour_none}}; --instance: {{colour_instance}}; }
@media (min-width: 720px) { :root { --columns: 4; } }
@media (min-width: 1140px) { :root { --side: 256px; } }
@media (min-width: 1700px) { :root { --side: 320px; font-size: 22px; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: var(--gap); max-width: calc(4 * var(--side) + 5 * var(--gap)); line-height: 1.5;
  font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff; }
@media (max-width: 719px) { body { max-width: 40rem; } }
h1 { font-size: clamp(1.5rem, 4vw, 1.7rem); line-height: 1.2; } h1, blockquote { text-wrap: balance; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .5rem; }
p, blockquote, details { max-width: 44rem; } a { color: #0072B2; }
blockquote { margin: 1rem 0; padding: .2rem 1rem; border-left: .3rem solid #888; font-size: 1.15rem; }
.controls { display: flex; flex-wrap: wrap; gap: .6rem 1.6rem; margin: 1rem 0; }
.controls label { display: block; font-weight: 600; } .controls .wide { flex: 1 1 18rem; }
input[type=range] { width: 100%; height: 2.2rem; margin: 0; accent-color: #0072B2; }
select { font: inherit; padding: .3rem .5rem; max-width: 100%; }
:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.strip { display: grid; grid-template-columns: repeat(var(--columns), var(--side)); gap: var(--gap); }
.strip figure { margin: 0; border-top: .35rem solid #777; }
.strip .none { border-color: var(--none); } .strip .instance { border-color: var(--instance); }
.strip img { display: block; width: var(--side); height: var(--side); image-rendering: pixelated; }
figcaption { font-size: .9rem; line-height: 1.3; padding-top: .25rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.6rem; padding: 0; margin: 1.2rem 0 .3rem; }
.legend li::before { content: ""; display: inline-block; width: 1.7em; height: 0; margin-right: .5em;
  vertical-align: middle; border-top: 4px solid var(--colour); }
.legend .floor::before { border-top: 2px dashed #000; }
svg { display: block; width: 100%; font-size: .85rem; } svg text { fill: #1a1a1a; }
svg .halo { paint-order: stroke; stroke: #fff; stroke-width: 5px; stroke-linejoin: round; }
.evidence { display: flex; flex-wrap: wrap; gap: 1rem; }
.evidence figure { margin: 0; flex: 1 1 20rem; max-width: 46rem; } .evidence img { width: 100%; }
summary { cursor: pointer; font-weight: 600; font-size: 1.15rem; padding: .5rem 0; }
.note { color: #555; font-size: .9rem; }
</style>

<h1>Why does one InstanceNorm at the output spoil a CycleGAN?</h1>
<p>A student implemented CycleGAN from the paper. Every loss got stuck. Identity loss, learning-rate decay and the
right initialisation did not help. Then they took the InstanceNorm off the generator's <em>output</em> layer, and it
worked at once. They wrote:</p>
<blockquote>“I can't understand, why deleting InstanceNorm layer from output instantly forced model to work. Please,
explain it for me if you read this”</blockquote>
<p>Below are two small CycleGANs that learnt to turn water into wine. Both started from the same weights and saw the
same pictures in the same order. One of their generators ends in tanh(InstanceNorm(·)), the other's in tanh(·).
Nothing else differs.</p>
<noscript><p><strong>The pictures below move only with JavaScript switched on.</strong></p></noscript>

<h2>Watch them learn</h2>
<div class="controls">
<div class="wide"><label for="step">Training step: <output id="step-value" for="step"></output></label>
<input type="range" id="step" min="0" max="{{last}}" value="0"></div>
<div><label for="test">Test picture</label><select id="test">{{tests}}</select></div>
</div>
<div class="strip">{{training}}</div>
<ul class="legend">
<li style="--colour: var(--instance)">{{name_instance}}: <b id="now-instance"></b></li>
<li style="--colour: var(--none)">{{name_none}}: <b id="now-none"></b></li>
<li class="floor">floor with the norm: <b>{{floor_A}}</b></li>
</ul>
<svg id="curves" role="img" style="height: 19rem"></svg>
<p class="note">The cycle loss of A over the training steps: how far a test picture of water is from itself after it
was turned into wine and back, as a mean over all pixels of all test pictures, which go from −1 to 1. Seed 0. The
networks' pictures were kept at the steps where the slider stops.</p>

<h2>Move the wall</h2>
<p>The same two networks after {{step}} steps, and a scene of your own. Drag the wall from black to white: without the
norm the output becomes brighter with it; with the norm, its mean cannot leave a narrow band. (Neither follows the tint.
Both have InstanceNorms <em>inside</em>, too, as the paper's generator has, and a tint of the whole picture is lost
there.)</p>
<div class="controls">
<div class="wide"><label for="brightness">Brightness of the wall, 0 black to 1 white:
<output id="brightness-value" for="brightness"></output></label>
<input type="range" id="brightness" min="0" max="{{brightest}}" value="0"></div>
<div><label for="tint">Its tint</label><select id="tint">{{tints}}</select></div>
<div><label for="glass">The glass</label><select id="glass">{{glasses}}</select></div>
</div>
<div class="strip">{{wall}}</div>
<svg id="means" role="img" style="margin-top: 1.2rem"></svg>
<p class="note">The means of the red, green and blue channel of the four pictures. The shaded band is all that a norm
at the output allows: −{{bound}} to {{bound}}.</p>

<h2>The floor</h2>
<p>InstanceNorm gives every channel of every picture mean 0 and variance 1 (or less, if it was constant), whatever the
network computed. After the tanh, the channel's mean is at most {{bound}} away from middle grey. So a channel whose
mean is <i>m</i> comes back from the cycle with an error of at least |<i>m</i>| − {{bound}}, and no weights can change
that. Computed exactly, from all pixels instead of their mean, the floor of the test pictures is
<b>{{floor_A}}</b> for water and <b>{{floor_B}}</b> for wine.</p>

<h2>The evidence</h2>
<p>Without the norm, {{below_none}} cycle losses ended below their floor ({{seeds_none}}, two losses each). With it,
{{below_instance}} did ({{seeds_instance}}).</p>
<div class="evidence">
<figure><img src="data:image/png;base64,{{figure_A}}" alt="{{figure_A_alt}}"><figcaption>The cycle loss of A on
the test pictures, lower is better. A dot is a run, a bar the mean with its 95&nbsp;% confidence
interval.</figcaption></figure>
<figure><img src="data:image/png;base64,{{figure_B}}" alt="{{figure_B_alt}}"><figcaption>The cycle loss of B, in the
same way.</figcaption></figure>
</div>

<h2>The answer</h2>
<details><summary>Think first: what can a network with that layer never say? Then open this.</summary>
<p>It can never say “this picture is dark” or “this one is warm”: the layer takes away the mean of every channel, and
there a picture's brightness and tint are. So its cycle loss has a floor, known before any training, which no identity
loss, schedule or initialisation can lower. After {{steps}} steps the cycle loss of A was {{cycle_none}} without the
norm, {{share_none}} the floor, and {{cycle_instance}} with it, {{share_instance}} the floor. The discriminators have
it easier with the norm, too: their loss was {{loss_D_instance}}, against {{loss_D_none}} without, and the three channel
means alone tell real pictures from fakes in {{colour_instance_means}} of cases, against {{colour_none_means}}
(guessing: 50&nbsp;%).</p>
<p>The floor is a bound, not a prediction of where training ends.
<a href="../notebooks/05_output_norm.ipynb">The notebook</a> derives it, trains both networks before your eyes, and
measures what the floor does not explain. <a href="../README.md">The README</a> says how to run everything here.</p>
</details>

<script id="data" type="application/json">{{data}}</script>
<script>
"use strict";
const at = id => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const arms = Object.keys(data.curves), last = data.curves[arms[0]].at(-1)[0];

function show(prefix, pictures, when) {
  data.shown.forEach((name, i) => {
    const img = at(prefix + "-" + name);
    img.src = "data:image/png;base64," + data.pictures[pictures[i]];
    img.alt = data.captions[name] + ", " + when;
  });
}

// Drawn in CSS pixels, so that letters are as large on a phone as on a projector.
function canvas(svg, ems) {
  const em = parseFloat(getComputedStyle(svg).fontSize), width = Math.max(svg.clientWidth, 300);
  svg.style.height = ems * em + "px";
  svg.setAttribute("viewBox", `0 0 ${width} ${ems * em}`);
  return [em, width, ems * em];
}
const line = (x1, y1, x2, y2, more) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${more}/>`;
const text = (x, y, what, more = "") => `<text x="${x}" y="${y}" ${more}>${what}</text>`;

function drawCurves(step) {
  const svg = at("curves"), [em, width, height] = canvas(svg, 21);
  const left = 2.6 * em, right = width - em, top = 2.4 * em, bottom = height - 3.2 * em;
  const highest = Math.ceil(10 * Math.max(...arms.flatMap(arm => data.curves[arm].map(point => point[1])))) / 10;
  const x = value => left + (right - left) * value / last, y = value => bottom - (bottom - top) * value / highest;
  let drawn = text(0, em, "mean |difference| of pixels") + text(right, height - 0.4 * em, "training step",
    'text-anchor="end"');
  for (let tick = 0; tick <= 10 * highest + 0.01; tick++)
    drawn += line(left, y(tick / 10), right, y(tick / 10), 'stroke="#ddd"')
      + text(left - 0.5 * em, y(tick / 10) + 0.35 * em, (tick / 10).toFixed(1), 'text-anchor="end"');
  for (let tick = 0; tick <= 5; tick++)
    drawn += text(x(tick * last / 5), bottom + 1.3 * em, Math.round(tick * last / 5), 'text-anchor="middle"');
  drawn += line(x(step), top, x(step), bottom, 'stroke="#555" stroke-width="2"');
  for (const arm of arms) {
    const points = data.curves[arm].map(([when, loss]) => x(when) + "," + y(loss)).join(" ");
    const now = data.curves[arm].find(point => point[0] === step)[1];
    drawn += `<polyline points="${points}" fill="none" stroke="${data.colours[arm]}" stroke-width="3.5"/>`
      + `<circle cx="${x(step)}" cy="${y(now)}" r="7" fill="${data.colours[arm]}" stroke="#fff" stroke-width="2"/>`;
    at("now-" + arm).textContent = now.toFixed(3);
  }
  drawn += line(left, y(data.floor), right, y(data.floor), 'stroke="#000" stroke-width="2" stroke-dasharray="7 5"')
    + text(right, y(data.floor) - 0.4 * em, "floor " + data.floor.toFixed(3),
      'class="halo" text-anchor="end" font-weight="600"');
  svg.innerHTML = drawn;
  svg.setAttribute("aria-label", `Cycle loss of A at step ${step}: ` + arms.map(arm => data.captions[arm] + " "
    + at("now-" + arm).textContent).join(", ") + `. The floor is ${data.floor.toFixed(3)}.`);
}

function drawMeans(means) {
  const svg = at("means"), narrow = svg.clientWidth < 640, row = narrow ? 5 : 3.8, top = 2;
  const [em, width] = canvas(svg, top + 4 * row + 3.4);
  const left = (narrow ? 1 : 17) * em, right = width - 1.8 * em, bottom = (top + 4 * row) * em;
  const x = mean => left + (right - left) * (mean + 1) / 2, bound = data.bound;
  let drawn = `<rect x="${x(-bound)}" y="${top * em}" width="${x(bound) - x(-bound)}" height="${4 * row * em}"
    fill="${data.colours.instance}" opacity=".25"/>`
    + text(x(0), em * 1.3, `a norm at the output: only ±${bound}`, 'text-anchor="middle" font-weight="600"');
  for (const tick of [-1, -0.5, 0, 0.5, 1])
    drawn += line(x(tick), top * em, x(tick), bottom, 'stroke="#ddd"')
      + text(x(tick), bottom + 1.3 * em, String(tick).replace("-", "−"), 'text-anchor="middle"');
  drawn += text(left, bottom + 2.7 * em, "black") + text(right, bottom + 2.7 * em, "white", 'text-anchor="end"')
    + text(x(0), bottom + 2.7 * em, "mean of a channel", 'text-anchor="middle"');
  data.shown.forEach((name, i) => {
    const begin = (top + i * row) * em, first = begin + (narrow ? 2.1 : 0.75) * em;
    drawn += line(narrow ? left : 0, begin, right, begin, 'stroke="#bbb"')
      + text(narrow ? left : 0, begin + (narrow ? 1.2 : 2.2) * em, data.captions[name]);
    Object.entries(data.channels).forEach(([channel, colour], j) => {
      const height = first + 1.15 * j * em;
      drawn += `<circle cx="${x(means[i][j])}" cy="${height}" r="${0.45 * em}" fill="${colour}"/>`
        + text(x(means[i][j]) + 0.65 * em, height + 0.35 * em, channel, 'font-weight="600"');
    });
  });
  svg.innerHTML = drawn;
  svg.setAttribute("aria-label", "Means of the channels red, green, blue. " + data.shown.map((name, i) =>
    data.captions[name] + ": " + means[i].map(mean => mean.toFixed(2)).join(", ")).join(". "));
}

function moveTraining() {
  const step = data.steps[at("step").value];
  at("step-value").textContent = `${step} of ${last}`;
  at("step").setAttribute("aria-valuetext", `step ${step} of ${last}`);
  show("training", data.training[at("step").value][at("test").selectedIndex], "at training step " + step);
  drawCurves(step);
}
function moveWall() {
  const brightness = data.brightnesses[at("brightness").value].toFixed(1);
  const scene = data.scenes[at("tint").value + " " + at("glass").value][at("brightness").value];
  at("brightness-value").textContent = brightness;
  at("brightness").setAttribute("aria-valuetext", brightness);
  show("wall", scene.pictures, `${at("glass").value}, wall ${at("tint").value}, brightness ${brightness}`);
  drawMeans(scene.means);
}
for (const id of ["step", "test"]) at(id).addEventListener("input", moveTraining);
for (const id of ["brightness", "tint", "glass"]) at(id).addEventListener("input", moveWall);
addEventListener("resize", () => { moveTraining(); moveWall(); });
moveTraining();
moveWall();
</script>
</html>
"""

if __name__ == "__main__":
    main()
