"""The two networks of CycleGAN: a residual generator and a PatchGAN discriminator.

Layer numbers are those of the official code, so its weights load by name:
github.com/junyanz/pytorch-CycleGAN-and-pix2pix, `models/networks.py`.
"""

from torch import nn

from cyclegan_lib.config import OUTPUT_NORMS


class ResidualBlock(nn.Module):
    """The paper's R_k: x + two 3×3 convolutions. (N, C, H, W) → the same shape."""

    def __init__(self, channels):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels),
        )  # fmt: skip

    def forward(self, x):
        return x + self.conv_block(x)


def make_output_norm(output_norm, channels):
    """The layers between the generator's last convolution and its tanh: a list of none or one.

    Args:
        output_norm: "none" is right. "instance" is the fault that this project is about: every
            channel of every picture then has mean 0 before the tanh, so the generator cannot set
            its brightness or its colour. "instance_affine" has a learned scale and shift, "batch"
            is a BatchNorm. Any other norm is passed in as a function, channels → module.
    """
    if callable(output_norm):
        return [output_norm(channels)]
    if output_norm not in OUTPUT_NORMS:
        raise ValueError(f"output_norm must be one of {', '.join(OUTPUT_NORMS)}, or a function, not {output_norm!r}")
    norms = {
        "none": [],
        "instance": [nn.InstanceNorm2d(channels)],
        "instance_affine": [nn.InstanceNorm2d(channels, affine=True)],
        "batch": [nn.BatchNorm2d(channels)],
    }
    return norms[output_norm]


class Generator(nn.Module):
    """Picture → picture, (N, channels, H, W) in [-1, 1] → the same, H and W divisible by 4.

    The paper's c7s1-64, d128, d256, R256 × `num_residual`, u128, u64, c7s1-3 (appendix 7.2),
    for `base_channels` = 64. Source of the layout: `ResnetGenerator` of the official code.

    Args:
        channels: of the pictures, 3 for RGB and 1 for grey.
        base_channels: width of the first layer; the others follow.
        num_residual: residual blocks: 6 for 128 pixels and 9 for 256 in the paper.
        output_norm: the norm *before the tanh*, see `make_output_norm`.
    """

    def __init__(self, channels=3, base_channels=64, num_residual=9, output_norm="none"):
        super().__init__()
        c = base_channels
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, c, 7), nn.InstanceNorm2d(c), nn.ReLU(True)]
        for width in (c, 2 * c):  # each halves the side: H, W => H/2, W/2 => H/4, W/4
            layers += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)]
            layers += [nn.InstanceNorm2d(2 * width), nn.ReLU(True)]
        layers += [ResidualBlock(4 * c) for _ in range(num_residual)]
        for width in (4 * c, 2 * c):  # and back
            up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
            layers += [up, nn.InstanceNorm2d(width // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, channels, 7)]
        layers += make_output_norm(output_norm, channels)
        layers += [nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Discriminator(nn.Module):
    """Picture (N, channels, H, W) → one score per overlapping 70×70 patch, (N, 1, H//8-2, W//8-2).

    The paper's C64-C128-C256-C512 (appendix 7.2), the last at stride 1 as in the official code, and a convolution
    to one number. Scores are raw: no sigmoid. Smallest side: 24 pixels.
    Source of the layout: `NLayerDiscriminator` (`n_layers=3`) of the official code.

    Args:
        first_norm: an InstanceNorm after the first convolution too, where the paper has none:
            the discriminator then hardly sees how bright a picture is.
    """

    def __init__(self, channels=3, base_channels=64, first_norm=False):
        super().__init__()
        c = base_channels
        layers = [nn.Conv2d(channels, c, 4, stride=2, padding=1)]
        layers += [nn.InstanceNorm2d(c)] if first_norm else []
        layers += [nn.LeakyReLU(0.2, True)]
        for width, stride in [(c, 2), (2 * c, 2), (4 * c, 1)]:
            layers += [nn.Conv2d(width, 2 * width, 4, stride=stride, padding=1)]
            layers += [nn.InstanceNorm2d(2 * width), nn.LeakyReLU(0.2, True)]
        layers += [nn.Conv2d(8 * c, 1, 4, padding=1)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


def init_weights(network, std=0.02):
    """Weights from N(0, `std`²) (the paper, appendix 7.1) and biases 0, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network
