"""The faster layers: the same keys and, within a stated tolerance, the same numbers."""

import pytest
import torch
from torch import nn

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.runs.fast import FlipPad, InstanceNorm, ReflectionPad, make_deterministic, speed_up
from cyclegan_lib.runs.timing import fit, seconds_per_step
from cyclegan_lib.trainer import Trainer

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def pair(double=False, **options):
    """(the textbook's model, the same made faster)."""
    models = [CycleGAN(base_channels=4, num_residual=1, lambda_identity=5.0, **options) for _ in range(2)]
    if double:
        for network in [network for model in models for network in model.networks.values()]:
            network.double()
    return models[0], speed_up(models[1])


def batches(count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 2, 2, 3, 32, 32, generator=generator, dtype=dtype) * 2 - 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_instance_norm_is_torchs(layout, device):
    dtype, near = (torch.float32, 1e-5) if device == "mps" else (torch.float64, 1e-12)
    x = (torch.randn(3, 5, 8, 6) * 3 + 2).to(device, dtype)
    ours, theirs = (x.clone().to(memory_format=layout).requires_grad_() for _ in range(2))
    found, expected = InstanceNorm(5)(ours), nn.InstanceNorm2d(5)(theirs)
    assert torch.allclose(found, expected, atol=near) and (device != "cpu" or found.is_contiguous(memory_format=layout))
    for y in (found, expected):
        (y**3).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=10 * near)


def test_reflection_pad_is_torchs_and_keeps_bf16(device):
    x = torch.randn(1, 2, 8, 8, device=device)
    assert torch.equal(ReflectionPad(3)(x), nn.ReflectionPad2d(3)(x))
    with torch.autocast(device, torch.bfloat16):
        assert ReflectionPad(3)(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("output_norm", ["none", "instance", "instance_affine", "batch"])
def test_keys_stay_and_norms_with_parameters_are_left_alone(output_norm):
    plain, fast = pair(output_norm=output_norm, discriminator_instance=True)
    for name, network in fast.networks.items():
        assert list(network.state_dict()) == list(plain.networks[name].state_dict())
        left = [layer for layer in network.modules() if type(layer) is nn.InstanceNorm2d]
        assert [layer.affine for layer in left] == [True] * (output_norm == "instance_affine" and name[0] == "G")
    assert type(fast.G_AB.model[-2]) is {
        "none": nn.Conv2d, "instance": InstanceNorm, "instance_affine": nn.InstanceNorm2d, "batch": nn.BatchNorm2d,
    }[output_norm]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "precision", "norms", "paddings"),
    [
        ("cpu", "fp32", False, True),
        ("cpu", "bf16", False, False),
        ("mps", "fp32", False, True),
        ("cuda", "fp32", False, True),
        ("cuda", "bf16", True, False),
    ],
)
def test_layers_stay_torchs_own_where_that_is_better(device, precision, norms, paddings):
    """A group norm under CUDA's autocast is in float32, as all is behind it; mps had no autocast in torch 2.4."""
    model = CycleGAN(base_channels=4, num_residual=1, precision=precision)
    model.device = torch.device(device)  # in name only: nothing is computed
    kinds = {type(layer) for layer in speed_up(model).G_AB.modules()}
    assert (nn.InstanceNorm2d in kinds) is norms is not (InstanceNorm in kinds)
    assert (nn.ReflectionPad2d in kinds) is paddings is not (ReflectionPad in kinds)


