"""A generator on a picture of any size, strip by strip: the same numbers in little memory.

An InstanceNorm needs the mean and the variance of a whole picture, so a large one cannot be cut
into tiles that are translated apart: each tile would be normalised by itself, and seams appear.
Here every layer is asked for a few rows at a time, and asks the layer below for the rows that it
needs; a norm first goes through all rows of what is below it. So all of the picture is normalised
alike, a convolution sees its true neighbours, and there is no seam to hide.

Maps of the residual blocks, a quarter of the picture's side, are kept. Those near the picture's
own size are too large for that, and are computed again for each norm behind them: about an eighth
more work (for 64 channels and nine blocks).
"""

import torch
import torch.nn.functional as F
from torch import nn

from cyclegan_lib.datasets import to_signed
from cyclegan_lib.errors import UserError
from cyclegan_lib.models import ResidualBlock
from cyclegan_lib.runs import fast

STRIP_PIXELS = 2**18  # of the picture, about, in a strip
HALF_ABOVE = 2 * 1024**3  # bytes of kept maps; beyond, they are kept in float16


class Layer:
    """What can be asked for rows: (1, channels, last - first, width) of a map `height` high.

    `scale` is how many rows of the picture stand for one of its own.
    """

    def __init__(self, source, height, scale):
        self.source, self.height, self.scale = source, height, scale

    def strips(self, rows):
        """Yield (first, last, the rows between) for the whole map, `rows` of the picture's at a time."""
        step = max(4, rows // self.scale)
        for first in range(0, self.height, step):
            last = min(first + step, self.height)
            yield first, last, self.rows(first, last)


class Picture(Layer):
    """(1, channels, H, W) in [-1, 1], or uint8; moved to `device` a strip at a time."""

    def __init__(self, pixels, device):
        super().__init__(None, pixels.shape[2], 1)
        self.pixels, self.device = pixels, device

    def rows(self, first, last):
        found = self.pixels[:, :, first:last].to(self.device)
        return to_signed(found) if found.dtype == torch.uint8 else found


class Convolution(Layer):
    """An `nn.Conv2d` of stride 1 or 2, behind a reflection padding of `reflect` or with its own zeros."""

    def __init__(self, source, conv, reflect):
        stride = conv.stride[0]
        super().__init__(source, source.height // stride, source.scale * stride)
        self.conv, self.stride, self.kernel = conv, stride, conv.kernel_size[0]
        self.pad, self.mode = (reflect, "reflect") if reflect else (conv.padding[0], "constant")

    def rows(self, first, last):
        start, end = first * self.stride - self.pad, (last - 1) * self.stride - self.pad + self.kernel
        found = self.source.rows(max(start, 0), min(end, self.source.height))
        beyond = (self.pad, self.pad, max(-start, 0), max(end - self.source.height, 0))
        found = F.pad(found, beyond, mode=self.mode)
        return F.conv2d(found, self.conv.weight, self.conv.bias, self.stride)


class Upsampling(Layer):
    """The generator's `nn.ConvTranspose2d`: 3×3, stride 2. Row o of it needs rows o/2 and, if odd, the next."""

    def __init__(self, source, conv):
        super().__init__(source, 2 * source.height, source.scale // 2)
        self.conv = conv

    def rows(self, first, last):
        start, end = first // 2, (last + 1) // 2
        found = self.conv(self.source.rows(start, min(end + 1, self.source.height)))
        return found[:, :, first - 2 * start : last - 2 * start]


class Normalised(Layer):
    """An `nn.InstanceNorm2d` without scale, over all rows of its source; `eps` as torch's."""

    def __init__(self, source, rows, eps=1e-5):
        super().__init__(source, source.height, source.scale)
        count = total = squares = 0
        for _, _, found in source.strips(rows):
            total = total + found.double().sum((2, 3), keepdim=True)
            squares = squares + found.double().square().sum((2, 3), keepdim=True)
            count += found.shape[2] * found.shape[3]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self.mean, self.factor = mean.float(), (variance + eps).rsqrt().float()

    def rows(self, first, last):
        return (self.source.rows(first, last) - self.mean) * self.factor


class Pointwise(Layer):
    """A function of every value by itself, or of every pair of values of two layers: ReLU, tanh, a sum."""

    def __init__(self, function, *sources):
        super().__init__(sources, sources[0].height, sources[0].scale)
        self.function = function

    def rows(self, first, last):
        return self.function(*(source.rows(first, last) for source in self.source))


class Kept(Layer):
    """All rows of a layer, computed once. What is below can be forgotten."""

    def __init__(self, source, rows, dtype):
        super().__init__(None, source.height, source.scale)
        self.map = None
        for first, last, found in source.strips(rows):
            if self.map is None:
                self.map = found.new_empty((*found.shape[:2], self.height, found.shape[3]), dtype=dtype)
            self.map[:, :, first:last] = found

    def rows(self, first, last):
        return self.map[:, :, first:last].float()


def kept_bytes(G, height, width):
    """(bytes that the three kept maps take, in which type): float32 while they fit, float16 beyond."""
    trunk = next((layer.conv_block[1].in_channels for layer in G.model if isinstance(layer, ResidualBlock)), 0)
    values = 3 * trunk * (height // 4) * (width // 4)
    return (4 * values, torch.float32) if 4 * values <= HALF_ABOVE else (2 * values, torch.float16)


@torch.inference_mode()
def translate_strips(G, pixels, device="cpu"):
    """What `G` makes of one picture, as `G(pixels)` gives it.

    Args:
        G: a `Generator` on `device`, with no norm at its output or an InstanceNorm without scale.
        pixels: (1, channels, H, W), float in [-1, 1] or uint8; H and W multiples of 4, from 8 on.

    Yields:
        (first, last, rows first to last - 1 of the result: (1, channels, last - first, W) on `device`).

    Raises:
        UserError: for a generator with layers that cannot be computed so.
    """
    _, _, height, width = pixels.shape
    rows = max(8, STRIP_PIXELS // width // 4 * 4)
    _, dtype = kept_bytes(G, height, width)
    yield from _build(G.model, Picture(pixels, device), rows, dtype).strips(rows)


def _build(layers, node, rows, dtype):
    """The `Layer` that stands for a sequence of modules over `node`."""
    reflect = 0
    for module in layers:
        if isinstance(module, nn.ReflectionPad2d):
            reflect = module.padding[0]
        elif isinstance(module, nn.Conv2d):
            node, reflect = Convolution(node, module, reflect), 0
            if node.scale == 4:  # small enough: a residual block's, or the one before them
                node = Kept(node, rows, dtype)
        elif isinstance(module, nn.ConvTranspose2d):
            node = Upsampling(node, module)
        elif isinstance(module, fast.InstanceNorm) or (type(module) is nn.InstanceNorm2d and not module.affine):
            node = Normalised(node, rows)
        elif isinstance(module, ResidualBlock):
            block = _build(module.conv_block, node, rows, dtype)
            node = Kept(Pointwise(torch.add, node, block), rows, dtype)
        elif isinstance(module, nn.ReLU | nn.Tanh):
            node = Pointwise(torch.relu if isinstance(module, nn.ReLU) else torch.tanh, node)
        else:
            raise UserError(f"a generator with a {type(module).__name__} cannot translate pictures of this size")
    return node
