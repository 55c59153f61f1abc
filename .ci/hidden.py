"""What the cycle hides, and what the translation invents: the runs behind notebook 09. `make hidden`.

    data/hidden/scores.csv     a row for each evaluation: all arms and seeds
    data/hidden/openmoji.csv   colours of emoji, translated and by simple rules
    data/hidden/hidden.png     the README's figure
    data/hidden/*.safetensors  generators of the first seed of some arms, in 16 bits
    runs/hidden/               a file for each finished run; what is there is not trained again

Data set, remedies and measurements are the notebook's own: its cells are read, and nothing is written twice.
About an hour on two cores.
"""

import argparse
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from cyclegan_lib.datasets import load_split
from cyclegan_lib.files import write_atomic, write_tensors
from cyclegan_lib.pictures.openmoji import LINE, write_openmoji
from cyclegan_lib.pictures.weights import load_generators
from cyclegan_lib.runs.fast import speed_up
from cyclegan_lib.show import plots
from cyclegan_lib.study.tables import csv_of
from cyclegan_lib.water2wine.dataset import write_dataset
from cyclegan_lib.water2wine.scores import Water2WineTest

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS = ROOT / "runs" / "hidden", ROOT / "data" / "hidden"
sys.path.insert(0, str(ROOT / "tests"))
from notebook_cells import definitions, numbered  # noqa: E402

NOTEBOOK = definitions(numbered(9), "REMEDIES", "SIZE", HOME=ROOT, Path=Path, __name__="notebook 09")
REMEDIES, make_trainer, Hook = (NOTEBOOK[name] for name in ("REMEDIES", "make_trainer", "Hook"))
LEMONS = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the wines with a lemon; half of the waters have one
LABEL = ("experiment", "arm", "seed", "step")
COLUMNS = (
    *LABEL, "translation_error", "wall_in_fake", "wall_back", "read", "read_answer", "invented", "vanished",
    "success_rate", "liquid_error", "background_error", "cycle_A", "loss_D",
)  # fmt: skip
KEPT = {("longer", "as it is"), *(("lemons", f"{share:.0%}") for share in (0.1, 0.5, 0.9))}


@dataclass(frozen=True)
class Run:
    """One training: its place in the tables, and the steps after which it is measured."""

    experiment: str
    arm: str
    seed: int
    steps: tuple

    @property
    def path(self):
        name = f"{self.experiment} {self.arm} {self.seed}"
        return RUNS / f"{''.join(letter if letter.isalnum() else '_' for letter in name)}.json"


def plan():
    """All runs; the first seeds first, so that every table is begun early."""
    runs = [Run("longer", "as it is", seed, (300, 500, 1000, 2000, 3000, 5000)) for seed in range(3)]
    runs += [Run("remedies", arm, seed, (1500,)) for seed in range(5) for arm in REMEDIES]
    runs += [Run("lemons", f"{share:.0%}", seed, (500,)) for seed in range(5) for share in LEMONS]
    return runs + [Run("openmoji", "as it is", seed, (1000,)) for seed in range(3)]


def lemon_data(share):
    """water2wine, with a slice of lemon in half of the waters and in `share` of the wines; nothing is hidden."""
    root = ROOT / "data" / f"lemon_{share}"
    if not root.exists():
        write_dataset(root, size=NOTEBOOK["SIZE"], lemon=(0.5, share))
    return root


def draw_data():
    NOTEBOOK["hidden_walls"](ROOT / "data")
    for share in LEMONS:
        lemon_data(share)
    if not (ROOT / "data" / "openmoji").exists():
        write_openmoji(ROOT / "data" / "openmoji")


def options(run):
    """What `make_trainer` is given for a run."""
    given = {"seed": run.seed, "max_steps": run.steps[-1], "data_root": ROOT / "data"}
    if run.experiment == "lemons":
        return given | {"dataset_name": lemon_data(int(run.arm.rstrip("%")) / 100).name}
    if run.experiment == "openmoji":
        return given | {"dataset_name": "openmoji", "img_height": 64, "img_width": 64, "lambda_identity": 2.0}
    return given | REMEDIES[run.arm]


class Measure(Hook):
    """Observer: measures a training after some steps."""

    def __init__(self, run):
        self.run, self.rows = run, []

    def start(self, trainer):
        root = trainer.data.root
        if self.run.experiment == "openmoji":
            self.measured = lambda model: coloured(model, root)
            return
        test = Water2WineTest(root, trainer.config.size)
        if self.run.experiment == "lemons":
            scenes = [
                scene for name, scene in sorted(NOTEBOOK["read_scenes"](root).items()) if name.startswith("testA")
            ]
            self.measured = lambda model: invented(model, test.real["A"], scenes) | test.score_model(model)
            return
        known = [NOTEBOOK["known"](root, split) for split in ("trainA", "testA")]
        self.measured = lambda model: NOTEBOOK["measured"](model, *known) | test.score_model(model)

    def after_step(self, trainer):
        if trainer.step in self.run.steps:
            losses = {name: trainer.losses[name].item() for name in ("cycle_A", "loss_D")}
            label = dict(zip(LABEL, (self.run.experiment, self.run.arm, self.run.seed, trainer.step), strict=True))
            self.rows.append(label | losses | self.measured(trainer.model))


