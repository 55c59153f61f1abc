"""A generator on a picture of any size, strip by strip: the same numbers in little memory.

Tiles translated apart would have seams: an InstanceNorm needs the mean and variance of a whole picture. So every layer
is asked for a few rows at a time, and asks the layer below; a norm first goes through all rows. Small maps are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from cyclegan_lib.datasets import to_signed
from cyclegan_lib.errors import UserError
from cyclegan_lib.models import ResidualBlock

STRIP_PIXELS = 2**18  # of the picture, about, in a strip
HALF_ABOVE = 2 * 1024**3  # bytes of kept maps; beyond, they are kept in float16


@dataclass
class Layer:
    """A map that can be computed some rows at a time. `scale` rows of the picture stand for one of its `height`."""

    rows: Callable  # (first, last) → rows first to last - 1: (1, channels, last - first, width)
    height: int
    scale: int


def convolved(source, conv, reflect):
    """An `nn.Conv2d` of stride 1 or 2, after a reflection padding of `reflect` or with its own zeros."""
    stride, kernel = conv.stride[0], conv.kernel_size[0]
    pad, mode = (reflect, "reflect") if reflect else (conv.padding[0], "constant")

    def rows(first, last):
        start, end = first * stride - pad, (last - 1) * stride - pad + kernel
        strip = source.rows(max(start, 0), min(end, source.height))
        strip = F.pad(strip, (pad, pad, max(-start, 0), max(end - source.height, 0)), mode)
        return F.conv2d(strip, conv.weight, conv.bias, stride)

    return Layer(rows, source.height // stride, source.scale * stride)


def upsampled(source, conv):
    """The generator's `nn.ConvTranspose2d`: 3×3, stride 2. Row o of it needs rows o/2 and, if odd, the next."""

    def rows(first, last):
        start, end = first // 2, (last + 1) // 2
        strip = conv(source.rows(start, min(end + 1, source.height)))
        return strip[:, :, first - 2 * start : last - 2 * start]

    return Layer(rows, 2 * source.height, source.scale // 2)


def normalised(source, strips):
    """An `nn.InstanceNorm2d` without scale, over all rows of its source.

    Strips' means and variances are joined in float64, on the CPU, for mps has none (Chan, Golub, LeVeque, 1979).
    """
    count = mean = squares = 0
    for _, _, strip in strips(source):
        new = strip.shape[2] * strip.shape[3]
        moments = torch.var_mean(strip, (2, 3), correction=0, keepdim=True)
        variance, difference = moments[0].cpu().double(), moments[1].cpu().double() - mean
        squares = squares + new * variance + difference.square() * count * new / (count + new)
        mean, count = mean + difference * new / (count + new), count + new
    mean, factor = (x.float().to(strip.device) for x in (mean, (squares / count + 1e-5).rsqrt()))  # as torch's
    return pointwise(lambda strip: (strip - mean) * factor, source)


def pointwise(function, *sources):
    """A function of every value by itself, or of every two values of two layers: ReLU, tanh, a sum."""
    rows = lambda first, last: function(*(source.rows(first, last) for source in sources))  # noqa: E731
    return Layer(rows, sources[0].height, sources[0].scale)


def kept(source, strips, dtype):
    """All rows of a layer, computed once. What is below can be forgotten."""
    whole = None
    for first, last, strip in strips(source):
        if whole is None:
            whole = strip.new_empty((*strip.shape[:2], source.height, strip.shape[3]), dtype=dtype)
        whole[:, :, first:last] = strip
    return Layer(lambda first, last: whole[:, :, first:last].float(), source.height, source.scale)


def kept_bytes(G, height, width):
    """(bytes that the three kept maps take, in which type): float32 while they fit, float16 beyond."""
    trunk = next((layer.conv_block[1].in_channels for layer in G.model if isinstance(layer, ResidualBlock)), 0)
    values = 3 * trunk * (height // 4) * (width // 4)
    return (4 * values, torch.float32) if 4 * values <= HALF_ABOVE else (2 * values, torch.float16)


@torch.inference_mode()
def translate_strips(G, pixels, device="cpu", progress=lambda share: None):
    """What `G`, on `device`, makes of one picture: yields (first, last, rows first to last - 1 of `G(pixels)`).

    `pixels`: (1, channels, H, W), float in [-1, 1] or uint8, H and W multiples of 4 from 8 on. `progress` is told what
    share of the work was just done. Raises `UserError` for an output norm with a scale, which cannot be computed so.
    """
    height, width = pixels.shape[2:]

    def rows(first, last):
        strip = pixels[:, :, first:last].to(device)
        return to_signed(strip) if strip.dtype == torch.uint8 else strip

    size, dtype = max(8, STRIP_PIXELS // width // 4 * 4), kept_bytes(G, height, width)[1]
    # All strips are computed of each norm's map, of three in a block, of the one before the blocks, and of the last.
    maps = 2 + sum(isinstance(m, nn.InstanceNorm2d) + 3 * isinstance(m, ResidualBlock) for m in G.modules())

    def strips(layer):
        """Yield (first, last, the rows between) for a whole map, `size` rows of the picture at a time."""
        step = max(4, size // layer.scale)
        for first in range(0, layer.height, step):
            last = min(first + step, layer.height)
            yield first, last, layer.rows(first, last)
            progress((last - first) / layer.height / maps)

    yield from strips(_build(G.model, Layer(rows, height, 1), strips, dtype))


def _build(modules, layer, strips, dtype):
    """The `Layer` that stands for a sequence of modules over `layer`."""
    reflect = 0
    for module in modules:
        if isinstance(module, nn.ReflectionPad2d):
            reflect = module.padding[0]
        elif isinstance(module, nn.Conv2d):
            layer, reflect = convolved(layer, module, reflect), 0
            if layer.scale == 4:  # small enough: a residual block's, or the one before them
                layer = kept(layer, strips, dtype)
        elif isinstance(module, nn.ConvTranspose2d):
            layer = upsampled(layer, module)
        elif isinstance(module, nn.InstanceNorm2d) and not module.affine:
            layer = normalised(layer, strips)
        elif isinstance(module, ResidualBlock):
            layer = kept(pointwise(torch.add, layer, _build(module.conv_block, layer, strips, dtype)), strips, dtype)
        elif isinstance(module, nn.ReLU | nn.Tanh):
            layer = pointwise(torch.relu if isinstance(module, nn.ReLU) else torch.tanh, layer)
        else:
            raise UserError(f"a generator with a {type(module).__name__} cannot translate pictures of this size")
    return layer
