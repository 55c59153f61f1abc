"""The zoo of notebook 07: its faults, each in small trainings, and what `diagnose` says of them. `make zoo`.

    data/debugging/zoo/diagnosis.csv   what `diagnose` said of every run, and how the run ended
    data/debugging/zoo/<fault>.*       losses and pictures of one run of each fault
    runs/zoo/                          all of every run; what is there is not trained again

The faults are the notebook's own: its cells are read, and nothing is written twice.
"""

import argparse
import csv
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.cbook
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from cyclegan_lib.files import read_tensors, write_atomic, write_tensors
from cyclegan_lib.pictures.check import prepare_dataset
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.runs.fast import speed_up
from cyclegan_lib.study.diagnose import DIAGNOSED_PICTURES, diagnose, probe, recent
from cyclegan_lib.study.tables import csv_of
from cyclegan_lib.water2wine.dataset import write_dataset
from cyclegan_lib.water2wine.scores import Water2WineTest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from notebook_cells import definitions, numbered  # noqa: E402

NOTEBOOK = definitions(numbered(7), "FAULTS", Path=Path, __name__="notebook 07")
FAULTS, make_trainer, Record = (NOTEBOOK[name] for name in ("FAULTS", "make_trainer", "Record"))
INVERTED = "inverted colours"  # no fault makes it: some runs without an identity loss end so, as their scores say
KEPT = ("real_A", "fake_B", "rec_A", "real_B", "fake_A")
CHOSEN = range(4)  # seeds on which thresholds were chosen
HELD_OUT = range(100, 110)
SHOWN = {"batch norm": 2}  # the seed whose run is kept, if not 0: there the losses break the bound of notebook 07
MORE = {
    "no identity loss": range(100, 200),  # so that ten of them are inverted
    # On seeds 100 to 109 the bound on the losses found 7 of 10, so there is a probe. On seeds 110 to 119 it was found
    # each time, but once "mode collapse" stood first. So the probe's findings were moved forward, and seeds are fresh.
    "batch norm": range(120, 130),
    # On seeds 100 to 109 it was found each time, but "inverted colours" stood first in 7. So the order was changed.
    "hides information": range(110, 120),
}
# Healthy runs of other sizes, lengths, settings and data sets: a false alarm on any of them counts.
ELSEWHERE = {
    "48 pixels": dict(img_height=48, img_width=48),
    "64 pixels, the demo's networks": dict(
        img_height=64, img_width=64, base_channels=16, num_residual=4, lr=5e-4, max_steps=500
    ),
    "600 steps": dict(max_steps=600),
    "wider networks": dict(base_channels=20),
    "batches of 1": dict(batch_size=1, max_steps=600),
    "vanilla GAN": dict(gan_mode="vanilla"),
    "walls follow in 80 %": dict(dataset_name="zoo_walls"),
    "40 pictures": dict(dataset_name="zoo_40"),
    "photograph and sepia print": dict(dataset_name="zoo_sepia"),
    "photograph and night, 48 pixels": dict(dataset_name="zoo_night", img_height=48, img_width=48),
}
# Batch norm is trained with batches of one. So are these healthy runs, which stand beside it.
CONTROL = {"batches of 1, 300 steps": dict(batch_size=1)}


@dataclass(frozen=True)
class Run:
    """One training: a name in `FAULTS`, and where it stands in the table."""

    fault: str
    seed: int
    set: str  # "chosen", "held out", "elsewhere" or "control"
    where: str = ""

    @property
    def folder(self):
        return ROOT / "runs" / "zoo" / file_name(f"{self.fault} {self.where} {self.seed}")


def file_name(text):
    return "".join(letter if letter.isalnum() else "_" for letter in text)


def plan():
    runs = []
    for fault in FAULTS:
        runs += [Run(fault, seed, "chosen") for seed in CHOSEN]
        runs += [Run(fault, seed, "held out") for seed in MORE.get(fault, HELD_OUT)]
    runs += [Run("healthy", seed, "control", where) for where in CONTROL for seed in MORE["batch norm"]]
    return runs + [Run("healthy", 200 + n, "elsewhere", where) for n, where in enumerate(ELSEWHERE)]


def draw_data(data):
    """The data sets of `ELSEWHERE`: two drawn ones, and two of a photograph that comes with matplotlib."""
    prepare_dataset(data, "water2wine")
    definitions(numbered(9), "SIZE", HOME=ROOT)["hidden_walls"](data)
    for name, drawn in {"zoo_walls": dict(confounding=0.8), "zoo_40": dict(num_train=40)}.items():
        if not (data / name).exists():
            write_dataset(data / name, **drawn)
    photograph = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    folder = ROOT / "runs" / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    for name, dark, light in (("zoo_sepia", "#2a1608", "#f6e7c8"), ("zoo_night", "#000010", "#6a7fb8")):
        photograph.save(folder / f"{name}_A.png")
        ImageOps.colorize(photograph.convert("L"), dark, light).save(folder / f"{name}_B.png")
        if not (data / name).exists():
            write_crops(folder / f"{name}_A.png", folder / f"{name}_B.png", data / name, num_train=200, size=64)


