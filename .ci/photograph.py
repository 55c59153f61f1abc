"""data/photograph/: the generators of notebook 08, trained longer than a notebook should take. `make photograph`.

The piles are made by the notebook's own cells: they are read, and nothing is written twice.
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from notebook_cells import definitions, numbered  # noqa: E402

from cyclegan_lib.files import read_tensors, write_tensors  # noqa: E402
from cyclegan_lib.train import Trainer, demo_config  # noqa: E402

STEPS = 3000
OUT = ROOT / "data" / "photograph"


def main():
    torch.set_num_threads(1)
    root = ROOT / "data" / "day2dusk"
    if not root.is_dir():
        definitions(numbered(8), "photograph", Path=Path)["make_piles"](root)
    config = demo_config(
        dataset_name=root.name, data_root=root.parent, output_root=ROOT / "runs", run_name="photograph",
        base_channels=24, num_epochs=STEPS, max_steps=STEPS, sample_interval=10, precision="fp32", overwrite=True,
    )  # fmt: skip
    trainer = Trainer(config).run()
    if trainer.stopped:
        raise SystemExit(130)
    OUT.mkdir(exist_ok=True)
    for name in ("G_AB", "G_BA"):
        tensors, facts = read_tensors(config.models_folder / f"epoch_{trainer.epoch}" / f"{name}.safetensors")
        write_tensors(OUT / f"{name}.safetensors", {key: value.half() for key, value in tensors.items()}, facts)
    last = trainer.history[-100:]
    record = {name: round(sum(row[name] for row in last) / 100, 4) for name in ("cycle_A", "cycle_B", "loss_D")}
    (OUT / "losses.json").write_text(json.dumps({"steps": trainer.step, **record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
