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

from cyclegan_lib.config import demo_config  # noqa: E402
from cyclegan_lib.files import write_tensors  # noqa: E402
from cyclegan_lib.runs.log import read_history  # noqa: E402
from cyclegan_lib.train import train  # noqa: E402

STEPS = 3000
OUT = ROOT / "data" / "photograph"


def main():
    torch.set_num_threads(1)
    root = ROOT / "data" / "day2dusk"
    if not root.is_dir():
        definitions(numbered(8), "photograph", Path=Path)["make_piles"](root)
    config = demo_config(
        dataset_name=root.name, data_root=root.parent, output_root=ROOT / "runs", run_name="photograph",
        base_channels=24, num_residual=4, lr=5e-4, average=0.0, num_epochs=STEPS, max_steps=STEPS, sample_interval=10,
        precision="fp32", overwrite=True,
    )  # fmt: skip
    trainer = train(config)
    if trainer.stopped:
        raise SystemExit(130)
    OUT.mkdir(exist_ok=True)
    generators = {"G_AB": trainer.model.G_AB, "G_BA": trainer.model.G_BA}
    halves = {f"{name}.{key}": x.half() for name, G in generators.items() for key, x in G.state_dict().items()}
    names = ("channels", "base_channels", "num_residual", "output_norm", "dataset_name", "img_height", "img_width")
    write_tensors(OUT / "generators.safetensors", halves, {name: getattr(config, name) for name in names})
    last = read_history(config.models_folder)[-100:]
    record = {name: round(sum(row[name] for row in last) / 100, 4) for name in ("cycle_A", "cycle_B", "loss_D")}
    (OUT / "losses.json").write_text(json.dumps({"steps": trainer.step, **record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
