"""What the experiments pass in that is no option: norms at the output, changed generators, and surgery half way."""

import json
import shutil

import torch
from torch import nn

from cyclegan_lib.files import atomic
from cyclegan_lib.models import init_weights
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


class Means(nn.Module):
    """Remembers the channel means of the pictures (N, C, H, W) that it is given, and returns them as they are."""

    def forward(self, pictures):
        self.of_pictures = pictures.mean((2, 3), keepdim=True)
        return pictures


class WithMeans(nn.Module):
    """Features (N, C, H, W) → (N, C + c, H, W): the c means of a `Means` are appended as constant maps."""

    def __init__(self, means):
        super().__init__()
        self.means = means

    def forward(self, features):
        return torch.cat([features, self.means.of_pictures.expand(-1, -1, *features.shape[2:])], 1)


# What stands between the last convolution and the tanh: the argument `output_norm` of `CycleGAN`.
NORMS = {
    "mean_only": lambda channels: MeanOnly(),
    "scale_only": lambda channels: ScaleOnly(),
    "removed": lambda channels: nn.Identity(),  # as "none", in a place where a norm can be put in
}


def demodulate(G):
    """Demodulate the last convolution of a generator without a norm at its output."""
    nn.utils.parametrize.register_parametrization(G.model[-2], "weight", Demodulation())


def rescale(G, scale):
    """Let the learned scale of an affine norm at the output begin at another value."""
    with torch.no_grad():
        G.model[-2].weight.mul_(scale)


def without_first_norm(G):
    G.model[2] = nn.Identity()


def without_inner_norms(G):
    """No norm but the one at the output, and He's initialisation, which such a network needs."""
    at_output = G.model[-2]
    for block in [module for module in G.modules() if isinstance(module, nn.Sequential)]:
        for i, layer in enumerate(block):
            if isinstance(layer, nn.InstanceNorm2d) and layer is not at_output:
                block[i] = nn.Identity()
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)


def hand_means_on(G):
    """Give the last layers the picture's channel means, which every norm before them removes.

    A ReLU stands between: to the last convolution alone they would be a constant, which the norm removes too.
    """
    last, means = G.model[-3], Means()
    G.model[0] = nn.Sequential(means, G.model[0])
    mixed = init_weights(nn.Conv2d(last.in_channels + last.out_channels, last.in_channels, 1))
    G.model[-4] = nn.Sequential(WithMeans(means), mixed, nn.ReLU(True), nn.ReflectionPad2d(3))


# What is done to both generators before the first step.
CHANGES = {
    "demodulated": demodulate,
    "scale 3": lambda G: rescale(G, 3),
    "scale 10": lambda G: rescale(G, 10),
    "without first norm": without_first_norm,
    "without inner norms": without_inner_norms,
    "means handed on": hand_means_on,
}
# What `Surgery` does at the cut: the layer that it leaves before the tanh, and steps that only the last convolution
# is trained for.
SURGERIES = {
    "taken out": (nn.Identity, 0),
    "last layer first": (nn.Identity, 50),
    "put in": (lambda: nn.InstanceNorm2d(3), 0),
}


class Surgery(Hook):
    """Intervention, after `Resume`: exchanges the layer before the generators' tanh after `cut` steps.

    Weights, optimisers and buffers stay.

    Args:
        kind: one of `SURGERIES`.
    """

    def __init__(self, cut, kind="taken out"):
        self.cut = cut
        self.layer, self.alone = SURGERIES[kind]

    def start(self, trainer):
        self.after_step(trainer)

    def after_step(self, trainer):
        if trainer.step < self.cut:
            return
        all_train = trainer.step >= self.cut + self.alone
        for G in (trainer.model.G_AB, trainer.model.G_BA):
            G.model[-2] = self.layer()
            G.model[:-3].requires_grad_(all_train)


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
