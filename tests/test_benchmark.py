import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan_lib import benchmark, cyclegan
from cyclegan_lib.benchmark import Textbook, gflop, in_turn, kept_megabytes, random_batch
from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import UnpairedDataset, workers_for
from cyclegan_lib.models import InstanceNorm
from cyclegan_lib.show import plots

SMALL = dict(base_channels=4, num_residual=1, lambda_identity=5.0)
ROW = {"device", "pixels", "batch", "precision", "textbook_ms", "ours_ms", "ratio", "gflop", "share_of_peak",
       "peak_memory_mb"}  # fmt: skip


def in_double(monkeypatch, model):
    """`model` in float64, its losses too."""
    monkeypatch.setattr(cyclegan, "adversarial_loss", lambda s, real, mode: ((s - float(real)) ** 2).mean())
    monkeypatch.setattr(cyclegan, "cycle_loss", F.l1_loss)
    monkeypatch.setattr(cyclegan, "identity_loss", F.l1_loss)
    for network in model.networks.values():
        network.double()
    return model


def weights_by_name(networks):
    """{name: parameter} but for the biases before a norm: their gradients are rounding errors."""
    found = {}
    for which, network in networks.items():
        modules = dict(network.named_modules())
        for name, parameter in network.named_parameters():
            holder, _, kind = name.rpartition(".")
            path, _, place = holder.rpartition(".")
            after = modules.get(f"{path}.{int(place) + 1}" if path else str(int(place) + 1))
            if not (kind == "bias" and "InstanceNorm" in type(after).__name__):
                found[f"{which}.{name}"] = parameter
    return found