@pytest.mark.parametrize(
    ("output_norm", "layout"), [("none", LAYOUTS[0]), ("none", LAYOUTS[1]), ("instance_affine", LAYOUTS[0])]
)
def test_in_float64_losses_are_equal_to_rounding(output_norm, layout):
    """1e-12 in the first steps; Adam, which divides by the size of a gradient, makes 1e-8 of it after twenty."""
    plain, fast = pair(double=True, output_norm=output_norm)
    for number, batch in enumerate(batches(20, torch.float64)):
        expected = plain.step(*batch)
        found = fast.step(*(pictures.to(memory_format=layout) for pictures in batch))
        for name, loss in expected.items():
            assert found[name].item() == pytest.approx(loss.item(), rel=1e-12 if number < 2 else 1e-8), (number, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_float32_outputs_and_the_losses_of_every_step_are_equal_to_1e_5(layout, device):
    """Each step begins with the same weights: after some steps, rounding alone can grow to a percent (see float64)."""
    plain, fast = pair(device=device)
    for batch in batches(20).to(device):
        faster = [pictures.to(memory_format=layout) for pictures in batch]
        for name, network in plain.networks.items():
            fast.networks[name].load_state_dict(network.state_dict())
        with torch.no_grad():
            assert torch.allclose(fast.G_AB(faster[0]), plain.G_AB(batch[0]), rtol=0, atol=1e-5)
            assert torch.allclose(fast.D_A(faster[0]), plain.D_A(batch[0]), rtol=0, atol=1e-5)
        expected, found = plain.step(*batch), fast.step(*faster)
        for name, loss in expected.items():
            assert found[name].item() == pytest.approx(loss.item(), rel=1e-5 if device == "cpu" else 1e-3), name


def test_in_bf16_it_turns_to_channels_last_and_trains_as_closely_to_fp32():
    plain, fast = pair(precision="bf16")
    seen = []
    fast.G_AB.model[1].register_forward_hook(lambda *a: seen.append(a[2].is_contiguous(memory_format=LAYOUTS[1])))
    exact = CycleGAN(base_channels=4, num_residual=1, lambda_identity=5.0)
    for batch in batches(3):
        losses = [model.step(*batch) for model in (exact, plain, fast)]
        assert [loss["cycle_A"].item() for loss in losses] == pytest.approx([losses[0]["cycle_A"].item()] * 3, rel=0.02)
    assert seen and all(seen)


# How long a step takes


def test_seconds_per_step_trains_so_many_steps(tiny_config):
    trainer, steps = Trainer(tiny_config()), []
    plain = trainer.model.step
    trainer.model.step = lambda *batch: steps.append(len(batch[0])) or plain(*batch)
    assert 0 < seconds_per_step(trainer, steps=4, warm_up=1) < 60
    assert len(steps) == 5 and trainer.step == 0


def test_fit_counts_steps_and_fills_minutes(tiny_config, monkeypatch):
    fitted = fit(tiny_config(lr=1e-3), steps=7)
    assert (fitted.max_steps, fitted.num_epochs, fitted.lr) == (7, 3, 1e-3)
    monkeypatch.setattr("cyclegan_lib.runs.timing.seconds_per_step", lambda trainer: 0.5)
    fitted = fit(tiny_config(num_epochs=50, decay_epoch=40), minutes=2)
    assert (fitted.max_steps, fitted.num_epochs) == (240, 80)
    fitted.check()


@pytest.mark.parametrize("padding", [1, 3, (1, 2, 3, 0)])
def test_padding_by_flips_is_reflection_padding_forward_and_back(padding):
    x, results = torch.randn(2, 3, 7, 9, dtype=torch.float64, requires_grad=True), []
    for pad in (nn.ReflectionPad2d(padding), FlipPad(padding)):
        padded = pad(x)
        weight = torch.linspace(-1, 1, padded.numel(), dtype=torch.float64).reshape(padded.shape)
        results.append((padded, *torch.autograd.grad((padded * weight).sum(), x)))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_the_same_bits_each_time(device):
    before, ends = torch.are_deterministic_algorithms_enabled(), []
    try:
        for _ in range(2):
            model = speed_up(CycleGAN(base_channels=4, num_residual=1, lambda_identity=5.0, device=device))
            make_deterministic(model)
            torch.manual_seed(0)
            for _ in range(3):
                model.step(*(torch.rand(2, 3, 32, 32).mul(2).sub(1).to(device) for _ in "AB"))
            ends.append([value.cpu() for G in model.networks.values() for value in G.state_dict().values()])
    finally:
        torch.use_deterministic_algorithms(before)
    assert all(map(torch.equal, *ends)) and torch.are_deterministic_algorithms_enabled() == before
    is_flips = any(isinstance(layer, FlipPad) for layer in model.G_AB.modules())
    assert is_flips == (device != "cpu")
