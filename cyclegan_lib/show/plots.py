"""Data → matplotlib `Figure`. One look: one colour for one thing, in every figure."""

import io
import re

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

# Okabe–Ito, and where those run out Tol's: told apart by colour-blind readers too.
COLOURS = {
    "A": "#0072B2", "B": "#D55E00",
    "none": "#009E73", "instance": "#E69F00", "instance_affine": "#999933", "batch": "#56B4E9",
    "loss_D": "#882255", "adversarial": "#777777", "identity": "#CC79A7",
}  # fmt: skip
PIXELS = "mean |difference| of pixels"
CHANNELS = {"R": "#D55E00", "G": "#009E73", "B": "#0072B2"}
NORM_NAMES = {
    "none": "no norm at the output", "instance": "InstanceNorm at the output",
    "instance_affine": "InstanceNorm, learned scale", "batch": "BatchNorm at the output",
}  # fmt: skip
ROW_NAMES = {
    "real_A": "real A", "fake_B": "fake B\n= G_AB(real A)", "rec_A": "back to A\n= G_BA(fake B)",
    "real_B": "real B", "fake_A": "fake A\n= G_BA(real B)", "rec_B": "back to B\n= G_AB(fake A)",
}  # fmt: skip


def colour_of_arm(arm):
    """The colour of an arm of an experiment, by its norm: "instance, identity 5" has that of "instance"."""
    return COLOURS.get(re.match(r"\w*", arm)[0], COLOURS["loss_D"])


