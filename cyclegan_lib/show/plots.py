"""Data → matplotlib `Figure`. One look: one colour for one thing, in every figure."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

# Okabe–Ito, and where those run out Tol's: told apart by colour-blind readers too.
COLOURS = {
    "A": "#0072B2", "B": "#D55E00",
    "none": "#009E73", "instance": "#E69F00", "instance_affine": "#999933", "batch": "#56B4E9",
    "loss_D": "#882255", "adversarial": "#777777", "identity": "#CC79A7",
}  # fmt: skip
NORM_NAMES = {
    "none": "no norm at the output", "instance": "InstanceNorm at the output",
    "instance_affine": "InstanceNorm, learned scale", "batch": "BatchNorm at the output",
}  # fmt: skip
ROW_NAMES = {
    "real_A": "real A", "fake_B": "fake B\n= G_AB(real A)", "rec_A": "back to A\n= G_BA(fake B)",
    "real_B": "real B", "fake_A": "fake A\n= G_BA(real B)", "rec_B": "back to B\n= G_AB(fake A)",
}  # fmt: skip


def to_png(figure, dpi=100, colours=None):
    """A figure → PNG bytes, the same bytes for the same figure; in so many `colours`, at most 256, to save space."""
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


def note(text):
    """A line of text, as a figure: what stands where a picture will be."""
    figure = Figure(figsize=(9, 0.4))
    figure.text(0.01, 0.5, text, va="center", fontsize=10, color="#555555")
    return figure


def to_pixels(picture):
    """(C, H, W) in [-1, 1] → (H, W, 3) in [0, 1], for `imshow`. Nothing is stretched."""
    return ((picture.float().clamp(-1, 1) + 1) / 2).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()


def picture_rows(rows, title=None, columns=None, picture_inches=0.9):
    """A grid of pictures with a name on every row.

    Args:
        rows: {name: (N, C, H, W) in [-1, 1]}, as many pictures in each.
        title: what the figure shows, in a sentence.
        columns: a name for each column, if they have any.
    """
    _, _, pixels_high, pixels_wide = next(iter(rows.values())).shape
    count = max(len(pictures) for pictures in rows.values())
    wide, high, gap = picture_inches, picture_inches * pixels_high / pixels_wide, 0.05
    label, top = 1.35, 0.05 + (0.33 if title else 0) + (0.2 if columns else 0)
    width, height = label + count * (wide + gap), top + len(rows) * (high + gap)
    figure = Figure(figsize=(width, height))
    for r, (name, pictures) in enumerate(rows.items()):
        bottom = height - top - (r + 1) * (high + gap) + gap
        for c, picture in enumerate(pictures):
            left = label + c * (wide + gap)
            axes = figure.add_axes([left / width, bottom / height, wide / width, high / height])
            axes.imshow(to_pixels(picture), vmin=0, vmax=1, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
        text = ROW_NAMES.get(name, name)
        figure.text((label - 0.1) / width, (bottom + high / 2) / height, text, ha="right", va="center", fontsize=8.5)
    for c, name in enumerate(columns or []):
        middle = label + c * (wide + gap) + wide / 2
        figure.text(middle / width, 1 - (top - 0.03) / height, name, ha="center", va="bottom", fontsize=8.5)
    if title:
        figure.text(0.5, 1 - 0.08 / height, title, ha="center", va="top", fontsize=11)
    return figure


def images_in_a_row(images, title=None, height=3.2):
    """Pillow images of any size beside one another, as high as each other, with a name on each.

    Args:
        images: {name: image}.
        height: of the pictures, in inches.
    """
    gap, top = 0.08, 0.3 + (0.33 if title else 0)
    widths = [height * image.width / image.height for image in images.values()]
    size = sum(widths) + gap * (len(images) + 1), height + top + gap
    figure = Figure(figsize=size)
    left = gap
    for (name, image), width in zip(images.items(), widths, strict=True):
        axes = figure.add_axes([left / size[0], gap / size[1], width / size[0], height / size[1]])
        axes.imshow(np.asarray(image.convert("RGB")), aspect="auto")
        axes.set_axis_off()
        middle, above = (left + width / 2) / size[0], (gap + height + 0.06) / size[1]
        figure.text(middle, above, name, ha="center", va="bottom", fontsize=9)
        left += width + gap
    if title:
        figure.text(0.5, 1 - 0.08 / size[1], title, ha="center", va="top", fontsize=11)
    return figure


def picture_file(path, dpi=100):
    """A picture that was saved, as a figure of so many pixels."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    figure = Figure(figsize=(pixels.shape[1] / dpi, pixels.shape[0] / dpi), dpi=dpi)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure


