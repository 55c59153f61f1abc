import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, eye, kron, vstack

from cyclegan_lib.cli import main
from cyclegan_lib.datasets import load_split
from cyclegan_lib.study import floor as floor_module
from cyclegan_lib.study.floor import LEVELS, closest_reachable, output_norm_floor
from cyclegan_lib.water2wine.scenes import render, sample_scene

floors = partial(output_norm_floor, reduction="none")


def grid_value(value):
    """The 8-bit level next to a value."""
    return round((value + 1) * 127.5) / 127.5 - 1


def exact_floor(channel):
    """The floor as a linear programme over "how much of level k goes to value z", by HiGHS.

    z is taken from a grid, so this is an upper bound, and at most its spacing too high.
    """
    levels, counts = np.unique(((channel.double().numpy() + 1) * 127.5).round(), return_counts=True)
    x, share = levels / 127.5 - 1, counts / counts.sum()
    kinks = np.arctanh(x[np.abs(x) < 1])
    z = np.unique(np.concatenate([np.linspace(-4, 4, 801), kinks, np.linspace(-40, 40, 161)]))
    cost = np.abs(np.tanh(z)[None] - x[:, None]).ravel()
    shares = kron(eye(len(x)), np.ones((1, len(z))))
    mean, square = (csr_matrix(np.tile(values, len(x))[None]) for values in (z, z**2))
    solved = linprog(cost, A_ub=square, b_ub=[1], A_eq=vstack([shares, mean]), b_eq=np.append(share, 0), method="highs")
    assert solved.status == 0
    return solved.fun


def test_a_black_and_white_picture():
    picture = torch.ones(1, 1, 8, 8)
    picture[..., :4] = -1
    assert output_norm_floor(picture) == pytest.approx(1 - math.tanh(1), abs=1e-3)
    assert output_norm_floor(picture) <= 1 - math.tanh(1)


@pytest.mark.parametrize("value", [-1, -0.6, 0.0, 0.15, 0.3, 0.8, 1])
def test_a_picture_of_one_value(value):
    """At least |value| − 0.1921; more for middling values, as what is needed for the mean overshoots."""
    value = grid_value(value)
    p = np.linspace(0.5, 0.99999, 400_000)
    largest = (p * np.tanh(np.sqrt((1 - p) / p)) + (1 - p) * np.tanh(-np.sqrt(p / (1 - p)))).max()
    assert largest == pytest.approx(0.1921, abs=1e-4)
    floor = output_norm_floor(torch.full((1, 1, 16, 16), value))
    assert floor >= max(0, abs(value) - largest) - 1e-3
    assert floor <= exact_floor(torch.full((4, 4), value)) + 1e-9


def test_a_picture_that_such_a_generator_can_draw():
    for seed in range(4):
        z = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        z = (z - z.mean((2, 3), keepdim=True)) / z.std((2, 3), keepdim=True, correction=0)
        assert output_norm_floor(z.tanh()) == 0


@pytest.mark.parametrize("seed", range(6))
def test_against_an_exact_linear_programme(seed):
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(rng.uniform(-0.9, 0.9), rng.uniform(0.05, 0.9), (6, 6)), -1, 1)
    picture = torch.from_numpy(((values + 1) * 127.5).round() / 127.5 - 1)
    floor, exact = output_norm_floor(picture[None, None]), exact_floor(picture)
    assert floor <= exact + 1e-9
    assert exact - floor < 1e-4


def test_it_is_never_below_the_one_line_bound_nor_above_a_reachable_picture():
    rng = np.random.default_rng(0)
    pictures = torch.stack([render(sample_scene(rng, liquid), 32)[0] for liquid in ("water", "wine") * 4])
    pictures = ((pictures + 1) * 127.5).round() / 127.5 - 1
    found = floors(pictures)
    assert (found >= pictures.double().mean((2, 3)).abs() - 0.19207 - 1e-3).all()
    z = pictures.double().clamp(-0.99, 0.99).atanh()
    z = (z - z.mean((2, 3), keepdim=True)) / z.std((2, 3), keepdim=True, correction=0)
    assert (found <= (z.tanh() - pictures).abs().mean((2, 3))).all()


