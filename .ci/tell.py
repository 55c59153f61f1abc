"""What `make benchmark` measured, told in data/benchmark/README.md and, shorter, in the README; and a figure."""

import json
import re
from pathlib import Path

from matplotlib.figure import Figure

from cyclegan_lib.files import write_atomic
from cyclegan_lib.show import plots

ROOT = Path(__file__).resolve().parents[1]
GOOD = 0.95  # of `success_rate`: then the demo's water has become wine
# Dense matmul peaks of the makers' data sheets in TFLOP/s: 16-bit, without sparsity.
DATA_SHEETS = {"T4": 65, "A100": 312, "H100": 989}
LIKELY_SHARE = (0.1, 0.5)  # of such a peak, that convolutions of this size reach: an assumption
OPERATIONS = 1030  # that a step of the paper's networks hands out, counted as in notebook 08; a test counts again
OPERATION = 5e-6  # seconds until the next one is handed out, at best: an assumption
HORSE2ZEBRA = 1334  # steps of one picture in an epoch: the larger side
NAMES = {
    "pixels": "pixels of a side",
    "batch": "pictures in a batch",
    "num_residual": "residual blocks",
    "base_channels": "channels of the first layers",
}


def summary(found):
    """All that a benchmark's file holds, in words and tables, as data/benchmark/README.md has it."""
    parts = [f"**{found['machine']}**, torch {found['torch']}:"]
    parts += [steps_table(found["rows"]), loader_table(found["loader"])]
    parts += to_quality(found)
    if any(row["pixels"] == 256 for row in found["rows"]):
        parts.append(hours_table(found))
    return "\n\n".join(parts)


def short(found):
    """The times alone, as the README has them: tables as narrow as a phone."""
    parts = [f"**{found['machine']}**, torch {found['torch']}:"]
    parts += [steps_table(found["rows"], SHORT), *to_quality(found)]
    if any(row["pixels"] == 256 for row in found["rows"]):
        parts.append(hours_table(found, columns=2))
    return "\n\n".join(parts)


def to_quality(found):
    """How long it takes to a good translation, if that was measured."""
    if reached := [row for row in found.get("quality", []) if row["steps"]]:
        rates = ", ".join(f"{row['steps']} steps ({row['seconds']:.0f} s)" for row in reached)
        looked = f"To a success_rate of {GOOD} on water2wine (looked at every 100 steps)"
        return [f"{looked}: {rates}, of {len(found['quality'])} seeds."]
    return []


def table(*rows):
    """A table in Markdown; the first row is its header."""
    first, *others = (f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in row)}|" for row in rows)
    return "\n".join([first, "|---" * len(rows[0]) + "|", *others])


def loader_table(found):
    rows = [("the loader: pixels", "pictures", "a second", "of a training spent waiting")]
    for row in found:
        rows.append((str(row["pixels"]), row["pictures"], f"{row['pictures_per_second']:,}", f"{row['waiting']:.1%}"))
    return table(*rows)


STEPS = ("pixels", "batch", "precision", "textbook", "ours", "ratio", "of the peak", "memory")
SHORT = ("pixels", "precision", "textbook", "ours")


def steps_table(found, columns=STEPS):
    rows = [columns]
    for row in found:
        times = f"{row['textbook_ms']:.0f} ms", f"{row['ours_ms']:.0f} ms", f"{row['ratio']:.2f}"
        memory = "" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']} MB"
        setting = str(row["pixels"]), str(row["batch"]), row["precision"]
        cells = dict(zip(STEPS, (*setting, *times, f"{row['share_of_peak']:.0%}", memory), strict=True))
        rows.append(tuple(cells[column] for column in columns))
    return table(*rows)


def estimate_hours(cost_gflop, epochs=200):
    """{GPU: (least, most) hours} of `epochs` of horse2zebra at 256 pixels in batches of one, estimated.

    The work of a step (counted), the makers' peaks, and the share of them that is likely to be reached,
    `LIKELY_SHARE`; a step is never faster than its operations. Nothing here was measured on such a device.
    """
    hours, floor = HORSE2ZEBRA * epochs / 3600, OPERATIONS * OPERATION
    return {
        name: tuple(hours * max(floor, cost_gflop / 1000 / peak / share) for share in LIKELY_SHARE[::-1])
        for name, peak in DATA_SHEETS.items()
    }