def to_png(figure, dpi=100, colours=None):
    """A figure → PNG bytes, the same for the same figure; with `colours` (at most 256) of so many, to save space."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    if colours:
        image = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        image.save(buffer := io.BytesIO(), format="png", optimize=True)
    return buffer.getvalue()


def show(figure, alt, colours=None):
    """Show a figure in a notebook, with a text for those who cannot see it."""
    from IPython import display  # only notebooks need it

    display.display(display.Image(to_png(figure, dpi=90, colours=colours), alt=alt))


def to_pixels(picture):
    """(C, H, W) in [-1, 1] → (H, W, 3) in [0, 1], for `imshow`. Nothing is stretched."""
    return ((picture.float().clamp(-1, 1) + 1) / 2).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()


def _picture(figure, pixels, left, bottom, width, height, interpolation="nearest"):
    """A picture at this place, in inches. By hand: an automatic layout takes longer than two networks."""
    wide, high = figure.get_size_inches()
    axes = figure.add_axes([left / wide, bottom / high, width / wide, height / high])
    axes.imshow(pixels, vmin=0, vmax=1, interpolation=interpolation, aspect="auto")
    axes.set_axis_off()


def _write(figure, x, y, text, fontsize, ha="center", va="bottom"):
    """A text at this place, in inches. It is no formula, even with two dollars in it."""
    wide, high = figure.get_size_inches()
    figure.text(x / wide, y / high, text, fontsize=fontsize, ha=ha, va=va, parse_math=False)


def _picture_row(figure, name, pictures, left, bottom, wide, high, gap, fontsize=8.5):
    """Pictures beside one another, and their name to the left of them."""
    for c, picture in enumerate(pictures):
        _picture(figure, to_pixels(picture), left + c * (wide + gap), bottom, wide, high)
    _write(figure, left - 0.1, bottom + high / 2, ROW_NAMES.get(name, name), fontsize, "right", "center")


def _panels(count, title, height, **options):
    """(a figure, `count` axes beside one another): no wider than needed, so that its text is large on a phone."""
    figure = Figure(figsize=(8 if count < 4 else 9, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    return figure, figure.subplots(1, count, squeeze=False, **options)[0]


def _curve(axes, history, name, colour, label, smooth=25, raw=True):
    """The moving mean of one loss over `smooth` rows of `history.jsonl`, and the loss itself faintly behind it."""
    rows = [(row["step"], row[name]) for row in history if row[name] is not None]
    if not rows:
        return
    steps, values = np.array(rows, dtype=float).T
    if raw:
        axes.plot(steps, values, color=colour, alpha=0.18, linewidth=0.6)
    width = max(1, min(smooth, len(values) // 4))
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], mean, color=colour, linewidth=1.8, label=label)


def over_steps(axes, title, ylabel=None):
    """Title, labels and legend of axes with losses over steps."""
    axes.set(xlabel="training step", ylabel=ylabel, title=title)
    axes.set_ylim(bottom=0)
    if axes.lines:
        axes.legend(fontsize=9, loc="upper right")


def draw_floors(axes, floors):
    """The output-norm floors as black dashed lines, with their values in the legend."""
    label = "floor with the norm: " + ", ".join(f"{domain} {floor:.3f}" for domain, floor in floors.items())
    for floor, of_first in zip(floors.values(), (label, None), strict=False):
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=of_first)


def _finish_arms(panels, floors, what=""):
    """The floors of A and B, and the titles. Once all is drawn: the two axes share their limits."""
    for axes, domain in zip(panels, "AB", strict=True):
        draw_floors(axes, {domain: floors[domain]})
        over_steps(axes, f"Cycle loss of {domain}{what}", PIXELS if domain == "A" else None)


def picture_rows(rows, title=None, columns=None, picture_inches=0.9):
    """A grid of pictures, {name of the row: (N, C, H, W) in [-1, 1]}; `columns` are names for the columns."""
    _, _, pixels_high, pixels_wide = next(iter(rows.values())).shape
    wide, high, gap = picture_inches, picture_inches * pixels_high / pixels_wide, 0.05
    label, top = 1.35, 0.05 + (0.33 if title else 0) + (0.2 if columns else 0)
    width, height = label + max(map(len, rows.values())) * (wide + gap), top + len(rows) * (high + gap)
    figure = Figure(figsize=(width, height))
    for r, (name, pictures) in enumerate(rows.items()):
        bottom = height - top - (r + 1) * (high + gap) + gap
        _picture_row(figure, name, pictures, label, bottom, wide, high, gap)
    for c, name in enumerate(columns or []):
        _write(figure, label + c * (wide + gap) + wide / 2, height - top + 0.03, name, 8.5)
    if title:
        _write(figure, width / 2, height - 0.08, title, 11, va="top")
    return figure


def images_in_a_row(images, height=3.2):
    """Pillow images of any size, {name: image}, beside one another, all of them `height` inches high."""
    gap, names = 0.08, 0.3
    widths = [height * image.width / image.height for image in images.values()]
    figure, left = Figure(figsize=(sum(widths) + gap * (len(images) + 1), height + names + gap)), gap
    for (name, image), width in zip(images.items(), widths, strict=True):
        _picture(figure, np.asarray(image.convert("RGB")), left, gap, width, height, "antialiased")
        _write(figure, left + width / 2, gap + height + 0.06, name, 9)
        left += width + gap
    return figure


def picture_file(path):
    """A picture that was saved, as a figure of as many pixels at 100 dots an inch."""
    image = Image.open(path).convert("RGB")
    figure = Figure(figsize=(image.width / 100, image.height / 100))
    _picture(figure, np.asarray(image), 0, 0, *figure.get_size_inches())
    return figure


def distributions(pictures, title=None):
    """How the values of {"real A": (N, 3, H, W) in [-1, 1], "fake B": …, "real B": …} are distributed, and edges."""
    figure, panels = _panels(4, title, 2.7)
    colours = dict(zip(pictures, (COLOURS["A"], "black", COLOURS["B"]), strict=True))
    bins = np.linspace(-1, 1, 41)
    edge_bins = np.arange(-0.5, 100, 4) / 127.5  # whole steps of 8 bits: others would look like a comb
    for name, pile in pictures.items():
        style = dict(histtype="step", density=True, color=colours[name], linewidth=1.6, label=name)
        for axes, values, channel in zip(panels, pile.unbind(1), ("red", "green", "blue"), strict=False):
            axes.hist(values.flatten().cpu().numpy(), bins, **style)
            axes.set(title=channel, xlabel="value", yticks=[])
        edges = np.concatenate([pile.diff(dim=dim).abs().flatten().cpu().numpy() for dim in (2, 3)])
        panels[3].hist(edges, edge_bins, **style)
    panels[3].set(title="edges (log scale)", xlabel="|difference| of neighbours", yscale="log", yticks=[])
    panels[3].minorticks_off()
    panels[0].set_ylabel("share of pixels")
    panels[0].legend(fontsize=9, loc="upper left")
    return figure


def loss_curves(history, floors=None, title=None):
    """The losses of one run, rows of its `history.jsonl`, and the output-norm floors {"A": number, "B": number}."""
    figure, (left, right) = _panels(2, title, 3.4)
    for domain, way in {"A": "A → B → A", "B": "B → A → B"}.items():
        _curve(left, history, f"cycle_{domain}", COLOURS[domain], f"cycle {way}")
    draw_floors(left, floors or {})
    over_steps(left, "Cycle losses", PIXELS)
    others = {"adversarial": "generators: adversarial", "loss_D": "discriminators", "identity": "generators: identity"}
    for name, label in others.items():
        _curve(right, history, name, COLOURS[name], label)
    over_steps(right, "The others, each without its λ", "loss")
    return figure


def compare_arms(histories, floors, title=None):
    """Cycle losses of several runs, {output_norm: rows of its `history.jsonl`}, with the floors, {"A", "B"}."""
    figure, panels = _panels(2, title, 3.6, sharey=True)
    for axes, domain in zip(panels, "AB", strict=True):
        for norm, history in histories.items():
            _curve(axes, history, f"cycle_{domain}", COLOURS[norm], NORM_NAMES[norm])
    _finish_arms(panels, floors)
    return figure


def arms_with_floor(history, arms, floors, title):
    """Cycle losses of arms, {arm: (colour, name)}, in rows of `history.csv`: the mean over seeds, and each faintly."""
    figure, panels = _panels(2, title, 3.7, sharey=True)
    for arm, (colour, name) in arms.items():
        rows = [row for row in history if row["arm"] == arm]
        runs = [[row for row in rows if row["seed"] == seed] for seed in sorted({row["seed"] for row in rows})]
        steps = [row["step"] for row in runs[0]]
        for axes, domain in zip(panels, "AB", strict=True):
            losses = np.array([[row[f"cycle_{domain}"] for row in run] for run in runs])
            axes.plot(steps, losses.T, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(steps, losses.mean(0), color=colour, linewidth=2, label=f"{name} ({len(runs)} seeds)")
    _finish_arms(panels, floors, ", test pictures")
    return figure


def arms_at_end(groups, columns, floors, title):
    """How the runs of each arm ended: a dot a seed, and a line at their mean.

    `groups` are as `study.tables.by_arm` gives them, `columns` {column: label of its axis}, `floors` {column: number}.
    """
    figure, panels = _panels(len(columns), title, 1.3 + 0.34 * len(groups), sharey=True)
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for row, (arm, ends) in enumerate(groups.items()):
            (values, (mean, _)), colour = ends[column], colour_of_arm(arm)
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.6, markersize=6)
            axes.plot([mean], [row], "|", color=colour, markersize=16, markeredgewidth=2)
        if column in floors:
            axes.axvline(floors[column], color="black", linestyle="--", linewidth=1)
            axes.set_title(f"floor with the norm: {floors[column]:.3f}", fontsize=8)
        axes.set(xmargin=0.1, xlabel=label, xlim=(0, None))
        axes.grid(axis="y", alpha=0.25)
    panels[0].set_yticks(range(len(groups)), list(groups), fontsize=9)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    return figure


BESIDE = {  # {loss: its name in figures beside a healthy run, and where a dotted line is drawn}
    "cycle_A": ("cycle loss of A", None), "loss_D": ("discriminators' loss", 0.25),
    "identity": ("identity loss", None), "adversarial": ("adversarial loss", 0.25),
    "loss_G": ("generators' loss: the weighted sum", None), "lr": ("learning rate", 0),
}  # fmt: skip


def _beside(axes, loss, history, healthy_history):
    """One loss of a run, and of a healthy one; it has the same axes in every figure. A longer run is drawn as long."""
    (name, level), last = BESIDE[loss], healthy_history[-1]["step"]
    history = [row | {"step": row["step"] * last / history[-1]["step"]} for row in history]  # to one length
    if level is not None:
        axes.axhline(level, color="black", linestyle=":", linewidth=1)
        axes.text(1.005, level, f"{level:g}", fontsize=9.5, va="center", transform=axes.get_yaxis_transform())
    if history[0][loss] is None:
        axes.text(0.5, 0.8, "this run has none", fontsize=10, ha="center", transform=axes.transAxes)
    smooth, highest = 1 if loss == "lr" else 25, 1.15 * healthy_history[0]["lr"]
    _curve(axes, healthy_history, loss, COLOURS["none"], "a healthy run", smooth, raw=False)
    _curve(axes, history, loss, "black", "this run", smooth, raw=False)
    limits = {"lr": (-highest, highest), "loss_G": (0, 20)}
    axes.set(xlim=(0, last), ylim=limits.get(loss, (0, 1.05)))
    axes.tick_params(labelsize=9.5)
    axes.set_title(name, fontsize=11, loc="left", pad=3)


def beside_healthy(history, samples, healthy_history, healthy_samples, title):
    """A run, its `history.jsonl` and its `Trainer.sheet`, beside a healthy one: losses, and four pictures of A.

    All axes are the same in every such figure. Dotted: 0.25, where a discriminator cannot tell (notebook 03), and 0.
    """
    figure = Figure(figsize=(10.4, 5.9))
    for number, loss in enumerate(("cycle_A", "loss_D", "adversarial", "lr")):
        axes = figure.add_axes([0.065, 0.757 - 0.228 * number, 0.385, 0.165])
        _beside(axes, loss, history, healthy_history)
        axes.tick_params(labelbottom=loss == "lr")
    axes.set_xlabel("training step", fontsize=10, labelpad=1)
    axes.legend(fontsize=9.5, loc="lower left")
    rows = {"real A": samples["real_A"], "fake B,\nhealthy": healthy_samples["fake_B"],
            "fake B,\nthis run": samples["fake_B"], "back to A,\nhealthy": healthy_samples["rec_A"],
            "back to A,\nthis run": samples["rec_A"]}  # fmt: skip
    pixel = 1 / 90  # inches, as `show` draws: pictures of 32 pixels are shown exactly three times as large
    for r, (name, pictures) in enumerate(rows.items()):
        left, bottom, side, gap = (pixel * length for length in (534, 504 - 99 * (r + 1), 96, 3))
        _picture_row(figure, name, pictures[:4], left, bottom, side, side, gap, 11)
    _write(figure, 5.2, 5.85, title, 14, va="top")
    return figure


def curves_beside_healthy(history, healthy_history, title):
    """All losses of a run and its learning rate, beside those of a healthy one, with the axes of `beside_healthy`."""
    figure = Figure(figsize=(10.4, 5), layout="constrained")
    for axes, loss in zip(figure.subplots(3, 2, sharex=True).flat, BESIDE, strict=True):
        _beside(axes, loss, history, healthy_history)
    axes.legend(fontsize=9.5, loc="lower left")
    figure.supxlabel("training step", fontsize=10)
    figure.suptitle(title, fontsize=14)
    return figure


def pictures_beside_healthy(samples, healthy_samples, title):
    """Four test pictures of each domain and what became of them: left in a healthy run, right in this one."""
    gap = torch.ones_like(samples["real_A"][:1])
    names = ("real_A", "fake_B", "rec_A", "real_B", "fake_A")
    rows = {name: torch.cat([healthy_samples[name][:4], gap, samples[name][:4]]) for name in names}
    return picture_rows(rows, title, ["a healthy run", *[""] * 4, "this run"], picture_inches=0.96)


def _above(figure, pictures, left=0.01, bottom=0.48, width=0.99, height=0.44):
    """Pictures with captions beside one another, their place in shares of the figure."""
    width /= len(pictures)
    for i, (name, picture) in enumerate(pictures.items()):
        axes = figure.add_axes([left + i * width, bottom, 0.96 * width, height])
        axes.imshow(to_pixels(picture), vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, fontsize=9, parse_math=False)


def means_and_contrasts(pictures, largest_mean):
    """Pictures, {name: (3, H, W) in [-1, 1]}, over each channel's mean and contrast; what a norm allows is shaded."""
    figure = Figure(figsize=(9, 5))
    _above(figure, pictures)
    left, right = figure.add_axes([0.2, 0.1, 0.46, 0.31]), figure.add_axes([0.71, 0.1, 0.27, 0.31])
    channels = np.stack([picture.double().flatten(1).numpy() for picture in pictures.values()])
    limits = (-largest_mean, largest_mean), (0, np.tanh(1))
    for axes, band, values in zip((left, right), limits, (channels.mean(2), channels.std(2)), strict=True):
        axes.axvspan(*band, color=COLOURS["instance"], alpha=0.25, linewidth=0)
        for number, (channel, colour) in enumerate(CHANNELS.items()):
            places = np.arange(len(pictures)) + 0.25 * (number - 1)
            axes.plot(values[:, number], places, marker=f"${channel}$", linestyle="", color=colour, markersize=8)
        axes.set(ylim=(len(pictures) - 0.5, -0.5), yticks=range(len(pictures)), yticklabels=[])
    names = [name.replace("\n", " ") for name in pictures]
    left.set_yticks(range(len(pictures)), names, fontsize=8, parse_math=False)
    left.set(xlim=(-1, 1), xlabel="mean of a channel (-1: black, 1: white)")
    right.set(xlim=(0, 1), xlabel="contrast: standard deviation")
    left.set_title("shaded: all that a norm at the output allows", fontsize=9)
    return figure


