"""The same networks, faster, or on a GPU the same each time: layers are swapped for others with the same numbers."""

import os
import sys

import torch
import torch.nn.functional as F
from torch import nn


class InstanceNorm(nn.InstanceNorm2d):
    """The same without learned numbers, computed as whichever same function torch has the better kernel for.

    A group norm with a group per channel; or, channels last on a CPU, a batch norm of one picture at a time.
    """

    def forward(self, x):
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return torch.cat([F.batch_norm(picture, None, None, training=True) for picture in x.split(1)])
        return F.group_norm(x, self.num_features)


class ReflectionPad(nn.ReflectionPad2d):
    """`nn.ReflectionPad2d`, in the precision of its input: autocast would go to float32 and back."""

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def speed_up(model):
    """Swap the layers of a `CycleGAN`, in place. Returns it.

    The keys of the state dicts stay, and the outputs to 1e-5 in float32 and to 1e-12 in float64. In 16 bits on CPUs
    the networks also turn their input to channels last, which their layers keep.

    In 16 bits on CUDA the norms stay torch's own: autocast makes a group norm float32, and then all behind it. In
    float32 the paddings stay torch's own: torch 2.4 has no autocast on mps to be turned off.
    """
    in_16_bits, device = model.precision != "fp32", model.device.type
    for network in model.networks.values():
        for parent in list(network.modules()):
            for name, layer in parent.named_children():
                if type(layer) is nn.InstanceNorm2d and not layer.affine and not (in_16_bits and device == "cuda"):
                    setattr(parent, name, InstanceNorm(layer.num_features))
                elif type(layer) is nn.ReflectionPad2d and in_16_bits:
                    setattr(parent, name, ReflectionPad(layer.padding))
        if in_16_bits and device == "cpu":
            network.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous(memory_format=torch.channels_last))
    return model


class FlipPad(nn.ReflectionPad2d):
    """`nn.ReflectionPad2d` by flips: on a GPU its own backward pass adds numbers in any order."""

    def forward(self, x):
        left, right, top, bottom = self.padding
        x = torch.cat([x[..., 1 : left + 1].flip(-1), x, x[..., -right - 1 : -1].flip(-1)], -1)
        return torch.cat([x[..., 1 : top + 1, :].flip(-2), x, x[..., -bottom - 1 : -1, :].flip(-2)], -2)


def make_deterministic(model):
    """Have a GPU compute the same bits each time, in place; a CPU does so anyway."""
    if model.device.type == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first product
    torch.use_deterministic_algorithms(True)
    for network in model.networks.values():
        for parent in list(network.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.ReflectionPad2d):
                    setattr(parent, name, FlipPad(layer.padding))


def workers_for(dataset, device):
    """How many processes should load pictures so that a training does not wait for them."""
    # None where pictures lie in memory, and beside a CPU's steps, which are long and need its cores; and outside of
    # Linux, where each process would first import torch, from a notebook in vain.
    waits = dataset.pictures is None and device.type == "cuda" and sys.platform == "linux"
    return min(8, os.cpu_count()) if waits else 0