def invented(model, real, scenes):
    """The shares of lemons that are invented and that vanish."""
    shares = NOTEBOOK["invented_and_vanished"](model.translate(real)[0], scenes)
    return dict(zip(("invented", "vanished"), shares, strict=True))


def has_colour(pictures):
    """Where red, green and blue differ by 30 of 255: (N, 1, H, W)."""
    return pictures.amax(1, keepdim=True) - pictures.amin(1, keepdim=True) > 60 / 255


def colour_error(pictures, answers):
    """Mean |difference| to the answers, where these have a colour."""
    return (pictures - answers).abs()[has_colour(answers).expand_as(answers)].mean().item()


def coloured(model, root):
    """Errors of the colours of emoji: translated, by simple rules, and after the way from colours to lines and back."""
    lines, answers, train = (load_split(root, name, (64, 64)) for name in ("testA", "testB", "trainB"))
    fake_A, rec_B = model.translate(answers, "BtoA")
    train_lines = torch.where(train.amax(1, keepdim=True) < 2 * LINE / 255 - 1, train.mean(1, keepdim=True), 1.0)
    small, small_train = (F.adaptive_avg_pool2d(some.mean(1), 16).flatten(1) for some in (lines, train_lines))
    where = has_colour(train)
    mean = (train * where).sum((0, 2, 3)) / where.sum()
    inside = (lines.mean(1, keepdim=True) > 0) * mean[None, :, None, None] + (lines.mean(1, keepdim=True) <= 0) * lines
    pictures = {
        "translated": model.translate(lines)[0], "nothing": lines, "mean_colour": inside,
        "nearest": train[torch.cdist(small, small_train).argmin(1)], "there_and_back": rec_B,
    }  # fmt: skip
    noise = torch.randn(fake_A.shape, generator=torch.Generator().manual_seed(0)) * 12 / 127.5
    with torch.inference_mode():
        pictures["noise_12_and_back"] = torch.cat([model.G_AB(batch) for batch in (fake_A + noise).split(16)])
    return {name: colour_error(made, answers) for name, made in pictures.items()}


def run_one(run):
    """Train and measure one run, and leave its rows, and its generators where they are kept, in `runs/hidden`."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)  # of noise
    trainer = make_trainer(observers=[measure := Measure(run)], **options(run))
    speed_up(trainer.model)
    trainer.run()
    write_tensors(run.path.with_suffix(".sheet"), trainer.sheet(16), {})
    if run.seed == 0 and (run.experiment, run.arm) in KEPT or run.experiment == "openmoji":
        generators = {name: trainer.model.networks[name] for name in ("G_AB", "G_BA")}
        halves = {
            f"{name}.{key}": value.half() for name, G in generators.items() for key, value in G.state_dict().items()
        }
        config = {name: getattr(trainer.config, name) for name in ("channels", "base_channels", "num_residual")}
        write_tensors(run.path.with_suffix(".safetensors"), halves, config | {"output_norm": "none"})
    write_atomic(run.path, json.dumps(measure.rows) + "\n")


def write_results():
    """The tables of all runs that have finished, and copies of what is kept of them, but for weights of emoji."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = [row for run in plan() if run.path.is_file() for row in json.loads(run.path.read_text())]
    emoji = [row for row in rows if row["experiment"] == "openmoji"]
    write_atomic(RESULTS / "scores.csv", csv_of([row for row in rows if row not in emoji], COLUMNS))
    if emoji:
        write_atomic(RESULTS / "openmoji.csv", csv_of(emoji, [*emoji[0]]))
    for run in plan():
        kept = run.path.with_suffix(".safetensors")
        if run.experiment != "openmoji" and kept.is_file():
            (RESULTS / kept.name).write_bytes(kept.read_bytes())


@torch.inference_mode()
def draw():
    """The README's figure: walls that are grey in the fakes, and come back."""
    path = RESULTS / "longer_as_it_is_0.safetensors"
    if path.is_file():
        G_AB, G_BA = load_generators(path)
        real = NOTEBOOK["known"](ROOT / "data" / "hidden_walls", "testA")["real"][:8]
        rows = {"real A": real, "fake B": G_AB(real), "back to A": G_BA(G_AB(real))}
        figure = plots.picture_rows(rows, "Grey walls in fake B, and their colours come back", picture_inches=1.07)
        write_atomic(RESULTS / "hidden.png", plots.to_png(figure, colours=256))


def main():
    parser = argparse.ArgumentParser(description="Train what notebook 09 shows; goes on where it was stopped.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, a thread each")
    parser.add_argument("--experiments", nargs="+", help="only these: longer, remedies, lemons, openmoji")
    args = parser.parse_args()
    draw_data()
    RUNS.mkdir(parents=True, exist_ok=True)
    missing = [run for run in plan() if not run.path.is_file()]
    missing = [run for run in missing if run.experiment in (args.experiments or [run.experiment])]
    with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=1) as pool:
        for _ in tqdm(pool.imap_unordered(run_one, missing), total=len(missing), unit="run"):
            write_results()
    write_results()
    draw()


if __name__ == "__main__":
    main()
