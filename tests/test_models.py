import pytest
import torch
from torch import nn

from cyclegan_lib.models import Discriminator, Generator, init_weights


def generator_layout():
    """Keys and shapes of the official `resnet_9blocks` generator, with weights and biases."""
    layout = {"model.1": (64, 3, 7, 7), "model.4": (128, 64, 3, 3), "model.7": (256, 128, 3, 3)}
    for block in range(10, 19):
        layout |= {f"model.{block}.conv_block.{i}": (256, 256, 3, 3) for i in (1, 5)}
    layout |= {"model.19": (256, 128, 3, 3), "model.22": (128, 64, 3, 3), "model.26": (3, 64, 7, 7)}
    biases = {key: shape[1] if key in ("model.19", "model.22") else shape[0] for key, shape in layout.items()}
    return {f"{k}.weight": s for k, s in layout.items()} | {f"{k}.bias": (n,) for k, n in biases.items()}


DISCRIMINATOR_LAYOUT = {
    "model.0.weight": (64, 3, 4, 4), "model.0.bias": (64,), "model.2.weight": (128, 64, 4, 4),
    "model.2.bias": (128,), "model.5.weight": (256, 128, 4, 4), "model.5.bias": (256,),
    "model.8.weight": (512, 256, 4, 4), "model.8.bias": (512,), "model.11.weight": (1, 512, 4, 4),
    "model.11.bias": (1,),
}  # fmt: skip


def count(network):
    return sum(p.numel() for p in network.parameters())


def layout(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def test_the_official_layout():
    G, D = Generator(), Discriminator()
    assert layout(G) == generator_layout() and len(layout(G)) == 48
    assert layout(D) == DISCRIMINATOR_LAYOUT
    assert count(G) == 11_378_179 and count(D) == 2_764_737


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_a_norm_without_parameters_leaves_the_layout_as_it_is(norm):
    assert layout(Generator(output_norm=norm)) == generator_layout()


def test_norms_with_parameters_come_last():
    plain = set(layout(Generator(base_channels=4, num_residual=1)))
    affine = set(layout(Generator(base_channels=4, num_residual=1, output_norm="instance_affine"))) - plain
    batch = set(layout(Generator(base_channels=4, num_residual=1, output_norm="batch"))) - plain
    assert {key.split(".")[-1] for key in affine} == {"weight", "bias"}
    assert {"running_mean", "running_var"} < {key.split(".")[-1] for key in batch}


def test_a_norm_of_ones_own_and_one_that_is_not_known():
    G = Generator(output_norm=lambda channels: nn.GroupNorm(1, channels))
    assert isinstance(G.model[-2], nn.GroupNorm) and isinstance(G.model[-3], nn.Conv2d)
    with pytest.raises(ValueError, match="layer"):
        Generator(output_norm="layer")


def test_receptive_field_is_70_by_autograd():
    D = Discriminator(base_channels=4)
    # Instance norm spreads the gradient over the whole picture; the field is the convolutions'.
    D.model = nn.Sequential(*[layer for layer in D.model if not isinstance(layer, nn.InstanceNorm2d)])
    picture = torch.randn(1, 3, 256, 256, requires_grad=True)
    D(picture)[0, 0, 15, 15].backward()
    touched = picture.grad[0].abs().sum(0).nonzero()
    side = touched.max(0).values - touched.min(0).values + 1
    assert side.tolist() == [70, 70]


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (24, 60, 3), (64, 28, 1), (40, 40, 4)])
def test_sizes_and_range(height, width, channels):
    pictures = torch.rand(2, channels, height, width) * 2 - 1
    fake = init_weights(Generator(channels, 4, 2))(pictures)
    assert fake.shape == pictures.shape
    assert fake.abs().max() < 1
    assert Discriminator(channels, 4)(pictures).shape == (2, 1, height // 8 - 2, width // 8 - 2)


def test_discriminator_map_of_the_paper():
    assert Discriminator(base_channels=2)(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_instance_at_the_output_fixes_mean_and_contrast():
    G = init_weights(Generator(3, 4, 1, "instance"))
    before_tanh = G.model[:-1](torch.rand(4, 3, 32, 32))
    assert before_tanh.mean((2, 3)).abs().max() < 1e-6
    assert before_tanh.var((2, 3), correction=0).max() <= 1 + 1e-6
    G, picture = G.double(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():  # nothing that the last layer's bias says gets through
        fake = G(picture)
        G.model[-3].bias += 5
        assert torch.allclose(G(picture), fake, atol=1e-9)


def test_no_gradient_to_the_last_bias_under_the_norm():
    gradients = {}
    for norm in ("none", "instance"):
        torch.manual_seed(0)
        G = init_weights(Generator(3, 4, 1, norm)).double()
        G(torch.rand(2, 3, 32, 32, dtype=torch.float64)).abs().mean().backward()
        last = [layer for layer in G.model if isinstance(layer, nn.Conv2d)][-1]
        gradients[norm] = last.bias.grad.abs().max()
    assert gradients["instance"] < 1e-14 < 1e-4 < gradients["none"]


def test_a_generator_is_blind_to_a_tint_of_the_whole_picture():
    G = init_weights(Generator(3, 4, 1)).double()
    picture = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    tint = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)[:, None, None]
    assert (G(picture + tint) - G(picture)).abs().max() < 1e-10


def test_init_weights():
    torch.manual_seed(0)
    for network in (Generator(base_channels=16, num_residual=2), Discriminator(base_channels=16)):
        init_weights(network)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                n = module.weight.numel()
                assert abs(module.weight.mean()) < 5 * 0.02 / n**0.5
                assert abs(module.weight.std() / 0.02 - 1) < 5 / (2 * n) ** 0.5
                assert (module.bias == 0).all()
    torch.manual_seed(0)
    for norm in ("instance_affine", "batch"):
        affine = init_weights(Generator(64, 1, 1, norm)).model[-2]
        assert abs(affine.weight.mean() - 1) < 0.02 and abs(affine.weight.std() / 0.02 - 1) < 0.5
        assert (affine.bias == 0).all()


def test_a_norm_on_the_discriminators_first_layer_hides_brightness():
    """All but a little of it: the zeros that the convolution pads with still show at the edge."""
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.5
    changes = {}
    for first_norm in (False, True):
        torch.manual_seed(0)
        D = init_weights(Discriminator(base_channels=8, first_norm=first_norm))
        inside = D(picture)[..., 2:-2, 2:-2], D(picture + 0.4)[..., 2:-2, 2:-2]
        changes[first_norm] = ((inside[0] - inside[1]).abs().mean() / inside[0].abs().mean()).item()
    assert changes[True] < 0.5 * changes[False]
    norms = [type(layer).__name__ for layer in Discriminator(first_norm=True).model]
    assert norms[:3] == ["Conv2d", "InstanceNorm2d", "LeakyReLU"] and norms.count("InstanceNorm2d") == 4