def distributions(pictures, title=None):
    """How the values of piles of pictures are distributed: red, green, blue, and edges.

    Args:
        pictures: {"real A": (N, 3, H, W), "fake B": …, "real B": …} in [-1, 1], from the pile before to
            the pile that the fakes should be like.
    """
    figure = Figure(figsize=(10, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    colours = dict(zip(pictures, (COLOURS["A"], "black", COLOURS["B"]), strict=True))
    bins = np.linspace(-1, 1, 41)
    edge_bins = np.arange(-0.5, 100, 4) / 127.5  # whole steps of 8 bits: others would be combed
    for name, pile in pictures.items():
        style = dict(histtype="step", density=True, color=colours[name], linewidth=1.6, label=name)
        for axes, values, channel in zip(panels, pile.unbind(1), ("red", "green", "blue"), strict=False):
            axes.hist(values.flatten().cpu().numpy(), bins, **style)
            axes.set(title=channel, xlabel="value", yticks=[])
        edges = np.concatenate([pile.diff(dim=dim).abs().flatten().cpu().numpy() for dim in (2, 3)])
        panels[3].hist(edges, edge_bins, **style)
    panels[3].set(title="edges", xlabel="|difference| of neighbours", yscale="log", yticks=[])
    panels[3].minorticks_off()
    panels[0].set_ylabel("share of pixels")
    panels[3].legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def loss_curves(history, floors=None, title=None, smooth=25):
    """The losses of one run over its steps.

    Args:
        history: rows of `history.jsonl`, a list of dicts.
        floors: {"A": number, "B": number}: no cycle loss gets below these with an InstanceNorm
            at the output (`metrics.output_norm_floor`); drawn dashed.
        smooth: width of the moving mean, in steps.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("cycle_A", "cycle A → B → A"), ("cycle_B", "cycle B → A → B")):
        _curve(left, history, name, COLOURS[name[-1]], label, smooth)
    draw_floors(left, floors)
    left.set(xlabel="training step", ylabel="mean |difference| of pixels", title="Cycle losses")
    left.set_ylim(bottom=0)
    if history:
        left.legend(fontsize=8, loc="upper right")
    for name, label in (("adversarial", "generators: adversarial"), ("loss_D", "discriminators")):
        _curve(right, history, name, COLOURS[name], label, smooth)
    if any(row["identity"] is not None for row in history):
        _curve(right, history, "identity", COLOURS["identity"], "generators: identity", smooth)
    right.set(xlabel="training step", ylabel="loss", title="The others, each without its λ")
    right.set_ylim(bottom=0)
    if history:
        right.legend(fontsize=8, loc="upper right")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def compare_arms(histories, floors, title=None, smooth=25):
    """Cycle losses of several runs, a colour for each `output_norm`, with the floors.

    Args:
        histories: {output_norm: rows of its `history.jsonl`}.
        floors: {"A": number, "B": number}.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, domain in zip(figure.subplots(1, 2, sharey=True), "AB", strict=True):
        for norm, history in histories.items():
            _curve(axes, history, f"cycle_{domain}", COLOURS[norm], NORM_NAMES[norm], smooth)
        draw_floors(axes, {domain: floors[domain]})
        axes.set(xlabel="training step", title=f"Cycle loss of {domain}")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="upper right")
    figure.axes[0].set_ylabel("mean |difference| of pixels")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def draw_floors(axes, floors):
    """The output-norm floors as black dashed lines, with their values in the legend."""
    values = ", ".join(f"{domain} {floor:.3f}" for domain, floor in (floors or {}).items())
    for i, floor in enumerate((floors or {}).values()):
        label = f"floor with the norm: {values}" if i == 0 else None
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=label)


def _curve(axes, history, name, colour, label, smooth, raw=True):
    rows = [(row["step"], row[name]) for row in history if row[name] is not None]
    if not rows:
        return
    steps, values = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    if raw:
        axes.plot(steps, values, color=colour, alpha=0.18, linewidth=0.6)
    width = max(1, min(smooth, len(values) // 4))
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], mean, color=colour, linewidth=1.8, label=label)