def floor_view(picture, closest, curve, brightness, floor, largest_mean):
    """A picture and the closest that a norm allows, (3, H, W) each, and where it lies on `curve`: (means, floors)."""
    figure = Figure(figsize=(9.6, 3.2))
    pictures = {"the picture": picture, "the closest that a norm\nat the output allows": closest}
    _above(figure, pictures, 0.005, 0.08, 0.53, 0.76)
    right, line = figure.add_axes([0.61, 0.16, 0.37, 0.73]), np.linspace(-1, 1, 201)
    right.plot(*curve, color=COLOURS["instance"], linewidth=2, label="floor")
    label = f"|mean| - {largest_mean}, without a learned scale"
    right.plot(line, (abs(line) - largest_mean).clip(0), color="black", linestyle=":", linewidth=1, label=label)
    right.plot([brightness], [floor], "o", color="black", markersize=8)
    offset, side = (-10, "right") if brightness > 0 else (10, "left")
    style = dict(textcoords="offset points", ha=side, fontsize=10, weight="bold")
    right.annotate(f"{floor:.3f}", (brightness, floor), xytext=(offset, 12), **style)
    right.set(xlim=(-1, 1), xlabel="mean of the picture (-1: black, 1: white)", ylabel=PIXELS)
    right.set(ylim=(0, 0.85), title="No network with this layer can do better", xticks=[-1, -0.5, 0, 0.5, 1])
    right.legend(fontsize=8, loc="upper center")
    return figure


def training_moment(pictures, curves, floor, step):
    """What both arms made of a picture, {name: (3, H, W)}, over `curves`, {output_norm: (steps, cycle losses)}."""
    figure = Figure(figsize=(9, 5))
    _above(figure, pictures)
    axes = figure.add_axes([0.08, 0.1, 0.9, 0.33])
    for norm, (steps, losses) in curves.items():
        axes.plot(steps, losses, color=COLOURS[norm], linewidth=2, label=NORM_NAMES[norm])
        axes.plot([step], np.interp([step], steps, losses), "o", color=COLOURS[norm], markersize=8)
    axes.axvline(step, color="#777777", linewidth=1)
    draw_floors(axes, {"A": floor})
    over_steps(axes, None, "cycle loss of A")
    axes.set_xlabel(f"training step (now: {step})")
    axes.legend(fontsize=8, loc="lower left")  # no curve is there
    return figure
