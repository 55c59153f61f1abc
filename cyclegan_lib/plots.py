"""Data → matplotlib `Figure`. One look: one colour for one thing, in every figure."""

import io

import numpy as np
from matplotlib.figure import Figure

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


def to_png(figure, dpi=100):
    """A figure → PNG bytes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def show(figure, alt):
    """Show a figure in a notebook, with a text for those who cannot see it."""
    from IPython.display import Image, display  # only notebooks need it

    display(Image(to_png(figure, dpi=90), alt=alt))


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


def _curve(axes, history, name, colour, label, smooth):
    rows = [(row["step"], row[name]) for row in history if row[name] is not None]
    if not rows:
        return
    steps, values = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    axes.plot(steps, values, color=colour, alpha=0.18, linewidth=0.6)
    width = max(1, min(smooth, len(values) // 4))
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], mean, color=colour, linewidth=1.8, label=label)