CHANNELS = {"R": "#D55E00", "G": "#009E73", "B": "#0072B2"}


def _row_of_pictures(figure, pictures, box):
    """Pictures with captions beside one another in `box` (left, bottom, width, height), as shares of the figure.

    Placed by hand: an automatic layout takes longer than two networks.
    """
    left, bottom, width, height = box
    for i, (name, picture) in enumerate(pictures.items()):
        axes = figure.add_axes([left + i * width / len(pictures), bottom, 0.96 * width / len(pictures), height])
        axes.imshow(to_pixels(picture), vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, fontsize=9)


def means_and_contrasts(pictures, largest_mean):
    """Pictures in a row, and under them where each channel's mean and contrast lie.

    Args:
        pictures: {name: (3, H, W) in [-1, 1]}, a picture and what became of it.
        largest_mean: what a norm at the output allows a mean to be, at most; shaded.
    """
    figure = Figure(figsize=(9, 5))
    _row_of_pictures(figure, pictures, (0.01, 0.48, 0.99, 0.44))
    left, right = figure.add_axes([0.2, 0.1, 0.46, 0.31]), figure.add_axes([0.71, 0.1, 0.27, 0.31])
    left.axvspan(-largest_mean, largest_mean, color=COLOURS["instance"], alpha=0.25, linewidth=0)
    right.axvspan(0, np.tanh(1), color=COLOURS["instance"], alpha=0.25, linewidth=0)
    rows = np.arange(len(pictures))
    channels = np.stack([picture.double().flatten(1).numpy() for picture in pictures.values()])
    for number, (channel, colour) in enumerate(CHANNELS.items()):
        for axes, values in ((left, channels.mean(2)), (right, channels.std(2))):
            axes.plot(values[:, number], rows + 0.25 * (number - 1), linestyle="", marker=f"${channel}$",
                      color=colour, markersize=8)  # fmt: skip
    left.set_yticks(rows, [name.replace("\n", " ") for name in pictures], fontsize=8)
    right.set_yticks(rows, [])
    left.set(xlim=(-1, 1), ylim=(len(pictures) - 0.5, -0.5), xlabel="mean of a channel (-1: black, 1: white)")
    right.set(xlim=(0, 1), ylim=(len(pictures) - 0.5, -0.5), xlabel="contrast: standard deviation")
    left.set_title("shaded: all that a norm at the output allows", fontsize=9)
    return figure


def floor_view(picture, closest, curve, brightness, floor, largest_mean):
    """A picture, the closest one with a norm at the output, and the floor over brightness.

    Args:
        picture, closest: (3, H, W) in [-1, 1].
        curve: (brightnesses, floors), two sequences.
        brightness, floor: where the picture lies on it.
    """
    figure = Figure(figsize=(9.6, 3.2))
    pictures = {"the picture": picture, "the closest that a norm\nat the output allows": closest}
    _row_of_pictures(figure, pictures, (0.005, 0.08, 0.53, 0.76))
    right = figure.add_axes([0.61, 0.16, 0.37, 0.73])
    right.plot(*curve, color=COLOURS["instance"], linewidth=2, label="floor")
    line = np.linspace(-1, 1, 201)
    right.plot(line, np.maximum(0, np.abs(line) - largest_mean), color="black", linestyle=":", linewidth=1,
               label=f"|mean| - {largest_mean}, if all channels had this mean")  # fmt: skip
    right.plot([brightness], [floor], "o", color="black", markersize=8)
    side = "right" if brightness > 0 else "left"
    right.annotate(f"{floor:.3f}", (brightness, floor), xytext=(-10 if side == "right" else 10, 6), ha=side,
                   textcoords="offset points", fontsize=10, weight="bold")  # fmt: skip
    right.set(xlim=(-1, 1), ylim=(0, 0.85), xlabel="mean of the picture (-1: black, 1: white)",
              ylabel="mean |difference| of pixels", title="No network can do better than this")  # fmt: skip
    right.legend(fontsize=8, loc="upper center")
    return figure