@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_fast_step_is_the_textbook_step_from_any_state(steps, double, layout, monkeypatch):
    monkeypatch.setattr(CycleGAN, "in_layout", lambda self, pictures: pictures.contiguous(memory_format=layout))
    model = CycleGAN(**SMALL, lr=2e-3)
    if double:
        in_double(monkeypatch, model)
    dtype, tolerance = (torch.float64, 1e-10) if double else (torch.float32, 1e-4)
    generator = torch.Generator().manual_seed(1)

    def batch():
        return (torch.rand(2, 2, 3, 24, 24, generator=generator, dtype=dtype) * 2 - 1).unbind()

    for _ in range(steps):
        model.step(*batch())
    assert len(model.fake_A_buffer.pictures) == min(50, 2 * steps)
    textbook, real = Textbook(model), batch()
    expected, found = textbook.step(*real), model.step(*real)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=tolerance), name
    ours = weights_by_name(model.networks)
    theirs = weights_by_name({name: getattr(textbook, name) for name in model.networks})
    assert len(ours) == 2 * (5 + 2 * SMALL["num_residual"] + 1 + 1) + 2 * (5 + 2)  # weights; biases without a norm
    for name, parameter in ours.items():
        difference = (parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm()
        assert difference < tolerance, name


@pytest.mark.parametrize(("precision", "compiled", "last"), [("bf16", False, True), ("fp32", False, False),
                                                             ("bf16", True, False)])  # fmt: skip
def test_the_layout_is_channels_last_where_that_is_faster(precision, compiled, last):
    model, seen = CycleGAN(**SMALL, precision=precision), []
    model.compiled = compiled
    for network in model.networks.values():
        for layer in network.modules():
            if isinstance(layer, InstanceNorm):
                layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    model.step(*random_batch(32, 2))
    assert seen and all(x.is_contiguous(memory_format=torch.channels_last) == last for x in seen if min(x.shape) > 1)


def test_the_textbook_has_torchs_own_layers_and_the_same_weights():
    model = CycleGAN(**SMALL)
    textbook = Textbook(model)
    kinds = {type(layer) for name in model.networks for layer in getattr(textbook, name).modules()}
    assert {nn.InstanceNorm2d, nn.ReflectionPad2d} <= kinds
    assert not [kind for kind in kinds if kind.__module__ == "cyclegan_lib.models" and "Norm" in kind.__name__]
    for name, network in model.networks.items():
        there = getattr(textbook, name).state_dict()
        assert all(torch.equal(there[key], value) for key, value in network.state_dict().items())
    before = copy.deepcopy(model.G_AB.state_dict())
    textbook.step(*random_batch(32, 2))
    assert all(torch.equal(before[key], value) for key, value in model.G_AB.state_dict().items()), "shared weights"


def test_the_textbook_moves_what_a_step_of_ours_moves():
    """After an update, from Adam to Adam: the weights as well, where gradients are not near 0."""
    model = CycleGAN(**SMALL)
    textbook, real = Textbook(model), random_batch(32, 2)
    textbook.step(*real)
    model.step(*real)
    for name, network in model.networks.items():
        here, there = (
            network.model[-2 if name[0] == "G" else -1],
            getattr(textbook, name).model[-2 if name[0] == "G" else -1],
        )
        assert torch.allclose(here.weight, there.weight, atol=1e-5), name


def test_work_is_counted():
    """Against a count by hand: a generator's forward passes, and twice that for each backward pass."""
    model, (real_A, real_B) = CycleGAN(**SMALL), random_batch(32, 1)
    convolutions = []

    def count(layer, args, out):
        weights_a_pixel = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.weight[:, 0].numel()
        side = out if isinstance(layer, nn.Conv2d) else args[0]
        weights = layer.weight.numel() if isinstance(layer, nn.ConvTranspose2d) else weights_a_pixel * out.shape[1]
        convolutions.append(2 * weights * side.shape[0] * side.shape[2] * side.shape[3])

    for layer in (*model.G_AB.modules(), *model.D_A.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    model.G_AB(real_A)
    generator, first_G = sum(convolutions), convolutions[0]
    convolutions.clear()
    model.D_A(real_A)
    discriminator, first_D = sum(convolutions), convolutions[0]
    # A backward pass is a pass for the weights and one for the input; what needs no gradient has none:
    # pictures (the first layer, but of the cycle's way back), and the discriminators' weights in the generator step.
    generators = 2 * (3 * 3 * generator - 2 * first_G)
    discriminators = 2 * (2 * discriminator + 2 * 3 * discriminator - 2 * first_D)
    assert gflop(model, real_A, real_B) * 1e9 == pytest.approx(generators + discriminators)


def test_in_turn_calls_one_after_the_other():
    called = []
    times = in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert "".join(called) == "ab" * 4 and times.keys() == {"a", "b"} and min(times.values()) >= 0


def test_what_is_kept_for_the_gradients_grows_as_the_batch():
    model = CycleGAN(**SMALL)
    weights = sum(p.numel() * 4 for p in [*model.G_AB.parameters(), *model.G_BA.parameters()]) / 1e6
    one, two, four = (kept_megabytes(model, *random_batch(32, n)) for n in (1, 2, 4))
    assert one > 4 * weights and four - two == pytest.approx(2 * (two - one), rel=0.02)


def test_the_loader_keeps_no_more_than_its_budget(tmp_path, monkeypatch):
    root = benchmark.write_jpegs(tmp_path / "a", 3, pixels=64)
    within, beyond = UnpairedDataset(root, (64, 64)), UnpairedDataset(root, (64, 64), memory_budget=0)
    assert within.pictures is not None and beyond.pictures is None
    assert workers_for(within, "cuda") == workers_for(beyond, "cpu") == 0
    monkeypatch.setattr("sys.platform", "win32")
    assert workers_for(beyond, "cuda") == 0
    monkeypatch.setattr("sys.platform", "linux")
    assert workers_for(beyond, "cuda") >= 1


def test_the_command(tmp_path, capsys):
    arguments = ["--quick", "--device", "cpu", "--output", str(tmp_path)]
    benchmark.main(arguments)
    [path] = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert {"machine", "torch", "threads", "rows"} <= found.keys()
    assert all(row.keys() == ROW for row in found["rows"])
    assert [row["precision"] for row in found["rows"]][0] == "fp32"
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["textbook_ms"] / row["ours_ms"], abs=0.006)
        assert 0 < row["share_of_peak"] < 1.2 and row["gflop"] > 0 and row["device"] == "cpu"
    assert {row["pictures"] for row in found["loader"]} == {"in memory", "JPEG files"}
    assert all(0 <= row["waiting"] <= 1 and row["pictures_per_second"] > 0 for row in found["loader"])
    shown = capsys.readouterr().out
    assert f"{found['rows'][0]['ratio']:.2f}" in shown
    before = path.read_bytes()
    benchmark.main(arguments)  # all is there: nothing is measured again
    assert path.read_bytes() == before


def test_time_to_quality_stops_at_the_target(tmp_path, monkeypatch, tiny_root):
    small = dict(data_root=tiny_root.parent, dataset_name=tiny_root.name, img_height=32, img_width=32, base_channels=4,
                 num_residual=1)  # fmt: skip
    found = benchmark.time_to_quality(0, "cpu", "fp32", most=4, every=2, **small)
    assert found["steps"] is None and found["seconds"] > 0
    monkeypatch.setattr(benchmark, "GOOD", 0.0)
    assert benchmark.time_to_quality(0, "cpu", "fp32", most=4, every=2, **small)["steps"] == 2


def test_hours_are_work_over_a_likely_share_of_the_peak():
    hours = benchmark.estimate_hours(1000, epochs=1000)
    least, most = hours["T4"]
    seconds = 1334 * 1000 * 1000e9 / 65e12
    low, high = benchmark.LIKELY_SHARE
    assert least == pytest.approx(seconds / high / 3600) and most == pytest.approx(seconds / low / 3600)
    assert hours["H100"][0] < hours["A100"][0] < least


def test_the_figure_draws_what_it_is_given():
    points = [{"value": v, "ms": 10 * v, "gflop": v, "memory_mb": 300 + v, "kept_mb": v} for v in (1, 2, 4)]
    loader = {"budget_mb": 67, "points": [{"pictures": n, "memory_mb": m} for n, m in ((10, 5), (20, 10))]}
    figure = plots.cost(dict.fromkeys(plots.GROWS, points), loader)
    measured, expected = figure.axes[0].lines
    assert list(measured.get_ydata()) == pytest.approx(list(expected.get_ydata()))  # proportional here
    assert [axes.get_xlabel() for axes in figure.axes][:-1:2] == list(plots.GROWS.values())
