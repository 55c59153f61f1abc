import copy
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from notebook_cells import definitions, numbered
from torch import nn

from cyclegan_lib.cyclegan import CycleGAN
from cyclegan_lib.datasets import UnpairedDataset
from cyclegan_lib.runs.fast import speed_up, workers_for

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))

import benchmark  # noqa: E402
import tell  # noqa: E402
from benchmark import Textbook, gflop, kept_megabytes, random_batch  # noqa: E402

SMALL = dict(base_channels=4, num_residual=1, lambda_identity=5.0)


def weights_by_name(networks):
    """{name: parameter} but for the biases before a norm: their gradients are rounding errors."""
    weights = {}
    for which, network in networks.items():
        modules = dict(network.named_modules())
        for name, parameter in network.named_parameters():
            holder, _, kind = name.rpartition(".")
            path, _, place = holder.rpartition(".")
            after = modules.get(f"{path}.{int(place) + 1}" if path else str(int(place) + 1))
            if not (kind == "bias" and "InstanceNorm" in type(after).__name__):
                weights[f"{which}.{name}"] = parameter
    return weights


@pytest.mark.parametrize("steps", [0, 50])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_fast_step_is_the_textbook_step_from_any_state(steps, double, layout):
    model, textbook = CycleGAN(**SMALL, lr=2e-3), Textbook(**SMALL, lr=2e-3)
    for network in (*model.networks.values(), *textbook.networks.values()):
        network.to(torch.float64 if double else torch.float32)
    speed_up(model)
    for network in model.networks.values():
        network.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous(memory_format=layout))
    dtype, tolerance = (torch.float64, 1e-10) if double else (torch.float32, 1e-4)
    generator = torch.Generator().manual_seed(1)

    def batch():
        return (torch.rand(2, 2, 3, 24, 24, generator=generator, dtype=dtype) * 2 - 1).unbind()

    for _ in range(steps):
        model.step(*batch())
    for name, network in textbook.networks.items():
        network.load_state_dict(model.networks[name].state_dict())
    textbook.fake_A_buffer, textbook.fake_B_buffer = copy.deepcopy((model.fake_A_buffer, model.fake_B_buffer))
    real = batch()
    expected, losses = textbook.step(*real), model.step(*real)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=tolerance), name
    ours, theirs = weights_by_name(model.networks), weights_by_name(textbook.networks)
    assert len(ours) == 2 * (5 + 2 * SMALL["num_residual"] + 1 + 1) + 2 * (5 + 2)  # weights; biases without a norm
    for name, parameter in ours.items():
        difference = (parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm()
        assert difference < tolerance, name


def test_the_textbook_moves_what_a_step_of_ours_moves():
    """After an update, from Adam to Adam: the weights as well, where gradients are not near 0."""
    model, textbook, real = speed_up(CycleGAN(**SMALL)), Textbook(**SMALL), random_batch(32, 2)
    textbook.step(*real)
    model.step(*real)
    for name, network in model.networks.items():
        last = -2 if name[0] == "G" else -1
        assert torch.allclose(network.model[last].weight, textbook.networks[name].model[last].weight, atol=1e-5), name


def test_work_is_counted():
    """Against a count by hand: a generator's forward passes, and twice that for each backward pass."""
    model, (real_A, real_B) = benchmark.ours(SMALL, "fp32", "cpu"), random_batch(32, 1)
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
    benchmark.in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert "".join(called) == "ab" * 4


def test_what_is_kept_for_the_gradients_grows_as_the_batch():
    model = benchmark.ours(SMALL, "fp32", "cpu")
    weights = sum(p.numel() * 4 for p in [*model.G_AB.parameters(), *model.G_BA.parameters()]) / 1e6
    one, two, four = (kept_megabytes(model, *random_batch(32, n)) for n in (1, 2, 4))
    assert one > 4 * weights and four - two == pytest.approx(2 * (two - one), rel=0.02)


def test_processes_load_pictures_only_beside_a_gpu_on_linux(tmp_path, monkeypatch):
    root, (cpu, cuda) = benchmark.write_jpegs(tmp_path / "a", 3, pixels=64), map(torch.device, ("cpu", "cuda"))
    within, beyond = UnpairedDataset(root, (64, 64)), UnpairedDataset(root, (64, 64), memory_budget=0)
    assert within.pictures is not None and beyond.pictures is None
    monkeypatch.setattr("sys.platform", "linux")
    assert workers_for(within, cuda) == workers_for(beyond, cpu) == 0 < workers_for(beyond, cuda)
    monkeypatch.setattr("sys.platform", "win32")
    assert workers_for(beyond, cuda) == 0


def test_the_command_measures_everything_once(tmp_path, capsys):
    arguments = ["--quick", "--device", "cpu", "--output", str(tmp_path)]
    benchmark.main(arguments)
    [path] = tmp_path.glob("*.json")
    measured, before = json.loads(path.read_text()), path.read_bytes()
    committed = json.loads(next((ROOT / "data" / "benchmark").glob("*.json")).read_text())
    for name in ("rows", "loader"):
        assert all(row.keys() == committed[name][0].keys() for row in measured[name])
    assert tell.summary(measured) in capsys.readouterr().out
    benchmark.main(arguments)
    assert path.read_bytes() == before


def test_time_to_quality_stops_at_the_target(monkeypatch, tiny_root):
    small = dict(data_root=tiny_root.parent, dataset_name=tiny_root.name, img_height=32, img_width=32, base_channels=4,
                 num_residual=1, num_epochs=2)  # fmt: skip
    assert benchmark.time_to_quality(0, "cpu", "fp32", every=2, **small)["steps"] is None
    monkeypatch.setattr(benchmark, "GOOD", 0.0)
    assert benchmark.time_to_quality(0, "cpu", "fp32", every=2, **small)["steps"] == 2


def test_hours_are_work_over_a_likely_share_of_the_peak():
    hours = tell.estimate_hours(1000, epochs=1000)
    least, most = hours["T4"]
    seconds = 1334 * 1000 * 1000e9 / 65e12
    low, high = tell.LIKELY_SHARE
    assert least == pytest.approx(seconds / high / 3600) and most == pytest.approx(seconds / low / 3600)
    assert hours["H100"][0] < hours["A100"][0] < least
    assert hours["H100"][0] == pytest.approx(1334 * 1000 * tell.OPERATIONS * tell.OPERATION / 3600)  # not 2 ms a step


def test_the_operations_of_a_step_are_those_that_the_estimate_counts():
    counted = definitions(numbered(8))["operations_per_step"](base_channels=64, num_residual=9)
    assert counted == tell.OPERATIONS
    for folder in (ROOT, ROOT / "data" / "benchmark"):
        assert f"{counted:,} operations" in (folder / "README.md").read_text()


def test_the_readmes_tables_are_those_of_the_committed_file(tmp_path, monkeypatch):
    """`write_readmes` changes nothing: what stands there is what was measured."""
    shutil.copytree(ROOT / "data" / "benchmark", tmp_path / "data" / "benchmark")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(tell, "ROOT", tmp_path)
    tell.write_readmes()
    for name in ("README.md", "data/benchmark/README.md"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    emptied = re.sub(r"(?<=benchmark -->\n).*?(?=<!-- end)", "", (tmp_path / "README.md").read_text(), flags=re.S)
    (tmp_path / "README.md").write_text(emptied)
    tell.write_readmes()
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes() != emptied.encode()


def test_the_figure_draws_what_it_is_given():
    points = [{"value": v, "ms": 10 * v, "gflop": v, "memory_mb": 300 + v, "kept_mb": v} for v in (1, 2, 4)]
    loader = {"budget_mb": 67, "points": [{"pictures": n, "memory_mb": m} for n, m in ((10, 5), (20, 10))]}
    figure = tell.cost_figure(dict.fromkeys(tell.NAMES, points), loader)
    measured, expected = figure.axes[0].lines
    assert list(measured.get_ydata()) == pytest.approx(list(expected.get_ydata()))  # proportional here
    assert [axes.get_xlabel() for axes in figure.axes][:-1:2] == list(tell.NAMES.values())