def training_moment(pictures, curves, floor, step):
    """What both arms make of a picture at one training step, over their loss curves.

    Args:
        pictures: {name: (3, H, W) in [-1, 1]}.
        curves: {output_norm: (steps, cycle losses)}.
        floor: of the same pictures as the losses.
    """
    figure = Figure(figsize=(9, 5))
    _row_of_pictures(figure, pictures, (0.01, 0.48, 0.99, 0.44))
    axes = figure.add_axes([0.08, 0.1, 0.9, 0.33])
    for norm, (steps, losses) in curves.items():
        axes.plot(steps, losses, color=COLOURS[norm], linewidth=2, label=NORM_NAMES[norm])
        axes.plot([step], np.interp([step], steps, losses), "o", color=COLOURS[norm], markersize=8)
    axes.axvline(step, color="#777777", linewidth=1)
    draw_floors(axes, {"A": floor})
    axes.set(xlabel=f"training step (now: {step})", ylabel="cycle loss of A", ylim=(0, None))
    axes.legend(fontsize=8, loc="upper right")
    return figure


def arms_with_floor(history, arms, floors, title):
    """Cycle losses of several arms over the steps: the mean over seeds, a faint line for each.

    Args:
        history: rows of `history.csv`.
        arms: {arm: (colour, name)}.
        floors: {"A": number, "B": number}.
    """
    figure = Figure(figsize=(10, 3.7), layout="constrained")
    for axes, domain in zip(figure.subplots(1, 2, sharey=True), "AB", strict=True):
        for arm, (colour, name) in arms.items():
            runs = {}
            for row in history:
                if row["arm"] == arm:
                    runs.setdefault(row["seed"], []).append((row["step"], row[f"cycle_{domain}"]))
            losses = np.array([[loss for _, loss in run] for run in runs.values()])
            steps = [step for step, _ in next(iter(runs.values()))]
            axes.plot(steps, losses.T, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(steps, losses.mean(0), color=colour, linewidth=2, label=f"{name} ({len(runs)} seeds)")
        draw_floors(axes, {domain: floors[domain]})
        axes.set(xlabel="training step", title=f"Cycle loss of {domain}, test pictures", ylim=(0, None))
        axes.legend(fontsize=8, loc="upper right")
    figure.axes[0].set_ylabel("mean |difference| of pixels")
    figure.suptitle(title, fontsize=12)
    return figure


def arms_at_end(groups, columns, floors, title):
    """How the runs of each arm ended: a dot a seed, the mean and its 95 % interval.

    Args:
        groups: {arm's name: (colour, {column: (values of the seeds, (mean, half width))})}.
        columns: {column: what stands under its axis}.
        floors: {column: number}, drawn where there is one.
    """
    figure = Figure(figsize=(10, 1.3 + 0.34 * len(groups)), layout="constrained")
    for axes, (column, label) in zip(
        figure.subplots(1, len(columns), sharey=True, squeeze=False)[0], columns.items(), strict=True
    ):
        for row, (colour, found) in enumerate(groups.values()):
            values, (mean, half) = found[column]
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.35, markersize=5)
            axes.errorbar([mean], [row], xerr=[half], fmt="|", color=colour, markersize=14, linewidth=2.5, capsize=0)
        if column in floors:
            axes.axvline(floors[column], color="black", linestyle="--", linewidth=1)
            axes.set_title(f"floor with the norm: {floors[column]:.3f}", fontsize=8)
        axes.margins(x=0.1)
        axes.set(xlabel=label, xlim=(0, None))
        axes.grid(axis="y", alpha=0.25)
    figure.axes[0].set_yticks(range(len(groups)), list(groups), fontsize=9)
    figure.axes[0].set_ylim(len(groups) - 0.5, -0.5)
    figure.suptitle(title, fontsize=12)
    return figure


