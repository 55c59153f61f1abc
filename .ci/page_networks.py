"""data/page/: the networks that data/explorer.html runs, there and back, small enough for a page.

demo_ARM_step_N.safetensors     two trainings on the demo's pictures, which differ in the norm at the output
surgery_ARM_step_N.safetensors  the stuck run of data/ablation, from which the norm is taken out after 500 steps

Weights are kept as 8-bit integers with a scale for each first index, and biases in 16 bits.
"""

import sys
from pathlib import Path

import torch

from cyclegan_lib.config import demo_config
from cyclegan_lib.files import read_tensors, write_tensors
from cyclegan_lib.pictures.check import prepare_dataset
from cyclegan_lib.trainer import Hook, Trainer

ROOT = Path(__file__).resolve().parents[1]
# The networks stay as they are when the demo changes.
NETWORKS = dict(num_epochs=18, base_channels=16, num_residual=4, lr=5e-4, average=0.0)
RUNS, OUT, ABLATION = ROOT / "runs" / "page", ROOT / "data" / "page", ROOT / "data" / "ablation"
ARMS = ("none", "instance")
DEMO_STEPS = (100, 400, 1800)
SURGERY = {"it_stays": (600, 1000), "taken_out": (500, 600, 1000)}  # at step 500 both have the same weights


class KeepGenerators(Hook):
    """Writes both generators after the steps of DEMO_STEPS, and of ALSO, to choose from."""

    ALSO = (25, 50, 200, 800, 1200)

    def after_step(self, trainer):
        if trainer.step in (*DEMO_STEPS, *self.ALSO):
            config, model = trainer.config, trainer.model
            facts = {name: getattr(config, name) for name in ("channels", "base_channels", "num_residual")}
            facts |= {"output_norm": config.output_norm, "step": trainer.step}
            networks = {"G_AB": model.G_AB, "G_BA": model.G_BA}
            tensors = {f"{name}.{key}": value for name, G in networks.items() for key, value in G.state_dict().items()}
            write_tensors(RUNS / f"{config.output_norm}_step_{trainer.step}.safetensors", tensors, facts)


def train(arm):
    """The training of an arm, on one thread in float32; where it has run, nothing."""
    if not (RUNS / f"{arm}_step_{DEMO_STEPS[-1]}.safetensors").is_file():
        RUNS.mkdir(parents=True, exist_ok=True)
        config = demo_config(**NETWORKS, output_norm=arm, data_root=ROOT / "data", device="cpu", precision="fp32")
        prepare_dataset(config.data_root, config.dataset_name, max(config.size))
        Trainer(config, [KeepGenerators()]).run()


def in_8_bits(tensors):
    """{key: tensor} → the same with each weight as int8 and its scale, so that weight = int8 · scale."""
    small = {}
    for key, value in tensors.items():
        if key.endswith(".weight"):
            flat = value.float().flatten(1)
            scale = (flat.abs().amax(1).clamp(min=1e-6) / 127).half()
            small[key] = (flat / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).reshape(value.shape)
            small[f"{key}.scale"] = scale
        else:
            small[key] = value.half()
    return small


def main():
    torch.set_num_threads(1)
    for arm in sys.argv[1:] or ARMS:
        train(arm)
    OUT.mkdir(exist_ok=True)
    found = {f"demo_{arm}_step_{n}": RUNS / f"{arm}_step_{n}.safetensors" for arm in ARMS for n in DEMO_STEPS}
    for arm, steps in SURGERY.items():
        found |= {f"surgery_{arm}_step_{n}": ABLATION / f"{arm}_step_{n}.safetensors" for n in steps}
    for name, path in found.items():
        tensors, facts = read_tensors(path)
        write_tensors(OUT / f"{name}.safetensors", in_8_bits(tensors), facts)
    total = sum(path.stat().st_size for path in OUT.iterdir())
    print(f"{OUT}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
