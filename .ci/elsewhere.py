"""The two main arms on other pictures, three seeds each: data/elsewhere/NAME/*.csv and NAME.png.

china2flower   crops of two photographs that come with scikit-learn
openmoji       emoji as line drawings and in colour, see `cyclegan openmoji`

It goes on where it was stopped. The floors are in scores.csv; they are known before any training.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import sklearn.datasets
import torch

from cyclegan_lib.datasets import UnpairedDataset
from cyclegan_lib.files import write_atomic
from cyclegan_lib.pictures.crops import write_crops
from cyclegan_lib.pictures.openmoji import write_openmoji
from cyclegan_lib.pictures.weights import load_generator
from cyclegan_lib.show import plots
from cyclegan_lib.study.floor import output_norm_floor

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
DATA_SETS = {
    "china2flower": lambda root: write_crops(PHOTOGRAPHS / "china.jpg", PHOTOGRAPHS / "flower.jpg", root, size=64),
    "openmoji": write_openmoji,
}
PICTURES = {"china2flower": range(8), "openmoji": (0, 1, 2, 3, 4, 5, 9, 11)}  # of testA, in the figure


@torch.inference_mode()
def draw(name, data, runs):
    chosen = [*PICTURES[name]]
    real = data.test("A")[chosen]
    rows = {"real A": real}
    for arm in ("instance", "none"):
        rows[f"to B, {arm}"] = load_generator(runs / f"{arm}_step_500.safetensors")(real)
    if name == "openmoji":
        rows["right answer"] = data.test("B")[chosen]
    figure = plots.picture_rows(rows, f"{name}, seed 0, after 500 steps")
    write_atomic(ROOT / "data" / "elsewhere" / f"{name}.png", plots.to_png(figure, colours=256))


def main():
    for name, make in DATA_SETS.items():
        root, runs, out = ROOT / "data" / name, ROOT / "runs" / "elsewhere" / name, ROOT / "data" / "elsewhere" / name
        if not root.exists():
            make(root)
        data = UnpairedDataset(root, (64, 64))
        print(
            f"{name}: floors {', '.join(f'{output_norm_floor(data.test(domain)):.3f} ({domain})' for domain in 'AB')}"
        )
        command = ["ablation", "--dataset_name", name, "--seeds", "3", "--output", runs, *sys.argv[1:]]
        subprocess.run([sys.executable, "-m", "cyclegan_lib", *map(str, command)], cwd=ROOT, check=True)
        out.mkdir(parents=True, exist_ok=True)
        for table in ("history.csv", "scores.csv", "config.json"):
            shutil.copyfile(runs / table, out / table)
        draw(name, data, runs)


if __name__ == "__main__":
    main()
