"""The figures that explorers draw, data → matplotlib `Figure`: pictures in a row, and numbers beneath them."""

import numpy as np
from matplotlib.figure import Figure

from cyclegan_lib.show.plots import CHANNELS, COLOURS, NORM_NAMES, PIXELS, draw_floors, over_steps, plain, to_pixels


def _above(figure, pictures, left=0.01, bottom=0.48, width=0.99, height=0.44):
    """Pictures with captions beside one another, their place in shares of the figure."""
    width /= len(pictures)
    for i, (name, picture) in enumerate(pictures.items()):
        axes = figure.add_axes([left + i * width, bottom, 0.96 * width, height])
        axes.imshow(to_pixels(picture), vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(plain(name), fontsize=9)


def means_and_contrasts(pictures, largest_mean):
    """Pictures, {name: (3, H, W) in [-1, 1]}, and under them each channel's mean and contrast.

    What a norm at the output allows is shaded: means up to `largest_mean`.
    """
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
    left.set_yticks(range(len(pictures)), [plain(name.replace("\n", " ")) for name in pictures], fontsize=8)
    left.set(xlim=(-1, 1), xlabel="mean of a channel (-1: black, 1: white)")
    right.set(xlim=(0, 1), xlabel="contrast: standard deviation")
    left.set_title("shaded: all that a norm at the output allows", fontsize=9)
    return figure


def floor_view(picture, closest, curve, brightness, floor, largest_mean):
    """A picture, the closest one with a norm at the output, both (3, H, W) in [-1, 1], and the floor over brightness.

    `curve` is (brightnesses, floors), two sequences; `brightness` and `floor` say where the picture lies on it.
    """
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
    right.annotate(f"{floor:.3f}", (brightness, floor), xytext=(offset, 6), **style)
    right.set(xlim=(-1, 1), xlabel="mean of the picture (-1: black, 1: white)", ylabel=PIXELS)
    right.set(ylim=(0, 0.85), title="No network can do better than this")
    right.legend(fontsize=8, loc="upper center")
    return figure


def training_moment(pictures, curves, floor, step):
    """What both arms made of a picture, {name: (3, H, W) in [-1, 1]}, over their losses at a training step.

    `curves` are {output_norm: (steps, cycle losses)}, `floor` is of the same pictures as the losses.
    """
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
    return figure