def hours_table(found, columns=4):
    """The paper's 200 epochs of horse2zebra at 256 pixels: on GPUs (estimated), and here (from a measured step)."""
    here = [row for row in found["rows"] if row["pixels"] == 256][-1]
    rows = [("200 epochs of horse2zebra, 256 pixels", "time", "", "16-bit peak")]
    for name, (least, most) in estimate_hours(here["gflop"]).items():
        rows.append((name, f"{least:.1f} to {most:.1f} hours", "estimate", f"{DATA_SHEETS[name]} TFLOP/s"))
    days = here["ours_ms"] / 1000 * HORSE2ZEBRA * 200 / 86400
    rows.append((found["machine"], f"{days:.0f} days", "266,800 times the step above", ""))
    return table(*(row[:columns] for row in rows))


def write_figure(found, path):
    write_atomic(path, plots.to_png(cost_figure(found["cost"], found["loader_memory"]), colours=64))


def cost_figure(cost, loader):
    """How a training step's time and memory grow, and the memory of the loader.

    The dashed lines are predictions from one point: from the last, where time is all arithmetic, and
    from the first, what memory is more by more weights and more kept for the backward passes.

    Args:
        cost: what `benchmark.measure_cost` returns.
        loader: what `benchmark.measure_loader_memory` returns.
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, len(cost) + 1, width_ratios=[1] * len(cost) + [1.25])
    for column, (name, points) in enumerate(cost.items()):
        first, last, values = points[0], points[-1], [point["value"] for point in points]
        lines = {
            ("ms", "seconds a step", "as the arithmetic"): [last["ms"] * p["gflop"] / last["gflop"] for p in points],
            ("memory_mb", "memory in GB", "as what it keeps"): [
                first["memory_mb"] + p["kept_mb"] - first["kept_mb"] for p in points
            ],
        }
        for row, ((what, label, predicted), expected) in enumerate(lines.items()):
            axes = figure.add_subplot(grid[row, column])
            measured, expected = ([value / 1000 for value in line] for line in ([p[what] for p in points], expected))
            axes.plot(values, measured, "o", color="black", markersize=6, label="measured")
            axes.plot(values, expected, "--", color="#777777", label=predicted)
            top = (1.5 if column == 0 else 1.1) * max(*measured, *expected)
            axes.set(xlim=(0, 1.08 * values[-1]), ylim=(0, top), xticks=[value for value in values if value != 96])
            axes.set_xlabel(NAMES[name], fontsize=10)
            if column == 0:
                axes.set_ylabel(label, fontsize=11)
                axes.legend(fontsize=9, loc="upper left", handlelength=1.5, borderpad=0.3)
    loader_panel(figure.add_subplot(grid[:, -1]), loader)
    title = "Large steps take time as their arithmetic; small ones take longer. Memory grows as what a step keeps"
    figure.suptitle(title, fontsize=13)
    return figure


def loader_panel(axes, loader):
    budget, pictures = loader["budget_mb"], [point["pictures"] for point in loader["points"]]
    axes.plot(pictures, [point["memory_mb"] for point in loader["points"]], "o", color="black", markersize=6)
    axes.axhline(budget, color="black", linestyle="--", linewidth=1)
    axes.text(0.97 * pictures[-1], 1.03 * budget, f"budget: {budget} MB", fontsize=10, ha="right")
    axes.set(ylim=(0, 1.35 * budget), xlim=(0, 1.08 * pictures[-1]))
    axes.set_xlabel("pictures of 256 pixels", fontsize=10.5)
    axes.set_title("the loader's memory in MB:\nnone beyond its budget", fontsize=10.5)


def write_readmes():
    """Both READMEs' tables, from all that was measured."""
    folder = ROOT / "data" / "benchmark"
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    between = re.compile(r"(<!-- measured: make benchmark -->\n).*?(<!-- end -->)", re.S)
    for readme, told in ((ROOT / "README.md", short), (folder / "README.md", summary)):
        text = "\n\n".join(map(told, found))
        write_atomic(readme, between.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", readme.read_text()))
