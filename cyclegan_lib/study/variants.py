"""What the experiments pass in that is no option: norms at the output that do half of it, and surgery half way."""

import json
import shutil

import torch
from torch import nn

from cyclegan_lib.files import atomic
from cyclegan_lib.runs.resume import Checkpoints
from cyclegan_lib.trainer import Hook


class MeanOnly(nn.Module):
    """Half of an InstanceNorm: subtracts each channel's mean, and keeps its deviation. (N, C, H, W) → the same."""

    def forward(self, z):
        return z - z.mean((2, 3), keepdim=True)


class ScaleOnly(nn.Module):
    """The other half: divides each channel by its deviation, as `nn.InstanceNorm2d` does, and keeps its mean."""

    def forward(self, z):
        mean = z.mean((2, 3), keepdim=True)
        deviation = (z.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        return mean + (z - mean) / deviation


class Demodulation(nn.Module):
    """StyleGAN2's weight demodulation (arXiv 1912.04958, section 2.2), as a parametrisation of a convolution's weight.

    It divides each output channel's weights by their norm: the scale is fixed by the weights, not by the picture.
    """

    def forward(self, weight):
        return weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()


# What stands between the last convolution and the tanh: the argument `output_norm` of `CycleGAN`.
NORMS = {
    "mean_only": lambda channels: MeanOnly(),
    "scale_only": lambda channels: ScaleOnly(),
    "demodulated": nn.Identity,  # see `demodulate`
}


def demodulate(model):
    """Demodulate the last convolution of both generators of a `CycleGAN`. Returns it."""
    for G in (model.G_AB, model.G_BA):
        nn.utils.parametrize.register_parametrization(G.model[-3], "weight", Demodulation())
    return model


class Surgery(Hook):
    """Intervention, after `Resume`: takes the layer before the generators' tanh out after `cut` steps.

    Weights, optimisers and buffers stay.
    """

    def __init__(self, cut):
        self.cut = cut

    def start(self, trainer):
        self.after_step(trainer)

    def after_step(self, trainer):
        if trainer.step >= self.cut:
            for G in (trainer.model.G_AB, trainer.model.G_BA):
                G.model[-2] = nn.Identity()


class Trunk(Hook):
    """Observer, after `Checkpoints`: keeps the state after `cut` steps in a file that other runs branch off from."""

    def __init__(self, config, cut):
        self.path, self.cut = trunk_file(config.models_folder), cut

    def after_step(self, trainer):
        if trainer.step == self.cut:
            checkpoints = trainer.hook(Checkpoints)
            checkpoints.save(trainer, f"step_{trainer.step}")
            with atomic(self.path) as partial:
                shutil.copyfile(checkpoints.path, partial)


def trunk_file(run_folder):
    return run_folder / "trunk.safetensors"


def branch_off(trunk, folder, cut):
    """Begin the run in `folder` with what the run in the folder `trunk` was after `cut` steps: the same, but faster."""
    folder.mkdir(parents=True)
    shutil.copyfile(trunk / "history.jsonl", folder / "history.jsonl")
    rows = (trunk / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (folder / "evaluations.jsonl").write_text("".join(row for row in rows if json.loads(row)["step"] < cut))
    with atomic(folder / f"step_{cut}.safetensors") as partial:
        shutil.copyfile(trunk_file(trunk), partial)


@torch.inference_mode()
def once_through(G, pictures, batch_size=16):
    """(G of pictures (N, 3, H, W), the deviation of a channel before its tanh: the mean over pictures and channels)."""
    G.eval()
    z = torch.cat([G.model[:-1](batch) for batch in pictures.split(batch_size)])
    G.train()
    return z.tanh(), z.std((2, 3), correction=0).mean().item()