def test_what_must_not_change_it():
    pictures = torch.rand(3, 2, 12, 12, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.4
    pictures = ((pictures + 1) * 127.5).round() / 127.5 - 1
    found = floors(pictures)
    shuffled = pictures.flatten(2)[..., torch.randperm(144)].reshape(pictures.shape)
    assert torch.allclose(floors(shuffled), found, atol=1e-9)
    assert torch.allclose(floors(-pictures), found, atol=1e-3)
    assert torch.allclose(floors(pictures.repeat(1, 1, 2, 3)), found, atol=1e-9)
    assert torch.allclose(floors(pictures.flip(0, 1)), found.flip(0, 1))
    assert output_norm_floor(pictures) == pytest.approx(found.mean().item())
    assert found.shape == (3, 2)


def test_values_between_levels_lower_the_bound_and_never_raise_it():
    picture = torch.full((1, 1, 4, 4), 0.5 + 0.3 / 255)
    assert output_norm_floor(picture) <= exact_floor(torch.full((4, 4), 0.5)) + 0.3 / 255


# The floor from both sides, and with a learned scale


def scenes_and_noise():
    rng = np.random.default_rng(1)
    scenes = torch.stack([render(sample_scene(rng, liquid), 48)[0] for liquid in ("water", "wine") * 3])
    noise = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.4
    return ((torch.cat([scenes, noise]) + 1) * 127.5).round() / 127.5 - 1  # in 8 bits


def both_sides(pictures, **norm):
    above = (closest_reachable(pictures, **norm) - pictures).abs().mean((2, 3))
    return floors(pictures, **norm), above


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 5.0])
def test_the_two_sides_meet(scale):
    below, above = both_sides(scenes_and_noise(), scale=scale)
    gap = above - below
    assert (gap >= 0).all()
    assert (gap <= 1e-3).all() and gap.mean() < 5e-4


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.0, 0.4), (2.5, -0.3)])
def test_the_picture_from_above_is_within_reach(scale, shift):
    """Its z has the mean and the variance that the layer leaves it."""
    level, histogram = floor_module._histograms(scenes_and_noise())
    plans, shares, _, _ = floor_module._cheapest_mixture(histogram, scale, shift)
    z = floor_module._deal(LEVELS[level], level, plans, shares, scale, shift)
    assert torch.allclose(z.mean(1), torch.full((len(z),), shift).double(), atol=1e-9)
    assert (z.var(1, correction=0) <= scale**2 + 1e-9).all()


def test_a_network_with_the_norm_returns_nothing_closer():
    """A direct search over z, started from the best picture found, does not get below the floor."""
    pictures = scenes_and_noise()[:3].double()
    z = closest_reachable(pictures).clamp(-0.9999, 0.9999).atanh().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.01)
    norm, floor = torch.nn.InstanceNorm2d(3), output_norm_floor(pictures)
    for _ in range(60):
        loss = (norm(z).tanh() - pictures).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() >= floor


def test_the_floor_falls_to_zero_as_the_learned_scale_grows():
    pictures = scenes_and_noise()[:4]
    falling = [output_norm_floor(pictures, scale=scale) for scale in (0.2, 0.5, 1, 2, 5, 20)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 1e-3 < falling[2]


def test_a_shift_helps_a_picture_of_that_brightness_and_hurts_others():
    bright, dark = torch.full((1, 1, 16, 16), grid_value(0.6)), torch.full((1, 1, 16, 16), grid_value(-0.6))
    shift = math.atanh(0.6)
    assert output_norm_floor(bright, shift=shift) < 1e-3 < output_norm_floor(bright)
    assert output_norm_floor(dark, shift=shift) > output_norm_floor(dark)


def test_a_scaled_two_valued_picture():
    picture = torch.ones(1, 1, 8, 8)
    picture[..., :4] = -1
    for scale in (0.5, 2):
        floor = output_norm_floor(picture, scale=scale)
        assert floor == pytest.approx(1 - math.tanh(scale), abs=1e-3) and floor <= 1 - math.tanh(scale)


def test_batch_norm_has_no_floor():
    """With its running statistics, a generator that ends in BatchNorm draws a bright and a dark picture."""
    norm = torch.nn.BatchNorm2d(3).eval()
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(4.0)
    pictures = torch.stack([torch.full((3, 8, 8), 0.9), torch.full((3, 8, 8), -0.9)])
    z = pictures.atanh() * (4 + norm.eps) ** 0.5 + 0.3  # what the convolution would have to say
    assert torch.allclose(norm(z).tanh(), pictures, atol=1e-5)
    assert output_norm_floor(pictures) > 0.69


def test_the_command_prints_the_floor_of_a_data_set_and_of_any_folder(tiny_root, capsys):
    main(["floor", str(tiny_root), "--size", "32"])
    lines = capsys.readouterr().out.splitlines()
    for domain, line in zip("AB", lines[::2], strict=True):
        pictures = load_split(tiny_root, f"train{domain}", (32, 32))
        assert f"floor {output_norm_floor(pictures):.4f}" in line and f"train{domain}: 6 of 6 pictures" in line
    assert "cannot go below" in lines[1]
    main(["floor", str(tiny_root / "testA"), "--size", "32", "--limit", "2"])
    assert "2 of 4 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "said"), [
    (["nowhere"], "nowhere: no such folder"), (["{root}", "--size", "0"], "--size"),
    (["{root}", "--limit", "0"], "--limit"),
])  # fmt: skip
def test_the_commands_mistakes_are_one_line(tiny_root, capsys, arguments, said):
    with pytest.raises(SystemExit) as error:
        main(["floor", *(argument.format(root=tiny_root) for argument in arguments)])
    errors = capsys.readouterr().err
    assert error.value.code == 2 and said in errors and errors.count("\n") == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_cannot_be(scale):
    with pytest.raises(ValueError, match="scale must be"):
        output_norm_floor(torch.zeros(1, 1, 4, 4), scale=scale)
