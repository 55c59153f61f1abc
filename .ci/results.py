"""The README's figures and numbers, from the runs of `make results`, into data/demo/.

scores.json   scores, cycle losses on the test pictures and their floors, run by run
*.png         the pictures that the README and data/README.md show
"""

import json
from pathlib import Path

import torch

from cyclegan_lib.config import demo_config
from cyclegan_lib.pictures.weights import load_generators
from cyclegan_lib.runs.log import read_history
from cyclegan_lib.show import plots
from cyclegan_lib.show.training import training_floors
from cyclegan_lib.study.floor import output_norm_floor
from cyclegan_lib.trainer import Trainer
from cyclegan_lib.water2wine.dataset import read_scenes
from cyclegan_lib.water2wine.scenes import counterfactual, render
from cyclegan_lib.water2wine.scores import SCORES, Water2WineTest, weighted_l1

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "data" / "demo"
RUNS = ("demo_none_0", "demo_none_1", "demo_none_2", "demo_instance_0", "textbook_small", "textbook")
SHOWN = slice(0, 8)  # test pictures


def translate(run, real):
    """Both directions, there and back, in full precision."""
    G_AB, G_BA = load_generators(ROOT / "saved_models" / run)
    with torch.inference_mode():
        fake_B, fake_A = G_AB(real["A"]), G_BA(real["B"])
        return {"fake_B": fake_B, "fake_A": fake_A, "rec_A": G_BA(fake_B), "rec_B": G_AB(fake_A)}


def background_error_without_shift(test, pictures):
    """`background_error` if one shift of brightness and colour a picture were forgiven."""
    errors = []
    for domain, fake in (("A", pictures["fake_B"]), ("B", pictures["fake_A"])):
        outside = (test.glass[domain] == 0).float()
        difference = (test.target[domain] - fake) * outside
        shift = difference.sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True)
        errors.append(weighted_l1(fake + shift, test.target[domain], outside))
    return torch.cat(errors).mean().item()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    test = Water2WineTest(ROOT / "data" / "water2wine")
    translated = {run: translate(run, test.real) for run in RUNS}
    record = {}
    for run, pictures in translated.items():
        scores = json.loads((ROOT / "generated_images" / run / "scores.json").read_text())
        config = json.loads((ROOT / "saved_models" / run / "config.json").read_text())
        record[run] = {name: round(scores[name], 4) for name in SCORES}
        record[run]["seconds_training"] = scores["seconds_training"]
        record[run]["background_error_without_shift"] = round(background_error_without_shift(test, pictures), 4)
        for domain in "AB":
            cycle = (pictures[f"rec_{domain}"] - test.real[domain]).abs().mean().item()
            record[run][f"cycle_{domain}"] = round(cycle, 4)
            record[run][f"floor_{domain}"] = round(output_norm_floor(test.real[domain]), 4)
        last = read_history(ROOT / "saved_models" / run)[-100:]
        record[run]["loss_D"] = round(sum(row["loss_D"] for row in last) / len(last), 4)
        record[run]["config"] = {key: value for key, value in config.items() if "floor" not in key}
    baselines = {name: round(value, 4) for name, value in scores.items() if name.split("_")[0] in ("identity", "mean")}
    record["baselines"] = baselines
    (OUT / "scores.json").write_text(json.dumps(record, indent=1) + "\n")

    rows = {
        "water\n(test pictures)": test.real["A"][SHOWN],
        "InstanceNorm\nat the output": translated["demo_instance_0"]["fake_B"][SHOWN],
        "no norm\nat the output": translated["demo_none_0"]["fake_B"][SHOWN],
        "the answer\n(never shown)": test.target["A"][SHOWN],
    }
    title = "With an InstanceNorm at the output: a coloured weave. Without it: wine."
    (OUT / "water_to_wine.png").write_bytes(plots.to_png(plots.picture_rows(rows, title), dpi=150))
    histories = {norm: read_history(ROOT / "saved_models" / f"demo_{norm}_0") for norm in ("none", "instance")}
    floors = training_floors(Trainer(demo_config(data_root=ROOT / "data")).data)
    curves = plots.compare_arms(histories, floors, "With the norm, the cycle losses stop above the floor")
    (OUT / "curves.png").write_bytes(plots.to_png(curves, dpi=110))
    scenes = [scene for name, scene in read_scenes(ROOT / "data" / "water2wine").items() if "testA" in name][:6]
    large = {
        "A: water": torch.stack([render(scene, 128)[0] for scene in scenes]),
        "the same scenes\nwith wine": torch.stack([render(counterfactual(scene), 128)[0] for scene in scenes]),
    }
    (OUT / "scenes.png").write_bytes(plots.to_png(plots.picture_rows(large, picture_inches=1.28), dpi=100))


if __name__ == "__main__":
    main()