def beside_healthy(history, samples, healthy_history, healthy_samples, title, smooth=25):
    """A run beside a healthy one: losses, learning rate and what became of some pictures.

    Args:
        history, healthy_history: rows of `history.jsonl`.
        samples, healthy_samples: as `Trainer.sheet` gives them; the first four of A are shown.
    """
    figure = Figure(figsize=(10.4, 3))
    panels = {"cycle_A": "cycle loss of A", "loss_D": "the discriminators' loss",
              "adversarial": "adversarial loss", "lr": "learning rate"}  # fmt: skip
    for number, (loss, name) in enumerate(panels.items()):
        axes = figure.add_axes([0.05 + 0.305 * (number % 2), 0.57 - 0.44 * (number // 2), 0.25, 0.27])
        width = 1 if loss == "lr" else smooth
        _curve(axes, healthy_history, loss, COLOURS["none"], "a healthy run", width, raw=False)
        _curve(axes, history, loss, "black", "this one", width, raw=False)
        values = [row[loss] for rows in (history, healthy_history) for row in rows]
        axes.set_ylim(min(0, *values), 1.05 * min(max(values), 2.5) if loss != "lr" else None)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("training step" if number > 1 else None, fontsize=8, labelpad=1)
        axes.set_title(name, fontsize=9)
    figure.axes[-1].legend(fontsize=7, loc="lower left")
    rows = {"real A": samples["real_A"], "fake B,\nhealthy": healthy_samples["fake_B"], "fake B": samples["fake_B"],
            "back to A": samples["rec_A"]}  # fmt: skip
    wide, high = 936, 270  # pixels, as a notebook shows it: pictures of 32 are shown exactly twice as large
    for r, (name, pictures) in enumerate(rows.items()):
        bottom = high - 67 * (r + 1)
        for c, picture in enumerate(pictures[:4]):
            axes = figure.add_axes([(wide - 67 * (4 - c)) / wide, bottom / high, 64 / wide, 64 / high])
            axes.imshow(to_pixels(picture), vmin=0, vmax=1, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
        figure.text(0.708, (bottom + 32) / high, name, ha="right", va="center", fontsize=8)
    figure.text(0.33, 0.985, title, ha="center", va="top", fontsize=11)
    return figure


GROWS = {"pixels": "pixels of a side", "batch": "pictures in a batch", "num_residual": "residual blocks",
         "base_channels": "channels of the first layers"}  # fmt: skip


def cost(found, loader):
    """How a training step's time and memory grow, and the memory of the loader.

    Args:
        found: {what grows: [{"value", "ms", "gflop", "memory_mb", "kept_mb"}]}. The dashed lines are
            predictions from one point: from the last, where time is all arithmetic, and from the
            first, what memory is more by more weights and more kept for the backward passes.
        loader: {"budget_mb", "points": [{"pictures", "memory_mb"}]}.
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, len(found) + 1, width_ratios=[1] * len(found) + [1.25])
    rows = {"ms": "seconds a step", "memory_mb": "memory in GB"}
    for column, (name, points) in enumerate(found.items()):
        values, first, last = [point["value"] for point in points], points[0], points[-1]
        expected = {
            "ms": [last["ms"] * point["gflop"] / last["gflop"] for point in points],
            "memory_mb": [first["memory_mb"] + point["kept_mb"] - first["kept_mb"] for point in points],
        }
        for row, (what, label) in enumerate(rows.items()):
            axes = figure.add_subplot(grid[row, column])
            measured = [point[what] / 1000 for point in points]
            predicted = "as the arithmetic" if what == "ms" else "as what it keeps"
            axes.plot(values, measured, "o", color="black", markersize=6, label="measured")
            axes.plot(values, [value / 1000 for value in expected[what]], "--", color="#777777", label=predicted)
            top = (1.5 if column == 0 else 1.1) * max(*measured, *(value / 1000 for value in expected[what]))
            axes.set(xlim=(0, 1.08 * values[-1]), ylim=(0, top), xticks=[value for value in values if value != 96])
            axes.set_xlabel(GROWS[name], fontsize=10)
            if column == 0:
                axes.set_ylabel(label, fontsize=11)
                axes.legend(fontsize=9, loc="upper left", handlelength=1.5, borderpad=0.3)
    right = figure.add_subplot(grid[:, -1])
    pictures = [point["pictures"] for point in loader["points"]]
    right.plot(pictures, [point["memory_mb"] for point in loader["points"]], "o", color="black", markersize=6)
    right.axhline(loader["budget_mb"], color="black", linestyle="--", linewidth=1)
    right.text(
        0.97 * pictures[-1], 1.03 * loader["budget_mb"], f"budget: {loader['budget_mb']} MB", fontsize=10, ha="right"
    )
    right.set(ylim=(0, 1.35 * loader["budget_mb"]), xlim=(0, 1.08 * pictures[-1]))
    right.set_xlabel("pictures of 256 pixels", fontsize=10.5)
    right.set_title("the loader's memory in MB:\nnone beyond its budget", fontsize=10.5)
    figure.suptitle(
        "A step's time grows as its arithmetic, its memory as what it keeps: weights, and layers' inputs",
        fontsize=13,
    )
    return figure