def run_one(run):
    """Train one run, and leave its history, pictures, probe and scores in its folder."""
    torch.set_num_threads(1)
    changes = {"seed": run.seed, "data_root": ROOT / "data", **(ELSEWHERE | CONTROL).get(run.where, {})}
    trainer = make_trainer(FAULTS[run.fault], [record := Record()], **changes)
    speed_up(trainer.model)
    trainer.run()
    root, config, scores = trainer.data.root, trainer.config, {}
    if (root / "scenes.json").is_file():
        scores = Water2WineTest(root, config.size, config.channels).score_model(trainer.model)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_tensors(run.folder / "samples.safetensors", trainer.sheet(DIAGNOSED_PICTURES), {})
    result = {
        "probe": probe(trainer.model, trainer.data), "scores": scores, "gan_mode": config.gan_mode,
        "total_steps": trainer.total_steps, "history": record.rows,
    }  # fmt: skip
    write_atomic(run.folder / "result.json", json.dumps(result) + "\n")


def read(run):
    """(samples, the rest) of a finished run."""
    result = json.loads((run.folder / "result.json").read_text())
    return read_tensors(run.folder / "samples.safetensors")[0], result


def row_of(run):
    """What diagnosis.csv says of a run."""
    samples, result = read(run)
    history, scores = result["history"], result["scores"]
    findings = diagnose(history, samples, result["probe"], result["gan_mode"], result["total_steps"])
    row = {"fault": run.fault, "where": run.where, "seed": run.seed, "set": run.set}
    row["expected"] = FAULTS[run.fault].named or ""
    if run.fault == "no identity loss" and scores["background_error"] > 0.5:
        row["expected"] = INVERTED
    row["found"] = "; ".join(finding.fault for finding in findings)
    row |= {name: scores.get(name) for name in ("success_rate", "background_error", "liquid_error")}
    return row | {name: recent(history, name) for name in ("loss_D", "adversarial", "cycle_A", "cycle_B")}


def keep(run, name, folder):
    """Losses and pictures of a run, small, for the notebook."""
    samples, result = read(run)
    history = result["history"][:: max(1, len(result["history"]) // 300)]
    rows = [{key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in row.items()} for row in history]
    text = ",\n".join(map(json.dumps, rows))
    path = folder / file_name(name)
    write_atomic(path.with_suffix(".json"), f'{{"probe": {json.dumps(result["probe"])}, "history": [\n{text}]}}\n')
    # 16 bits, evenly: a half has too few of them near ±1, where a tanh is to be undone.
    pictures = {name: (samples[name][:6] * 32767).round().to(torch.int16) for name in KEPT}
    write_tensors(path.with_suffix(".safetensors"), pictures, {})


def write_results(runs, folder):
    """The table, and what is kept of all runs that have finished; others have the rows that they had. Returns these."""
    folder.mkdir(parents=True, exist_ok=True)
    table, before = folder / "diagnosis.csv", {}
    if table.is_file():
        with open(table, newline="") as file:
            before = {(row["fault"], row["where"], int(row["seed"]), row["set"]): row for row in csv.DictReader(file)}
    finished = {run: row_of(run) for run in runs if (run.folder / "result.json").is_file()}
    rows = [finished.get(run, before.get((run.fault, run.where, run.seed, run.set))) for run in runs]
    rows = [row for row in rows if row]
    write_atomic(table, csv_of(rows, list(rows[0])))
    for run, row in reversed(finished.items()):  # the first of a name stays
        if row["expected"] == INVERTED:
            keep(run, INVERTED, folder)
        if run.seed == SHOWN.get(run.fault, CHOSEN[0]):
            keep(run, run.fault, folder)
        if run.fault == "healthy" and run.seed == HELD_OUT[0]:  # for the game: beside itself a run is given away
            keep(run, f"healthy {run.seed}", folder)
    return rows


def counts(rows):
    """{(fault, set): (how often what was expected came first, runs)}."""
    found = {}
    for row in rows:
        key = INVERTED if row["expected"] == INVERTED else row["fault"], row["set"]
        right, total = found.get(key, (0, 0))
        found[key] = right + (row["found"].split("; ")[0] == row["expected"]), total + 1
    return found


def main():
    parser = argparse.ArgumentParser(description="Train the zoo and diagnose it; goes on where it was stopped.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, a thread each")
    parser.add_argument("--sets", nargs="+", default=["chosen", "held out", "elsewhere", "control"], help="only these")
    parser.add_argument("--faults", nargs="+", help="only these")
    args = parser.parse_args()
    draw_data(ROOT / "data")
    wanted = [run for run in plan() if run.set in args.sets and run.fault in (args.faults or FAULTS)]
    missing = [run for run in wanted if not (run.folder / "result.json").is_file()]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for _ in tqdm(pool.imap_unordered(run_one, missing), total=len(missing), unit="run"):
            pass
    for (fault, group), (right, total) in counts(write_results(plan(), ROOT / "data" / "debugging" / "zoo")).items():
        print(f"{fault:28} {group:10} {right:3} of {total}")


if __name__ == "__main__":
    main()
